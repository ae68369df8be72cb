/**
 * The I/O path of a volume (docs/vinum.md, 7, and runtime.ts for its three rules): which plexes a request goes
 * to, in which order with others, and what becomes of a copy that fails. The volume's geom hands requests in;
 * volume-read.ts and volume-change.ts carry them out; jobs lock ranges here; vinum-set.ts swaps plexes while the
 * volume pauses.
 *
 * Requests are entered in the range lock only where somebody could care: writes with two plexes, a map or a
 * job's lock; reads only while a job locks `all`. What runs outside ("loose") is counted, and a lock waits
 * for it to end. A volume of one concat or striped plex passes requests on and does no more.
 */
import { assert } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { AlignedBuffer, IoOp, IoRequest } from '../../../hal/block-device.ts'
import { type LockEntry, RangeLock } from '../../geom/range-lock.ts'
import type { WriteIntentBitmap } from '../../intent/write-intent-bitmap.ts'
import type { ReadPolicy, SubdiskRecord } from '../model/model.ts'
import type { Plex, Subdisk, VinumHost } from '../runtime.ts'
import { firstInService } from './first-copy.ts'
import { ChangeTask } from './volume-change.ts'
import { DirectTask } from './volume-direct.ts'
import { ReadTask, readAndMend } from './volume-read.ts'

/** What may be swapped while the volume pauses. */
export interface VolumeForm {
  /** In the order of the configuration. */
  readonly plexes: readonly Plex[]
  readonly readPolicy: ReadPolicy
  /** For `prefer`. */
  readonly preferredPlexUuid: string | undefined
  /** undefined: no redundancy, so no copies that could differ. */
  readonly map: WriteIntentBitmap | undefined
}

export interface VolumeIoOptions extends VolumeForm {
  readonly name: string
  readonly host: VinumHost
}

/** A plex in its place, with the requests of this volume that it works on. */
export interface PlexSlot {
  readonly plex: Plex
  inFlight: number
}

/** A request that runs when it has been let in. */
export interface Admitted {
  run(): void
}

export class VolumeIo {
  readonly name: string
  readonly host: VinumHost
  /** The next flush fails with this error: acknowledged changes may be lost. */
  owed: PlexusError | undefined
  /** Only for the tasks. */
  readonly locks = new RangeLock()
  #slots: readonly PlexSlot[] = []
  #form: VolumeForm
  /** One linear plex and no map: nothing to decide. */
  #direct = false
  #turn = 0
  #pauses = 0
  /** Requests that work below. Those that wait for a range or for the end of a pause do not. */
  #active = 0
  /** What came or was let in while the volume paused, in order. */
  #heldBack: (() => void)[] = []
  #onIdle: (() => void)[] = []
  #jobLocks = 0
  #allLocks = 0
  #looseReads = 0
  #looseChanges = 0
  #onDrained: (() => void)[] = []
  /** Changes that were acknowledged, and how many of them a flush has covered. */
  #changed = 0
  #flushed = 0
  /** Records of subdisks that are out of service for certain: the host has said so, durably. */
  readonly #confirmedOut = new WeakSet<SubdiskRecord>()
  readonly #reads: ReadTask[] = []
  readonly #changes: ChangeTask[] = []
  readonly #directs: DirectTask[] = []

  constructor(options: VolumeIoOptions) {
    this.name = options.name
    this.host = options.host
    this.#form = options
    this.#take(options)
  }

  get slots(): readonly PlexSlot[] {
    return this.#slots
  }

  get form(): VolumeForm {
    return this.#form
  }

  get plexes(): readonly Plex[] {
    return this.#form.plexes
  }

  get map(): WriteIntentBitmap | undefined {
    return this.#form.map
  }

  /** Requests that work below now. */
  get active(): number {
    return this.#active
  }

  /** Begins a request of the volume's provider; range and access have been checked. */
  start(request: IoRequest): void {
    if (this.#pauses > 0) {
      this.#heldBack.push(() => this.start(request))
      return
    }
    if (this.#direct && this.#jobLocks === 0) {
      const task = this.#directs.pop() ?? new DirectTask(this)
      this.#active++
      if (request.op === 'read') this.#looseReads++
      else this.#looseChanges++
      task.begin(request)
      return
    }
    if (request.op === 'read') {
      const task = this.#reads.pop() ?? new ReadTask(this)
      task.take(request)
      if (this.#allLocks > 0) this.locks.add(task.entry, request.offset, request.length, 'read')
      else {
        this.#looseReads++
        this.admit(task)
      }
      return
    }
    const task = this.#changes.pop() ?? new ChangeTask(this)
    task.take(request)
    // A flush changes nothing, and waits for nothing: it covers what was acknowledged before it came.
    if (request.op === 'flush') this.admit(task)
    else this.locks.add(task, request.offset, request.length, 'write')
  }

  /**
   * Keeps changes (`writes`) or all requests (`all`) off a range, waits for those in flight there, and resolves to
   * the way to let go. First come, first served. Whoever holds one must not wait for another one that overlaps.
   */
  async lock(offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void> {
    const all = mode === 'all'
    this.#jobLocks++
    if (all) this.#allLocks++
    // From now on nothing becomes loose that this lock is about, so this ends.
    while (this.#looseChanges > 0 || (all && this.#looseReads > 0)) {
      await new Promise<void>((resolve) => this.#onDrained.push(resolve))
    }
    const entry = await this.locks.hold(offset, length, mode)
    let held = true
    return () => {
      assert(held, 'a lock is let go once')
      held = false
      this.#jobLocks--
      if (all) this.#allLocks--
      this.locks.leave(entry)
    }
  }

  /**
   * New requests wait from now on; resolves when none works below. Those that wait for a range that a job has
   * locked do not count, so a job may pause the volume. Nobody may wait for a lock of the volume, or for
   * {@link VinumHost.demote}, between pause and resume.
   */
  async pause(): Promise<void> {
    this.#pauses++
    if (this.#active === 0) return
    await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  resume(): void {
    assert(this.#pauses > 0, 'what resumes has paused')
    if (--this.#pauses > 0) return
    const held = this.#heldBack
    this.#heldBack = []
    for (const go of held) go()
  }

  /** Other plexes, policy or map; between {@link pause} and {@link resume}. */
  setForm(form: VolumeForm): void {
    assert(this.#pauses > 0 && this.#active === 0, 'plexes change while the volume pauses')
    this.#take(form)
  }

  /**
   * For jobs that hold a lock on the range: fills `into` from the plexes other than `except`. Repairs what
   * cannot be read in one plex from another. Rejects with the first error when no plex has a part of it.
   */
  async readExcept(except: Plex | undefined, offset: number, into: AlignedBuffer): Promise<void> {
    await this.#comeIn()
    try {
      const others = this.plexes.filter((plex) => plex !== except)
      const length = into.bytes.length
      await readAndMend(this, others, { offset, length, data: into, dataOffset: 0, cause: 'sync' })
    } finally {
      this.leaveWork()
    }
  }

  /** Where to read: undefined when no plex is valid for all of the range. */
  choose(offset: number, length: number): PlexSlot | undefined {
    const slots = this.#slots
    if (slots.length > 1 && this.isUnsynced(offset, length)) {
      const first = firstInService(this.plexes, offset, length)
      return slots.find(({ plex }) => plex === first)
    }
    const { readPolicy, preferredPlexUuid } = this.#form
    const isBetter = IS_BETTER[readPolicy]
    const turn = this.#turn++
    let best: PlexSlot | undefined
    for (let step = 0; step < slots.length; step++) {
      const slot = slots[(turn + step) % slots.length] as PlexSlot
      if (best && !isBetter(slot, best, preferredPlexUuid)) continue
      if (slot.plex.readable(offset, length)) best = slot
    }
    return best
  }

  /** May the copies differ there? Then one of them is the truth, block by block, until a job has made them equal. */
  isUnsynced(offset: number, length: number): boolean {
    return this.#form.map?.unsynced.touches(offset, length) ?? false
  }

  /** Has nobody read a part of the range yet since the copies may differ there? */
  isUnpropagated(offset: number, length: number): boolean {
    return this.#slots.length > 1 && (this.#form.map?.isUnpropagated(offset, length) ?? false)
  }

  /** Is the subdisk out of service, and that durably? Then what it misses matters no more. */
  isOut(subdisk: Subdisk): boolean {
    return !subdisk.writable && this.#confirmedOut.has(subdisk.record)
  }

  /** Takes out of service what missed a change; rejects when the change must not be acknowledged. */
  async demote(missed: Iterable<Subdisk>, error: PlexusError): Promise<void> {
    const subdisks = [...missed]
    await this.host.demote(subdisks, error)
    for (const subdisk of subdisks) {
      if (!subdisk.writable) this.#confirmedOut.add(subdisk.record)
    }
  }

  // For the tasks: coming in, working, going.

  /** Lets a task run, now or when the pause has ended. */
  admit(task: Admitted): void {
    if (this.#pauses > 0) {
      this.#heldBack.push(() => this.admit(task))
      return
    }
    this.#active++
    task.run()
  }

  /** A task of the error path enters the range for itself, without being at work while it waits. */
  async reenter(offset: number, length: number): Promise<LockEntry> {
    this.leaveWork()
    const entry = await this.locks.hold(offset, length, 'writes')
    await this.#comeIn()
    return entry
  }

  leaveWork(): void {
    this.#active--
    assert(this.#active >= 0, 'who leaves has come in')
    if (this.#active > 0 || this.#onIdle.length === 0) return
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  /** A read gives up its place among the others; it still works. */
  leaveRange(task: ReadTask): void {
    if (task.entry.rankBit !== 0) this.locks.leave(task.entry)
    else {
      this.#looseReads--
      this.#tellDrained()
    }
  }

  /** A read has ended, and has left its range. */
  endRead(task: ReadTask): void {
    this.#reads.push(task)
    this.leaveWork()
  }

  endChange(task: ChangeTask): void {
    if (task.rankBit !== 0) this.locks.leave(task)
    this.#changes.push(task)
    this.leaveWork()
  }

  endDirect(task: DirectTask, op: IoOp): void {
    this.#directs.push(task)
    if (op === 'read') this.#looseReads--
    else this.#looseChanges--
    this.#tellDrained()
    this.leaveWork()
  }

  /** Drives have lost their caches, and no copy of what was on them is left. False: all of it was flushed. */
  loseCache(): boolean {
    if (this.#changed <= this.#flushed) return false
    this.oweFlush()
    return true
  }

  /** What was acknowledged may be lost: the next flush says so. */
  oweFlush(): void {
    this.owed ??= lostError(this.name)
  }

  /** Changes that a flush covers which begins now. */
  get changes(): number {
    return this.#changed
  }

  /**
   * A request has ended: what it is answered with. A flush, and a change with FUA, fails once after acknowledged changes
   * may have been lost, as fsync does. One that fails because drives are away has not told of it.
   */
  answer(request: IoRequest, covered: number, error: PlexusError | undefined): typeof error {
    const { op, fua } = request
    const tells = op === 'flush' || fua
    if (error) {
      if (tells && error.kind !== 'gone') this.owed = undefined
      return error
    }
    if (op === 'flush') this.#flushed = Math.max(this.#flushed, covered)
    else if (!fua) this.#changed++
    if (!tells || !this.owed) return undefined
    const owed = this.owed
    this.owed = undefined
    return owed
  }

  #take(form: VolumeForm): void {
    const { plexes, readPolicy, preferredPlexUuid, map } = form
    this.#form = { plexes, readPolicy, preferredPlexUuid, map }
    this.#slots = plexes.map((plex) => ({ plex, inFlight: 0 }))
    this.#direct = plexes.length === 1 && !plexes[0]?.doubt && !map
  }

  #tellDrained(): void {
    if (this.#onDrained.length === 0 || (this.#looseReads > 0 && this.#looseChanges > 0)) return
    for (const resolve of this.#onDrained.splice(0)) resolve()
  }

  #comeIn(): Promise<void> {
    return new Promise((resolve) => this.admit({ run: resolve }))
  }
}

/** What the flush of a volume fails with that may have lost acknowledged writes. */
export function lostError(name: string): PlexusError {
  return new PlexusError('io', {
    op: 'flush',
    subject: name,
    message: `volume ${name}: writes that were acknowledged before the last flush may be lost: its drives went away with them in their caches; check what is on it`,
  })
}

/** Is a plex the better place to read than one before it in turn? docs/vinum.md, 7 and 9. */
const IS_BETTER: Readonly<
  Record<ReadPolicy, (one: PlexSlot, other: PlexSlot, preferredPlexUuid?: string) => boolean>
> = {
  'round-robin': () => false,
  prefer: ({ plex }, _other, preferredPlexUuid) => plex.record.uuid === preferredPlexUuid,
  'least-queue': (one, other) => one.inFlight < other.inFlight,
}
