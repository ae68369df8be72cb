/**
 * A volume as its user sees it: a consumer like a logical unit's, requests under way, and the oracle that
 * judges what comes back. Made by vinum-play.ts; workload.ts sends the requests.
 */
import { defined } from '../../src/base/assert.ts'
import type { ByteRange } from '../../src/base/bytes.ts'
import type { PlexusError } from '../../src/base/errors.ts'
import type { Consumer } from '../../src/engine/geom/consumer.ts'
import type { Provider } from '../../src/engine/geom/provider.ts'
import type { IoOp, IoRequest, Lease } from '../../src/hal/block-device.ts'
import { UNKNOWN } from './answers.ts'
import { Oracle } from './oracle.ts'
import { HANG_MS, type Machine, type World } from './world.ts'

/** One request, for the history of a block. */
export interface Operation {
  readonly op: IoOp
  readonly fua: boolean
  readonly offset: number
  readonly length: number
  readonly value: number
  readonly startMs: number
  /** Changes of trouble of its unit when it was sent. */
  readonly troubles: number
  /** Did it begin on something that was given up? */
  readonly mayBeLost: boolean
  endMs: number | undefined
  result: string
}

const HISTORY_SHOWN = 30

export class Unit {
  name: string
  /** Of the volume; names change. */
  readonly uuid: string
  readonly oracle: Oracle
  readonly world: World
  consumer: Consumer | undefined
  inFlight = 0
  flushesFailed = 0
  /** Gets what a read could not give, while somebody asks. */
  unreadable: ByteRange[] | undefined
  #mayFail = false
  /** Times of trouble so far. */
  #troubles = 0
  /** Drives may have left with what was not flushed: one flush, or write with FUA, may say so later. */
  #mayOwe = false
  /** A verb that destroys it has begun. */
  doomed = false
  /** Rows that a cut now may damage as a whole: raid5 without all columns; bytes of data in a row. */
  rowsAtRisk: () => readonly number[] = () => []
  hasLog: () => boolean = () => false
  /** Data bytes in a row of raid5, as they were known last. */
  rowSizes: readonly number[] = []
  /** Drives that it lay on under its present name, as they were known last. */
  drives: ReadonlySet<string> = new Set()
  readonly #history: Operation[] = []
  #opening = false
  #onIdle: (() => void)[] = []

  /** `initial`: what it holds before it is written, as the oracle names it. */
  constructor(world: World, name: string, uuid: string, provider: Provider, initial = UNKNOWN) {
    this.world = world
    this.name = name
    this.uuid = uuid
    this.oracle = new Oracle(provider.sizeBytes, provider.blockBytes, world.oracleClock, initial)
    world.units.add(this)
  }

  /** More is broken than its redundancy bears: errors are right, wrong data never. */
  get mayFail(): boolean {
    return this.#mayFail
  }

  set mayFail(value: boolean) {
    if (value !== this.#mayFail) this.#troubles++
    this.#mayOwe ||= value
    this.#mayFail = value
  }

  providerEvent(machine: Machine, provider: Provider, event: 'arrived' | 'gone'): void {
    if (event === 'gone' && this.consumer?.provider === provider) void this.close()
    if (event === 'arrived' && provider.name === this.name) void this.open(machine)
  }

  /** Attaches to the provider of its name, if there is one. */
  async open(machine: Machine): Promise<void> {
    if (this.#opening) return
    this.#opening = true
    await machine.topology.change(async () => {
      this.#opening = false
      const provider = machine.topology.providers.get(this.name)
      if (this.world.machine !== machine || this.consumer || !provider || provider.error) return
      const { sizeBytes } = this.oracle
      if (provider.sizeBytes < sizeBytes) {
        this.world.fail(`${this.name} has shrunk from ${sizeBytes} to ${provider.sizeBytes} bytes`)
        return
      }
      const access = { read: 1, write: 1, exclusive: 1 }
      this.consumer = machine.topology.attach(provider, undefined, `unit ${this.name}`, access)
      this.#resized()
      this.consumer.onEvent((what) => {
        if (what === 'resized' && this.world.machine === machine) this.#resized()
      })
    })
  }

  #resized(): void {
    const size = this.consumer?.provider.sizeBytes ?? 0
    if (size > this.oracle.sizeBytes) this.oracle.grow(size)
  }

  async close(): Promise<void> {
    const { consumer } = this
    this.consumer = undefined
    await consumer?.close()
  }

  /** The machine is dead. */
  drop(): void {
    this.consumer = undefined
    this.#opening = false
    this.inFlight = 0
    for (const one of this.#history) if (one.endMs === undefined) this.#end(one, 'cut off')
    for (const resolve of this.#onIdle.splice(0)) resolve()
  }

  /**
   * The RAID5 write hole: without all columns, a row that is half written loses the missing column's content,
   * whoever wrote it and when. A log closes it: no cut takes anything from such a plex, and none is a reason for an error.
   */
  beforeCut(): void {
    if (this.hasLog()) return
    const rows = this.rowsAtRisk()
    this.damageRows(rows)
    // And what the disk in trouble cannot give cannot be computed from parity in doubt.
    if (rows.length > 0) this.mayFail = true
  }

  /** The process was killed, and the disks go on. */
  afterKill(): void {
    this.oracle.killed()
  }

  /** A disk has lost its cache, without a power cut. */
  afterCacheLost(): void {
    if (this.mayFail) this.oracle.cut(false)
  }

  /**
   * Rows of these sizes with writes that are not durable, or with one of `ranges`, have unknown content until all is whole: not even always the
   * same one, as parity tells another than the column that it stands for when that one is lost.
   */
  damageRows(rowSizes: readonly number[], ranges?: Iterable<ByteRange>): void {
    const { oracle } = this
    if (rowSizes.length === 0) return
    const rows = new Map<string, ByteRange>()
    for (const { offset } of ranges ?? oracle.unsettledRanges()) {
      for (const rowBytes of rowSizes) {
        const start = Math.floor(offset / rowBytes) * rowBytes
        const length = Math.min(rowBytes, oracle.sizeBytes - start)
        rows.set(`${start} ${length}`, { offset: start, length })
      }
    }
    for (const { offset, length } of rows.values()) oracle.damage({ offset, length })
  }

  /** Is a request under way that was sent by then? */
  waitsSince(ms: number): boolean {
    return this.#history.some(({ startMs, endMs }) => startMs <= ms && endMs === undefined)
  }

  /** Resolves when nothing is under way. */
  async idle(): Promise<void> {
    if (this.inFlight > 0) await new Promise<void>((resolve) => this.#onIdle.push(resolve))
  }

  /** Sends one request and judges its end; false when it could not be sent now. */
  send(op: IoOp, offset: number, length: number, fua: boolean): boolean {
    const { world, consumer, oracle } = this
    const { machine } = world
    if (!machine || !consumer) return false
    const moves = op === 'read' || op === 'write'
    const lease = moves ? machine.pool.lease(length) : undefined
    if (moves && !lease) return false
    const read = op === 'read' ? oracle.beginRead(offset, length) : undefined
    const flush = op === 'flush' ? oracle.beginFlush() : undefined
    const change =
      op === 'write'
        ? oracle.beginWrite(offset, defined(lease, 'a buffer').bytes)
        : op === 'write-zeroes' || op === 'discard'
          ? oracle.beginZeroes(
              offset,
              length,
              op === 'write-zeroes' || consumer.features.discardZeroes,
            )
          : undefined
    const entry = this.#begin(op, offset, length, fua, change?.write.value ?? 0)
    const finish = (error: PlexusError | undefined): string | undefined => {
      if (change) oracle.endWrite(change, !error, fua)
      if (flush) oracle.endFlush(flush, !error)
      if (flush && error) this.flushesFailed++
      if (!read) return undefined
      if (error) this.unreadable?.push({ offset, length })
      const wrong = oracle.endRead(read, error ? undefined : lease?.bytes)
      if (!wrong) return undefined
      const where = `${this.name}: read of ${length} bytes at ${offset}, block ${wrong.block}`
      world.fail(
        `${where}: found ${wrong.found}; allowed: ${wrong.allowed.join(', ')}`,
        this.history(wrong.block),
      )
      return 'WRONG DATA'
    }
    this.#submit(machine, consumer, lease, { op, offset, length, fua }, entry, finish)
    return true
  }

  #submit(
    machine: Machine,
    consumer: Consumer,
    lease: Lease | undefined,
    wanted: Pick<IoRequest, 'op' | 'offset' | 'length' | 'fua'>,
    entry: Operation,
    finish: (error: PlexusError | undefined) => string | undefined,
  ): void {
    const { world } = this
    const watch = world.scheduler.after(HANG_MS, () => {
      if (world.machine === machine) world.fail(`${this.name}: ${describe(entry)} never ends`)
    })
    let within = true
    let ended = false
    this.inFlight++
    consumer.submit({
      ...wanted,
      data: lease,
      dataOffset: 0,
      cause: 'initiator',
      complete: (error) => {
        if (world.machine !== machine) return
        if (within) world.fail(`${this.name}: ${describe(entry)} completed from within submit`)
        if (ended) world.fail(`${this.name}: ${describe(entry)} completed twice`)
        ended = true
        watch.cancel()
        const wrong = finish(error)
        lease?.release()
        this.#end(entry, wrong ?? (error ? `${error.kind}: ${error.message}` : 'ok'))
        const tellsOfLoss = error?.message.includes('may be lost') === true
        // As with fsync, what was not durable stays in danger, whatever a later flush says.
        if (tellsOfLoss) this.oracle.cut(false)
        const isOwed = this.#mayOwe && tellsOfLoss
        if (isOwed) this.#mayOwe = false
        if (error && !isOwed && !this.mayEnd(error, entry) && entry.troubles === this.#troubles) {
          world.fail(`${this.name}: an error reached the user: ${describe(entry)}`)
        }
        this.inFlight--
        if (this.inFlight === 0) for (const resolve of this.#onIdle.splice(0)) resolve()
      },
    })
    within = false
  }

  /** Is this error right? An initiator repeats a read whose buffer a disk that hangs may still write to. */
  protected mayEnd(error: PlexusError, _operation: Operation): boolean {
    const mustRepeat = error.kind === 'aborted' && this.world.disks.some(({ hangs }) => hangs)
    return this.mayFail || mustRepeat
  }

  #begin(op: IoOp, offset: number, length: number, fua: boolean, value: number): Operation {
    const { world } = this
    const entry: Operation = {
      op,
      fua,
      offset,
      length,
      value,
      startMs: world.nowMs,
      troubles: this.#troubles,
      mayBeLost: this.oracle.mayBeLost(offset, length),
      endMs: undefined,
      result: 'under way',
    }
    this.#history.push(entry)
    world.counts.operations++
    world.trace.add(world.nowMs, this.name, op, offset, length, value > 0 ? `#${value}` : '')
    return entry
  }

  #end(entry: Operation, result: string): void {
    const { world } = this
    entry.endMs = world.nowMs
    entry.result = result
    world.trace.add(world.nowMs, this.name, `${entry.op} ends`, entry.offset, entry.length, result)
  }

  *outstanding(): Generator<string> {
    for (const one of this.#history) {
      if (one.endMs === undefined) yield `${this.name}: ${describe(one)}`
    }
  }

  /** What was done to a block, oldest first; only the newest lines. */
  history(block: number): string[] {
    const at = block * this.oracle.blockBytes
    const touching = this.#history.filter(
      ({ op, offset, length }) => op === 'flush' || (at >= offset && at < offset + length),
    )
    return touching.slice(-HISTORY_SHOWN).map(describe)
  }
}

function describe(one: Operation): string {
  const what = `${one.op}${one.fua ? ' fua' : ''}${one.value > 0 ? ` #${one.value}` : ''}`
  const when = `${one.startMs.toFixed(3)} .. ${one.endMs?.toFixed(3) ?? '?'} ms`
  return `${when}: ${what} ${one.offset} +${one.length}: ${one.result}`
}
