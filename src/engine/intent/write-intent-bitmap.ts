/**
 * The write-intent bitmap of a redundant volume (docs/adr/0006-intent-map.md): before a region is written, its bit is
 * durable on the drives, so that after a crash, and after a drive was away, only the marked regions are copied again.
 * intent-bits.ts has the form on disk; set/volume.ts makes the bitmap; requests and growths enter and leave; jobs copy
 * what it names. The words:
 *
 *   marked      the bit is set, in memory at least: a write is or was under way, or somebody lacks what was written
 *   durable     the bit is set on all drives of the volume that are up, too: a write may begin
 *   recent      written since the last look; a bit goes when its region is not, nor in use, nor unsynced
 *   unsynced    the copies in service may really differ, after a crash or a write that failed: reads go to one copy,
 *               and the bit stays until a job has made them equal. A part of what is marked, to the byte
 *   propagated  unsynced, but a reader was given it, and before that all other copies got it, or went out of service, durably
 */
import { assert } from '../../base/assert.ts'
import type { ByteRange } from '../../base/bytes.ts'
import type { Clock, Timer } from '../../base/clock.ts'
import { type PlexusError, toPlexusError } from '../../base/errors.ts'
import { INTENT_CLEAR_MS, INTENT_CLEAR_REGIONS, INTENT_PIECES } from '../../base/limits.ts'
import { RangeSet } from '../../base/range-set.ts'
import { blockOf, INTENT_BLOCK_REGIONS, IntentBits, type IntentLayout } from './intent-bits.ts'
import { UnsyncedRanges } from './unsynced.ts'

/** A block of the bitmap on its way to disk. */
export interface IntentBlock {
  readonly block: number
  /** The place of its pair. */
  readonly which: 0 | 1
  readonly bytes: Buffer
}

/** What the drives remember, for a new bitmap. */
export interface RememberedIntent {
  readonly bits: IntentBits
  /** The highest there. */
  readonly sequence: number
  /** By block: the place of the newest. */
  readonly which: readonly (0 | 1)[]
  /** Subdisks, out of service by now, that have missed writes of which no bit tells. */
  readonly outdated: readonly string[]
}

export interface WriteIntentOptions extends IntentLayout {
  readonly volumeUuid: string
  readonly clock: Clock
  /** Has a drive come that lacks the bitmap? Then the next write is of all blocks. */
  readonly needsAll: () => boolean
  /**
   * Writes the blocks on every drive of the volume that is up. Resolves when they are durable there; rejects with
   * PlexusError when they are durable nowhere, or not known to be. One call at a time.
   */
  readonly store: (blocks: readonly IntentBlock[]) => Promise<void>
  /** Flushes all drives of the volume that are up; rejects when one of them failed. */
  readonly flushDrives: () => Promise<void>
  /** False while a subdisk of the volume is not up: then the bits are what it missed. */
  readonly mayClear: () => boolean
  /** A range is unsynced from now on, because a write of it has failed. */
  readonly onUnsynced?: () => void
  /** All that is marked in it is unsynced: copies are in service that may differ after a crash. */
  readonly initial?: RememberedIntent | undefined
}

/** Who enters. */
export interface IntentWaiter {
  /** The range is marked durably and may be written, or `error` says why it may not. */
  intended(error: PlexusError | undefined): void
}

/** In a word of {@link WriteIntentBitmap} for a region: written since the last look. The other bits: writes inside. */
const RECENT = 0x8000_0000

export class WriteIntentBitmap {
  readonly #options: WriteIntentOptions
  #bits: IntentBits
  /** A part of #bits. */
  #durable: IntentBits
  #unsynced: UnsyncedRanges
  readonly #propagated = new RangeSet()
  /** By block, for those that are in use: for each region the writes inside, and {@link RECENT}. */
  #uses: (Uint32Array | undefined)[] = []
  #inside = 0
  #waiting: IntentWaiter[] = []
  /** Blocks that the next write of the bitmap is of. */
  readonly #changed = new Set<number>()
  /** Idle regions that the next write takes out, if they are still idle then. */
  #toClear: number[] = []
  #sequence: number
  /** By block: the place of the next write. */
  #next: (0 | 1)[]
  /** The write that is under way or about to begin; its end tells everybody who waits. */
  #storing: Promise<PlexusError | undefined> | undefined
  #clearing: Promise<unknown> | undefined
  #timer: Timer | undefined
  #stopped = false

  constructor(options: WriteIntentOptions) {
    const { initial } = options
    this.#options = options
    this.#bits = new IntentBits(options)
    // What was read is on some drive; whether it is on all that are up now is not known.
    this.#durable = this.#bits.fresh()
    this.#unsynced = new UnsyncedRanges(this.#bits)
    for (const { offset, length } of initial?.bits.ranges() ?? []) this.#addUnsynced(offset, length)
    if (initial && initial.outdated.length > 0) this.#markRange(0, this.sizeBytes)
    this.#sequence = initial?.sequence ?? 0
    this.#next = Array.from({ length: this.#bits.blocks }, (_, block) =>
      initial?.which[block] === 0 ? 1 : 0,
    )
    this.#arm()
  }

  get sizeBytes(): number {
    return this.#bits.sizeBytes
  }

  get regionBytes(): number {
    return this.#bits.regionBytes
  }

  /** What is marked, in order: what a returning drive has missed. */
  get marked(): readonly ByteRange[] {
    return this.#bits.ranges()
  }

  /**
   * A write of the range is about to begin: `intended` is called when its regions are marked durably, at once
   * where they are. {@link leave} or {@link leaveUnsynced} must follow, also after an error.
   */
  enter(offset: number, length: number, waiter: IntentWaiter): void {
    let durable = true
    this.#inside++
    if (length > 0) {
      const last = this.#bits.lastOf(offset, length)
      for (let region = this.#bits.firstOf(offset); region <= last; region++) {
        this.#use(region, 1)
        if (this.#durable.has(region)) continue
        this.#mark(region)
        durable = false
      }
    }
    if (durable) {
      waiter.intended(undefined)
      return
    }
    this.#waiting.push(waiter)
    if (!this.#storing) void this.#store()
    this.#arm()
  }

  /** The write has ended, the same on every copy that is in service. */
  leave(offset: number, length: number): void {
    this.#inside--
    assert(this.#inside >= 0, 'who leaves the bitmap has entered it')
    if (length === 0) return
    const last = this.#bits.lastOf(offset, length)
    for (let region = this.#bits.firstOf(offset); region <= last; region++) this.#use(region, -1)
  }

  /** The write has ended in failure: the copies may differ there. */
  leaveUnsynced(offset: number, length: number): void {
    this.leave(offset, length)
    this.#addUnsynced(offset, length)
    this.#options.onUnsynced?.()
  }

  /** Has a part of the range to be propagated before a reader gets it? */
  isUnpropagated(offset: number, length: number): boolean {
    return this.#unsynced.touches(offset, length) && !this.#propagated.covers(offset, length)
  }

  /** All copies that may be read have the content of the range that a reader is about to get, and have it durably. */
  markPropagated(offset: number, length: number): void {
    if (this.#propagated.ranges.length < INTENT_PIECES) this.#propagated.add(offset, length)
  }

  /** Where the copies may really differ: that is read from one copy only. */
  get unsynced(): Pick<RangeSet, 'isEmpty' | 'bytes' | 'ranges' | 'touches' | 'next'> {
    return this.#unsynced
  }

  /** Copies of the range were never made equal. Resolves when it is marked durably, rejects as `store` does. */
  async markUnsynced(offset: number, length: number): Promise<void> {
    this.#addUnsynced(offset, length)
    await this.#storeOrThrow()
  }

  /**
   * Marks a range that a subdisk out of service lacks, though the copies in service agree: what a full copy that
   * was given up has not reached. Resolves when it is durable, rejects as `store` does.
   */
  async mark(offset: number, length: number): Promise<void> {
    this.#markRange(offset, length)
    await this.#storeOrThrow()
  }

  /** Copies are back that may have lost what was marked since they were flushed. */
  markAllUnsynced(): void {
    for (const { offset, length } of this.marked) this.#addUnsynced(offset, length)
  }

  /** A job has made the copies equal there, while it kept writes off. */
  markSynced(offset: number, length: number): void {
    this.#unsynced.remove(offset, length)
    this.#propagated.remove(offset, length)
    this.#arm()
  }

  /** Writes all blocks. Resolves when they are durable on every drive that is up, rejects as `store` does. */
  async storeAll(): Promise<void> {
    for (let block = 0; block < this.#bits.blocks; block++) this.#changed.add(block)
    await this.#storeOrThrow()
  }

  /**
   * The volume has grown, or has other room for its bitmap; the caller keeps writes out. Regions may have another size
   * afterwards. Resolves when the bitmap is durable in its new form; rejects as `store` does.
   */
  async resize(layout: IntentLayout): Promise<void> {
    assert(this.#inside === 0, 'a bitmap changes its size while no write is inside')
    await this.#clearing
    await this.#storing
    const { marked } = this
    const unsynced = this.#unsynced.ranges
    this.#bits = new IntentBits(layout)
    this.#durable = this.#bits.fresh()
    this.#unsynced = new UnsyncedRanges(this.#bits)
    this.#uses = []
    this.#next = Array.from({ length: this.#bits.blocks }, (_, block) => this.#next[block] ?? 0)
    for (const { offset, length } of marked) this.#markRange(offset, length)
    for (const { offset, length } of unsynced) this.#addUnsynced(offset, length)
    await this.storeAll()
  }

  /**
   * Clean shutdown: flushes the drives and clears the bits of idle regions. No write is inside, and none comes
   * afterwards. Never rejects: a bit too many costs a copy, no more.
   */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#clearing
    await this.#storing
    assert(this.#inside === 0, 'a bitmap stops when no write is inside')
    this.#uses = []
    let idle = this.#idleRegions()
    while (idle.length > 0 && (await this.#clear(idle))) idle = this.#idleRegions()
  }

  #use(region: number, change: 1 | -1): void {
    const block = blockOf(region)
    this.#uses[block] ??= new Uint32Array(INTENT_BLOCK_REGIONS)
    const words = this.#uses[block]
    const at = region - block * INTENT_BLOCK_REGIONS
    const inside = ((words[at] ?? 0) & ~RECENT) + change
    assert(inside >= 0, 'who leaves a region has entered it')
    words[at] = inside | RECENT
  }

  #mark(region: number): void {
    if (this.#bits.has(region) && this.#durable.has(region)) return
    this.#bits.set(region)
    this.#changed.add(blockOf(region))
  }

  #markRange(offset: number, length: number): void {
    if (length === 0) return
    const last = Math.min(this.#bits.lastOf(offset, length), this.#bits.regions - 1)
    for (let region = this.#bits.firstOf(offset); region <= last; region++) this.#mark(region)
  }

  #addUnsynced(offset: number, length: number): void {
    this.#markRange(offset, length)
    this.#unsynced.add(offset, length)
    this.#propagated.remove(offset, length)
  }

  // Writing the bitmap: one at a time; whoever comes meanwhile shares the next one.

  async #storeOrThrow(): Promise<void> {
    const error = await this.#store()
    if (error) throw error
  }

  /** A write of the bitmap that begins after this call has begun. Resolves to why it failed. */
  async #store(): Promise<PlexusError | undefined> {
    // The one under way may have begun before the change that the caller waits for.
    while (this.#storing) await this.#storing
    this.#storing = this.#write()
    return this.#storing
  }

  async #write(): Promise<PlexusError | undefined> {
    // So that all writes of one turn share it.
    await Promise.resolve()
    const riders = this.#waiting
    this.#waiting = []
    const cleared = this.#toClear.filter((region) => this.#isIdle(region))
    this.#toClear = []
    for (const region of cleared) {
      this.#bits.clear(region)
      this.#durable.clear(region)
      this.#changed.add(blockOf(region))
    }
    const error = await this.#writeChanged()
    if (error) for (const region of cleared) this.#mark(region)
    this.#storing = undefined
    if (this.#waiting.length > 0 && !this.#storing) void this.#store()
    for (const rider of riders) rider.intended(error)
    return error
  }

  async #writeChanged(): Promise<PlexusError | undefined> {
    const { volumeUuid, store, needsAll } = this.#options
    const all = needsAll()
    const numbers = all
      ? Array.from({ length: this.#bits.blocks }, (_, n) => n)
      : [...this.#changed]
    if (numbers.length === 0) return undefined
    this.#changed.clear()
    this.#sequence++
    const blocks = numbers.map((block) => ({
      block,
      which: this.#next[block] ?? 0,
      bytes: this.#bits.encode(block, volumeUuid, this.#sequence),
    }))
    try {
      await store(blocks)
    } catch (failure) {
      for (const { block } of blocks) this.#changed.add(block)
      return toPlexusError(failure, 'store', 'write-intent bitmap')
    }
    for (const { block, which, bytes } of blocks) {
      // Only now the other place may be overwritten: until here it is the one that holds.
      this.#next[block] = which === 0 ? 1 : 0
      this.#durable.take(block, bytes)
    }
    return undefined
  }

  // Clearing bits, lazily.

  #arm(): void {
    if (this.#timer || this.#stopped || this.#bits.count === 0) return
    this.#timer = this.#options.clock.after(INTENT_CLEAR_MS, () => {
      this.#timer = undefined
      this.#look()
      this.#arm()
    })
  }

  /** Regions that were written since the last look are given until the next one. */
  #look(): void {
    if (this.#clearing) return
    const idle = this.#idleRegions()
    let wasWritten: number | undefined
    for (const [block, words] of this.#uses.entries()) {
      // Nobody is in a region that is not marked.
      if (this.#bits.countIn(block) === 0) this.#uses[block] = undefined
      for (let at = 0; words && at < words.length; at++) {
        if (words[at] !== 0) wasWritten = block
        if (words[at] === RECENT) words[at] = 0
      }
    }
    if (wasWritten !== undefined) {
      // Writes to marked regions alone change no bit: the sequence tells of them (intent-store.ts, outdatedSubdisks).
      this.#changed.add(wasWritten)
      void this.#store()
    }
    if (idle.length === 0) return
    this.#clearing = this.#clear(idle).finally(() => {
      this.#clearing = undefined
    })
  }

  /** Not all of them at once where they are many: the rest is found the next time. */
  #idleRegions(): number[] {
    const idle: number[] = []
    let at = this.#bits.nextFrom(0)
    while (at !== undefined && idle.length < INTENT_CLEAR_REGIONS) {
      if (this.#isIdle(at)) idle.push(at)
      at = this.#bits.nextFrom(at + 1)
    }
    return idle
  }

  /** Resolves to whether they are cleared. */
  async #clear(regions: number[]): Promise<boolean> {
    const { mayClear, flushDrives } = this.#options
    if (!mayClear()) return false
    try {
      // What was written there is durable before the bit goes.
      await flushDrives()
    } catch {
      // The bits stay, which is safe; whoever flushed deals with the drive.
      return false
    }
    if (!mayClear()) return false
    this.#toClear = regions
    return (await this.#store()) === undefined
  }

  #isIdle(region: number): boolean {
    const block = blockOf(region)
    const word = this.#uses[block]?.[region - block * INTENT_BLOCK_REGIONS] ?? 0
    const { offset, length } = this.#bits.rangeOf(region)
    return this.#bits.has(region) && word === 0 && !this.#unsynced.touches(offset, length)
  }
}
