/** A virstor device on memory devices and a {@link NaiveMap}, put together as its geom does it. */
import type { PlexusError } from '../../src/base/errors.ts'
import { MIB } from '../../src/base/limits.ts'
import { Consumer, EXCLUSIVE_ACCESS } from '../../src/engine/geom/consumer.ts'
import { DiskGeom } from '../../src/engine/geom/disk-geom.ts'
import { Provider } from '../../src/engine/geom/provider.ts'
import { type CommitMap, GroupCommitter } from '../../src/engine/virstor/io/committer.ts'
import { VirstorIo } from '../../src/engine/virstor/io/device-io.ts'
import { Space, type SpaceOptions } from '../../src/engine/virstor/io/space.ts'
import { MapTable } from '../../src/engine/virstor/map/chunk-map.ts'
import type { ChangeSet, ChunkMap, Component, Place } from '../../src/engine/virstor/runtime.ts'
import { createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { BlockDevice, DeviceFeatures } from '../../src/hal/block-device.ts'
import { ManualClock } from './manual-clock.ts'
import { MemoryDevice } from './memory-device.ts'
import { NaiveMap } from './virstor-map.ts'

export const CHUNK = 64 * 1024
export const GRANULES = 8
export const GRANULE = CHUNK / GRANULES
/** Chunk 0 of each component begins here. */
export const START = 8192
/** What is on the components before: nobody may read it. */
export const STALE = 0xee

export interface TestComponent extends Component {
  consumer: Consumer | undefined
  readonly device: MemoryDevice
}

export function consumerOf(device: BlockDevice, clock: ManualClock): Consumer {
  const geom = new DiskGeom(device.path, device)
  const { geometry, identity, features, path: name } = device
  geom.provider = new Provider(geom, { name, geometry, identity, features })
  const pool = createAlignedPool(32 * MIB)
  const consumer = new Consumer(geom.provider, undefined, 'virstor', { clock, pool })
  consumer.changeAccess(EXCLUSIVE_ACCESS)
  return consumer
}

export function testComponent(
  id: number,
  chunks: number,
  clock: ManualClock,
  features: Partial<DeviceFeatures> = {},
  chunkBytes = CHUNK,
): TestComponent {
  const sizeBytes = START + chunks * chunkBytes
  const device = new MemoryDevice({ path: `c${id}`, sizeBytes, clock, features })
  device.media.fill(STALE)
  return { id, chunks, startBytes: START, consumer: consumerOf(device, clock), device }
}

/** How a broken build differs. */
export interface Breakage {
  /** Components are not flushed: the map is durable before the data. */
  readonly noFlush?: boolean
  /** Granules count as soon as their chunk has a place. */
  readonly validAtOnce?: boolean
  /** Places are given again before the record of their release is durable. */
  readonly giveAtOnce?: boolean
  /** What a component had in its cache when it failed a flush counts all the same. */
  readonly noWithdraw?: boolean
}

export interface RigOptions extends Breakage {
  readonly chunks?: number
  readonly chunkBytes?: number
  /** Physical chunks of each component. */
  readonly physical?: readonly number[]
  readonly policy?: SpaceOptions['policy']
  readonly fullWaitMs?: number
  readonly features?: Partial<DeviceFeatures>
  /** On the shipped map instead of the naive one, which is only the journal then. */
  readonly table?: boolean
  /** Runs before a component that has failed a flush is out of service. */
  readonly onFailed?: () => Promise<void>
}

class BrokenMap extends NaiveMap {
  breakage: Breakage = {}
  give: (place: Place) => void = () => {}

  override assign(chunk: number, place: Place): void {
    super.assign(chunk, place)
    if (this.breakage.validAtOnce) this.markValid(chunk, 0, this.granules - 1)
  }

  override withdraw(set: ChangeSet, lost: ReadonlySet<number>): ChangeSet {
    return this.breakage.noWithdraw ? set : super.withdraw(set, lost)
  }

  override release(chunk: number): void {
    const place = { component: this.componentOf(chunk), number: this.numberOf(chunk) }
    super.release(chunk)
    if (!this.breakage.giveAtOnce) return
    const taken = this.takeChanges()
    this.committed(taken)
    this.failed({ ...taken, released: [] })
    this.give(place)
  }
}

class FlushlessCommitter extends GroupCommitter {
  override touched(): void {}
}

export function buildRig(options: RigOptions = {}) {
  const {
    chunks = 8,
    chunkBytes = CHUNK,
    physical = [8],
    policy = 'sequential',
    fullWaitMs = 0,
  } = options
  const clock = new ManualClock()
  const components = physical.map((count, at) =>
    testComponent(at + 1, count, clock, options.features, chunkBytes),
  )
  const map = new BrokenMap(chunks, GRANULES)
  map.breakage = options
  const table = new MapTable({ chunks, granules: GRANULES })
  for (const { id, chunks: count } of components) table.addComponent(id, count)
  const live: ChunkMap & CommitMap = options.table ? table : map
  const space = new Space({
    components,
    policy,
    chunkWatermark: 100,
    percentWatermark: 0,
    componentWatermark: 1,
    onWatermark: () => {},
  })
  map.give = (place) => space.give(place)
  const failed: [number, PlexusError][] = []
  const Kind = options.noFlush ? FlushlessCommitter : GroupCommitter
  const committer = new Kind({
    name: 'thin',
    map: live,
    journal: map,
    clock,
    component: (id) => space.component(id),
    onComponentFailed: async (id, error) => {
      await options.onFailed?.()
      failed.push([id, error])
      takeAway(id)
    },
    onReleased: (places) => io.released(places),
  })
  const io: VirstorIo = new VirstorIo({
    name: 'thin',
    map: live,
    chunkBytes,
    space,
    committer,
    clock,
    fullWaitMs,
  })
  const takeAway = (id: number): void => {
    const component = components[id - 1]
    if (component) component.consumer = undefined
  }
  const device = (at: number) => components[at]?.device as MemoryDevice
  return { clock, components, device, map, live, space, committer, io, failed, takeAway }
}

export type Rig = ReturnType<typeof buildRig>

/** What a start would read after a crash: the durable map, and what the media have. */
export function contentAfterCrash({ map, components }: Rig): Buffer {
  const bytes = Buffer.alloc(map.chunks * CHUNK)
  for (const record of map.durable.values()) {
    const { chunk, component, number, validLow } = record
    for (let granule = 0; granule < GRANULES; granule++) {
      if (((validLow >>> granule) & 1) === 0) continue
      const from = START + number * CHUNK + granule * GRANULE
      const media = components[component - 1]?.device.media
      media?.copy(bytes, chunk * CHUNK + granule * GRANULE, from, from + GRANULE)
    }
  }
  return bytes
}
