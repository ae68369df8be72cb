/**
 * A volume of a native set in operation: its provider, its I/O path (volume-io.ts) and, where it has redundancy,
 * its intent map (intent-store.ts). Made and reshaped by set/objects.ts.
 */
import { operatingError } from '../../../base/errors.ts'
import type { DeviceFeatures, Geometry } from '../../../hal/block-device.ts'
import { wwidOf } from '../../geom/names.ts'
import type { Provider, ProviderInit } from '../../geom/provider.ts'
import { type RememberedIntent, WriteIntentBitmap } from '../../intent/write-intent-bitmap.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import type { PlacedSubdisk } from '../io/subdisk.ts'
import { VolumeIo } from '../io/volume-io.ts'
import { mapSlotsOf } from '../model/map-slots.ts'
import type { VolumeRecord } from '../model/model.ts'
import { dataColumns, isStriped } from '../model/plex-kinds.ts'
import type { Plex } from '../runtime.ts'
import { IntentStore, intentLayoutOf } from './intent-store.ts'
import type { VinumSet } from './vinum-set.ts'

export class RunningVolume {
  record: VolumeRecord
  readonly io: VolumeIo
  readonly provider: Provider
  readonly #set: VinumSet
  /** Where the map lies, if there is one. */
  #store: IntentStore | undefined

  constructor(set: VinumSet, record: VolumeRecord, plexes: readonly Plex[], name: string) {
    this.#set = set
    this.record = record
    this.io = new VolumeIo({
      name: record.name,
      plexes,
      readPolicy: record.readPolicy,
      preferredPlexUuid: record.preferredPlexUuid,
      map: undefined,
      host: set.host,
    })
    this.io.owed = set.options.owed.get(record.uuid)
    set.options.owed.delete(record.uuid)
    // The drives that are here were flushed when the set was assembled. What only one that is away has may be in its cache
    // since before a crash: no flush reaches it.
    if (plexes.some(keepsAway)) this.io.oweFlush()
    this.provider = set.topology.makeProvider(set, { name, ...offerOf(record, plexes) })
  }

  /** As it is offered. */
  get name(): string {
    return this.provider.name
  }

  get map(): WriteIntentBitmap | undefined {
    return this.io.map
  }

  get subdisks(): readonly PlacedSubdisk[] {
    return this.plexes.flatMap((plex) => plex.subdisks as readonly PlacedSubdisk[])
  }

  get plexes(): readonly Plex[] {
    return this.io.plexes
  }

  /** Is there nothing that {@link reshape} would change? */
  isShaped(record: VolumeRecord, plexes: readonly Plex[], redundant: boolean): boolean {
    // As the I/O path has it: the record may be newer.
    const now = this.io.form
    return (
      redundant === (this.map !== undefined) &&
      (this.#store?.isOnAll ?? true) &&
      !this.#isRecut(record) &&
      plexes.length === now.plexes.length &&
      plexes.every((plex, index) => plex === now.plexes[index]) &&
      record.sizeBytes === this.provider.sizeBytes &&
      record.readPolicy === now.readPolicy &&
      record.preferredPlexUuid === now.preferredPlexUuid
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
        await this.#announce(map.storeAll())
      } else if (!redundant && this.map) {
        await this.map.stop()
        this.#store = undefined
        this.io.setForm({ ...form, map: undefined })
      } else if (this.map && this.#isRecut(record)) {
        this.#store?.moveTo(mapSlotsOf(record))
        await this.#announce(this.map.resize(intentLayoutOf(this.#set, record)))
      } else if (this.map) await this.#announce(this.map.storeAll())
    } finally {
      this.io.resume()
    }
    this.provider.update(offerOf(record, plexes))
  }

  /** Has the map another size or place by this record? */
  #isRecut(record: VolumeRecord): boolean {
    if (!this.map || !this.#store) return false
    const { slots } = this.#store
    const next = mapSlotsOf(record)
    const isThere = next.length === slots.length && next.every((slot, n) => slot === slots[n])
    return this.map.sizeBytes !== record.sizeBytes || !isThere
  }

  /** A map that cannot be written now, for want of drives, is written before the next write: that is soon enough. */
  async #announce(stored: Promise<void>): Promise<void> {
    const err = await stored.catch(operatingError)
    const { name } = this.record
    if (err) this.#set.log.warn({ err, volume: name }, `the intent map of ${name} is not written`)
  }

  /** For the end: nothing is in flight afterwards, and marks that need not stay are gone. */
  async stop(): Promise<void> {
    // Nothing more comes to one that is orphaned, and what waits for its turn must have it: a pause would keep it.
    if (this.provider.error) {
      await Promise.all([...this.provider.consumers].map((consumer) => consumer.idle()))
    }
    await this.io.pause()
    // The next start finds nothing to write again.
    for (const { log } of this.plexes) await log?.empty().catch(() => {})
    await this.map?.stop()
  }

  #makeMap(remembered: RememberedIntent | undefined): WriteIntentBitmap {
    const store = new IntentStore(this.#set, this)
    this.#store = store
    return new WriteIntentBitmap({
      ...intentLayoutOf(this.#set, this.record),
      volumeUuid: this.record.uuid,
      clock: this.#set.clock,
      needsAll: () => !store.isOnAll,
      store: (blocks) => store.write(blocks),
      flushDrives: () => store.flushDrives(),
      mayClear: () => this.subdisks.every(({ record }) => record.state === 'up'),
      onUnsynced: () => {
        // A write that hung on a lost drive may end after its set has failed and was stopped.
        if (this.#set.assembled) this.#set.objects.jobs.resyncLater(this)
      },
      initial: remembered,
    })
  }
}

/** What the provider of a volume says of itself. */
export function offerOf(
  record: VolumeRecord,
  plexes: readonly Plex[],
): Pick<ProviderInit, 'geometry' | 'identity' | 'features'> {
  const subdisks = plexes.flatMap((plex) => plex.subdisks as readonly PlacedSubdisk[])
  const drives = [...new Set(subdisks.map(({ drive }) => drive as SetDrive))]
  const { uuid } = record
  return {
    geometry: geometryOf(record, drives, plexes),
    identity: { wwid: wwidOf(uuid), serial: uuid, vendor: 'PLEXUS', model: 'vinum volume' },
    features: featuresOf(drives),
  }
}

function geometryOf(
  record: VolumeRecord,
  drives: readonly SetDrive[],
  plexes: readonly Plex[],
): Geometry {
  const logicalBlockBytes = Math.max(512, ...drives.map((drive) => drive.record.blockBytes))
  const physical = drives.map(({ consumer }) => consumer?.geometry.physicalBlockBytes ?? 0)
  const stripe = Math.max(0, ...plexes.map((plex) => plex.record.stripeBytes))
  const columns = Math.max(
    1,
    ...plexes.map((plex) =>
      isStriped(plex.record) ? dataColumns(plex.record, plex.subdisks.length) : 1,
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
function featuresOf(drives: readonly SetDrive[]): DeviceFeatures {
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

/** Has a column that is away the only content of a part of the plex? */
function keepsAway({ record: { lost }, subdisks }: Plex): boolean {
  const away = subdisks.filter(({ writable }) => !writable).map(({ record }) => record.uuid)
  return lost?.some(({ keptBy }) => keptBy !== undefined && away.includes(keptBy)) ?? false
}
