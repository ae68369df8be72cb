/**
 * What a device of FreeBSD's virstor becomes in place (docs/adr/0015-virstor.md), and what that asks for. Pure.
 *
 * A component keeps its chunks where they are. Its label takes what lies in front of chunk 1 and behind the last chunk
 * before the areas at the end, so physical chunk n of FreeBSD's is chunk n - 1 of ours: `startBytes` is one chunk. Data in
 * chunk 0 and behind the new end is copied to chunks that FreeBSD does not use, and so are the copies of our map. FreeBSD's
 * map on component 0, and as much again that it keeps beside it, are free when the conversion is decided on.
 */
import { assert } from '../../../base/assert.ts'
import { formatSize } from '../../../base/bytes.ts'
import { type ErrorKind, PlexusError } from '../../../base/errors.ts'
import { newUuid, type Random } from '../../../base/random.ts'
import { type AnchorLayout, planAnchor } from '../../anchor/anchor-layout.ts'
import { nameFault } from '../../geom/names.ts'
import type { DriveRecord } from '../../metadata/set-model.ts'
import type { MapTable } from '../map/chunk-map.ts'
import { JOURNAL_BLOCK_BYTES } from '../map/journal.ts'
import { chunksForPages, type Run } from '../map/layout.ts'
import { FREE, MAP } from '../map/owners.ts'
import { pagesFor } from '../map/page.ts'
import {
  CHUNK_BYTES,
  type ComponentRecord,
  type CopyRecord,
  emptyVirstor,
  MAP_COPIES,
  type VirstorModel,
} from '../model.ts'
import { usualSettings } from '../verbs/settings.ts'
import type { ImportedComponent } from './import.ts'
import { type FreebsdLabel, mapChunksOf } from './label.ts'

/** Chunks in front of ours on each component. */
export const HEAD_CHUNKS = 1

/** Numbers of chunks are FreeBSD's, from byte 0 of the component; components count from 0. */
export interface FreebsdPlace {
  readonly index: number
  readonly number: number
}

export interface ChunkMove {
  /** Of the device. */
  readonly chunk: number
  readonly from: FreebsdPlace
  readonly to: FreebsdPlace
}

export interface ConversionPlan {
  /** Generation 1. */
  readonly model: VirstorModel
  /** Of each component. */
  readonly layouts: readonly AnchorLayout[]
  readonly moves: readonly ChunkMove[]
  /** Of component 0: the configuration is kept there until the end. Free in the map. */
  readonly keptAt: number
  readonly warnings: readonly string[]
}

/** Chunks of one component that neither FreeBSD's device nor the new one uses. */
class FreeChunks {
  readonly index: number
  readonly #isFree: (number: number) => boolean
  /** Ours end here. */
  readonly end: number
  count = 0
  #next = HEAD_CHUNKS

  constructor({ label }: ImportedComponent, end: number, table: MapTable) {
    const { index } = label
    this.index = index
    this.end = end
    const mapEnd = index === 0 ? mapChunksOf(label) : 0
    this.#isFree = (number) => {
      if (number >= label.chunks) return true
      const owner = table.ownerOf({ component: index + 1, number })
      return owner === FREE || (owner === MAP && number >= mapEnd)
    }
    for (let number = HEAD_CHUNKS; number < end; number++) if (this.#isFree(number)) this.count++
  }

  /** The lowest; there is one. */
  take(): number {
    while (!this.#isFree(this.#next)) this.#next++
    assert(this.#next < this.end, 'a chunk is taken where one is free')
    this.count--
    return this.#next++
  }

  /** So many, as runs of ours. */
  takeRuns(count: number): readonly Run[] {
    const runs: { number: number; count: number }[] = []
    for (let taken = 0; taken < count; taken++) {
      const number = this.take() - HEAD_CHUNKS
      const last = runs.at(-1)
      if (last && last.number + last.count === number) last.count++
      else runs.push({ number, count: 1 })
    }
    return runs
  }
}

/**
 * The conversion of a device that is served under `name`. Throws `unsupported` for chunks that our format does not have,
 * `no-space` where a component is too small or too few chunks are free; then nothing may be written.
 */
export function planConversion(
  name: string,
  components: readonly ImportedComponent[],
  table: MapTable,
  random: Random,
): ConversionPlan {
  const [first] = components
  assert(first, 'a device has components')
  const { chunkBytes, virtualBytes } = first.label
  const fail = (kind: ErrorKind, message: string): never => {
    throw new PlexusError(kind, { op: 'convert', subject: name, message })
  }
  const fault = nameFault(name)
  if (fault !== undefined) {
    return fail('unsupported', `${name} cannot keep its name: ${fault}; copy it to a new device`)
  }
  const { unit, max } = CHUNK_BYTES
  if (chunkBytes % unit !== 0 || chunkBytes > max) {
    const has = `${name} has chunks of ${chunkBytes} bytes`
    const ours = `Plexus has multiples of ${formatSize(unit)} up to ${formatSize(max)}`
    return fail('unsupported', `${has}, and ${ours}; copy it to a new device`)
  }
  const layouts = components.map((one) => layoutOf(one, chunkBytes))
  const free = components.map((one, index) => {
    const end = Math.floor((layouts[index] as AnchorLayout).dataEndBytes / chunkBytes)
    if (end > HEAD_CHUNKS) return new FreeChunks(one, end, table)
    const { provider } = one.consumer
    const size = formatSize(provider.sizeBytes)
    return fail(
      'no-space',
      `${provider.name} (${size}) has no chunk left beside a label; copy ${name} to a new device`,
    )
  })
  const sources = components.flatMap(({ label }) =>
    inTheWay(label, (free[label.index] as FreeChunks).end, table),
  )
  const mapChunks = chunksForPages(pagesFor(virtualBytes / chunkBytes), chunkBytes)
  const need = `${mapChunks} on one component for the map, one on component 0 for the configuration, ${sources.length} on any to make room for the labels`
  const have = free.map(({ count }) => count).join(', ')
  const noSpace = (): never =>
    fail(
      'no-space',
      `a conversion of ${name} needs free chunks of ${formatSize(chunkBytes)}: ${need}; its components have ${have}; ` +
        'let FreeBSD add a component (gvirstor add), or copy it to a new device',
    )
  const [home] = free
  if (!home || home.count === 0) return noSpace()
  const keptAt = home.take() * chunkBytes
  const copies = copiesOn(free, mapChunks, sources.length)
  if (copies.length === 0) return noSpace()
  const total = free.reduce((sum, { count }) => sum + count, 0)
  if (total < sources.length) return noSpace()
  const moves = sources.map(({ chunk, from }) => ({ chunk, from, to: takeFor(from, free) }))
  const model = modelOf({ name, components, layouts, free, copies, random })
  const warnings =
    copies.length < Math.min(MAP_COPIES, components.length)
      ? [
          `there is room for one copy of the map only; plexus virstor add ${name} DEVICE makes room for another one`,
        ]
      : []
  return { model, layouts, moves, keptAt, warnings }
}

function layoutOf({ label, consumer }: ImportedComponent, chunkBytes: number): AnchorLayout {
  const layout = planAnchor(label.mediaBytes, consumer.geometry.logicalBlockBytes)
  return { ...layout, dataStartBytes: HEAD_CHUNKS * chunkBytes }
}

/** Chunks of the device that lie where the label will be. */
function inTheWay(
  { index, chunks }: FreebsdLabel,
  end: number,
  table: MapTable,
): readonly Omit<ChunkMove, 'to'>[] {
  const found: Omit<ChunkMove, 'to'>[] = []
  for (let number = 0; number < chunks; number++) {
    // Between them lies what stays.
    if (number === HEAD_CHUNKS) number = end
    if (number >= chunks) break
    const chunk = table.ownerOf({ component: index + 1, number })
    if (chunk >= 0) found.push({ chunk, from: { index, number } })
  }
  return found
}

/** On the components with the most room, so that enough is left for what is moved. */
function copiesOn(
  free: readonly FreeChunks[],
  mapChunks: number,
  moves: number,
): readonly CopyRecord[] {
  const copies: CopyRecord[] = []
  for (const one of [...free].sort((a, b) => b.count - a.count).slice(0, MAP_COPIES)) {
    const total = free.reduce((sum, { count }) => sum + count, 0)
    if (one.count < mapChunks || total - mapChunks < moves) break
    copies.push({
      component: one.index + 1,
      epoch: copies.length + 1,
      runs: one.takeRuns(mapChunks),
    })
  }
  return copies
}

/** On the same component, where it has one. */
function takeFor({ index }: FreebsdPlace, free: readonly FreeChunks[]): FreebsdPlace {
  const own = free[index]
  const home = own && own.count > 0 ? own : free.find(({ count }) => count > 0)
  assert(home, 'there are as many as are moved')
  return { index: home.index, number: home.take() }
}

function modelOf({
  name,
  components,
  layouts,
  free,
  copies,
  random,
}: {
  readonly name: string
  readonly components: readonly ImportedComponent[]
  readonly layouts: readonly AnchorLayout[]
  readonly free: readonly FreeChunks[]
  readonly copies: readonly CopyRecord[]
  readonly random: Random
}): VirstorModel {
  const setUuid = newUuid(random)
  const drives: DriveRecord[] = []
  const records: ComponentRecord[] = []
  for (const { label, consumer } of components) {
    const { mediaBytes, chunkBytes, index } = label
    const { provider } = consumer
    const layout = layouts[index] as AnchorLayout
    const { blockBytes, dataStartBytes, dataEndBytes } = layout
    const uuid = newUuid(random)
    const wanted = provider.name.slice(provider.name.lastIndexOf('/') + 1)
    const isTaken = drives.some((one) => one.name === wanted)
    drives.push({
      uuid,
      name: isTaken ? `${wanted}-${index}` : wanted,
      state: 'up',
      device: provider.name,
      mediaBytes,
      blockBytes,
      dataStartBytes,
      dataEndBytes,
      last: undefined,
    })
    records.push({
      id: index + 1,
      driveUuid: uuid,
      startBytes: HEAD_CHUNKS * chunkBytes,
      chunks: (free[index] as FreeChunks).end - HEAD_CHUNKS,
      leaving: false,
    })
  }
  const { label } = components[0] as ImportedComponent
  const journals = layouts.map(({ journal }) => journal.length)
  const empty = emptyVirstor(setUuid)
  return {
    ...empty,
    ...usualSettings({ ...empty, components: records }),
    generation: 1,
    drives,
    name,
    uuid: newUuid(random),
    virtualBytes: label.virtualBytes,
    chunkBytes: label.chunkBytes,
    blockBytes: Math.max(...drives.map(({ blockBytes }) => blockBytes)),
    policy: 'sequential',
    components: records,
    nextComponent: components.length + 1,
    copies,
    journalBlocks: Math.floor(Math.min(...journals) / JOURNAL_BLOCK_BYTES),
    nextEpoch: copies.length + 1,
    isNew: false,
  }
}
