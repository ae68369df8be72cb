/**
 * Does the peer of a connection still go on? Progress decides: bytes that it takes of what is queued for it, bytes of the data
 * that it was asked for. Only where nothing is owed silence counts, and the peer is asked for a sign of life (NOP-In, RFC
 * 7143, 11.19). Owned by connection.ts.
 */
import {
  DATA_OUT_TIMEOUT_MS,
  NOP_INTERVAL_MS,
  NOP_TIMEOUT_MS,
  PRESSED_TIMEOUT_MS,
  SEND_TIMEOUT_MS,
} from '../../base/limits.ts'

/** What is owed, and how far it has come. */
export interface Owed {
  /** Answers wait for the peer, and so many bytes it has taken since the beginning. */
  readonly answersWait: boolean
  readonly takenBytes: number
  /** Data of writes is awaited, and so many bytes of such data have come since the beginning. */
  readonly dataAwaited: boolean
  readonly dataBytes: number
  /** The session holds buffers, and hardly any are left for the others. */
  readonly othersWait: boolean
}

/** What to do: nothing, ask the peer, or end the connection for this reason. */
export type Verdict = undefined | 'ask' | { readonly reason: string }

export class Liveness {
  #heardMs: number
  #askedMs: number | undefined
  readonly #sending = new Progress()
  readonly #receiving = new Progress()

  constructor(nowMs: number) {
    this.#heardMs = nowMs
  }

  /** Whatever comes is a sign of life. */
  hear(nowMs: number): void {
    this.#heardMs = nowMs
    this.#askedMs = undefined
  }

  /** The peer has been asked. */
  ask(nowMs: number): void {
    this.#askedMs = nowMs
  }

  silentMs(nowMs: number): number {
    return nowMs - this.#heardMs
  }

  /** Time since the peer was asked and has not answered; undefined: it is not being asked. */
  unansweredMs(nowMs: number): number | undefined {
    return this.#askedMs === undefined ? undefined : nowMs - this.#askedMs
  }

  /** Called about once a second. */
  judge(nowMs: number, owed: Owed): Verdict {
    const { answersWait, takenBytes, dataAwaited, dataBytes, othersWait } = owed
    const sendingMs = this.#sending.stalledMs(nowMs, answersWait, takenBytes)
    if (sendingMs > (othersWait ? PRESSED_TIMEOUT_MS : SEND_TIMEOUT_MS)) {
      return { reason: 'the initiator does not take its answers' }
    }
    const receivingMs = this.#receiving.stalledMs(nowMs, dataAwaited, dataBytes)
    if (receivingMs > (othersWait ? PRESSED_TIMEOUT_MS : DATA_OUT_TIMEOUT_MS)) {
      return { reason: 'the data of a write did not come' }
    }
    if (answersWait) {
      // It is busy with what it has to take, and a question would only wait behind that.
      this.hear(nowMs)
      return undefined
    }
    const unansweredMs = this.unansweredMs(nowMs)
    if (unansweredMs === undefined) {
      return this.silentMs(nowMs) < NOP_INTERVAL_MS ? undefined : 'ask'
    }
    return unansweredMs > NOP_TIMEOUT_MS ? { reason: 'no answer to a NOP-In' } : undefined
  }
}

/** For how long something that is owed has not moved. */
class Progress {
  #mark = 0
  #sinceMs = 0

  /** Milliseconds since `mark` changed, or since something is `owed`. */
  stalledMs(nowMs: number, owed: boolean, mark: number): number {
    if (!owed || mark !== this.#mark) this.#sinceMs = nowMs
    this.#mark = mark
    return nowMs - this.#sinceMs
  }
}
