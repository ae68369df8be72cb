/**
 * Vinum models for tests: a concise builder, edits by name, a deterministic source of randomness, and a generator of
 * sound models for properties.
 *
 *   buildModel({ drives: ['d1:64MiB', 'd2:64MiB:4096'], volumes: { db: ['concat d1:8MiB d2:8MiB', 'concat d3'] } })
 *   buildModel({ drives: …, volumes: { db: ['raid5 64KiB d1 d2 d3=stale'] } })
 *
 * A drive is NAME:SIZE[:BLOCK], a plex ORG [STRIPE [LAYOUT]] DRIVE[:SIZE][=STATE] …, a size 4 MiB unless said.
 */
import { createHash } from 'node:crypto'
import fc from 'fast-check'
import { assert, defined } from '../../src/base/assert.ts'
import { alignDown, alignUp, type ByteRange, parseSize } from '../../src/base/bytes.ts'
import { KIB, MIB } from '../../src/base/limits.ts'
import { type Random, uuidText } from '../../src/base/random.ts'
import { planAnchor } from '../../src/engine/anchor/anchor-layout.ts'
import { alignmentOf, allocate, freeExtents } from '../../src/engine/vinum/model/allocation.ts'
import {
  type DriveRecord,
  emptyModel,
  type JobRecord,
  PARITY_LAYOUTS,
  type PlexRecord,
  READ_POLICIES,
  SUBDISK_STATES,
  type SubdiskRecord,
  type SubdiskState,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../../src/engine/vinum/model/model.ts'
import { ORGANIZATIONS, type Organization } from '../../src/engine/vinum/model/plex-kinds.ts'
import { derive } from '../../src/engine/vinum/model/state-rules.ts'

/** The same UUID for the same name, in every test. */
export function uuidOf(name: string): string {
  const bytes = createHash('sha256').update(name).digest()
  bytes[6] = ((bytes[6] ?? 0) & 0x0f) | 0x40
  bytes[8] = ((bytes[8] ?? 0) & 0x3f) | 0x80
  return uuidText(bytes)
}

/** Bytes that depend on nothing but the seed and how often it was asked. */
export function seededRandom(seed = 'seed'): Random {
  let count = 0
  return {
    bytes(length) {
      const parts: Buffer[] = []
      for (let made = 0; made < length; made += 32) {
        parts.push(createHash('sha256').update(`${seed} ${count++}`).digest())
      }
      return Buffer.concat(parts).subarray(0, length)
    },
  }
}

export const EMPTY_MODEL: VinumModel = {
  ...emptyModel(uuidOf('set')),
  generation: 1,
}

export function driveRecord(name: string, mediaBytes: number, blockBytes = 512): DriveRecord {
  const { dataStartBytes, dataEndBytes } = planAnchor(mediaBytes, blockBytes)
  return {
    uuid: uuidOf(name),
    name,
    state: 'up',
    device: name,
    mediaBytes,
    blockBytes,
    dataStartBytes,
    dataEndBytes,
    last: undefined,
  }
}

export interface ModelSpec {
  readonly drives: readonly string[]
  /** Plexes of each volume, p0 first. */
  readonly volumes?: Readonly<Record<string, readonly string[]>>
}

/** A model with all derived states, every subdisk up unless said, parity valid, volumes as large as their smallest plex. */
export function buildModel(spec: ModelSpec): VinumModel {
  let model: VinumModel = {
    ...EMPTY_MODEL,
    drives: spec.drives.map((text) => {
      const [name = '', size = '', block = '512'] = text.split(':')
      return driveRecord(name, parseSize(size), Number(block))
    }),
  }
  for (const [name, plexes] of Object.entries(spec.volumes ?? {})) {
    const volume: VolumeRecord = {
      uuid: uuidOf(name),
      name,
      state: 'down',
      sizeBytes: 0,
      readPolicy: 'round-robin',
      preferredPlexUuid: undefined,
      mapSlot: model.volumes.length,
      moreMapSlots: undefined,
      mismatches: undefined,
      sparePoolUuid: undefined,
    }
    model = { ...model, volumes: [...model.volumes, volume] }
    for (const [index, text] of plexes.entries()) model = addPlex(model, volume, index, text)
    model = fitVolume(model, volume)
  }
  return derive(model)
}

function fitVolume(model: VinumModel, volume: VolumeRecord): VinumModel {
  const sizes = model.plexes
    .filter((one) => one.volumeUuid === volume.uuid)
    .map((one) => sizeOfPlex(one, subdisksOf(model, one.uuid)))
  return edit(model, volume.name, { sizeBytes: sizes.length === 0 ? 0 : Math.min(...sizes) })
}

function addPlex(model: VinumModel, volume: VolumeRecord, index: number, text: string): VinumModel {
  const words = text.split(' ')
  const first = words.shift()
  const organization = defined(
    ORGANIZATIONS.find((one) => one === first),
    `organisation of "${text}"`,
  )
  const stripeBytes = organization === 'concat' ? 0 : parseSize(words.shift() ?? '')
  const named = PARITY_LAYOUTS.find((one) => one === words[0])
  if (named) words.shift()
  const plex: PlexRecord = {
    uuid: uuidOf(`${volume.name}.p${index}`),
    name: `${volume.name}.p${index}`,
    volumeUuid: volume.uuid,
    organization,
    stripeBytes,
    parityLayout: organization === 'raid5' ? (named ?? 'left-symmetric') : undefined,
    state: 'down',
    parityValidBytes: 0,
    lost: undefined,
    growth: undefined,
  }
  let next: VinumModel = { ...model, plexes: [...model.plexes, plex] }
  for (const [column, word] of words.entries()) {
    const [place = '', state = 'up'] = word.split('=')
    const [drive = '', size = '4MiB'] = place.split(':')
    assert(
      SUBDISK_STATES.some((one) => one === state),
      `state of "${word}"`,
    )
    next = addSubdisk(next, plex, column, {
      drive,
      sizeBytes: parseSize(size),
      state: state as SubdiskState,
    })
  }
  const parityValidBytes =
    organization === 'raid5' ? sizeOfPlex(plex, subdisksOf(next, plex.uuid)) : 0
  return edit(next, plex.name, { parityValidBytes })
}

/** A subdisk at the end of the plex, in the first place where it fits. */
function addSubdisk(
  model: VinumModel,
  plex: PlexRecord,
  column: number,
  { drive, sizeBytes, state }: { drive: string; sizeBytes: number; state: SubdiskState },
): VinumModel {
  const record = defined(
    model.drives.find((one) => one.name === drive),
    `drive ${drive}`,
  )
  const before = subdisksOf(model, plex.uuid)
  const name = `${plex.name}.s${column}`
  const subdisk: SubdiskRecord = {
    uuid: uuidOf(name),
    name,
    driveUuid: record.uuid,
    plexUuid: plex.uuid,
    sizeBytes,
    driveOffsetBytes: allocate(model, record, sizeBytes),
    plexOffsetBytes:
      plex.organization === 'concat' ? sizeOfPlex(plex, before) : column * plex.stripeBytes,
    state,
    move: undefined,
    origin: undefined,
  }
  return { ...model, subdisks: [...model.subdisks, subdisk] }
}

type AnyRecord = DriveRecord | SubdiskRecord | PlexRecord | VolumeRecord

/** The record of that name. */
export function find<T extends AnyRecord = AnyRecord>(model: VinumModel, name: string): T {
  const all: readonly AnyRecord[] = [
    ...model.drives,
    ...model.subdisks,
    ...model.plexes,
    ...model.volumes,
  ]
  return defined(
    all.find((one) => one.name === name),
    name,
  ) as T
}

/** The state of the object of that name. */
export function stateOf(model: VinumModel, name: string): string {
  return find(model, name).state
}

/** The model with fields of the object of that name replaced; nothing is derived. */
export function edit(
  model: VinumModel,
  name: string,
  patch:
    | Partial<DriveRecord>
    | Partial<SubdiskRecord>
    | Partial<PlexRecord>
    | Partial<VolumeRecord>,
): VinumModel {
  find(model, name)
  const change = <T extends AnyRecord>(list: readonly T[]): readonly T[] =>
    list.map((one) => (one.name === name ? ({ ...one, ...patch } as T) : one))
  return {
    ...model,
    drives: change(model.drives),
    subdisks: change(model.subdisks),
    plexes: change(model.plexes),
    volumes: change(model.volumes),
  }
}

export function jobRecord(
  model: VinumModel,
  kind: JobRecord['kind'],
  target: string,
  patch: Partial<JobRecord> = {},
): JobRecord {
  return {
    id: `${kind}-${model.jobs.length}`,
    kind,
    targetUuid: find(model, target).uuid,
    cursorBytes: 0,
    scope: 'all',
    paused: false,
    limitBytesPerSecond: undefined,
    mismatches: 0,
    ...patch,
  }
}

/** The model with one more job; nothing is derived. */
export function withJob(
  model: VinumModel,
  kind: JobRecord['kind'],
  target: string,
  patch: Partial<JobRecord> = {},
): VinumModel {
  return { ...model, jobs: [...model.jobs, jobRecord(model, kind, target, patch)] }
}

interface PlexSeed {
  readonly organization: Organization
  readonly stripeKib: number
  readonly columns: number
  readonly units: number
  readonly drive: number
  readonly volume: number
  readonly states: readonly SubdiskState[]
  readonly parityPart: number
  readonly grows: boolean
  readonly moves: boolean
  readonly symmetric: boolean
}

const plexSeed: fc.Arbitrary<PlexSeed> = fc.record({
  organization: fc.constantFrom(...ORGANIZATIONS),
  stripeKib: fc.constantFrom(4, 16, 64, 100),
  columns: fc.integer({ min: 1, max: 6 }),
  units: fc.integer({ min: 1, max: 12 }),
  drive: fc.nat(),
  /** 3 and more: detached. */
  volume: fc.integer({ min: 0, max: 4 }),
  states: fc.array(fc.constantFrom<SubdiskState>('up', 'up', 'up', ...SUBDISK_STATES), {
    minLength: 6,
    maxLength: 6,
  }),
  parityPart: fc.constantFrom(0, 0.5, 1, 1),
  grows: fc.boolean(),
  moves: fc.boolean(),
  symmetric: fc.boolean(),
})

/** Sound models (model-check.ts) with derived states: mirrors of anything, detached objects, growth, moves, jobs. */
export const modelArbitrary: fc.Arbitrary<VinumModel> = fc
  .record({
    drives: fc.array(
      fc.record({
        mib: fc.integer({ min: 16, max: 96 }),
        blockBytes: fc.constantFrom(512, 512, 4096),
        state: fc.constantFrom<DriveRecord['state']>('up', 'up', 'up', 'down'),
      }),
      { minLength: 1, maxLength: 7 },
    ),
    plexes: fc.array(plexSeed, { maxLength: 6 }),
    policies: fc.array(fc.constantFrom(...READ_POLICIES), { minLength: 3, maxLength: 3 }),
    jobs: fc.boolean(),
  })
  .map(({ drives, plexes, policies, jobs }) => {
    let model: VinumModel = {
      ...EMPTY_MODEL,
      drives: drives.map(({ mib, blockBytes, state }, index) => ({
        ...driveRecord(`d${index}`, mib * MIB, blockBytes),
        state,
      })),
      volumes: policies.map((_, index) => ({
        uuid: uuidOf(`v${index}`),
        name: `v${index}`,
        state: 'down',
        sizeBytes: 0,
        readPolicy: 'round-robin',
        preferredPlexUuid: undefined,
        mapSlot: index,
        moreMapSlots: undefined,
        mismatches: undefined,
        sparePoolUuid: undefined,
      })),
    }
    for (const [index, seed] of plexes.entries()) model = growModel(model, index, seed, jobs)
    for (const [index, readPolicy] of policies.entries()) {
      const volume = defined(model.volumes[index], 'volume')
      const preferred = model.plexes.find((one) => one.volumeUuid === volume.uuid)
      model = fitVolume(model, volume)
      if (readPolicy !== 'prefer') model = edit(model, volume.name, { readPolicy })
      else if (preferred) {
        model = edit(model, volume.name, { readPolicy, preferredPlexUuid: preferred.uuid })
      }
    }
    return derive(model)
  })

/** One more plex, as far as there is room for it. */
function growModel(model: VinumModel, index: number, seed: PlexSeed, jobs: boolean): VinumModel {
  const volume = model.volumes[seed.volume]
  const stripeBytes = seed.organization === 'concat' ? 0 : alignDown(seed.stripeKib * KIB, 4 * KIB)
  const plex: PlexRecord = {
    uuid: uuidOf(`x${index}`),
    name: `x${index}`,
    volumeUuid: volume?.uuid,
    organization: seed.organization,
    stripeBytes,
    parityLayout:
      seed.organization === 'raid5' ? PARITY_LAYOUTS[seed.symmetric ? 1 : 0] : undefined,
    state: 'down',
    parityValidBytes: 0,
    lost: undefined,
    growth: undefined,
  }
  const sizeBytes = seed.units * (stripeBytes || 64 * KIB)
  let next: VinumModel = { ...model, plexes: [...model.plexes, plex] }
  for (let column = 0; column < seed.columns; column++) {
    const drive = defined(model.drives[(seed.drive + column) % model.drives.length], 'drive')
    if (largestExtent(next, drive).length < sizeBytes) break
    const state = seed.states[column] ?? 'up'
    next = addSubdisk(next, plex, column, { drive: drive.name, sizeBytes, state })
  }
  const subdisks = subdisksOf(next, plex.uuid)
  const fixed = seed.organization === 'raid5' ? 2 : 1
  if (seed.organization !== 'concat' && seed.grows && subdisks.length > fixed) {
    next = edit(next, plex.name, {
      growth: { columnsBefore: subdisks.length - 1, cursorBytes: 0, backup: undefined },
    })
    if (jobs) next = withJob(next, 'grow', plex.name, { paused: true, limitBytesPerSecond: MIB })
  }
  if (seed.organization === 'raid5') {
    const parityValidBytes = Math.floor(sizeOfPlex(plex, subdisks) * seed.parityPart)
    next = edit(next, plex.name, { parityValidBytes })
    if (jobs && seed.parityPart < 1) next = withJob(next, 'initialise', plex.name)
  }
  const [first] = subdisks
  const target = next.drives.find(
    (one) => one.uuid !== first?.driveUuid && largestExtent(next, one).length >= sizeBytes,
  )
  if (first && target && seed.moves) {
    const driveOffsetBytes = allocate(next, target, sizeBytes)
    assert(driveOffsetBytes % alignmentOf(target) === 0, 'aligned')
    next = edit(next, first.name, { move: { driveUuid: target.uuid, driveOffsetBytes } })
    if (jobs) next = withJob(next, 'move', first.name, { cursorBytes: 4096 })
  }
  return next
}

/** The largest free extent in whole multiples of the drive's alignment. Length 0: none. */
export function largestExtent(model: VinumModel, drive: DriveRecord): ByteRange {
  let best: ByteRange = { offset: 0, length: 0 }
  for (const one of freeExtents(model, drive)) {
    const offset = alignUp(one.offset, alignmentOf(drive))
    const length = alignDown(one.offset + one.length, alignmentOf(drive)) - offset
    if (length > best.length) best = { offset, length }
  }
  return best
}
