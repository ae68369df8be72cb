/**
 * Operational parameters of a session (RFC 7143, 13): their defaults, what this side offers, and what a
 * negotiation ended with. text-keys.ts negotiates them, login.ts hands them to the session.
 */
import { assert } from '../base/assert.ts'
import {
  FIRST_BURST_BYTES,
  LOGIN_SEGMENT_BYTES,
  MAX_BURST_BYTES,
  MAX_OUTSTANDING_R2T,
  MAX_RECV_DATA_SEGMENT_BYTES,
  TIME2RETAIN_S,
  TIME2WAIT_S,
} from '../base/limits.ts'

export type DigestChoice = 'CRC32C' | 'None'

/** Range of all lengths that are negotiated (RFC 7143, 13.12 to 13.14). */
export const LENGTH_MIN_BYTES = 512
export const LENGTH_MAX_BYTES = 2 ** 24 - 1

/** What a login agreed on. Frozen. */
export interface SessionParameters {
  /** CRC32C over the header and over the data of every PDU of full feature phase. */
  readonly headerDigest: boolean
  readonly dataDigest: boolean
  /** The peer's MaxRecvDataSegmentLength: no PDU to it carries more. */
  readonly sendSegmentBytes: number
  /** Our MaxRecvDataSegmentLength as declared: no PDU from the peer may carry more. */
  readonly receiveSegmentBytes: number
  readonly maxBurstBytes: number
  /** Never above maxBurstBytes. Bounds unsolicited and immediate data of one command together. */
  readonly firstBurstBytes: number
  /** True: no unsolicited Data-Out PDUs. Immediate data is a matter of immediateData alone. */
  readonly initialR2t: boolean
  readonly immediateData: boolean
  readonly maxOutstandingR2t: number
  readonly time2WaitS: number
  readonly time2RetainS: number
  readonly errorRecoveryLevel: number
  readonly maxConnections: number
  readonly dataPduInOrder: boolean
  readonly dataSequenceInOrder: boolean
  readonly taskReporting: string
  readonly protocolLevel: number
}

/** What holds for a key that nobody mentions. */
export const DEFAULT_PARAMETERS: SessionParameters = Object.freeze({
  headerDigest: false,
  dataDigest: false,
  sendSegmentBytes: 8192,
  receiveSegmentBytes: 8192,
  maxBurstBytes: 262144,
  firstBurstBytes: 65536,
  initialR2t: true,
  immediateData: true,
  maxOutstandingR2t: 1,
  time2WaitS: 2,
  time2RetainS: 20,
  errorRecoveryLevel: 0,
  maxConnections: 1,
  dataPduInOrder: true,
  dataSequenceInOrder: true,
  taskReporting: 'RFC3720',
  protocolLevel: 1,
})

/** This side's view of every key, which the result functions combine with the peer's. */
export interface OfferedParameters {
  /** Digests that may be used; where `None` is absent a peer without the digest is refused. */
  readonly headerDigests: readonly DigestChoice[]
  readonly dataDigests: readonly DigestChoice[]
  readonly receiveSegmentBytes: number
  readonly maxBurstBytes: number
  readonly firstBurstBytes: number
  readonly initialR2t: boolean
  readonly immediateData: boolean
  readonly maxOutstandingR2t: number
  readonly time2WaitS: number
  readonly time2RetainS: number
  readonly errorRecoveryLevel: number
  readonly maxConnections: number
  readonly dataPduInOrder: boolean
  readonly dataSequenceInOrder: boolean
  readonly taskReporting: readonly string[]
  readonly protocolLevel: number
}

/**
 * The target's offer with the digests that a portal group permits. A discovery session, which anybody may have, sends no
 * long segments.
 */
export function offeredParameters(
  digests: {
    readonly header: readonly DigestChoice[]
    readonly data: readonly DigestChoice[]
  },
  sessionType: 'normal' | 'discovery' = 'normal',
): OfferedParameters {
  return {
    headerDigests: digests.header,
    dataDigests: digests.data,
    receiveSegmentBytes:
      sessionType === 'normal' ? MAX_RECV_DATA_SEGMENT_BYTES : LOGIN_SEGMENT_BYTES,
    maxBurstBytes: MAX_BURST_BYTES,
    firstBurstBytes: FIRST_BURST_BYTES,
    initialR2t: false,
    immediateData: true,
    maxOutstandingR2t: MAX_OUTSTANDING_R2T,
    time2WaitS: TIME2WAIT_S,
    time2RetainS: TIME2RETAIN_S,
    errorRecoveryLevel: 0,
    maxConnections: 1,
    dataPduInOrder: true,
    dataSequenceInOrder: true,
    taskReporting: ['RFC3720'],
    protocolLevel: 1,
  }
}

/** Checks what every agreed set must hold, whatever the peer sent. */
export function assertSessionParameters(parameters: SessionParameters): void {
  for (const key of [
    'sendSegmentBytes',
    'receiveSegmentBytes',
    'maxBurstBytes',
    'firstBurstBytes',
  ] as const) {
    const value = parameters[key]
    assert(
      Number.isInteger(value) && value >= LENGTH_MIN_BYTES && value <= LENGTH_MAX_BYTES,
      `${key} is out of range: ${value}`,
    )
  }
  assert(
    parameters.firstBurstBytes <= parameters.maxBurstBytes,
    `FirstBurstLength ${parameters.firstBurstBytes} exceeds MaxBurstLength ${parameters.maxBurstBytes}`,
  )
  assert(parameters.maxOutstandingR2t >= 1, 'MaxOutstandingR2T is at least 1')
  assert(parameters.maxConnections >= 1, 'MaxConnections is at least 1')
}
