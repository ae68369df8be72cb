/**
 * The configuration of a virstor device as data: an immutable snapshot (docs/adr/0015-virstor.md). What changes with
 * writes, the chunk map, is not in it, but where its copies lie is.
 */
import { KIB, MIB, VIRSTOR_CHUNKS } from '../../base/limits.ts'
import { VIRSTOR_JOB_KINDS } from '../../control/reports.ts'
import { flag, list, maybe, oneOf, type RecordOf, record, text, whole } from '../metadata/fields.ts'
import { byUuid } from '../metadata/lists.ts'
import { type DriveRecord, emptySet, SET } from '../metadata/set-model.ts'
import { chunksForPages } from './map/layout.ts'
import { pagesFor } from './map/page.ts'

export const POLICIES = ['sequential', 'round-robin'] as const
/** What a component that is missing takes with it: what lies there, or the whole device. */
export const ON_MISSING = ['chunks', 'device'] as const

/** Sizes that a chunk may have: multiples of the unit. */
export const CHUNK_BYTES = { unit: 128 * KIB, max: 64 * MIB }
/** Copies of the map: more would only make each commit slower. */
export const MAP_COPIES = 2

const COMPONENT = {
  /** From 1; stable, and never given again while the device lives: entries of the map name it. */
  id: whole,
  driveUuid: text,
  /** Where physical chunk 0 begins, absolute on the drive. */
  startBytes: whole,
  /** Physical chunks that it has. */
  chunks: whole,
  /** It is being emptied: nothing new goes there. */
  leaving: flag,
}
export type ComponentRecord = RecordOf<typeof COMPONENT>

/** A copy of the map on one component, which is a carrier by that: its journal is written, too. */
const COPY = {
  component: whole,
  /** Pages and blocks of another epoch are not of this copy. */
  epoch: whole,
  /** Physical chunks that the pages lie in, in order; there may be more of them than the map needs. */
  runs: list(record({ number: whole, count: whole })),
}
export type CopyRecord = RecordOf<typeof COPY>

/**
 * Long work on the chunks, one at a time (moves/set-job.ts). What is left of it the map says: a start goes on with it.
 * evacuate: empties the components that are leaving, which then go. rebalance: fills all evenly.
 */
const JOB = {
  kind: oneOf(VIRSTOR_JOB_KINDS),
  paused: flag,
  limitBytesPerSecond: maybe(whole),
}
export type JobRecord = RecordOf<typeof JOB>

export const VIRSTOR = {
  ...SET,
  /** Of the device that it serves. */
  name: text,
  uuid: text,
  virtualBytes: whole,
  chunkBytes: whole,
  /** Logical block that initiators see: that of the component with the largest at creation. It never changes. */
  blockBytes: whole,
  policy: oneOf(POLICIES),
  /** How long the device may be full before writes fail, ms. 0: at once. */
  fullWaitMs: whole,
  /** Space is low with so many free chunks, so many percent of all, or so many components that are still empty. */
  chunkWatermark: whole,
  percentWatermark: whole,
  componentWatermark: whole,
  /** Discard on the components what is free again. */
  discards: flag,
  onMissing: oneOf(ON_MISSING),
  components: list(record(COMPONENT)),
  /** Ids of components that were given up, while entries of the map may name them: what they have there is lost. */
  lost: list(whole),
  /** The id of the next component. */
  nextComponent: whole,
  copies: list(record(COPY)),
  /** The ring of the journal on each carrier, blocks of 4 KiB. */
  journalBlocks: whole,
  /** The epoch of the next copy. */
  nextEpoch: whole,
  /** The map has not been written yet: it is when this is false, durably. */
  isNew: flag,
  job: maybe(record(JOB)),
}
export interface VirstorModel extends RecordOf<typeof VIRSTOR> {}

/** The configuration of a set that has no device yet. */
export function emptyVirstor(setUuid: string): VirstorModel {
  return {
    ...emptySet(setUuid),
    name: '',
    uuid: '',
    virtualBytes: 0,
    chunkBytes: 0,
    blockBytes: 0,
    policy: 'sequential',
    fullWaitMs: 0,
    chunkWatermark: 0,
    percentWatermark: 0,
    componentWatermark: 0,
    discards: true,
    onMissing: 'chunks',
    components: [],
    lost: [],
    nextComponent: 1,
    copies: [],
    journalBlocks: 0,
    nextEpoch: 1,
    isNew: true,
    job: undefined,
  }
}

export function driveOf(
  model: VirstorModel,
  { driveUuid }: ComponentRecord,
): DriveRecord | undefined {
  return byUuid(model.drives, driveUuid)
}

/** Physical chunks that fit between the start of a component and the end of the data area of its drive. */
export function chunksIn(
  { dataEndBytes }: Pick<DriveRecord, 'dataEndBytes'>,
  { startBytes }: Pick<ComponentRecord, 'startBytes'>,
  { chunkBytes }: Pick<VirstorModel, 'chunkBytes'>,
): number {
  return Math.min(VIRSTOR_CHUNKS, Math.floor((dataEndBytes - startBytes) / chunkBytes))
}

/** Is the component there, by the configuration? */
export function isUp(model: VirstorModel, component: ComponentRecord): boolean {
  return driveOf(model, component)?.state === 'up'
}

/** Physical chunks that one copy of the map takes. */
export function mapChunks({
  virtualBytes,
  chunkBytes,
}: Pick<VirstorModel, 'virtualBytes' | 'chunkBytes'>): number {
  return chunksForPages(pagesFor(virtualBytes / chunkBytes), chunkBytes)
}
