/**
 * What native sets (vinum-set.ts) and the set of FreeBSD's drives (freebsd/set.ts) have in common: a set is a geom and
 * the host of its subdisks, plexes and volumes (VinumHost in runtime.ts), and counts, logs and says what they tell of.
 */
import type { PlexusError } from '../../../base/errors.ts'
import type { Logger } from '../../../base/log.ts'
import type { Consumer } from '../../geom/consumer.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { SetDrive, TroubleCounts } from '../../metadata/set-drive.ts'
import type { VolumeIo } from '../io/volume-io.ts'
import { loseDrives } from '../model/membership.ts'
import type { VinumModel } from '../model/model.ts'
import type { Plex, Subdisk } from '../runtime.ts'

export abstract class SetHost {
  readonly className = 'vinum'
  readonly topology: Topology
  readonly log: Logger
  /** Of the model, by UUID: with or without a device. */
  readonly drives = new Map<string, SetDrive>()

  /** `set`: its name in the log. */
  constructor(topology: Topology, set: string) {
    this.topology = topology
    this.log = topology.log.child({ part: 'vinum', set })
  }

  /** A volume in operation, by its UUID. */
  abstract volumeOf(
    uuid: string | undefined,
  ): { readonly provider: Provider; readonly io: VolumeIo } | undefined

  get pool() {
    return this.topology.pool
  }

  get kernels() {
    return this.topology.kernels
  }

  get clock() {
    return this.topology.clock
  }

  /** The name under which a volume is offered; undefined while it is not. */
  offeredAs(volumeUuid: string): string | undefined {
    return this.volumeOf(volumeUuid)?.provider.name
  }

  /** With every drive down that is not there. */
  withLosses(model: VinumModel): VinumModel {
    const lost = [...this.drives].filter(([, { present }]) => !present)
    return loseDrives(model, new Map(lost).keys())
  }

  /** Waits for what is in flight on a device that is gone; nobody else has to. */
  closeSoon(consumer: Consumer): void {
    consumer.close().catch((error: unknown) => {
      this.log.error({ err: error }, 'a consumer failed to close')
    })
  }

  /** VinumHost. */
  noteError(subdisk: Subdisk, op: keyof TroubleCounts, error: PlexusError | undefined): void {
    // Its memory was still with another disk: no trouble of this one.
    if (error?.kind === 'aborted') return
    subdisk.errors[op]++
    subdisk.drive.errors[op]++
    const { name } = subdisk.record
    this.log.debug({ err: error, subdisk: name, op }, `${op} trouble on ${name}`)
  }

  /** VinumHost. */
  noteRepair({ record: { name }, drive }: Subdisk, offset: number, length: number): void {
    const text =
      `${length} bytes at ${offset} of ${name} could not be read from drive ${drive.record.name} and were written ` +
      'again'
    this.topology.events.emit('warning', 'sector-repaired', name, text)
  }

  /** VinumHost. */
  lock(plex: Plex, offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void> {
    const volume = this.volumeOf(plex.record.volumeUuid)
    return volume ? volume.io.lock(offset, length, mode) : Promise.resolve(() => {})
  }
}
