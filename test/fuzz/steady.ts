/**
 * A reader and a writer on a slow line: they take and send a little all the time, and are within their rights. Their
 * one command lasts longer than every time limit of the target, and must succeed.
 */
import { read16, testUnitReady, write16 } from '../support/cdb.ts'
import { login } from '../support/initiator-login.ts'
import { AT, FINAL, newHeader, OP, opcodeOf } from '../support/initiator-pdu.ts'
import { Wire } from '../support/initiator-wire.ts'
import { sleep } from './attack-context.ts'

export interface SteadyOptions {
  readonly port: number
  readonly targetName: string
  /** First block of the part that is theirs. */
  readonly firstBlock: number
  /** The time over which they stretch their 4 MiB. */
  readonly durationMs: number
}

const BYTES = 4 * 1024 * 1024
const STEPS = 256
const KEYS = { InitialR2T: 'Yes', ImmediateData: 'No', MaxBurstLength: '65536' } as const
const TAG = 7
/** Over its own time: the answers to what was sent late. */
const SLACK_MS = 10_000

function command(direction: number, cmdSn: number, cdb: Buffer): Buffer {
  const header = newHeader(OP.SCSI_COMMAND, FINAL | direction | 1, TAG)
  header.writeUInt32BE(BYTES, AT.EXPECTED_BYTES)
  header.writeUInt32BE(cmdSn, AT.CMD_SN)
  cdb.copy(header, AT.CDB)
  return header
}

/** Takes the unit attentions of a new session; the next CmdSN. */
async function ready(wire: Wire, cmdSn: number): Promise<number> {
  for (let tries = 0; tries < 4; tries++) {
    const header = newHeader(OP.SCSI_COMMAND, FINAL | 1, TAG)
    header.writeUInt32BE(cmdSn + tries, AT.CMD_SN)
    testUnitReady().copy(header, AT.CDB)
    wire.send(header)
    if ((await wire.next()).header[3] === 0) return cmdSn + tries + 1
  }
  throw new Error('the unit is not ready')
}

/** Rejects when the target ends the session, or the command with any status but GOOD. */
export async function steadyWriter(options: SteadyOptions): Promise<void> {
  const { port, targetName, firstBlock, durationMs } = options
  const wire = await Wire.connect({ port })
  try {
    const { cmdSn } = await login(wire, { targetName, keys: KEYS })
    wire.send(command(0x20, await ready(wire, cmdSn), write16(firstBlock, BYTES / 512)))
    for (;;) {
      const pdu = await nextOf(wire, durationMs)
      if (opcodeOf(pdu) !== OP.R2T) {
        good(pdu.header, 'the write')
        return
      }
      const offset = pdu.header.readUInt32BE(AT.BUFFER_OFFSET)
      const length = pdu.header.readUInt32BE(AT.RESIDUAL)
      const piece = BYTES / STEPS
      for (let at = 0, sn = 0; at < length; at += piece, sn++) {
        const end = Math.min(at + piece, length)
        const header = newHeader(OP.DATA_OUT, end === length ? FINAL : 0, TAG)
        pdu.header.copy(header, AT.TRANSFER_TAG, AT.TRANSFER_TAG, AT.TRANSFER_TAG + 4)
        header.writeUInt32BE(sn, AT.DATA_SN)
        header.writeUInt32BE(offset + at, AT.BUFFER_OFFSET)
        wire.send(header, Buffer.alloc(end - at, 0x5a))
        await sleep(durationMs / STEPS)
      }
    }
  } finally {
    wire.destroy()
  }
}

/** Reads what it is sent in small steps. Rejects as {@link steadyWriter} does. */
export async function steadyReader(options: SteadyOptions): Promise<void> {
  const { port, targetName, firstBlock, durationMs } = options
  const wire = await Wire.connect({ port })
  try {
    const keys = { ...KEYS, MaxRecvDataSegmentLength: '16384' }
    const { cmdSn } = await login(wire, { targetName, keys })
    wire.send(command(0x40, await ready(wire, cmdSn), read16(firstBlock, BYTES / 512)))
    for (let received = 0; received < BYTES; ) {
      const pdu = await nextOf(wire, durationMs)
      if (opcodeOf(pdu) !== OP.DATA_IN) return good(pdu.header, 'the read')
      received += pdu.data.length
      if (((pdu.header[AT.FLAGS] ?? 0) & 1) !== 0) good(pdu.header, 'the read')
      wire.socket.pause()
      await sleep((durationMs * pdu.data.length) / BYTES)
      wire.socket.resume()
    }
  } finally {
    wire.destroy()
  }
}

/** The next PDU that is about the command; the target's pings are answered by what is sent and read. */
async function nextOf(wire: Wire, durationMs: number) {
  for (;;) {
    const pdu = await wire.next(durationMs + SLACK_MS)
    if (opcodeOf(pdu) !== OP.NOP_IN) return pdu
    const header = newHeader(OP.NOP_OUT | 0x40, FINAL, 0xffffffff)
    pdu.header.copy(header, AT.TRANSFER_TAG, AT.TRANSFER_TAG, AT.TRANSFER_TAG + 4)
    wire.send(header)
  }
}

function good(header: Buffer, what: string): void {
  if (header[3] !== 0) throw new Error(`${what} ended with status ${header[3]}`)
}
