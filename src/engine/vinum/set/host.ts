/**
 * What the subdisks, plexes and volumes of a set ask of it (VinumHost in runtime.ts): the same for native sets
 * (vinum-set.ts) and the set of FreeBSD's drives (freebsd/set.ts), but for what changes a configuration.
 */
import type { Logger } from '../../../base/log.ts'
import type { Topology } from '../../geom/topology.ts'
import type { VolumeIo } from '../io/volume-io.ts'
import type { VinumHost } from '../runtime.ts'

interface HostSet {
  readonly topology: Topology
  readonly log: Logger
  /** A volume in operation, by its UUID. */
  volumeOf(uuid: string | undefined): { readonly io: VolumeIo } | undefined
}

export function hostOf(
  set: HostSet,
  changes: Pick<VinumHost, 'demote' | 'changeLost' | 'isLosing' | 'putInDoubt' | 'logHost'>,
): VinumHost {
  const { topology, log } = set
  const { pool, kernels, clock } = topology
  return {
    ...changes,
    pool,
    kernels,
    clock,
    log,
    noteError(subdisk, op, error) {
      // Its memory was still with another disk: no trouble of this one.
      if (error?.kind === 'aborted') return
      subdisk.errors[op]++
      subdisk.drive.errors[op]++
      const { name } = subdisk.record
      log.debug({ err: error, subdisk: name, op }, `${op} trouble on ${name}`)
    },
    noteRepair({ record: { name }, drive }, offset, length) {
      const text = `${length} bytes at ${offset} of ${name} could not be read from drive ${drive.record.name} and were written again`
      topology.events.emit('warning', 'sector-repaired', name, text)
    },
    lock(plex, offset, length, mode) {
      const volume = set.volumeOf(plex.record.volumeUuid)
      return volume ? volume.io.lock(offset, length, mode) : Promise.resolve(() => {})
    },
  }
}
