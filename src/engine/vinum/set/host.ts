/**
 * What the subdisks, plexes and volumes of a set ask of it (VinumHost in runtime.ts): the same for native sets
 * (vinum-set.ts) and the set of FreeBSD's drives (freebsd/set.ts), but for what changes a configuration.
 */
import type { PlexusError } from '../../../base/errors.ts'
import type { Logger } from '../../../base/log.ts'
import type { Topology } from '../../geom/topology.ts'
import type { TroubleCounts } from '../../metadata/set-drive.ts'
import type { VolumeIo } from '../io/volume-io.ts'
import type { Plex, Subdisk, VinumHost } from '../runtime.ts'

type Changes = Pick<VinumHost, 'demote' | 'changeLost' | 'isLosing' | 'putInDoubt'>

interface HostSet {
  readonly topology: Topology
  readonly log: Logger
  /** A volume in operation, by its UUID. */
  volumeOf(uuid: string | undefined): { readonly io: VolumeIo } | undefined
}

export class SetHost implements VinumHost {
  readonly demote: Changes['demote']
  readonly changeLost: Changes['changeLost']
  readonly isLosing: Changes['isLosing']
  readonly putInDoubt: Changes['putInDoubt']
  readonly #set: HostSet

  constructor(set: HostSet, { demote, changeLost, isLosing, putInDoubt }: Changes) {
    this.#set = set
    this.demote = demote
    this.changeLost = changeLost
    this.isLosing = isLosing
    this.putInDoubt = putInDoubt
  }

  get pool() {
    return this.#set.topology.pool
  }

  get kernels() {
    return this.#set.topology.kernels
  }

  get clock() {
    return this.#set.topology.clock
  }

  get log() {
    return this.#set.log
  }

  noteError(subdisk: Subdisk, op: keyof TroubleCounts, error: PlexusError | undefined): void {
    // Its memory was still with another disk: no trouble of this one.
    if (error?.kind === 'aborted') return
    subdisk.errors[op]++
    subdisk.drive.errors[op]++
    const { name } = subdisk.record
    this.log.debug({ err: error, subdisk: name, op }, `${op} trouble on ${name}`)
  }

  noteRepair({ record: { name }, drive }: Subdisk, offset: number, length: number): void {
    const text =
      `${length} bytes at ${offset} of ${name} could not be read from drive ${drive.record.name} and were written ` +
      'again'
    this.#set.topology.events.emit('warning', 'sector-repaired', name, text)
  }

  lock(plex: Plex, offset: number, length: number, mode: 'writes' | 'all'): Promise<() => void> {
    const volume = this.#set.volumeOf(plex.record.volumeUuid)
    return volume ? volume.io.lock(offset, length, mode) : Promise.resolve(() => {})
  }
}
