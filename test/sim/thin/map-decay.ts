/** Sectors of the chunk map that have changed by themselves, on one of the disks that carry it. Used by trouble.ts. */
import { planAnchor } from '../../../src/engine/anchor/anchor-layout.ts'
import { JOURNAL_BLOCK_BYTES } from '../../../src/engine/virstor/map/journal.ts'
import { pagePlaces } from '../../../src/engine/virstor/map/layout.ts'
import { MAP_PAGE_BYTES } from '../../../src/engine/virstor/map/page.ts'
import type { SimDisk } from '../disk.ts'
import type { SimRandom } from '../random.ts'
import type { Machine, World } from '../world.ts'
import { setOf } from './thin-view.ts'

/** What a sector has become. */
const DECAYS: readonly ((old: Buffer, random: SimRandom) => Buffer)[] = [
  (old, random) => random.bytes(old.length),
  (old) => Buffer.alloc(old.length),
  (old, random) => {
    const changed = Buffer.from(old)
    const at = random.below(random.chance(0.5) ? 64 : old.length)
    changed.writeUInt8(changed.readUInt8(at) ^ (1 << random.below(8)), at)
    return changed
  },
]

/** From a sector here and there to all of the copy. */
export function decayMap(
  world: World,
  machine: Machine,
  name: string,
  component: number,
  disk: SimDisk,
  random: SimRandom,
): void {
  const places = blocksOf(machine, name, component, disk)
  const count = random.pick([1, 3, 10, places.length])
  const { blockBytes } = disk.options
  for (const at of random.shuffle([...places]).slice(0, count)) {
    const offset = at + random.below(JOURNAL_BLOCK_BYTES / blockBytes) * blockBytes
    const old = disk.media.content.subarray(offset, offset + blockBytes)
    disk.media.harm(offset, random.pick(DECAYS)(old, random))
  }
  world.note('decayed', `${disk.name}, ${count} blocks of the map of ${name}`)
}

/** Where its pages, both slots of each, and the blocks of its journal are. */
function blocksOf(machine: Machine, name: string, id: number, disk: SimDisk): readonly number[] {
  const set = setOf(machine, name)
  const { copies = [], components = [], chunkBytes = 0, journalBlocks = 0 } = set?.model ?? {}
  const copy = copies.find((one) => one.component === id)
  const component = components.find((one) => one.id === id)
  if (!copy || !component || !set?.device) return []
  const placesOf = pagePlaces(copy.runs, chunkBytes)
  const { pages } = set.device.table
  const pagesOn = ([0, 1] as const).flatMap((slot) =>
    placesOf(slot, 0, pages).flatMap(({ offset, length }) =>
      Array.from({ length: length / MAP_PAGE_BYTES }, (_, at) => offset + at * MAP_PAGE_BYTES),
    ),
  )
  const { journal } = planAnchor(disk.sizeBytes, disk.options.blockBytes)
  return [
    ...pagesOn.map((offset) => component.startBytes + offset),
    ...Array.from({ length: journalBlocks }, (_, at) => journal.offset + at * JOURNAL_BLOCK_BYTES),
  ]
}
