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

export interface HonestOptions {
  readonly port: number
  readonly targetName: string
  readonly keys: Readonly<Record<string, string>>
  readonly firstBlock: number
  readonly blocks: number
  readonly seed: number
}

export class HonestSession {
  readonly latenciesMs: number[] = []
  /** Commands that were answered with BUSY or TASK SET FULL and sent again. */
  retries = 0
  readonly #session: Initiator
  readonly #options: HonestOptions
  readonly #random: Random
  /** What each block holds: a number that its content is made from; 0 was never written. */
  readonly #held: Uint32Array

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

  /** Works until `isOver`; throws at the first wrong byte, wrong status or breach of the protocol. */
  async work(isOver: () => boolean): Promise<void> {
    while (!isOver()) {
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
    for (let tries = 0; ; tries++) {
      const startedMs = performance.now()
      const result = await this.#session.scsi(options)
      this.latenciesMs.push(performance.now() - startedMs)
      if (result.status === 0) return result
      if (!BUSY.has(result.status) || tries > 200) {
        throw new Error(`status ${result.status}, sense ${result.sense?.raw.toString('hex')}`)
      }
      this.retries++
      await new Promise((resolve) => setTimeout(resolve, 20))
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
