/**
 * One side of a session that a script speaks for (session-script.ts): numbers and tags of the requests, what was agreed
 * on in the login, and the waits for answers. It checks nothing: the script may be disturbed (disturb.ts).
 */
import {
  AT,
  decodeText,
  encodePdu,
  encodeText,
  FINAL,
  IMMEDIATE,
  NO_TAG,
  newHeader,
  OP,
  opcodeOf,
  type Pdu,
  serialLess,
  serialNext,
} from '../support/initiator-pdu.ts'
import type { Wire } from '../support/initiator-wire.ts'
import type { Draft } from './mutate.ts'
import type { Random } from './random.ts'

/** An answer that is not there by then is not waited for; the script goes on. */
const PATIENCE_MS = 1500
/** The same once an answer has been missed, or is not read. */
const NO_PATIENCE_MS = 60
export interface ScriptOptions {
  readonly wire: Wire
  readonly random: Random
  readonly initiatorName: string
  readonly targetName: string
}

/** PDUs in the order in which they are to be sent. */
export type Script = AsyncGenerator<Draft, void, void>

/** What both sides agreed on; the defaults of RFC 7143, 13, until the login is over. Lengths in bytes. */
class Agreement {
  initialR2t = true
  immediateData = true
  maxBurstBytes = 262_144
  firstBurstBytes = 65_536
  sendSegmentBytes = 8192
}

export class ScriptSession {
  readonly wire: Wire
  readonly random: Random
  readonly agreed = new Agreement()
  /** Statuses of SCSI commands in the order of their coming, for the test of the script itself. */
  readonly statuses: number[] = []
  cmdSn = 1
  /** Tag of the last SCSI command, for task management. */
  lastTag = 0
  patienceMs = PATIENCE_MS
  readonly #options: ScriptOptions
  readonly #isid: Buffer
  readonly #offered: Readonly<Record<string, string>>
  readonly #answers = new Map<number, Pdu[]>()
  #expStatSn = 0
  #maxCmdSn = 1
  #tsih = 0
  #nextTag = 0x100
  #wake: () => void = () => {}

  constructor(options: ScriptOptions) {
    this.#options = options
    this.wire = options.wire
    this.random = options.random
    const { random } = options
    this.#isid = Buffer.concat([Buffer.from([0x80]), random.bytes(5)])
    const digest = (): string => (random.chance(0.2) ? 'CRC32C' : 'None')
    this.#offered = {
      HeaderDigest: digest(),
      DataDigest: digest(),
      InitialR2T: random.pick(['Yes', 'No']),
      ImmediateData: random.pick(['Yes', 'Yes', 'No']),
      MaxBurstLength: String(random.pick([65_536, 262_144, 1_048_576])),
      FirstBurstLength: String(random.pick([8192, 65_536])),
      MaxOutstandingR2T: String(random.pick([1, 1, 4])),
      MaxRecvDataSegmentLength: String(random.pick([8192, 65_536, 262_144])),
    }
    this.wire.pump(
      (pdu) => this.#receive(pdu),
      () => this.#wake(),
    )
  }

  /** The PDU as it goes out, with the digests in use. */
  encode({ header, data, ahs }: Draft): Buffer {
    return encodePdu(header, data, this.wire.cutter.digests, ahs)
  }

  /** Nothing is read any more: the answers stay with the target. */
  stopReading(): void {
    this.wire.socket.pause()
    this.patienceMs = NO_PATIENCE_MS
  }

  /** The next PDU for a tag; undefined where none comes in time. */
  async answer(tag: number): Promise<Pdu | undefined> {
    const come = await this.#until(() => (this.#answers.get(tag)?.length ?? 0) > 0)
    return come ? this.#answers.get(tag)?.shift() : undefined
  }

  newTag(): number {
    return this.#nextTag++
  }

  /** A request with a CmdSN of its own, as soon as the window admits it. */
  async request(header: Buffer, data: Buffer = Buffer.alloc(0)): Promise<Draft> {
    await this.#until(() => !serialLess(this.#maxCmdSn, this.cmdSn))
    header.writeUInt32BE(this.cmdSn, AT.CMD_SN)
    this.cmdSn = serialNext(this.cmdSn)
    return this.plain(header, data)
  }

  /** A PDU beside the window: the current CmdSN stands in it and is not used up. */
  immediate(header: Buffer, data: Buffer = Buffer.alloc(0)): Draft {
    header.writeUInt32BE(this.cmdSn, AT.CMD_SN)
    return this.plain(header, data)
  }

  plain(header: Buffer, data: Buffer = Buffer.alloc(0)): Draft {
    header.writeUInt32BE(this.#expStatSn, AT.EXP_STAT_SN)
    return { header, data, ahs: Buffer.alloc(0) }
  }

  /** Security stage, then operational stage (RFC 7143, 6.3). */
  async *login(): Script {
    const { initiatorName, targetName } = this.#options
    const names: [string, string][] = [
      ['InitiatorName', initiatorName],
      ['TargetName', targetName],
      ['SessionType', 'Normal'],
      ['AuthMethod', 'None'],
    ]
    yield this.#loginRequest(0, 1, encodeText(names))
    await this.answer(0)
    yield this.#loginRequest(1, 3, encodeText(Object.entries(this.#offered)))
    await this.answer(0)
  }

  #loginRequest(stage: number, next: number, data: Buffer): Draft {
    const header = newHeader(OP.LOGIN | IMMEDIATE, FINAL | (stage << 2) | next, 0)
    this.#isid.copy(header, AT.LUN)
    header.writeUInt16BE(this.#tsih, 14)
    return this.immediate(header, data)
  }

  #receive(pdu: Pdu): void {
    const { header } = pdu
    const opcode = opcodeOf(pdu)
    const flags = header[AT.FLAGS] ?? 0
    const tag = header.readUInt32BE(AT.TAG)
    if (opcode === OP.NOP_IN && tag === NO_TAG) return
    const bearing = opcode === OP.DATA_IN ? (flags & 1) !== 0 : opcode !== OP.R2T
    if (bearing) this.#expStatSn = serialNext(header.readUInt32BE(AT.STAT_SN))
    if (serialLess(this.#maxCmdSn, header.readUInt32BE(AT.MAX_CMD_SN))) {
      this.#maxCmdSn = header.readUInt32BE(AT.MAX_CMD_SN)
    }
    if (opcode === OP.LOGIN_RESPONSE) this.#agree(pdu, flags)
    if (bearing && (opcode === OP.DATA_IN || opcode === OP.SCSI_RESPONSE)) {
      this.statuses.push(header[3] ?? 0)
    }
    if (bearing || opcode === OP.R2T) {
      const answers = this.#answers.get(tag) ?? []
      answers.push(pdu)
      this.#answers.set(tag, answers)
      this.#wake()
    }
  }

  #agree(pdu: Pdu, flags: number): void {
    const answers = new Map(decodeText(pdu.data))
    const { agreed } = this
    const number = (key: string, otherwise: number): number => {
      const value = Number(answers.get(key))
      return value > 0 ? value : otherwise
    }
    const flag = (key: string, otherwise: boolean): boolean => {
      const value = answers.get(key)
      return value === 'Yes' || value === 'No' ? value === 'Yes' : otherwise
    }
    agreed.initialR2t = flag('InitialR2T', agreed.initialR2t)
    agreed.immediateData = flag('ImmediateData', agreed.immediateData)
    agreed.maxBurstBytes = number('MaxBurstLength', agreed.maxBurstBytes)
    agreed.firstBurstBytes = Math.min(
      number('FirstBurstLength', agreed.firstBurstBytes),
      agreed.maxBurstBytes,
    )
    agreed.sendSegmentBytes = number('MaxRecvDataSegmentLength', agreed.sendSegmentBytes)
    if ((flags & FINAL) === 0 || (flags & 3) !== 3) return
    this.#tsih = pdu.header.readUInt16BE(14)
    const { HeaderDigest: header, DataDigest: data } = this.#offered
    this.wire.cutter.digests = { header: header === 'CRC32C', data: data === 'CRC32C' }
  }

  async #until(condition: () => boolean): Promise<boolean> {
    const deadlineMs = performance.now() + this.patienceMs
    while (!condition()) {
      const leftMs = deadlineMs - performance.now()
      if (leftMs <= 0 || this.wire.ended) {
        this.patienceMs = NO_PATIENCE_MS
        return false
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, leftMs)
        this.#wake = () => {
          clearTimeout(timer)
          resolve()
        }
      })
    }
    return true
  }
}
