/**
 * Trouble that no disk reports: metadata that has changed by itself, and writes of metadata that went to another
 * place of the disk or nowhere, reported as done. The engine has checksums and two places there, and the other disks:
 * it must serve nothing wrong for it, lose no set and not crash. Chosen by faults.ts.
 */
import type { ByteRange } from '../../src/base/bytes.ts'
import type { Timer } from '../../src/base/clock.ts'
import { crc32c } from '../../src/base/crc32c.ts'
import { decodeSlotHeader } from '../../src/engine/anchor/anchor-codec.ts'
import { planAnchor, SLOT_HEADER_ROOM_BYTES } from '../../src/engine/anchor/anchor-layout.ts'
import type { SimDisk } from './disk.ts'
import type { SimRandom } from './random.ts'
import type { World } from './world.ts'
import type { Spot, Wounds } from './wounds.ts'

/** What happens at once; what it returns may happen later, unless the disk is repaired before. */
export type Fault = (
  disk: SimDisk,
  random: SimRandom,
  world: World,
  wounds: Wounds,
) => undefined | Timer

const MAP_BLOCK_BYTES = 4096
/** Slots and journal are used from their beginning; what they hold is seldom longer. */
const HEAD_BYTES = 8192

/** Where something is written, in the tail of a disk (docs/on-disk-format.md). */
function places({
  options,
  sizeBytes,
}: SimDisk): readonly (readonly [number, string, ByteRange])[] {
  const { blockBytes } = options
  const { slots, map, journal } = planAnchor(sizeBytes, blockBytes)
  const head = (range: ByteRange): ByteRange => ({ offset: range.offset, length: HEAD_BYTES })
  return [
    [3, 'anchor', { offset: sizeBytes - blockBytes, length: blockBytes }],
    [3, 'slot A', head(slots[0])],
    [3, 'slot B', head(slots[1])],
    // The pairs of the volumes that a run has.
    [3, 'map', { offset: map.offset, length: 8 * MAP_BLOCK_BYTES }],
    [1, 'journal', head(journal)],
  ]
}

function choosePlace(disk: SimDisk, random: SimRandom): { name: string; range: ByteRange } {
  return random.weighted(
    places(disk).map(([weight, name, range]) => [weight, { name, range }] as const),
  )
}

/** What a sector has become. */
const DECAYS: readonly ((old: Buffer, disk: SimDisk, random: SimRandom) => Buffer)[] = [
  (old, _disk, random) => random.bytes(old.length),
  (old) => Buffer.alloc(old.length),
  (old, _disk, random) => {
    const changed = Buffer.from(old)
    const at = random.below(random.chance(0.5) ? 64 : old.length)
    changed.writeUInt8(changed.readUInt8(at) ^ (1 << random.below(8)), at)
    return changed
  },
  // As a write does that was for another place, once.
  (old, disk, random) => {
    const { range } = choosePlace(disk, random)
    return Buffer.from(disk.media.content.subarray(range.offset, range.offset + old.length))
  },
]

function corrupt(disk: SimDisk, random: SimRandom, world: World): undefined {
  const { blockBytes } = disk.options
  const { name, range } = choosePlace(disk, random)
  // The first sector says what the others are.
  const count = range.length / blockBytes
  const first = random.chance(0.5) ? 0 : random.below(count)
  const last = random.chance(0.5) ? first : Math.min(count - 1, first + random.below(8))
  const decay = random.pick(DECAYS)
  for (let sector = first; sector <= last; sector++) {
    const offset = range.offset + sector * blockBytes
    const old = disk.media.content.subarray(offset, offset + blockBytes)
    disk.media.harm(offset, decay(old, disk, random))
  }
  world.note('corrupted', `${disk.name}, ${name}`, first, last - first + 1)
}

/**
 * One of its two configurations cannot be read any more. Not where a power cut has just torn the other one: a drive that
 * has none left does not tell what it had, and comes back by the operator's word alone.
 */
export function harmSlot(disk: SimDisk, random: SimRandom, world: World): void {
  const slots = places(disk).filter(([, name]) => name.startsWith('slot'))
  if (!slots.every(([, , { offset }]) => isReadable(disk, offset))) return
  const [, name, { offset }] = random.pick(slots)
  const { blockBytes } = disk.options
  disk.media.harm(offset, random.bytes(blockBytes))
  world.note('corrupted', `${disk.name}, ${name}`, offset, blockBytes)
}

/** Is there a slot with its configuration? */
function isReadable(disk: SimDisk, offset: number): boolean {
  const { content } = disk.media
  const at = offset + SLOT_HEADER_ROOM_BYTES
  const header = decodeSlotHeader(content.subarray(offset, at), disk.name)
  if (!header) return false
  return crc32c(content.subarray(at, at + header.payloadBytes)) === header.payloadCrc
}

/** The next write to the place does not get there. */
function misdirect(disk: SimDisk, random: SimRandom, world: World): undefined {
  const { name, range } = choosePlace(disk, random)
  const { blockBytes, sizeBytes } = disk.options
  const to = random.chance(0.7) ? choosePlace(disk, random) : undefined
  disk.faults.misdirect = (offset, length) => {
    if (offset < range.offset || offset >= range.offset + range.length) return undefined
    const room = sizeBytes - length
    const wanted = to && to.range.offset + random.below(to.range.length / blockBytes) * blockBytes
    const place = wanted === undefined || wanted === offset ? 'nowhere' : Math.min(wanted, room)
    world.note(
      'misdirected',
      `${disk.name}, ${name}, to ${to?.name ?? ''} ${place}`,
      offset,
      length,
    )
    return place
  }
}

/** The engine looks at metadata when a disk comes, so it goes and comes with what is wrong now. */
function andReplugged(fault: Fault): Fault {
  return (disk, random, world, wounds) => {
    const { machine, scheduler } = world
    fault(disk, random, world, wounds)
    if (random.chance(0.5)) return undefined
    return scheduler.after(random.exponential(20), () => {
      if (world.machine !== machine || !disk.present) return
      world.unplug(disk, random.chance(0.5))
      scheduler.after(random.exponential(20), () => {
        if (world.machine === machine && !disk.present) void world.plug(disk)
      })
    })
  }
}

/** A place of some sectors in the data of volumes. */
function chooseData(spots: readonly Spot[], disk: SimDisk, random: SimRandom): ByteRange {
  const { blockBytes } = disk.options
  const { range } = random.pick(spots)
  const sectors = range.length / blockBytes
  const first = random.below(sectors)
  const count = Math.min(sectors - first, random.between(1, 8))
  return { offset: range.offset + first * blockBytes, length: count * blockBytes }
}

const corruptData: Fault = (disk, random, world, wounds) => {
  const { machine } = world
  const spots = machine ? wounds.spotsOn(machine, disk) : []
  if (spots.length === 0) return undefined
  const { offset, length } = chooseData(spots, disk, random)
  const isZero = random.chance(0.2)
  wounds.hurt(spots, { offset, length })
  disk.media.harm(offset, isZero ? Buffer.alloc(length) : random.bytes(length))
  world.note('corrupted', `${disk.name}, data`, offset, length)
  return undefined
}

/** The next write of data goes elsewhere in the data of the disk, or nowhere. */
const misdirectData: Fault = (disk, random, world, wounds) => {
  const { machine } = world
  const spots = machine ? wounds.spotsOn(machine, disk) : []
  if (spots.length === 0) return undefined
  const wanted = random.chance(0.7) ? chooseData(spots, disk, random).offset : undefined
  disk.faults.misdirect = (offset, length) => {
    const isData = spots.some(({ range }) => isWithin(offset, length, range))
    const isRoom = spots.some(({ range }) => isWithin(wanted ?? offset, length, range))
    if (!isData || !isRoom || wanted === offset) return undefined
    wounds.hurt(spots, { offset, length })
    if (wanted !== undefined) wounds.hurt(spots, { offset: wanted, length })
    world.note('misdirected', `${disk.name}, data, to ${wanted ?? 'nowhere'}`, offset, length)
    return wanted ?? 'nowhere'
  }
  return undefined
}

function isWithin(offset: number, length: number, range: ByteRange): boolean {
  return offset >= range.offset && offset + length <= range.offset + range.length
}

/** Of data that has copies or parity, and of data without: while nothing is on its way to another place. */
export const DATA_FAULTS: readonly (readonly [number, string, Fault])[] = [
  [2, 'data is corrupted', corruptData],
  [2, 'a write of data goes astray', misdirectData],
]

export const QUIET_FAULTS: readonly (readonly [number, string, Fault])[] = [
  [3, 'metadata is corrupted', andReplugged(corrupt)],
  [2, 'a write of metadata goes astray', andReplugged(misdirect)],
]
