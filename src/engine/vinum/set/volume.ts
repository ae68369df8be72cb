/**
 * A volume of a native set in operation: its provider, its I/O path (volume-io.ts) and, where it has redundancy,
 * its intent map with the blocks on its drives. Made and reshaped by set/objects.ts.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { DeviceFeatures, Geometry } from '../../../hal/block-device.ts'
import { flush } from '../../../hal/io.ts'
import type { Provider } from '../../geom/provider.ts'
import { IntentMap } from '../io/dirty-regions.ts'
import { decodeIntent, IntentBits, type IntentCopy, mergeIntent } from '../io/intent-bits.ts'
import type { PlacedSubdisk } from '../io/subdisk.ts'
import { VolumeIo } from '../io/volume-io.ts'
import {
  plexesOf,
  type ReadPolicy,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import type { Plex } from '../runtime.ts'
import type { SetDrive } from './drive.ts'
import type { VinumSet } from './vinum-set.ts'

/** What a volume's drives remember of writes under way: read before the volume is made. */
export interface RememberedIntent {
  readonly bits: IntentBits
  readonly sequence: number
  readonly which: 0 | 1
}

/** Has the volume copies or parity that may come to differ? */
export function isRedundant(model: VinumModel, volumeUuid: string): boolean {
  const plexes = plexesOf(model, volumeUuid)
  return plexes.length > 1 || plexes.some(({ organization }) => organization === 'raid5')
}

export class RunningVolume {
  record: VolumeRecord
  readonly io: VolumeIo
  readonly provider: Provider
  readonly #set: VinumSet
  /** Drives that have the map as it was written last. */
  #mapOn: ReadonlySet<SetDrive> = new Set()
  /** As the I/O path has them: the record may be newer. */
  #readPolicy: ReadPolicy
  #preferred: string | undefined

  constructor(set: VinumSet, record: VolumeRecord, plexes: readonly Plex[]) {
    this.#set = set
    this.record = record
    this.#readPolicy = record.readPolicy
    this.#preferred = record.preferredPlexUuid
    this.io = new VolumeIo({
      name: record.name,
      plexes,
      readPolicy: record.readPolicy,
      preferredPlexUuid: record.preferredPlexUuid,
      map: undefined,
      host: set,
    })
    const drives = drivesOf(plexes)
    this.provider = set.topology.makeProvider(set, {
      name: record.name,
      geometry: geometryOf(record, drives, plexes),
      identity: {
        wwid: `uuid.${record.uuid}`,
        serial: record.uuid,
        vendor: 'PLEXUS',
        model: 'vinum volume',
      },
      features: featuresOf(drives),
    })
  }

  get map(): IntentMap | undefined {
    return this.io.map
  }

  get plexes(): readonly Plex[] {
    return this.io.slots.map(({ plex }) => plex)
  }

  /** Is there nothing that {@link reshape} would change? */
  isShaped(record: VolumeRecord, plexes: readonly Plex[], redundant: boolean): boolean {
    const now = this.plexes
    return (
      redundant === (this.map !== undefined) &&
      // One that is back knows of no write since it went.
      (!redundant || this.#drives.every((drive) => this.#mapOn.has(drive))) &&
      plexes.length === now.length &&
      plexes.every((plex, index) => plex === now[index]) &&
      record.sizeBytes === this.provider.sizeBytes &&
      record.readPolicy === this.#readPolicy &&
      record.preferredPlexUuid === this.#preferred
    )
  }

  /**
   * Another record, other plexes, another size; requests are held meanwhile. Where redundancy begins, or is
   * remembered from before, writes are announced on the drives from now on.
   */
  async reshape(
    record: VolumeRecord,
    plexes: readonly Plex[],
    redundant: boolean,
    remembered: RememberedIntent | undefined,
  ): Promise<void> {
    await this.io.pause()
    try {
      this.record = record
      this.#readPolicy = record.readPolicy
      this.#preferred = record.preferredPlexUuid
      const form = {
        plexes,
        readPolicy: record.readPolicy,
        preferredPlexUuid: record.preferredPlexUuid,
      }
      this.io.setForm({ ...form, map: this.map })
      if (redundant && !this.map) {
        const map = this.#makeMap(remembered)
        this.io.setForm({ ...form, map })
        // One whole copy on every drive: after that, none that can be read means that everything is in doubt.
        await this.#announce(map.hold(0, 0))
      } else if (!redundant && this.map) {
        await this.map.stop()
        this.io.setForm({ ...form, map: undefined })
      } else if (this.map && this.map.sizeBytes !== record.sizeBytes) {
        await this.#announce(this.map.resize(record.sizeBytes))
      } else if (this.map) await this.#announce(this.map.hold(0, 0))
    } finally {
      this.io.resume()
    }
    const drives = drivesOf(plexes)
    this.provider.update({
      geometry: geometryOf(record, drives, plexes),
      features: featuresOf(drives),
    })
  }

  /** A map that cannot be written now, for want of drives, is written before the next write: that is soon enough. */
  async #announce(stored: Promise<void>): Promise<void> {
    try {
      await stored
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      const { name } = this.record
      this.#set.log.warn({ err: error, volume: name }, `the intent map of ${name} is not written`)
    }
  }

  /** For the end: nothing is in flight afterwards, and marks that need not stay are gone. */
  async stop(): Promise<void> {
    // Nothing more comes to one that is orphaned, and what waits for its turn must have it: a pause would keep it.
    if (this.provider.error) {
      await Promise.all([...this.provider.consumers].map((consumer) => consumer.idle()))
    }
    await this.io.pause()
    await this.map?.stop()
  }

  #makeMap(remembered: RememberedIntent | undefined): IntentMap {
    return new IntentMap({
      sizeBytes: this.record.sizeBytes,
      regionBytes: this.#set.options.intentRegionBytes,
      volumeUuid: this.record.uuid,
      clock: this.#set.clock,
      store: (block, which) => this.#store(block, which),
      flushDrives: () => this.#flushDrives(),
      mayClear: () => this.#subdisks().every(({ record }) => record.state === 'up'),
      onHeld: () => {
        // A write that hung on a lost drive may end after its set has failed and was taken apart.
        if (this.#set.assembled) this.#set.objects.jobs.resyncLater(this)
      },
      ...(remembered && { initial: { ...remembered, held: true } }),
    })
  }

  #subdisks(): readonly PlacedSubdisk[] {
    return this.plexes.flatMap((plex) => plex.subdisks as readonly PlacedSubdisk[])
  }

  /** Its drives that are there and up, and those to which a part of it moves: from the end of a move on they count. */
  get #drives(): readonly SetDrive[] {
    const targets = this.#subdisks().flatMap(({ record: { move } }) =>
      move ? (this.#set.drives.get(move.driveUuid) ?? []) : [],
    )
    const drives = new Set([...drivesOf(this.plexes), ...targets])
    return [...drives].filter(({ present, record }) => present && record.state === 'up')
  }

  /**
   * A drive that does not take the map is no place for this volume's data any more. One that has no place for the
   * map (converted from FreeBSD's with its data up to the end) is left out; where no drive of the volume has one,
   * nothing is remembered, and readIntent takes everything for dirty at the next start.
   */
  async #store(block: Buffer, which: 0 | 1): Promise<void> {
    const failed: { drive: SetDrive; error: PlexusError }[] = []
    const present = this.#drives
    if (present.length === 0) throw noDriveError(this.record.name)
    const drives = present.filter((drive) => (drive.label?.mapSlots ?? 0) > this.record.mapSlot)
    await Promise.all(
      drives.map(async (drive) => {
        try {
          const label = defined(drive.label, 'the label of a drive that is present')
          await label.writeMapBlock(this.record.mapSlot, which, block, { fua: true })
          // What it remembers from before counts no more, however high its sequence is.
          if (!this.#mapOn.has(drive)) {
            await label.writeMapBlock(this.record.mapSlot, which === 0 ? 1 : 0, block, {
              fua: true,
            })
          }
        } catch (error) {
          failed.push({ drive, error: toPlexusError(error, 'write', drive.record.name) })
        }
      }),
    )
    const without = new Set(failed.map(({ drive }) => drive))
    this.#mapOn = new Set(present.filter((drive) => !without.has(drive)))
    await this.#demoteOn(failed)
    const [first] = failed
    if (first && failed.length === drives.length) throw first.error
  }

  async #flushDrives(): Promise<void> {
    const failed: { drive: SetDrive; error: PlexusError }[] = []
    await Promise.all(
      this.#drives.map(async (drive) => {
        try {
          await flush(defined(drive.consumer, 'the consumer of a drive that is present'))
        } catch (error) {
          failed.push({ drive, error: toPlexusError(error, 'flush', drive.record.name) })
        }
      }),
    )
    await this.#demoteOn(failed)
    if (failed[0]) throw failed[0].error
  }

  async #demoteOn(failed: readonly { drive: SetDrive; error: PlexusError }[]): Promise<void> {
    for (const { drive, error } of failed) {
      const subdisks = this.#subdisks().filter((one) => one.drive === drive && one.writable)
      if (subdisks.length > 0) await this.#set.demote(subdisks, error)
    }
  }
}

/**
 * Reads the intent map of a volume from the drives that carry its good subdisks: one that has missed writes does not
 * know which. Where no such copy can be read everything counts as dirty.
 */
export async function readIntent(
  { drives, options: { intentRegionBytes } }: VinumSet,
  model: VinumModel,
  volume: VolumeRecord,
): Promise<RememberedIntent> {
  const copies: IntentCopy[] = []
  const subdisks = plexesOf(model, volume.uuid).flatMap((plex) => subdisksOf(model, plex.uuid))
  const bad = subdisks.filter(({ state }) => state !== 'up' && state !== 'down')
  const uuids = new Set(subdisks.map(({ driveUuid }) => driveUuid))
  for (const { driveUuid } of bad) uuids.delete(driveUuid)
  for (const uuid of uuids) {
    const label = drives.get(uuid)?.label
    if (!label || label.mapSlots <= volume.mapSlot) continue
    try {
      const copy = decodeIntent(await label.readMapPair(volume.mapSlot), volume.uuid)
      if (copy) copies.push(copy)
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
    }
  }
  const newest = copies.reduce<IntentCopy | undefined>(
    (best, copy) => (best && best.sequence >= copy.sequence ? best : copy),
    undefined,
  )
  if (newest) {
    const { sequence, which } = newest
    return { bits: mergeIntent(copies, volume.sizeBytes, intentRegionBytes), sequence, which }
  }
  const bits = new IntentBits(volume.sizeBytes, intentRegionBytes)
  bits.mark(0, volume.sizeBytes)
  return { bits, sequence: 0, which: 1 }
}

/** The drives that carry these plexes. */
export function drivesOf(plexes: readonly Plex[]): readonly SetDrive[] {
  const subdisks = plexes.flatMap((plex) => plex.subdisks as readonly PlacedSubdisk[])
  return [...new Set(subdisks.map(({ drive }) => drive as SetDrive))]
}

/** What a volume announces over these drives. */
export function geometryOf(
  record: VolumeRecord,
  drives: readonly SetDrive[],
  plexes: readonly Plex[],
): Geometry {
  const logicalBlockBytes = Math.max(512, ...drives.map((drive) => drive.record.blockBytes))
  const physical = drives.map(({ consumer }) => consumer?.geometry.physicalBlockBytes ?? 0)
  const stripe = Math.max(0, ...plexes.map((plex) => plex.record.stripeBytes))
  const columns = Math.max(
    1,
    ...plexes.map(({ record: { organization }, subdisks }) =>
      organization === 'concat' ? 1 : subdisks.length - (organization === 'raid5' ? 1 : 0),
    ),
  )
  return {
    sizeBytes: record.sizeBytes,
    logicalBlockBytes,
    physicalBlockBytes: Math.max(logicalBlockBytes, ...physical),
    alignmentOffsetBytes: 0,
    ioMinBytes: stripe,
    ioOptBytes: stripe * columns,
    maxTransferBytes: 0,
  }
}

/** What all of these drives can do. */
export function featuresOf(drives: readonly SetDrive[]): DeviceFeatures {
  const all = drives.flatMap(({ consumer }) => consumer?.features ?? [])
  const every = (test: (features: DeviceFeatures) => boolean): boolean =>
    all.length > 0 && all.every(test)
  const discards = every((one) => one.discardGranularityBytes > 0)
  return {
    // A missing drive may come back with a cache.
    volatileWriteCache: all.length < drives.length || all.some((one) => one.volatileWriteCache),
    rotational: all.some((one) => one.rotational),
    readOnly: false,
    discardGranularityBytes: discards
      ? Math.max(...all.map((one) => one.discardGranularityBytes))
      : 0,
    discardAlignmentBytes: 0,
    discardMaxBytes: discards ? Math.min(...all.map((one) => one.discardMaxBytes)) : 0,
    discardZeroes: every((one) => one.discardZeroes),
    writeZeroes: every((one) => one.writeZeroes),
  }
}

function noDriveError(name: string): PlexusError {
  return new PlexusError('gone', {
    op: 'write',
    subject: name,
    message: `${name}: none of its drives is there`,
  })
}
