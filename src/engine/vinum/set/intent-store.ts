/**
 * Where the write-intent bitmap of a volume lies: pairs of blocks in the map areas of its drives. Written here on all
 * of them at once; read when the set is assembled. Used by volume.ts and objects.ts.
 */
import { defined } from '../../../base/assert.ts'
import { failuresOf, operatingError, type PlexusError, Refusals } from '../../../base/errors.ts'
import { INTENT_BLOCKS_AT_ONCE } from '../../../base/limits.ts'
import { RangeSet } from '../../../base/range-set.ts'
import { flush } from '../../../hal/io.ts'
import type { AnchoredDevice } from '../../anchor/anchored-device.ts'
import {
  decodeIntent,
  IntentBits,
  type IntentCopy,
  type IntentLayout,
} from '../../intent/intent-bits.ts'
import type { IntentBlock, RememberedIntent } from '../../intent/write-intent-bitmap.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import type { PlacedSubdisk } from '../io/subdisk.ts'
import { mapSlotsOf } from '../model/map-slots.ts'
import { byUuid, subdisksBelow, type VinumModel, type VolumeRecord } from '../model/model.ts'
import type { VinumSet } from './vinum-set.ts'

const refuse = new Refusals('write')

/** How the bitmap of a volume is cut. */
export function intentLayoutOf(set: VinumSet, volume: VolumeRecord): IntentLayout {
  const { intentRegionBytes: regionBytes } = set.options
  return { sizeBytes: volume.sizeBytes, blocks: mapSlotsOf(volume).length, regionBytes }
}

export class IntentStore {
  /** The bitmap lies in these pairs now; the record may be newer. */
  slots: readonly number[]
  readonly #set: VinumSet
  readonly #volume: { readonly record: VolumeRecord; readonly subdisks: readonly PlacedSubdisk[] }
  /** Drives that have the bitmap as it was written last. */
  #carriers: ReadonlySet<SetDrive> = new Set()

  constructor(
    set: VinumSet,
    volume: { readonly record: VolumeRecord; readonly subdisks: readonly PlacedSubdisk[] },
  ) {
    this.#set = set
    this.#volume = volume
    this.slots = mapSlotsOf(volume.record)
  }

  /** One that has come, or is back, lacks the bitmap: it knows of no write since it went. */
  get isOnAll(): boolean {
    return this.#drives.every((drive) => this.#carriers.has(drive))
  }

  /** From now on it lies elsewhere, or is cut otherwise: nobody has it. */
  moveTo(slots: readonly number[]): void {
    this.slots = slots
    this.#carriers = new Set()
  }

  /** Drives that are there and up, and those to which a part of it moves: from the end of a move on they count. */
  get #drives(): readonly SetDrive[] {
    const drives = new Set<SetDrive | undefined>()
    for (const { drive, record } of this.#volume.subdisks) {
      drives.add(drive as SetDrive)
      if (record.move) drives.add(this.#set.drives.get(record.move.driveUuid))
    }
    return [...drives].filter((drive) => drive !== undefined).filter(isServing)
  }

  /**
   * WriteIntentOptions.store. A drive that does not take it is no place for this volume's data any more. One that has no
   * place for it (converted from FreeBSD's with its data up to the end) is left out; where no drive of the volume has
   * one, nothing is remembered, and {@link readIntent} takes everything for dirty at the next start.
   */
  async write(blocks: readonly IntentBlock[]): Promise<void> {
    const present = this.#drives
    const { name } = this.#volume.record
    if (present.length === 0) throw refuse.gone`${name}: none of its drives is there`
    const carriers = this.#carriers
    // A drive that goes must be known as lost before the others remember more than it does: at the next assembly one
    // that lacks more than the last write is taken for a copy of an older time.
    const isLost = [...carriers].some((drive) => !drive.present && drive.record.state === 'up')
    if (isLost) await this.#set.commit((model) => this.#set.withLosses(model))
    const most = Math.max(...this.slots)
    const drives = present.filter(({ label }) => (label?.mapSlots ?? 0) > most)
    const failed = await failuresOf(drives, async (drive) => {
      const label = defined(drive.label, 'the label of a drive that is present')
      await this.#writeBlocks(label, blocks, (which) => which)
      // What it remembers from before counts no more, however high its sequence is.
      if (!carriers.has(drive)) await this.#writeBlocks(label, blocks, (which) => (which ? 0 : 1))
    })
    this.#carriers = new Set(present.filter((drive) => !failed.has(drive)))
    await this.#demoteOn(failed)
    const [first] = failed.values()
    if (first && failed.size === drives.length) throw first
  }

  async #writeBlocks(
    label: AnchoredDevice,
    blocks: readonly IntentBlock[],
    place: (which: 0 | 1) => 0 | 1,
  ): Promise<void> {
    for (let at = 0; at < blocks.length; at += INTENT_BLOCKS_AT_ONCE) {
      const some = blocks.slice(at, at + INTENT_BLOCKS_AT_ONCE)
      await Promise.all(
        some.map(({ block, which, bytes }) => {
          const slot = defined(this.slots[block], `the pair of block ${block}`)
          return label.writeMapBlock(slot, place(which), bytes, { fua: true })
        }),
      )
    }
  }

  /** WriteIntentOptions.flushDrives. */
  async flushDrives(): Promise<void> {
    const failed = await failuresOf(this.#drives, ({ consumer }) =>
      flush(defined(consumer, 'the consumer of a drive that is present')),
    )
    await this.#demoteOn(failed)
    for (const error of failed.values()) throw error
  }

  async #demoteOn(failed: ReadonlyMap<SetDrive, PlexusError>): Promise<void> {
    for (const [drive, error] of failed) {
      const on = this.#volume.subdisks.filter((one) => one.drive === drive && one.writable)
      if (on.length > 0) await this.#set.host.demote(on, error)
    }
  }
}

function isServing({ present, record }: SetDrive): boolean {
  return present && record.state === 'up'
}

/**
 * Reads the bitmap of a volume from the drives that carry its good subdisks: one that has missed writes does not know
 * which. All that any of them remembers counts: a write was allowed when its bit was on the drives that were up. What no
 * drive tells of counts as dirty.
 */
export async function readIntent(
  set: VinumSet,
  model: VinumModel,
  volume: VolumeRecord,
): Promise<RememberedIntent> {
  const bits = new IntentBits(intentLayoutOf(set, volume))
  const unknown = new RangeSet([{ offset: 0, length: volume.sizeBytes }])
  const slots = mapSlotsOf(volume).slice(0, bits.blocks)
  const found = new Map<string, IntentCopy[]>()
  await Promise.all(
    goodDrives(model, volume).map(async (uuid) => {
      const label = set.drives.get(uuid)?.label
      if (!label || label.mapSlots <= Math.max(...slots)) return
      const copies = await Promise.all(
        slots.map((slot, block) => readPair(label, slot, volume.uuid, block)),
      )
      if (copies.flat().length > 0) found.set(uuid, copies.flat())
    }),
  )
  const sequences = new Map(
    [...found].map(([uuid, copies]) => [uuid, Math.max(...copies.map((one) => one.sequence))]),
  )
  const sequence = Math.max(0, ...sequences.values())
  const newest: (IntentCopy | undefined)[] = []
  for (const [uuid, copies] of found) {
    // What is marked on a drive of an older time has been made equal since, or the others tell of it.
    if (isOutdated(sequences.get(uuid), sequence)) continue
    for (const copy of copies) {
      for (const { offset, length } of copy.ranges) bits.mark(offset, length)
      unknown.remove(copy.covers.offset, copy.covers.length)
      if (copy.sequence > (newest[copy.block]?.sequence ?? 0)) newest[copy.block] = copy
    }
  }
  for (const { offset, length } of unknown.ranges) bits.mark(offset, length)
  return {
    bits,
    sequence,
    which: slots.map((_, block) => newest[block]?.which ?? 1),
    outdated: outdatedSubdisks(model, volume, sequences),
  }
}

async function readPair(
  label: AnchoredDevice,
  slot: number,
  volumeUuid: string,
  block: number,
): Promise<readonly IntentCopy[]> {
  try {
    return decodeIntent(await label.readMapPair(slot), volumeUuid, block)
  } catch (error) {
    operatingError(error)
    return []
  }
}

/** UUIDs of the drives all of whose subdisks of the volume are up, or were complete when they went. */
function goodDrives(model: VinumModel, volume: VolumeRecord): readonly string[] {
  const subdisks = subdisksBelow(model, volume.uuid)
  const bad = new Set(
    subdisks
      .filter(({ state }) => state !== 'up' && state !== 'down')
      .map(({ driveUuid }) => driveUuid),
  )
  return [...new Set(subdisks.map(({ driveUuid }) => driveUuid))].filter((uuid) => !bad.has(uuid))
}

/** A crash may cut off the last write of the bitmap alone. */
function isOutdated(sequence: number | undefined, newest: number): boolean {
  return sequence !== undefined && sequence < newest - 1
}

/**
 * Subdisks that count as up, and yet lack writes: their drives have the configuration of the others, but a bitmap of an
 * older time. They were copied, or put back from a copy, meanwhile.
 */
function outdatedSubdisks(
  model: VinumModel,
  volume: VolumeRecord,
  /** The newest write of the bitmap that each drive has, by UUID. */
  sequences: ReadonlyMap<string, number>,
): readonly string[] {
  const isUp = (uuid: string): boolean => byUuid(model.drives, uuid)?.state === 'up'
  const newest = Math.max(0, ...sequences.values())
  return subdisksBelow(model, volume.uuid)
    .filter(({ driveUuid, state }) => {
      return state === 'up' && isUp(driveUuid) && isOutdated(sequences.get(driveUuid), newest)
    })
    .map(({ uuid }) => uuid)
}
