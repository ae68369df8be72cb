/**
 * A virstor device in operation: the map and its copies, the space, the commits and the I/O path, put together over the
 * drives of its set. Made by virstor-set.ts when the configuration has been committed.
 */
import { operatingError } from '../../base/errors.ts'
import { KIB, VIRSTOR_CHUNKS, VIRSTOR_COMMIT_ENTRIES } from '../../base/limits.ts'
import { uuidBytes } from '../../base/random.ts'
import { inTurns } from '../../base/turns.ts'
import type { Watermark } from '../../control/reports.ts'
import type { DeviceEvent, Extent, Provisioning } from '../../hal/block-device.ts'
import { wwidOf } from '../geom/names.ts'
import type { Provider, ProviderInit } from '../geom/provider.ts'
import { GroupCommitter } from './io/committer.ts'
import { VirstorIo } from './io/device-io.ts'
import { Space } from './io/space.ts'
import { MapTable } from './map/chunk-map.ts'
import { lengthOf, type Run } from './map/layout.ts'
import { MapStore } from './map/map-store.ts'
import { MAP } from './map/owners.ts'
import type { VirstorModel } from './model.ts'
import { componentOf } from './running-component.ts'
import type { VirstorSet } from './virstor-set.ts'

const GRANULES_MAX = 64
/** So that a granule is whole blocks of every disk. */
const GRANULE_UNIT_BYTES = 4 * KIB

/** Parts of a chunk that are valid or not as a whole: as many as may be, each of as many units. */
export function granulesOf(chunkBytes: number): number {
  const units = chunkBytes / GRANULE_UNIT_BYTES
  let each = Math.ceil(units / GRANULES_MAX)
  while (units % each !== 0) each++
  return units / each
}

export class VirstorDevice {
  readonly table: MapTable
  readonly store: MapStore
  readonly space: Space
  readonly committer: GroupCommitter
  readonly io: VirstorIo
  readonly provider: Provider
  readonly #set: VirstorSet
  readonly #chunkBytes: number
  /** By component: where copies of the map lie, or have lain since the start. */
  readonly #runs = new Map<number, readonly Run[]>()

  /**
   * Reads the map, or writes an empty one for a new device, and offers the device. Rejects with PlexusError where that
   * cannot be done; then nothing is offered. `mayLose`: MapStore.load.
   */
  static async open(
    set: VirstorSet,
    model: VirstorModel,
    mayLose: boolean,
  ): Promise<VirstorDevice> {
    const table = tableOf(model)
    const store = new MapStore({
      subject: model.name,
      uuid: uuidBytes(model.uuid),
      table,
      carriers: model.copies.map((copy) => set.carrier(copy)),
      onCarrierFailed: (id, error) => set.loseCopy(id, error),
      onBroken: (error) => {
        if (set.assembled) set.fail(error)
      },
    })
    // Before anybody can write: what is new at the next start is written anew.
    if (model.isNew) {
      await store.format()
      await set.commit((now) => ({ ...now, isNew: false }))
    } else if (await store.load(mayLose)) set.oweMap()
    // Nothing names those any more that were given up; else giveUp sees to it.
    if (model.lost.length > 0 && model.lost.every((id) => table.usedOf(id) === 0)) {
      await set.commit((now) => ({ ...now, lost: [] }))
    }
    let device: VirstorDevice | undefined
    const space = new Space({
      ...model,
      components: model.components.map((one) => componentOf(set, one)),
      onWatermark: (watermark, isLow) => {
        if (device) device.#tellSpace(watermark, isLow)
      },
    })
    for (const { id } of model.components) {
      await inTurns(table.used(id), ([number, owner]) => {
        space.claim({ component: id, number }, owner === MAP)
      })
    }
    device = new VirstorDevice(set, model, table, store, space)
    space.changed()
    return device
  }

  private constructor(
    set: VirstorSet,
    model: VirstorModel,
    table: MapTable,
    store: MapStore,
    space: Space,
  ) {
    const { name, chunkBytes, fullWaitMs, discards } = model
    const { clock } = set
    this.#set = set
    this.#chunkBytes = chunkBytes
    this.table = table
    this.store = store
    for (const { component, runs } of model.copies) this.#runs.set(component, runs)
    this.space = space
    this.committer = new GroupCommitter({
      name,
      map: table,
      journal: store,
      clock,
      component: (id) => this.space.component(id),
      onComponentFailed: (id, error) => set.loseComponent(id, error),
      onReleased: (places) => this.io.released(places),
    })
    this.io = new VirstorIo({
      name,
      map: table,
      chunkBytes,
      space: this.space,
      committer: this.committer,
      clock,
      fullWaitMs,
      discards,
      onDiscardFailed: (id, error) => {
        set.log.warn({ err: error, component: id }, 'a component refuses discards: it gets no more')
      },
    })
    const owed = set.takeOwed()
    if (owed) this.committer.owe(owed)
    this.provider = set.topology.makeProvider(set, { name, ...this.#offer(model) })
    for (const { chunk, reason } of table.faults) {
      const text = `chunk ${chunk} of ${name} is out of service: ${reason}`
      set.topology.events.emit('critical', 'map-fault', name, text)
    }
    this.follow(model)
  }

  #offer(model: VirstorModel): Pick<ProviderInit, 'geometry' | 'identity' | 'features'> {
    const { uuid, blockBytes, chunkBytes, virtualBytes } = model
    const consumers = this.space.components.flatMap(({ component }) => component.consumer ?? [])
    const granuleBytes = chunkBytes / granulesOf(chunkBytes)
    return {
      geometry: {
        sizeBytes: virtualBytes,
        logicalBlockBytes: blockBytes,
        physicalBlockBytes: Math.max(
          blockBytes,
          ...consumers.map(({ geometry }) => geometry.physicalBlockBytes),
        ),
        alignmentOffsetBytes: 0,
        ioMinBytes: granuleBytes,
        ioOptBytes: chunkBytes,
        maxTransferBytes: 0,
      },
      identity: { wwid: wwidOf(uuid), serial: uuid, vendor: 'PLEXUS', model: 'virstor device' },
      features: {
        // Whatever the components have: a place in the map is durable after a commit only.
        volatileWriteCache: true,
        rotational: consumers.some(({ features }) => features.rotational),
        readOnly: false,
        discardGranularityBytes: granuleBytes,
        discardAlignmentBytes: 0,
        discardMaxBytes: virtualBytes,
        discardZeroes: true,
        writeZeroes: true,
      },
    }
  }

  /** A commit is durable: what leaves gets nothing new from now on, and what has grown gives more. */
  follow({ components }: VirstorModel): void {
    const { lowMark } = this.space
    for (const { id, leaving, chunks } of components) {
      const slot = this.space.components.find(({ component }) => component.id === id)
      if (slot && slot.emptying !== leaving) this.space.setEmptying(id, leaving)
      if (!slot || slot.total >= chunks) continue
      this.table.growComponent(id, chunks)
      this.space.grow(id, chunks)
    }
    if (this.space.lowMark !== lowMark) this.#tell('watermark')
  }

  /**
   * The configuration has changed: components have come, or gone, and nothing of those is in use; the device has grown, or
   * it has other settings.
   */
  reshape(model: VirstorModel): void {
    const { virtualBytes, chunkBytes } = model
    if (virtualBytes > this.provider.sizeBytes) {
      this.table.resize(virtualBytes / chunkBytes)
      const { geometry, features } = this.#offer(model)
      this.provider.update({ geometry, features })
    }
    for (const { component } of this.space.components) {
      if (!model.components.some(({ id }) => id === component.id)) this.#drop(component.id)
    }
    const { lowMark } = this.space
    this.space.policy = model.policy
    this.space.watermarks = model
    this.io.queue.waitMs = model.fullWaitMs
    this.io.trimmer.isOn = model.discards
    for (const component of model.components) {
      if (this.space.component(component.id)) continue
      this.table.addComponent(component.id, component.chunks)
      this.space.add(componentOf(this.#set, component))
    }
    this.space.changed()
    if (this.space.lowMark !== lowMark) this.#tell('watermark')
  }

  /**
   * Components are lost for good, and the configuration says so: what lies there is lost, and when this resolves the map on
   * disk says so, too. Rejects where it cannot; the next start goes on with it.
   */
  async giveUp({ lost }: VirstorModel): Promise<void> {
    for (const id of lost.filter((one) => this.table.has(one))) {
      // They are away: nothing else begins there.
      await new Promise<void>((resolve) => this.io.afterAll(resolve))
      let chunks = 0
      for (const chunk of this.table.chunksOn(id)) {
        this.table.lose(chunk)
        // Until it is durable it takes memory.
        if (++chunks % VIRSTOR_COMMIT_ENTRIES === 0) await this.#commit()
      }
      await this.#commit()
      this.table.giveUp(id)
      this.#runs.delete(id)
      if (this.space.component(id)) this.space.remove(id)
    }
  }

  async #commit(): Promise<void> {
    const failure = await this.committer.pass()
    if (failure) throw failure
  }

  get provisioning(): Provisioning {
    const { free, used, lowMark } = this.space
    return {
      pieceBytes: this.#chunkBytes,
      freePieces: free,
      usedPieces: used,
      lowPieces: lowMark,
    }
  }

  #tell(event: DeviceEvent): void {
    for (const consumer of [...this.provider.consumers]) consumer.tell(event)
  }

  #drop(id: number): void {
    for (const run of this.#runs.get(id) ?? []) this.table.unreserve(id, run)
    this.#runs.delete(id)
    this.table.removeComponent(id)
    this.space.remove(id)
  }

  /** A drive has gone, maybe with writes in its cache: what depends on them is decided now. */
  lose(): void {
    this.space.changed()
    this.committer.commitSoon()
  }

  /** GET LBA STATUS: what is valid is allocated, and what is lost, which is not zeroes. */
  extentAt(offset: number, length: number): Extent {
    const { granules } = this.table
    const granuleBytes = this.#chunkBytes / granules
    const end = offset + length
    let at = offset
    let allocated: boolean | undefined
    while (at < end) {
      const chunk = Math.floor(at / this.#chunkBytes)
      const granule = Math.floor((at % this.#chunkBytes) / granuleBytes)
      const isValid = this.table.isLost(chunk) || this.table.isValid(chunk, granule, granule)
      if (allocated !== undefined && isValid !== allocated) break
      allocated = isValid
      at = chunk * this.#chunkBytes + this.table.runEnd(chunk, granule) * granuleBytes
    }
    return { allocated: allocated ?? false, length: Math.min(at, end) - offset }
  }

  /**
   * At least so many places in which a copy of the map may lie; undefined: there are none. Nobody else gets them until the
   * next start: a component that has or had a copy, or could not take one, gets the same again, and what it lacks behind
   * them.
   */
  takeRuns(component: number, count: number): readonly Run[] | undefined {
    const had = this.#runs.get(component) ?? []
    const more = count - lengthOf(had)
    if (more <= 0) return had
    const run = this.#takeRun(component, more)
    if (!run) return undefined
    const last = had.at(-1)
    const isBehind = last !== undefined && last.number + last.count === run.number
    const runs = isBehind
      ? [...had.slice(0, -1), { number: last.number, count: last.count + run.count }]
      : [...had, run]
    this.#runs.set(component, runs)
    return runs
  }

  #takeRun(component: number, count: number): Run | undefined {
    const { chunks = 0 } = this.space.component(component) ?? {}
    for (let number = 0, free = 0; number < chunks; number++) {
      free = this.space.isFree({ component, number }) ? free + 1 : 0
      if (free < count) continue
      const run = { number: number - count + 1, count }
      this.table.reserve(component, run)
      for (let at = run.number; at <= number; at++) {
        this.space.claim({ component, number: at }, true)
      }
      return run
    }
    return undefined
  }

  /** For the end: all that was acknowledged is durable, and the next start is short. */
  async stop(): Promise<void> {
    this.io.stop()
    // What waits for its turn must have it: a pause would keep it.
    if (this.provider.error) {
      await Promise.all([...this.provider.consumers].map((consumer) => consumer.idle()))
    }
    await this.io.pause()
    // The next device may give the place of a discard to a write.
    await this.io.trimmer.ended()
    // What was lost is still to be told, by the next device.
    await this.committer.pass()
    await this.committer.stop()
    await this.store.checkpoint().catch(operatingError)
    await this.store.end()
  }

  #tellSpace(watermark: Watermark, isLow: boolean): void {
    const { topology } = this.#set
    const { name } = this.provider
    const text = isLow
      ? `space of ${name} runs out: ${freeText(this.space)}${
          watermark === 'components' ? ', and the last components are in use' : ''
        }; plexus virstor add ${name} DEVICE adds some`
      : `${name} has space again: ${freeText(this.space)}`
    topology.events.emit(isLow ? 'warning' : 'info', `space-${watermark}`, name, text)
    if (isLow && watermark === 'chunks') this.#tell('low')
  }
}

/** `12 of 400 chunks (3 %) are free`. */
export function freeText({ free, total }: Space): string {
  const percent = total === 0 ? 0 : Math.floor((100 * free) / total)
  return `${free} of ${total} chunks (${percent} %) are free`
}

function tableOf(model: VirstorModel): MapTable {
  const { virtualBytes, chunkBytes, components, copies } = model
  const chunks = virtualBytes / chunkBytes
  const table = new MapTable({ chunks, granules: granulesOf(chunkBytes) })
  for (const component of components) table.addComponent(component.id, component.chunks)
  for (const { component, runs } of copies) for (const run of runs) table.reserve(component, run)
  // Whatever chunks it had.
  for (const id of model.lost) table.addComponent(id, VIRSTOR_CHUNKS)
  return table
}
