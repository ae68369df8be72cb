/**
 * A small, exact iSCSI initiator for tests: one session with one connection (RFC 7143, error recovery
 * level 0). It checks all that the target sends: order of StatSN, DataSN and R2TSN, MaxCmdSN that never
 * goes back, burst and segment lengths, F bits, residuals. The first breach ends the session, fails
 * everything pending and makes `close()` throw, so that no test can overlook it.
 */
import { type LoginOptions, type LoginResult, login } from './initiator-login.ts'
import {
  AT,
  FINAL,
  IMMEDIATE,
  lunField,
  NO_TAG,
  newHeader,
  OP,
  opcodeOf,
  type Pdu,
  serialLess,
  serialNext,
} from './initiator-pdu.ts'
import { ScsiCall, type ScsiOptions, type ScsiResult } from './initiator-task.ts'
import { WIRE_TIMEOUT_MS, Wire, type WireOptions } from './initiator-wire.ts'

export { LoginRefused } from './initiator-login.ts'
export type { ScsiOptions, ScsiResult } from './initiator-task.ts'

/** A command on its way: its tag and CmdSN, for task management, and its end. */
export interface StartedCommand {
  readonly tag: number
  readonly cmdSn: number
  readonly done: Promise<ScsiResult>
}

interface SimpleCall {
  readonly answer: number
  readonly what: string
  readonly resolve: (pdu: Pdu) => void
  readonly reject: (error: Error) => void
}

/** Opcodes whose PDUs carry a StatSN of their own, which the next one exceeds by one. */
const STATUS_BEARING: ReadonlySet<number> = new Set([
  OP.SCSI_RESPONSE,
  OP.TASK_MANAGEMENT_RESPONSE,
  OP.TEXT_RESPONSE,
  OP.LOGOUT_RESPONSE,
  OP.ASYNC,
  OP.REJECT,
])
const DATA_IN_STATUS = 0x01

export class Initiator {
  readonly wire: Wire
  readonly parameters: LoginResult
  /** What the target did wrong, or how the connection ended. */
  failure: Error | undefined
  /** Asynchronous messages and rejects, in the order of their coming. */
  readonly asyncs: Pdu[] = []
  readonly rejects: Pdu[] = []
  /** Answer the target's NOP-In pings; a test of its timeout turns this off. */
  answerPings = true
  pings = 0
  cmdSn: number
  expStatSn: number
  expCmdSn: number
  maxCmdSn: number
  #nextTag = 1
  #loggingOut = false
  readonly #scsi = new Map<number, ScsiCall>()
  readonly #simple = new Map<number, SimpleCall>()
  readonly #windowWaiters: (() => void)[] = []
  readonly #watchers = new Set<() => void>()

  private constructor(wire: Wire, parameters: LoginResult) {
    this.wire = wire
    this.parameters = parameters
    this.cmdSn = parameters.cmdSn
    this.expStatSn = parameters.expStatSn
    this.expCmdSn = parameters.expCmdSn
    this.maxCmdSn = parameters.maxCmdSn
    wire.pump(
      (pdu) => this.#receive(pdu),
      (error) => this.#fail(error),
    )
  }

  /** Connects and logs in. */
  static async open(options: WireOptions & LoginOptions): Promise<Initiator> {
    const wire = await Wire.connect(options)
    try {
      return new Initiator(wire, await login(wire, options))
    } catch (error) {
      wire.destroy()
      throw error
    }
  }

  get pending(): number {
    return this.#scsi.size + this.#simple.size
  }

  /** Sends a command and waits for its end. CHECK CONDITION is a result, not an error. */
  async scsi(options: ScsiOptions): Promise<ScsiResult> {
    return (await this.start(options)).done
  }

  /** Sends a command as soon as the CmdSN window admits it. */
  async start(options: ScsiOptions): Promise<StartedCommand> {
    const cmdSn = await this.#takeCmdSn(options.immediateCommand === true)
    const tag = this.#tag()
    let timer: NodeJS.Timeout | undefined
    const done = new Promise<ScsiResult>((resolve, reject) => {
      const call = new ScsiCall(options, this.parameters, tag, (outcome) => {
        clearTimeout(timer)
        this.#scsi.delete(tag)
        if (outcome instanceof Error) reject(outcome)
        else resolve(outcome)
      })
      this.#scsi.set(tag, call)
      timer = this.#deadline(`SCSI command ${options.cdb.toString('hex')}`, options.timeoutMs)
      for (const pdu of call.begin(cmdSn)) this.#send(pdu.header, pdu.data)
    })
    done.catch(() => {})
    return { tag, cmdSn, done }
  }

  /** Gives up a command that task management has ended: no response may come for it any more. */
  abandon(command: StartedCommand): void {
    this.#scsi.get(command.tag)?.end(new Error('abandoned by the test'))
  }

  /** Task management (RFC 7143, 11.5); the response code. */
  async tmf(options: {
    fn: number
    lun?: number
    ref?: StartedCommand
    timeoutMs?: number
  }): Promise<number> {
    const header = newHeader(OP.TASK_MANAGEMENT | IMMEDIATE, FINAL | options.fn, this.#tag())
    lunField(options.lun ?? 0).copy(header, AT.LUN)
    header.writeUInt32BE(options.ref?.tag ?? NO_TAG, 20)
    header.writeUInt32BE(this.cmdSn, AT.CMD_SN)
    header.writeUInt32BE(options.ref?.cmdSn ?? 0, 32)
    const answer = await this.#simpleCall(
      header,
      OP.TASK_MANAGEMENT_RESPONSE,
      'task management',
      options.timeoutMs,
    )
    return answer.header[2] ?? -1
  }

  /** NOP-Out with data; the echo. */
  async nop(data: Buffer = Buffer.alloc(0), immediate = true): Promise<Buffer> {
    const header = newHeader(OP.NOP_OUT | (immediate ? IMMEDIATE : 0), FINAL, this.#tag())
    header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    header.writeUInt32BE(await this.#takeCmdSn(immediate), AT.CMD_SN)
    return (await this.#simpleCall(header, OP.NOP_IN, 'NOP-Out', undefined, data)).data
  }

  /** A text request in full feature phase; the whole answer, which may run over several PDUs. */
  async text(data: Buffer): Promise<Buffer> {
    const parts: Buffer[] = []
    let transferTag = NO_TAG
    for (let round = 0; round < 256; round++) {
      const header = newHeader(OP.TEXT, FINAL, this.#tag())
      header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
      header.writeUInt32BE(await this.#takeCmdSn(false), AT.CMD_SN)
      const request = round === 0 ? data : Buffer.alloc(0)
      const answer = await this.#simpleCall(header, OP.TEXT_RESPONSE, 'text', undefined, request)
      parts.push(answer.data)
      transferTag = answer.header.readUInt32BE(AT.TRANSFER_TAG)
      if ((answer.header[AT.FLAGS] ?? 0) & FINAL) {
        if (transferTag !== NO_TAG)
          this.#fail(new Error('a final text response has a transfer tag'))
        return Buffer.concat(parts)
      }
    }
    throw new Error('the target continues its text without end')
  }

  /** Logs out (reason 0: the session) and waits for the target to close; the response code. */
  async logout(reason = 0): Promise<number> {
    this.#loggingOut = true
    const header = newHeader(OP.LOGOUT | IMMEDIATE, FINAL | reason, this.#tag())
    header.writeUInt16BE(this.parameters.cid, 20)
    header.writeUInt32BE(this.cmdSn, AT.CMD_SN)
    const answer = await this.#simpleCall(header, OP.LOGOUT_RESPONSE, 'logout')
    const response = answer.header[2] ?? -1
    if (response === 0 && !(await this.wire.closedWithin(WIRE_TIMEOUT_MS))) {
      throw new Error('the target keeps the connection after a logout')
    }
    return response
  }

  /** Logs out where that is still possible, closes, and throws what the target did wrong. */
  async close(): Promise<void> {
    const failure = this.failure
    if (!failure && !this.#loggingOut) await this.logout()
    this.wire.destroy()
    if (failure) throw failure
  }

  /** Closes without a word, as a crashed initiator does. */
  destroy(): void {
    this.failure ??= new Error('destroyed by the test')
    this.wire.destroy()
    this.#failPending(this.failure)
  }

  /** Waits until `condition` holds, looking after each PDU. */
  async until(condition: () => boolean, what: string, timeoutMs = WIRE_TIMEOUT_MS): Promise<void> {
    if (condition()) return
    await new Promise<void>((resolve, reject) => {
      const look = () => {
        if (!condition() && !this.failure) return
        clearTimeout(timer)
        this.#watchers.delete(look)
        if (condition()) resolve()
        else reject(this.failure)
      }
      const timer = setTimeout(() => {
        this.#watchers.delete(look)
        reject(new Error(`${what}: not within ${timeoutMs} ms`))
      }, timeoutMs)
      this.#watchers.add(look)
    })
  }

  #tag(): number {
    const tag = this.#nextTag
    this.#nextTag = tag + 1 === NO_TAG ? 1 : tag + 1
    return tag
  }

  #deadline(what: string, timeoutMs = WIRE_TIMEOUT_MS): NodeJS.Timeout {
    return setTimeout(() => {
      this.#fail(new Error(`${what}: no answer within ${timeoutMs} ms`))
    }, timeoutMs)
  }

  /**
   * The CmdSN of the next PDU, taken once the window is open; an immediate PDU carries the number without
   * taking it. PDUs go out in the order of their numbers.
   */
  async #takeCmdSn(immediate: boolean): Promise<number> {
    while (!immediate && !this.failure && serialLess(this.maxCmdSn, this.cmdSn)) {
      await new Promise<void>((resolve) => this.#windowWaiters.push(resolve))
    }
    if (this.failure) throw this.failure
    const taken = this.cmdSn
    if (!immediate) this.cmdSn = serialNext(taken)
    return taken
  }

  #send(header: Buffer, data?: Buffer): void {
    header.writeUInt32BE(this.expStatSn, AT.EXP_STAT_SN)
    this.wire.send(header, data)
  }

  #simpleCall(
    header: Buffer,
    answer: number,
    what: string,
    timeoutMs?: number,
    data?: Buffer,
  ): Promise<Pdu> {
    const tag = header.readUInt32BE(AT.TAG)
    return new Promise<Pdu>((resolve, reject) => {
      if (this.failure) {
        reject(this.failure)
        return
      }
      const timer = this.#deadline(what, timeoutMs)
      const finish = () => {
        clearTimeout(timer)
        this.#simple.delete(tag)
      }
      this.#simple.set(tag, {
        answer,
        what,
        resolve: (pdu) => {
          finish()
          resolve(pdu)
        },
        reject: (error) => {
          finish()
          reject(error)
        },
      })
      this.#send(header, data)
    })
  }

  #receive(pdu: Pdu): void {
    if (this.failure) return
    try {
      this.#account(pdu)
      this.#dispatch(pdu)
    } catch (error) {
      this.#fail(error instanceof Error ? error : new Error(String(error)))
    }
    for (const look of [...this.#watchers]) look()
  }

  /** StatSN, ExpCmdSN and MaxCmdSN of everything that comes (RFC 7143, 4.2.2). */
  #account(pdu: Pdu): void {
    const { header } = pdu
    const opcode = opcodeOf(pdu)
    const tag = header.readUInt32BE(AT.TAG)
    const statSn = header.readUInt32BE(AT.STAT_SN)
    const bearing =
      STATUS_BEARING.has(opcode) ||
      (opcode === OP.NOP_IN && tag !== NO_TAG) ||
      (opcode === OP.DATA_IN && ((header[AT.FLAGS] ?? 0) & DATA_IN_STATUS) !== 0)
    if (bearing || opcode === OP.R2T || opcode === OP.NOP_IN) {
      ensure(
        statSn === this.expStatSn,
        `StatSN ${statSn} of opcode ${opcode}, not ${this.expStatSn}`,
      )
    }
    if (bearing) this.expStatSn = serialNext(statSn)
    const expCmdSn = header.readUInt32BE(AT.EXP_CMD_SN)
    const maxCmdSn = header.readUInt32BE(AT.MAX_CMD_SN)
    ensure(!serialLess(expCmdSn, this.expCmdSn), `ExpCmdSN went back to ${expCmdSn}`)
    ensure(!serialLess(this.cmdSn, expCmdSn), `ExpCmdSN ${expCmdSn} was never sent`)
    ensure(!serialLess(maxCmdSn, this.maxCmdSn), `MaxCmdSN went back to ${maxCmdSn}`)
    ensure(!serialLess(serialNext(maxCmdSn), expCmdSn), 'MaxCmdSN is below ExpCmdSN - 1')
    this.expCmdSn = expCmdSn
    this.maxCmdSn = maxCmdSn
    for (const waiter of this.#windowWaiters.splice(0)) waiter()
  }

  #dispatch(pdu: Pdu): void {
    const opcode = opcodeOf(pdu)
    const tag = pdu.header.readUInt32BE(AT.TAG)
    if (opcode === OP.ASYNC) {
      this.asyncs.push(pdu)
      return
    }
    if (opcode === OP.REJECT) {
      this.#rejected(pdu)
      return
    }
    if (opcode === OP.NOP_IN && tag === NO_TAG) {
      this.#ping(pdu)
      return
    }
    const scsi = this.#scsi.get(tag)
    if (scsi) {
      for (const answer of scsi.receive(pdu)) this.#send(answer.header, answer.data)
      return
    }
    const simple = this.#simple.get(tag)
    ensure(simple !== undefined, `opcode ${opcode} for tag ${tag}, which is not pending`)
    ensure(opcode === simple.answer, `opcode ${opcode} answers ${simple.what}`)
    simple.resolve(pdu)
  }

  #ping(pdu: Pdu): void {
    this.pings++
    const transferTag = pdu.header.readUInt32BE(AT.TRANSFER_TAG)
    if (transferTag === NO_TAG || !this.answerPings) return
    const header = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, NO_TAG)
    pdu.header.copy(header, AT.LUN, AT.LUN, AT.LUN + 8)
    header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
    header.writeUInt32BE(this.cmdSn, AT.CMD_SN)
    this.#send(header)
  }

  #rejected(pdu: Pdu): void {
    this.rejects.push(pdu)
    if (pdu.data.length < 48) return
    const tag = pdu.data.readUInt32BE(AT.TAG)
    const error = new Error(`rejected by the target, reason ${pdu.header[2]}`)
    this.#scsi.get(tag)?.end(error)
    this.#simple.get(tag)?.reject(error)
  }

  #fail(error: Error): void {
    if (this.failure) return
    if (this.#loggingOut && this.pending === 0) return
    this.failure = error
    this.wire.destroy()
    this.#failPending(error)
    for (const look of [...this.#watchers]) look()
  }

  #failPending(error: Error): void {
    for (const call of [...this.#scsi.values()]) call.end(error)
    for (const call of [...this.#simple.values()]) call.reject(error)
    for (const waiter of this.#windowWaiters.splice(0)) waiter()
  }
}

function ensure(condition: boolean, message: string): asserts condition {
  if (!condition) throw new Error(`the target breaks the protocol: ${message}`)
}
