/**
 * The rows of the fuzzer that last: many clients that do one legal but costly thing as fast as they are answered, or
 * take places and stay. They keep a bounded number of requests outstanding, as real clients do. Honest sessions
 * and newcomers have to get on beside each of them.
 */
import { createConnection, type Socket } from 'node:net'
import { inquiry, read16 } from '../support/cdb.ts'
import { type LoginOptions, login } from '../support/initiator-login.ts'
import {
  AT,
  BHS_BYTES,
  CONTINUE,
  encodePdu,
  encodeText,
  FINAL,
  IMMEDIATE,
  NO_TAG,
  newHeader,
  OP,
} from '../support/initiator-pdu.ts'
import { Wire } from '../support/initiator-wire.ts'
import { sleep } from './attack-context.ts'

export interface FloodContext {
  readonly port: number
  readonly targetName: string
  /** Of status.sock. */
  readonly statusPath: string
  /** Says when to go. */
  readonly isOver: () => boolean
  /** Counts an answer that a flooder got. */
  readonly answered: () => void
}

export interface Flood {
  readonly name: string
  /** How long it has to last to show all that it can. A short run gives it less. */
  readonly wantedMs: number
  /** The rows in which clients stay: every connection must have been ended by the target after so long. */
  readonly droppedAfterMs?: number
  run(context: FloodContext): Promise<FloodOutcome>
}

export interface FloodOutcome {
  /** Clients that were still connected at the end. */
  readonly left: number
}

const FLOODERS = 8
const STAYERS = 60
const LOGIN_MS = 10_000
/** Requests that a flooder sends at once; twice as many may be without an answer. */
const BATCH = 64
const SMALL_BATCH = 4096
/** Clients that log in at the same moment. */
const LOGINS_AT_ONCE = 32
/** Reads of a client that takes nothing: the first few MiB still go into the buffers of its socket. */
const UNREAD_COMMANDS = 8
/** Requests of a client of status.sock that are not answered yet. */
const STATUS_REQUESTS = 8
const ROW_MS = 11_000
const STAY_MS = 45_000
const address = (index: number): string => `127.0.2.${(index % 4) + 1}`

/** Counts the PDUs in a stream without digests, and keeps the last header. */
class PduCounter {
  count = 0
  #header = Buffer.alloc(BHS_BYTES)
  #held = 0
  #skip = 0

  get header(): Buffer {
    return this.#header
  }

  push(chunk: Buffer): void {
    let at = 0
    while (at < chunk.length) {
      if (this.#skip > 0) {
        const step = Math.min(this.#skip, chunk.length - at)
        this.#skip -= step
        at += step
      } else {
        const step = Math.min(BHS_BYTES - this.#held, chunk.length - at)
        chunk.copy(this.#header, this.#held, at, at + step)
        this.#held += step
        at += step
        if (this.#held < BHS_BYTES) return
        this.#held = 0
        const dataBytes = this.#header.readUIntBE(AT.SEGMENT_BYTES, 3)
        this.#skip = dataBytes + ((4 - (dataBytes % 4)) % 4)
      }
      if (this.#skip === 0 && this.#held === 0) this.count++
    }
  }
}

interface Flooder {
  readonly wire: Wire
  cmdSn: number
  expStatSn: number
}

async function enter(
  { port }: FloodContext,
  index: number,
  options: Partial<LoginOptions>,
): Promise<Flooder> {
  const wire = await Wire.connect({ port, localAddress: address(index) })
  const { cmdSn, expStatSn } = await login(wire, { timeoutMs: LOGIN_MS, ...options })
  return { wire, cmdSn, expStatSn }
}

/**
 * `make` gives the bytes of a batch of `batch` requests, and sees the last header that came; the next batch goes out
 * once no more than one is without an answer, or, of `eager` ones, as soon as the socket takes it.
 */
async function flood(
  context: FloodContext,
  options: Partial<LoginOptions>,
  batch: number,
  make: (flooder: Flooder, last: Buffer) => Buffer,
  eager = false,
): Promise<FloodOutcome> {
  const one = async (index: number): Promise<void> => {
    const flooder = await enter(context, index, options)
    const { socket } = flooder.wire
    const counter = new PduCounter()
    let sent = 0
    const more = (): void => {
      const mayGo = (): boolean =>
        eager ? !socket.writableNeedDrain : sent - counter.count <= batch
      while (!context.isOver() && mayGo() && !socket.destroyed) {
        socket.write(make(flooder, counter.header))
        sent += batch
      }
    }
    socket.removeAllListeners('data')
    socket.on('data', (chunk: Buffer) => {
      const before = counter.count
      counter.push(chunk)
      for (let i = before; i < counter.count; i++) context.answered()
      more()
    })
    if (eager) socket.on('drain', more)
    more()
    while (!context.isOver() && !flooder.wire.ended) await sleep(50)
    flooder.wire.destroy()
  }
  await Promise.allSettled(Array.from({ length: FLOODERS }, (_, index) => one(index)))
  return { left: 0 }
}

/** Clients that stay after `greet`, and read nothing from then on. */
async function stay(
  context: FloodContext,
  count: number,
  greet: (index: number) => Promise<Wire>,
): Promise<FloodOutcome> {
  const wires: Wire[] = []
  let next = 0
  const greeters = Array.from({ length: Math.min(count, LOGINS_AT_ONCE) }, async () => {
    while (next < count && !context.isOver()) {
      const wire = await greet(next++).catch(() => undefined)
      if (wire) wires.push(wire)
    }
  })
  await Promise.all(greeters)
  while (!context.isOver()) await sleep(50)
  // A socket that is not read from does not see its end: it is asked whether the target still has it.
  for (const wire of wires) wire.socket.resume()
  await sleep(500)
  const left = wires.filter((wire) => !wire.ended).length
  for (const wire of wires) wire.destroy()
  return { left }
}

/** Requests with CmdSNs, as one piece of bytes. */
function batchOf(count: number, flooder: Flooder, header: Buffer, data?: Buffer): Buffer {
  const one = encodePdu(header, data)
  const bytes = Buffer.allocUnsafe(one.length * count)
  for (let i = 0; i < count; i++) {
    one.copy(bytes, i * one.length)
    bytes.writeUInt32BE(0x100 + i, i * one.length + AT.TAG)
    bytes.writeUInt32BE(flooder.cmdSn, i * one.length + AT.CMD_SN)
    if (((header[0] ?? 0) & IMMEDIATE) === 0) flooder.cmdSn = (flooder.cmdSn + 1) >>> 0
  }
  return bytes
}

function nopHeader(): Buffer {
  const header = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 1)
  header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
  return header
}

function inquiryHeader(): Buffer {
  const header = newHeader(OP.SCSI_COMMAND, FINAL | 0x40 | 1, 1)
  header.writeUInt32BE(96, AT.EXPECTED_BYTES)
  inquiry(96).copy(header, AT.CDB)
  return header
}

function textHeader(flags: number): Buffer {
  const header = newHeader(OP.TEXT, flags, 1)
  header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
  return header
}

/** Text requests, more at once than the one that RFC 7143 allows. */
const textFlood =
  (options: (context: FloodContext) => Partial<LoginOptions>, pairs: [string, string][]) =>
  (context: FloodContext): Promise<FloodOutcome> =>
    flood(context, options(context), BATCH, (flooder) =>
      batchOf(BATCH, flooder, textHeader(FINAL), encodeText(pairs)),
    )

const normal = ({ targetName }: FloodContext): Partial<LoginOptions> => ({ targetName })
const discovery = (): Partial<LoginOptions> => ({ discovery: true })

/** Clients of status.sock that ask again as soon as they are answered. */
async function statusClients(context: FloodContext, pieceBytes: number): Promise<FloodOutcome> {
  const one = `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'status', params: {} })}\n`
  const ask = async (socket: Socket, count: number): Promise<void> => {
    const text = one.repeat(count)
    for (let at = 0; at < text.length && !socket.destroyed; at += pieceBytes) {
      socket.write(text.slice(at, at + pieceBytes))
      // Written in one turn, the pieces would arrive as one.
      if (at + pieceBytes < text.length) await new Promise((next) => setImmediate(next))
    }
  }
  const client = async (): Promise<void> => {
    const socket = createConnection({ path: context.statusPath })
    socket.on('error', () => {})
    socket.on('connect', () => void ask(socket, STATUS_REQUESTS))
    socket.on('data', (chunk: Buffer) => {
      const answers = chunk.filter((byte) => byte === 0x0a).length
      for (let i = 0; i < answers; i++) context.answered()
      if (answers > 0 && !context.isOver()) void ask(socket, answers)
    })
    while (!context.isOver() && !socket.destroyed) await sleep(50)
    socket.destroy()
  }
  while (!context.isOver()) {
    await Promise.all(Array.from({ length: STAYERS }, client))
    await sleep(20)
  }
  return { left: 0 }
}

export const FLOODS: readonly Flood[] = [
  {
    name: 'NOP-Out with data',
    wantedMs: ROW_MS,
    run: (context) =>
      flood(context, normal(context), SMALL_BATCH, (flooder) =>
        batchOf(SMALL_BATCH, flooder, nopHeader(), Buffer.alloc(16, 0x70)),
      ),
  },
  {
    name: 'INQUIRY',
    wantedMs: ROW_MS,
    run: (context) =>
      flood(context, normal(context), BATCH, (flooder) => batchOf(BATCH, flooder, inquiryHeader())),
  },
  {
    name: 'INQUIRY without regard to the window',
    wantedMs: ROW_MS,
    run: (context) =>
      flood(
        context,
        normal(context),
        BATCH * 16,
        (flooder, last) => {
          // From the first one that the target may take; it has to ignore those beyond MaxCmdSN.
          const expected = last.readUInt32BE(AT.EXP_CMD_SN)
          if (expected !== 0) flooder.cmdSn = expected
          return batchOf(BATCH * 16, flooder, inquiryHeader())
        },
        true,
      ),
  },
  { name: 'Text', wantedMs: ROW_MS, run: textFlood(normal, [['X-com.example.flood', '1']]) },
  {
    name: 'SendTargets of discovery sessions',
    wantedMs: ROW_MS,
    run: textFlood(discovery, [['SendTargets', 'All']]),
  },
  {
    name: 'empty Text continuations',
    wantedMs: ROW_MS,
    // The tag of each continuation is guessed, one above the last, so that none has to wait for an answer.
    run: (context) => {
      const tags = new WeakMap<Flooder, number>()
      return flood(context, discovery(), SMALL_BATCH, (flooder, last) => {
        let tag = tags.get(flooder) ?? NO_TAG
        const bytes = batchOf(SMALL_BATCH, flooder, textHeader(CONTINUE))
        for (let at = 0; at < bytes.length; at += BHS_BYTES) {
          bytes.writeUInt32BE(tag, at + AT.TRANSFER_TAG)
          tag = tag === NO_TAG ? 1 : tag + 1
        }
        const answered = last.readUInt32BE(AT.TRANSFER_TAG)
        tags.set(flooder, Math.max(tag, answered === NO_TAG ? 0 : answered))
        return bytes
      })
    },
  },
  {
    name: 'half-open connections from 4 addresses',
    wantedMs: 4000,
    run: (context) =>
      stay(context, 4 * 64, (index) =>
        Wire.connect({ port: context.port, localAddress: address(index) }),
      ),
  },
  {
    name: 'discovery sessions that stay',
    wantedMs: 4000,
    run: (context) =>
      stay(context, 260, async (index) => {
        const { wire } = await enter(context, index, discovery())
        return wire
      }),
  },
  {
    name: 'sessions that ask for 4 MiB and never read',
    wantedMs: STAY_MS,
    droppedAfterMs: 40_000,
    run: (context) =>
      stay(context, STAYERS, async (index) => {
        const flooder = await enter(context, index, normal(context))
        const { wire } = flooder
        wire.socket.pause()
        const header = newHeader(OP.SCSI_COMMAND, FINAL | 0x40 | 1, 1)
        header.writeUInt32BE(8192 * 512, AT.EXPECTED_BYTES)
        read16(0, 8192).copy(header, AT.CDB)
        wire.write(batchOf(UNREAD_COMMANDS, flooder, header))
        // Signs of life.
        const timer = setInterval(() => wire.write(batchOf(1, flooder, nopHeader())), 1000)
        wire.socket.once('close', () => clearInterval(timer))
        return wire
      }),
  },
  {
    name: 'discovery sessions that send large NOP-Outs and never read',
    wantedMs: ROW_MS,
    run: (context) =>
      stay(context, STAYERS, async (index) => {
        const flooder = await enter(context, index, discovery())
        const { wire } = flooder
        wire.socket.pause()
        for (let i = 0; i < 64; i++) {
          wire.write(batchOf(16, flooder, nopHeader(), Buffer.alloc(8192, 0x70)))
        }
        return wire
      }),
  },
  {
    name: 'clients of status.sock',
    wantedMs: ROW_MS,
    run: (context) => statusClients(context, 4096),
  },
  {
    name: 'clients of status.sock, one byte at a time',
    wantedMs: ROW_MS,
    run: (context) => statusClients(context, 1),
  },
]
