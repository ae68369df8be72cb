/** Devices that become drives, for verbs of every class: what is refused, the record, and how it is told. */
import { formatSize } from '../../base/bytes.ts'
import { type ErrorKind, PlexusError } from '../../base/errors.ts'
import { newUuid, type Random } from '../../base/random.ts'
import type { PlanStep } from '../../control/reports.ts'
import { planAnchor } from '../anchor/anchor-layout.ts'
import type { DriveRecord } from '../metadata/set-model.ts'
import type { Candidate, NewDrive } from './plan.ts'

/**
 * The device `name`, examined, as it may become a drive. `wipes`: also with foreign data on it. Throws `not-found`, `in-use`,
 * `permission` or `foreign`; `op` is the verb, for messages.
 */
export function usable(
  candidate: Candidate | undefined,
  { op, name, wipes }: { readonly op: string; readonly name: string; readonly wipes: boolean },
): Candidate {
  const refuse = (kind: ErrorKind, message: string): never => {
    throw new PlexusError(kind, { op, subject: name, message })
  }
  if (!candidate) {
    const why = `there is no drive and no device "${name}"; plexus device list shows the devices of the configuration`
    return refuse('not-found', why)
  }
  const { path, inUse, twin, readOnly, contents } = candidate
  if (inUse !== undefined) {
    refuse('in-use', `${path}: in use by ${inUse}; free it there first, or choose another device`)
  }
  if (twin !== undefined) {
    const why =
      `${path}: the same disk as ${twin}, by another path, or a copy of it; several paths cannot be used together yet: take one of ` +
      'them out of the configuration'
    refuse('in-use', why)
  }
  if (readOnly) {
    refuse('permission', `${path}: read-only; a drive must take writes. Choose another device`)
  }
  if (contents !== '' && !wipes) {
    refuse('foreign', `${path}: ${contents} found; --wipe-signatures overwrites it`)
  }
  return candidate
}

/** Throws `no-space` for a device that is too small for a label. */
export function driveRecord(candidate: Candidate, name: string, random: Random): DriveRecord {
  const { sizeBytes, blockBytes } = candidate
  const { dataStartBytes, dataEndBytes } = planAnchor(sizeBytes, blockBytes)
  return {
    uuid: newUuid(random),
    name,
    state: 'up',
    device: candidate.name,
    mediaBytes: sizeBytes,
    blockBytes,
    dataStartBytes,
    dataEndBytes,
    last: undefined,
  }
}

/** The last part of the name of a provider, which another class may have named CLASS/NAME. */
export function lastName({ name }: Candidate): string {
  return name.slice(name.lastIndexOf('/') + 1)
}

export function labelStep({ candidate, record: { name } }: NewDrive): PlanStep {
  const { contents, path, sizeBytes } = candidate
  const found = contents === '' ? 'blank' : `overwrites ${contents}`
  const text = `write label on ${name} (${path}, ${formatSize(sizeBytes)}, ${found})`
  return { text, object: name }
}

export function wipeWarnings({ candidate: { contents, path } }: NewDrive): readonly string[] {
  return contents === '' ? [] : [`${path}: ${contents} is overwritten and cannot be brought back`]
}
