/**
 * An honest session beside the attackers: it writes and reads its own part of its unit without a pause,
 * knows what every block has to hold, and measures how long it has to wait.
 */
import { read16, synchronizeCache10, testUnitReady, write16 } from '../support/cdb.ts'
import { Initiator } from '../support/initiator.ts'
import { Random } from './random.ts'

const BLOCK = 512
const BLOCKS_MAX = 256
const BUSY: ReadonlySet<number> = new Set([0x08, 0x28])
const DELAY_LOOK_MS = 20
/** The fuzzer ends with a fault sooner. */
const COMMAND_TIMEOUT_MS = 60_000

/** How far the fuzzer's own event loop is behind: that time is not the target's. */
export class OwnDelay {
  /** All delays so far. */
  totalMs = 0
  readonly #timer: NodeJS.Timeout

  constructor() {
    let lastMs = performance.now()
    this.#timer = setInterval(() => {
      const nowMs = performance.now()
      this.totalMs += Math.max(0, nowMs - lastMs - 2 * DELAY_LOOK_MS)
      lastMs = nowMs
    }, DELAY_LOOK_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}

export interface HonestOptions {
  readonly ownDelay: OwnDelay
  readonly port: number
  readonly targetName: string
  readonly keys: Readonly<Record<string, string>>
  readonly firstBlock: number
  readonly blocks: number
  readonly seed: number
}

export class HonestSession {
  /** How long each command has waited for its good end, repetitions included. */
  readonly latenciesMs: number[] = []
  /** Commands that were answered with BUSY or TASK SET FULL and sent again. */
  retries = 0
  readonly #session: Initiator
  readonly #options: HonestOptions
  readonly #random: Random
  /** What each block holds: a number that its content is made from; 0 was never written. */
  readonly #held: Uint32Array
  #started: { readonly atMs: number; readonly ownDelayMs: number } | undefined
  #resting: { readonly promise: Promise<void>; readonly end: () => void } | undefined
  #rested: () => void = () => {}
  #working = true

  private constructor(session: Initiator, options: HonestOptions) {
    this.#session = session
    this.#options = options
    this.#random = new Random(options.seed)
    this.#held = new Uint32Array(options.blocks)
  }

  static async open(options: HonestOptions): Promise<HonestSession> {
    const session = await Initiator.open(options)
    for (let tries = 0; tries < 4; tries++) {
      if ((await session.scsi({ cdb: testUnitReady() })).status === 0) break
    }
    return new HonestSession(session, options)
  }

  /** How long the command under way has waited so far; 0 without one. */
  get waitingMs(): number {
    if (!this.#started) return 0
    const { atMs, ownDelayMs } = this.#started
    const delayMs = this.#options.ownDelay.totalMs - ownDelayMs
    return Math.max(0, performance.now() - atMs - delayMs)
  }

  /** Resolves when the command under way has ended; no other one begins before {@link resume}. */
  async rest(): Promise<void> {
    if (!this.#working) return
    let end = (): void => {}
    const promise = new Promise<void>((resolve) => {
      end = resolve
    })
    this.#resting = { promise, end }
    await new Promise<void>((resolve) => {
      this.#rested = resolve
    })
  }

  resume(): void {
    this.#resting?.end()
    this.#resting = undefined
  }

  /** Works until `isOver`; throws at the first wrong byte, wrong status or breach of the protocol. */
  async work(isOver: () => boolean): Promise<void> {
    try {
      await this.#workOn(isOver)
    } finally {
      this.#working = false
      this.#rested()
    }
  }

  async #workOn(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
      if (this.#resting) {
        this.#rested()
        await this.#resting.promise
        continue
      }
      const length = this.#random.between(1, BLOCKS_MAX)
      const at = this.#random.below(this.#options.blocks - length)
      const kind = this.#random.below(16)
      if (kind === 0) await this.#run({ cdb: synchronizeCache10() })
      else if (kind < 8) await this.#write(at, length)
      else await this.#verify(at, length)
    }
  }

  /** Reads everything once more, and logs out. */
  async finish(): Promise<void> {
    for (let at = 0; at < this.#options.blocks; at += BLOCKS_MAX) {
      await this.#verify(at, Math.min(BLOCKS_MAX, this.#options.blocks - at))
    }
    await this.#session.close()
  }

  destroy(): void {
    this.#session.destroy()
  }

  async #write(at: number, length: number): Promise<void> {
    const mark = this.#random.u32() | 1
    const write = content(length, (block) => mark ^ (at + block))
    await this.#run({ cdb: write16(this.#options.firstBlock + at, length), write })
    for (let block = at; block < at + length; block++) this.#held[block] = mark ^ block
  }

  async #verify(at: number, length: number): Promise<void> {
    const cdb = read16(this.#options.firstBlock + at, length)
    const { data } = await this.#run({ cdb, read: length * BLOCK })
    const expected = content(length, (block) => this.#held[at + block] ?? 0)
    if (data.equals(expected)) return
    const wrong = data.findIndex((byte, index) => byte !== expected[index])
    const block = this.#options.firstBlock + at + Math.floor(wrong / BLOCK)
    throw new Error(`block ${block} does not hold what was written`)
  }

  async #run(options: Parameters<Initiator['scsi']>[0]) {
    this.#started = { atMs: performance.now(), ownDelayMs: this.#options.ownDelay.totalMs }
    try {
      for (let tries = 0; ; tries++) {
        const result = await this.#session.scsi({ timeoutMs: COMMAND_TIMEOUT_MS, ...options })
        if (result.status === 0) {
          this.latenciesMs.push(this.waitingMs)
          return result
        }
        if (!BUSY.has(result.status) || tries > 1000) {
          throw new Error(`status ${result.status}, sense ${result.sense?.raw.toString('hex')}`)
        }
        this.retries++
        await new Promise((resolve) => setTimeout(resolve, 20))
      }
    } finally {
      this.#started = undefined
    }
  }
}

/** Blocks filled with the 32-bit number that `mark` gives each of them. */
function content(length: number, mark: (block: number) => number): Buffer {
  const words = new Uint32Array((length * BLOCK) / 4)
  for (let block = 0; block < length; block++) {
    words.fill(mark(block) >>> 0, (block * BLOCK) / 4, ((block + 1) * BLOCK) / 4)
  }
  return Buffer.from(words.buffer)
}
