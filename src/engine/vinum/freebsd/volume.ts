/**
 * A volume of FreeBSD's drives in operation: offered read-only, its plexes read as those of a native set. Made by
 * freebsd/set.ts.
 */
import { PlexusError } from '../../../base/errors.ts'
import { RAID5_COLUMNS } from '../../../base/limits.ts'
import type { Provider } from '../../geom/provider.ts'
import type { PlacedSubdisk } from '../io/subdisk.ts'
import { VolumeIo } from '../io/volume-io.ts'
import {
  plexesOf,
  sizeOfPlex,
  subdisksBelow,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { checkModel } from '../model/model-check.ts'
import { dataColumns, hasParity } from '../model/plex-kinds.ts'
import type { Plex } from '../runtime.ts'
import { makePlex } from '../set/make-plex.ts'
import { offerOf } from '../set/volume.ts'
import type { FreebsdSet } from './set.ts'

export class FreebsdVolume {
  record: VolumeRecord
  readonly plexes: readonly Plex[]
  readonly io: VolumeIo
  readonly provider: Provider
  /** {@link shapeOf} when it was made: another one needs another object. */
  readonly shape: string

  constructor(
    set: FreebsdSet,
    model: VinumModel,
    record: VolumeRecord,
    subdisks: ReadonlyMap<string, PlacedSubdisk>,
  ) {
    this.record = record
    this.shape = shapeOf(model, record)
    this.plexes = plexesOf(model, record.uuid).map((plex) =>
      makePlex({
        host: set.host,
        record: plex,
        subdisks: subdisksOf(model, plex.uuid).flatMap(({ uuid }) => subdisks.get(uuid) ?? []),
      }),
    )
    this.io = new VolumeIo({ ...this.#form(), name: record.name, host: set.host })
    const { name } = record
    const offer = offerOf(record, this.plexes)
    const features = { ...offer.features, readOnly: true, volatileWriteCache: false }
    this.provider = set.topology.makeProvider(set, { ...offer, name, features })
  }

  /**
   * FreeBSD keeps no record of writes that a crash cut off, so copies may differ: all reads go to the first plex as
   * long as it can be read, so that what was read once is read again.
   */
  #form() {
    const { plexes } = this
    const first = plexes.find(({ record }) => record.state === 'up')
    return {
      plexes,
      readPolicy: 'prefer' as const,
      preferredPlexUuid: first?.record.uuid,
      map: undefined,
    }
  }

  /** New records of the same shape: states have changed. */
  async refresh(model: VinumModel, record: VolumeRecord): Promise<void> {
    this.record = record
    await this.io.pause()
    for (const plex of this.plexes) {
      const now = model.plexes.find(({ uuid }) => uuid === plex.record.uuid)
      if (now) plex.record = now
    }
    this.io.setForm(this.#form())
    this.io.resume()
  }

  /** Nothing is in flight afterwards, and nothing comes. */
  async stop(): Promise<void> {
    await this.io.pause()
  }
}

/** Everything about a volume but states and drives' devices, to be compared. */
export function shapeOf(model: VinumModel, volume: VolumeRecord): string {
  const plexes = plexesOf(model, volume.uuid).map((plex) => [
    plex.uuid,
    plex.organization,
    plex.stripeBytes,
    subdisksOf(model, plex.uuid).map((one) => [
      one.uuid,
      one.driveUuid,
      one.sizeBytes,
      one.driveOffsetBytes,
      one.plexOffsetBytes,
    ]),
  ])
  return JSON.stringify([volume.sizeBytes, plexes])
}

/**
 * Why a volume cannot be served by what FreeBSD's text says of it; undefined: it can. Columns that are missing in the
 * middle, for example: their count decides where everything is.
 */
export function faultOf(model: VinumModel, volume: VolumeRecord): string | undefined {
  const plexes = plexesOf(model, volume.uuid)
  const subdisks = subdisksBelow(model, volume.uuid)
  if (volume.sizeBytes === 0) return 'it has no complete plex'
  for (const plex of plexes) {
    const count = subdisksOf(model, plex.uuid).length
    const isTooWide = hasParity(plex) && count > RAID5_COLUMNS
    if (dataColumns(plex, count) < 1 || isTooWide) return `plex ${plex.name} has ${count} subdisks`
    if (sizeOfPlex(plex, subdisksOf(model, plex.uuid)) === 0) return `plex ${plex.name} is empty`
  }
  try {
    checkModel({ ...model, volumes: [volume], plexes, subdisks, jobs: [] })
    return undefined
  } catch (error) {
    if (error instanceof PlexusError) return error.message
    throw error
  }
}
