/**
 * What a set does about trouble that its subdisks tell of (VinumHost.noteError and noteRepair): it counts, logs and
 * says it. The same for native sets (vinum-set.ts) and for those of FreeBSD (freebsd/set.ts).
 */
import type { PlexusError } from '../../../base/errors.ts'
import type { Logger } from '../../../base/log.ts'
import type { EventLog } from '../../geom/events.ts'
import type { Subdisk, TroubleCounts } from '../runtime.ts'

export function noteError(
  log: Logger,
  subdisk: Subdisk,
  op: keyof TroubleCounts,
  error: PlexusError | undefined,
): void {
  // Its memory was still with another disk: no trouble of this one.
  if (error?.kind === 'aborted') return
  subdisk.errors[op]++
  subdisk.drive.errors[op]++
  const { name } = subdisk.record
  log.debug({ err: error, subdisk: name, op }, `${op} trouble on ${name}`)
}

export function noteRepair(
  events: EventLog,
  subdisk: Subdisk,
  offset: number,
  length: number,
): void {
  const { name } = subdisk.record
  const drive = subdisk.drive.record.name
  events.emit(
    'warning',
    'sector-repaired',
    name,
    `${length} bytes at ${offset} of ${name} could not be read from drive ${drive} and were written again`,
  )
}
