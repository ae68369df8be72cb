/**
 * The I/O path of a virstor device (docs/adr/0015-virstor.md). Reads hold nothing: they take the place from the map, and
 * epochs.ts keeps it from being given to another chunk before they end. What changes something holds its range
 * (geom/range-lock.ts). read-task.ts and change-task.ts carry requests out; they are recycled, so that a request that
 * lies on one component in one piece makes one object, the clone that the consumer needs.
 *
 * Of the device's features: it has a volatile cache whatever its components have, because the map is durable only after
 * a commit; what is discarded reads as zeroes.
 */
import { assert } from '../../../base/assert.ts'
import { alignDown } from '../../../base/bytes.ts'
import type { Clock } from '../../../base/clock.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_ZERO_BYTES } from '../../../base/limits.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import type { AlignedBuffer, IoOp, IoRequest } from '../../../hal/block-device.ts'
import { RangeLock } from '../../geom/range-lock.ts'
import { keyOf } from '../map/owners.ts'
import type { ChunkMap, Place } from '../runtime.ts'
import { ChangeTask } from './change-task.ts'
import { clearAroundLost } from './clear-lost.ts'
import type { GroupCommitter } from './committer.ts'
import { Epochs } from './epochs.ts'
import { GranuleFill } from './granule-fill.ts'
import { ReadTask } from './read-task.ts'
import { Runs } from './runs.ts'
import type { Space } from './space.ts'
import { SpaceQueue, type WaitAnswer } from './space-queue.ts'
import { Trimmer } from './trimmer.ts'

export interface VirstorIoOptions {
  readonly name: string
  readonly map: ChunkMap
  readonly chunkBytes: number
  readonly space: Space
  readonly committer: GroupCommitter
  readonly clock: Clock
  /** How long the device may be full before writes fail with `no-space`. 0: they fail at once. */
  readonly fullWaitMs: number
  /** Discard on the components what is free again. */
  readonly discards: boolean
  /** A component has refused a discard. */
  readonly onDiscardFailed?: (id: number, error: PlexusError) => void
}

export class VirstorIo {
  readonly name: string
  // Only for the tasks.
  readonly map: ChunkMap
  readonly space: Space
  readonly committer: GroupCommitter
  readonly runs: Runs
  readonly locks = new RangeLock()
  readonly queue: SpaceQueue
  readonly trimmer: Trimmer
  /** Writes under way that fill granules of a chunk, by chunk: it keeps its place until they have ended. */
  readonly filling = new Map<number, number>()
  /** First writes that others may join in this turn of the event loop, by the start of their granule. */
  readonly #fills = new Map<number, GranuleFill>()
  readonly #epochs = new Epochs()
  /** How often a component has lost what it had acknowledged: what was read from it meanwhile is nothing. */
  losses = 0
  /** Places that chunks have let go, and that are not free yet. */
  #coming = 0
  /** Places that the durable map refers to no more, and requests may, by {@link keyOf}. */
  readonly #draining = new Set<number>()
  #hasEnded = false
  #pauses = 0
  /** What came or was let in while the device paused, in order. */
  #heldBack: (() => void)[] = []
  #onIdle: (() => void)[] = []
  readonly #reads: ReadTask[] = []
  readonly #changes: ChangeTask[] = []
  #zeroes: AlignedBuffer | undefined

  constructor(options: VirstorIoOptions) {
    this.name = options.name
    this.map = options.map
    this.space = options.space
    this.committer = options.committer
    this.runs = new Runs(options.map, options.chunkBytes)
    this.queue = new SpaceQueue(options.clock, options.fullWaitMs)
    const { space, chunkBytes, clock, discards, onDiscardFailed: onFailed = () => {} } = options
    this.trimmer = new Trimmer({ space, chunkBytes, clock, onFailed }, discards)
    this.space.onFree = () => this.queue.retry()
  }

  /** Requests that work on the components now. Those that wait for a range, for space, or for a commit do not. */
  get active(): number {
    return this.#epochs.size
  }

  /** Writes that wait for space. */
  get waiting(): number {
    return this.queue.size
  }

  /** Begins a request of the device's provider; range and access have been checked. */
  start(request: IoRequest): void {
    if (this.#pauses > 0) this.#heldBack.push(() => this.start(request))
    else if (request.length === 0) {
      if (request.op === 'flush') void this.#endDurably(request)
      else queueMicrotask(() => request.complete(undefined))
    } else if (request.op === 'read') {
      const task = this.#reads.pop() ?? new ReadTask(this)
      task.begin(request)
    } else if (request.op !== 'write' && this.map.lostChunks > 0) {
      clearAroundLost(this, request)
    } else this.change(request)
  }

  /** A write, or what clears whole granules of chunks of which nothing is lost, or whole chunks. */
  change(request: IoRequest): void {
    if (this.#pauses > 0) this.#heldBack.push(() => this.change(request))
    else {
      const task = this.#changes.pop() ?? new ChangeTask(this)
      task.begin(request)
    }
  }

  /**
   * Keeps changes off a range, waits for those in flight there, and resolves to the way to let go. First come, first
   * served. Whoever holds one must not wait for another one that overlaps.
   */
  async lock(offset: number, length: number): Promise<() => void> {
    const entry = await this.locks.hold(offset, length, 'writes')
    return () => this.locks.leave(entry)
  }

  /**
   * New requests wait from now on; resolves when none works on the components. A commit may be under way, or begin.
   * Nobody may wait for {@link lock} between pause and resume.
   */
  async pause(): Promise<void> {
    this.#pauses++
    if (this.active === 0) return
    await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  resume(): void {
    assert(this.#pauses > 0, 'what resumes has paused')
    if (--this.#pauses > 0) return
    const held = this.#heldBack
    this.#heldBack = []
    for (const go of held) go()
  }

  /** The durable map refers to the places no more: they are free when those have ended who may still use them. */
  released(places: readonly Place[]): void {
    for (const place of places) this.#draining.add(keyOf(place))
    this.#epochs.afterAll(() => {
      this.#coming = Math.max(0, this.#coming - places.length)
      for (const place of places) {
        this.#draining.delete(keyOf(place))
        this.space.give(place)
      }
      this.trimmer.add(places)
    })
  }

  /** Is it free as soon as requests have ended that may still use it? */
  isDraining(place: Place): boolean {
    return this.#draining.has(keyOf(place))
  }

  /** Calls `done` when all have ended that are under way now, and what was {@link released} before is free. */
  afterAll(done: () => void): void {
    this.#epochs.afterAll(done)
  }

  /** A component serves no more, and is not gone: reads that are under way begin anew. */
  lost(): void {
    this.losses++
  }

  /** The device ends: writes that wait for space fail. */
  stop(): void {
    this.#hasEnded = true
    this.trimmer.stop()
    this.queue.end()
  }

  // For the tasks.

  /** Lets a task run, now or when the pause has ended. */
  admit(task: ChangeTask): void {
    if (this.#pauses > 0) this.#heldBack.push(() => this.admit(task))
    else task.run()
  }

  /** It works on components from now on. */
  enter(): number {
    return this.#epochs.enter()
  }

  leave(epoch: number): void {
    this.#epochs.leave(epoch)
    if (this.#onIdle.length === 0 || this.active > 0) return
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  endRead(task: ReadTask): void {
    this.#reads.push(task)
  }

  /** Completes a change, when it is durable where that is asked for. */
  endChange(
    task: ChangeTask,
    request: IoRequest,
    error: PlexusError | undefined,
    commits: boolean,
  ): void {
    this.#changes.push(task)
    if (commits && !error) void this.#endDurably(request)
    else request.complete(error)
  }

  async #endDurably(request: IoRequest): Promise<void> {
    let error: PlexusError | undefined
    try {
      await this.committer.commit()
    } catch (failure) {
      error = operatingError(failure)
    }
    request.complete(error)
  }

  /**
   * Does the component serve? All of a chunk fails while it does not, also what is not valid: that may have been so, and
   * acknowledged, before its cache was lost.
   */
  isPresent(id: number): boolean {
    return this.space.component(id)?.consumer !== undefined
  }

  /** Sends a piece of a task to a component. Undefined: it is under way. */
  send(
    task: IoRequest,
    id: number,
    address: number,
    length: number,
    dataOffset: number,
  ): PlexusError | undefined {
    const component = this.space.component(id)
    const consumer = component?.consumer
    if (!component || !consumer) return this.away(task.op, id)
    consumer.forward(task, component.startBytes + address, length, dataOffset)
    return undefined
  }

  /** What a write may join, which is a part of a granule. */
  fillFor({ op, offset, length }: IoRequest): GranuleFill | undefined {
    if (op !== 'write' || this.#fills.size === 0) return undefined
    const fill = this.#fills.get(alignDown(offset, this.runs.granuleBytes))
    return fill?.takes(offset, offset + length) ? fill : undefined
  }

  /** For a write that holds its granule, and is a part of it: others may join until the turn ends. */
  beginFill(write: ChangeTask): GranuleFill | undefined {
    const { granuleBytes } = this.runs
    const start = alignDown(write.start, granuleBytes)
    const end = start + granuleBytes
    if (write.end > end || write.end - write.start === granuleBytes) return undefined
    const fill = new GranuleFill(write, start, end)
    this.#fills.set(start, fill)
    setImmediate(() => {
      this.#fills.delete(start)
      fill.send()
    })
    return fill
  }

  /** Places for a write, which is the next one in line; undefined: it has to wait. */
  places(task: ChangeTask, count: number): readonly Place[] | undefined {
    if (count === 0) return []
    const places = this.queue.mayTake(task) ? this.space.take(count) : undefined
    if (places) this.queue.taken()
    return places
  }

  waitForSpace(task: ChangeTask): WaitAnswer {
    return this.queue.wait(task, this.#coming > 0)
  }

  /** Nothing of the chunk is valid any more: its place is free after a commit. */
  release(chunk: number): void {
    this.map.release(chunk)
    this.#coming++
  }

  /** Released places come back with the next commit, which does not wait for its time while space is short. */
  commitWhenShort(): void {
    if (this.queue.size > 0 || this.space.isLow('chunks')) this.committer.commitSoon()
  }

  /** A chunk that is all zero goes, with its place. Whoever calls keeps changes off it ({@link lock}). False: it stays. */
  releaseChunk(chunk: number): boolean {
    if (this.filling.has(chunk)) return false
    this.map.markInvalid(chunk, 0, this.map.granules - 1)
    this.release(chunk)
    this.committer.changed(1)
    this.commitWhenShort()
    return true
  }

  /** A buffer of zeroes that nobody writes to. */
  get zeroes(): AlignedBuffer {
    this.#zeroes ??= allocateAligned(Math.min(this.runs.granuleBytes, VIRSTOR_ZERO_BYTES))
    return this.#zeroes
  }

  away(op: IoOp, id: number): PlexusError {
    if (!this.space.component(id)) {
      return new PlexusError('corrupt', {
        op,
        subject: this.name,
        message: `virstor ${this.name}: the entry of the map for this part of it cannot be right, so it is out of service; the log has the entries, restore it from a backup`,
      })
    }
    return new PlexusError('gone', {
      op,
      subject: this.name,
      message: `virstor ${this.name}: component ${id}, which has this part of it, is missing; connect it again`,
    })
  }

  /** What was on a component that was given up, and has not been written since: a medium error. */
  lostPart(op: IoOp, offset: number): PlexusError {
    const chunk = this.runs.chunkOf(offset)
    const message =
      `virstor ${this.name}: chunk ${chunk} was on a component that was given up, and this part of it is lost; write it again ` +
      `in whole granules of ${this.runs.granuleBytes} bytes, or discard it`
    return new PlexusError('corrupt', { op, subject: this.name, message })
  }

  /** TASK SET FULL: the initiator keeps its data, and sends it again. */
  crowded(): PlexusError {
    const { size } = this.queue
    const message = `virstor ${this.name} is full, and ${size} writes wait for space already; this one is to be sent again`
    return new PlexusError('exhausted', { op: 'write', subject: this.name, message })
  }

  /** Why a write that has waited for space, or might have, has none. */
  full(need: number): PlexusError {
    if (this.#hasEnded) return this.#ended()
    const { free } = this.space
    return new PlexusError('no-space', {
      op: 'write',
      subject: this.name,
      message: `virstor ${this.name} is full: a write needs ${need} physical chunks and ${free} are free; add a component (plexus virstor add ${this.name} DEVICE), or discard what is not needed`,
    })
  }

  #ended(): PlexusError {
    const message = `virstor ${this.name} is not served any more; plexus status says why`
    return new PlexusError('gone', { op: 'write', subject: this.name, message })
  }
}
