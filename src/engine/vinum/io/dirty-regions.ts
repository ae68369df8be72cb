/**
 * The write-intent map of a redundant volume (spec/vinum.md, 9): before a region is written, its bit is durable
 * on the drives, so that after a crash, and after a drive was away, only the marked regions are copied again. A
 * bit stays until the region has been idle for a while, the drives are flushed and every copy is in service.
 *
 * Regions that may really differ, after a crash or a write that failed, are held: reads of them go to one copy
 * (volume-io.ts), and they stay marked until a job says that they agree. intent-bits.ts has the form on disk;
 * vinum-set.ts makes the map; volume-io.ts enters and leaves; sync.ts copies what it names.
 */
import { assert } from '../../../base/assert.ts'
import type { ByteRange } from '../../../base/bytes.ts'
import type { Clock, Timer } from '../../../base/clock.ts'
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import { INTENT_CLEAR_MS, INTENT_TOLD_PIECES } from '../../../base/limits.ts'
import { INTENT_BLOCK_BYTES, IntentBits } from './intent-bits.ts'
import { RegionValidity } from './validity.ts'

export interface IntentMapOptions {
  readonly sizeBytes: number
  /** The least size of a region, bytes: a power of two. Undefined: 1 MiB. */
  readonly regionBytes?: number | undefined
  readonly volumeUuid: string
  readonly clock: Clock
  /**
   * Writes the block to place `which` of the volume's pair on every drive of the volume that is up. Resolves when
   * it is durable there; rejects with PlexusError when it is durable nowhere, or not known to be. One call at a
   * time; the block is the map's again when it has ended.
   */
  readonly store: (block: Buffer, which: 0 | 1) => Promise<void>
  /** Flushes all drives of the volume that are up; rejects when one of them failed. */
  readonly flushDrives: () => Promise<void>
  /** False while a subdisk of the volume is not up: then the bits are what it missed. */
  readonly mayClear: () => boolean
  /** A range is held from now on, because a write of it has failed. */
  readonly onHeld?: () => void
  /**
   * What the drives remember (mergeIntent), the highest sequence among them and the place of that one. The
   * marked regions are held when `held` says so: after a crash, when copies are in service that may differ.
   */
  readonly initial?: {
    readonly bits: IntentBits
    readonly sequence: number
    readonly which: 0 | 1
    readonly held: boolean
  }
}

/** Who enters. */
export interface IntentWaiter {
  /** The range is marked durably and may be written, or `error` says why it may not. */
  intended(error: PlexusError | undefined): void
}

export class IntentMap {
  readonly #options: IntentMapOptions
  readonly #block = Buffer.alloc(INTENT_BLOCK_BYTES)
  #bits: IntentBits
  /** Marked on the drives for certain: a part of #bits. */
  #durable: IntentBits
  /** What is not held. */
  #agreed: RegionValidity
  /** What is not held, and what has been told to a reader: all copies in service have got that. */
  #told: RegionValidity
  /** Writes inside, by region. */
  #users: Uint32Array
  /** 1: written since the last look. */
  #touched: Uint8Array
  #inside = 0
  #waiting: IntentWaiter[] = []
  /** Idle regions that the next write of the map takes out, if they are still idle then. */
  #toClear: number[] = []
  #sequence: number
  #next: 0 | 1
  /** The write of the map that is under way or about to begin; its end tells everybody who waits. */
  #storing: Promise<PlexusError | undefined> | undefined
  #clearing: Promise<void> | undefined
  #timer: Timer | undefined
  #stopped = false

  constructor(options: IntentMapOptions) {
    const { initial, sizeBytes, regionBytes } = options
    this.#options = options
    this.#bits = new IntentBits(sizeBytes, regionBytes)
    if (initial) this.#bits.merge(initial.bits)
    // What was read is on some drive; whether it is on all that are up now is not known.
    this.#durable = new IntentBits(sizeBytes, regionBytes)
    this.#agreed = new RegionValidity(initial?.held ? this.#bits.ranges() : [])
    this.#told = new RegionValidity(this.#agreed.missing)
    this.#users = new Uint32Array(this.#bits.regions)
    this.#touched = new Uint8Array(this.#bits.regions)
    this.#sequence = initial?.sequence ?? 0
    this.#next = initial?.which === 0 ? 1 : 0
    this.#arm()
  }

  get sizeBytes(): number {
    return this.#bits.sizeBytes
  }

  get regionBytes(): number {
    return this.#bits.regionBytes
  }

  /** Marked regions. */
  get dirtyRegions(): number {
    return this.#bits.count
  }

  /**
   * A write of the range is about to begin: `intended` is called when its regions are marked durably, at once
   * where they are. {@link leave} or {@link keep} must follow, also after an error.
   */
  enter(offset: number, length: number, waiter: IntentWaiter): void {
    let durable = true
    this.#inside++
    if (length > 0) {
      const last = this.#bits.lastOf(offset, length)
      for (let region = this.#bits.firstOf(offset); region <= last; region++) {
        this.#users[region] = (this.#users[region] ?? 0) + 1
        this.#touched[region] = 1
        if (this.#durable.has(region)) continue
        this.#bits.set(region)
        durable = false
      }
    }
    if (durable) {
      waiter.intended(undefined)
      return
    }
    this.#waiting.push(waiter)
    this.#kick()
    this.#arm()
  }

  /** The write has ended, the same on every copy that is in service. */
  leave(offset: number, length: number): void {
    this.#inside--
    assert(this.#inside >= 0, 'who leaves the map has entered it')
    if (length === 0) return
    const last = this.#bits.lastOf(offset, length)
    for (let region = this.#bits.firstOf(offset); region <= last; region++) {
      const users = this.#users[region] ?? 0
      assert(users > 0, 'who leaves a region has entered it')
      this.#users[region] = users - 1
      this.#touched[region] = 1
    }
  }

  /** The write has ended in failure: the copies may differ there, so the range is held. */
  keep(offset: number, length: number): void {
    this.leave(offset, length)
    this.#hold(offset, length)
    this.#options.onHeld?.()
  }

  /** May the copies really differ in the range? Then it is read from one copy only. */
  isHeld(offset: number, length: number): boolean {
    return !this.#agreed.covers(offset, length)
  }

  /** Is a part of the range held that no reader has been told of? */
  isUntold(offset: number, length: number): boolean {
    return !this.#told.covers(offset, length)
  }

  /** All copies in service have the content of the range that a reader is about to get, and have it durably. */
  tell(offset: number, length: number): void {
    if (this.#told.missing.length < INTENT_TOLD_PIECES) this.#told.markValid(offset, length)
  }

  /** What is held, in order. Empty: all copies that are in service agree. */
  get held(): readonly ByteRange[] {
    return this.#agreed.missing
  }

  /** Holds a range whose copies were never made equal, such as new room. Resolves when it is marked durably. */
  async hold(offset: number, length: number): Promise<void> {
    this.#hold(offset, length)
    const error = await this.#store()
    if (error) throw error
  }

  /**
   * Marks a range that a subdisk out of service lacks, though the copies in service agree: what a full copy that
   * was given up has not reached. Resolves when it is durable.
   */
  async mark(offset: number, length: number): Promise<void> {
    this.#bits.mark(offset, length)
    const error = await this.#store()
    if (error) throw error
  }

  /** A job has made the copies equal there, while it kept writes off. */
  agree(offset: number, length: number): void {
    this.#agreed.markValid(offset, length)
    this.#told.markValid(offset, length)
    this.#arm()
  }

  /** Is any region of the range marked? */
  isDirty(offset: number, length: number): boolean {
    return this.#bits.touches(offset, length)
  }

  /** The marks as they are now: what a returning drive has missed. A copy. */
  snapshot(): IntentBits {
    return this.#bits.copy()
  }

  /**
   * The volume has grown; the caller keeps writes out. The region size may double. Resolves when the map is
   * durable in its new form; rejects as `store` does.
   */
  async resize(sizeBytes: number): Promise<void> {
    assert(this.#inside === 0, 'a map changes its size while no write is inside')
    await this.#clearing
    await this.#storing
    const { regionBytes } = this.#options
    const bits = new IntentBits(sizeBytes, regionBytes)
    bits.merge(this.#bits)
    this.#bits = bits
    this.#durable = new IntentBits(sizeBytes, regionBytes)
    this.#users = new Uint32Array(bits.regions)
    this.#touched = new Uint8Array(bits.regions).fill(1)
    const error = await this.#store()
    if (error) throw error
  }

  /**
   * The volume ends in peace: flushes the drives and takes every mark away that need not stay. No write is
   * inside, and none comes afterwards. Never rejects: a mark too many costs a copy, no more.
   */
  async stop(): Promise<void> {
    this.#stopped = true
    this.#timer?.cancel()
    await this.#clearing
    await this.#storing
    assert(this.#inside === 0, 'a map stops when no write is inside')
    if (this.#bits.count === 0) return
    const idle: number[] = []
    for (let region = 0; region < this.#bits.regions; region++) {
      this.#touched[region] = 0
      if (this.#mayGo(region)) idle.push(region)
    }
    if (idle.length > 0) await this.#clear(idle)
  }

  #hold(offset: number, length: number): void {
    if (length === 0) return
    this.#bits.mark(offset, length)
    this.#agreed = new RegionValidity([...this.#agreed.missing, { offset, length }])
    this.#told = new RegionValidity([...this.#told.missing, { offset, length }])
  }

  // Writing the map: one at a time; whoever comes meanwhile shares the next one.

  #kick(): void {
    if (!this.#storing) void this.#store()
  }

  /** A write of the map that begins after this call has begun. Resolves to why it failed. */
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
    const cleared = this.#toClear.filter((region) => this.#mayGo(region))
    this.#toClear = []
    for (const region of cleared) {
      this.#bits.clear(region)
      this.#durable.clear(region)
    }
    const written = this.#bits.copy()
    const { volumeUuid, store } = this.#options
    let error: PlexusError | undefined
    try {
      written.encode(this.#block, volumeUuid, ++this.#sequence)
      await store(this.#block, this.#next)
      // Only now the other place may be overwritten: until here it is the one that holds.
      this.#next = this.#next === 0 ? 1 : 0
      this.#durable = written
    } catch (failure) {
      error = toPlexusError(failure, 'store', 'dirty regions')
      for (const region of cleared) this.#bits.set(region)
    }
    this.#storing = undefined
    if (this.#waiting.length > 0) this.#kick()
    for (const rider of riders) rider.intended(error)
    return error
  }

  // Taking marks away, lazily.

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
    const idle: number[] = []
    for (let region = 0; region < this.#bits.regions; region++) {
      if (this.#touched[region] === 0) {
        if (this.#mayGo(region)) idle.push(region)
      } else if (this.#users[region] === 0) this.#touched[region] = 0
    }
    if (idle.length === 0) return
    this.#clearing = this.#clear(idle).finally(() => {
      this.#clearing = undefined
    })
  }

  async #clear(regions: number[]): Promise<void> {
    if (!this.#options.mayClear()) return
    try {
      // What was written there is durable before the mark goes.
      await this.#options.flushDrives()
    } catch {
      // The marks stay, which is safe; whoever flushed deals with the drive.
      return
    }
    if (!this.#options.mayClear()) return
    this.#toClear = regions
    await this.#store()
  }

  #mayGo(region: number): boolean {
    if (!this.#bits.has(region) || this.#users[region] !== 0 || this.#touched[region] !== 0) {
      return false
    }
    const offset = region * this.#bits.regionBytes
    return this.#agreed.covers(offset, Math.min(this.#bits.regionBytes, this.sizeBytes - offset))
  }
}
