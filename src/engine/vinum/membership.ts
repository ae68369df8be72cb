/**
 * What the coming and going of drives and the failure of subdisks do to the model: pure. A subdisk that leaves
 * is `down` when no copy went on without it (it is complete and may go up when it returns: vinum's CANGOUP),
 * and `stale` when another copy may have taken writes that it missed. spec/vinum.md, 3.6 and 5.1; used by
 * vinum-set.ts and config-store.ts.
 */
import {
  type DriveRecord,
  replaceRecord,
  type SubdiskRecord,
  type SubdiskState,
  type VinumModel,
} from './model.ts'
import { derive, lastCopyLost } from './state-rules.ts'

function withSubdisk(model: VinumModel, record: SubdiskRecord): VinumModel {
  return { ...model, subdisks: replaceRecord(model.subdisks, record) }
}

function withDrive(model: VinumModel, record: DriveRecord): VinumModel {
  return { ...model, drives: replaceRecord(model.drives, record) }
}

/** The state of a subdisk that cannot be reached any more. */
function stateWithout(model: VinumModel, subdisk: SubdiskRecord): SubdiskState {
  if (subdisk.state === 'down' || subdisk.state === 'stale') return subdisk.state
  if (subdisk.state !== 'up') return 'stale'
  return lastCopyLost(model, [subdisk.uuid]) === undefined ? 'stale' : 'down'
}

/** The drive is gone or failing: it votes no more, its subdisks are out of service, moves to it end. */
export function loseDrive(model: VinumModel, driveUuid: string): VinumModel {
  const drive = model.drives.find((one) => one.uuid === driveUuid)
  if (!drive || drive.state === 'down') return model
  let next = model
  for (const subdisk of model.subdisks) {
    if (subdisk.driveUuid === driveUuid) {
      next = withSubdisk(next, { ...subdisk, state: stateWithout(next, subdisk) })
    } else if (subdisk.move?.driveUuid === driveUuid) {
      next = withSubdisk(next, { ...subdisk, move: undefined })
    }
  }
  const moves = new Set(
    model.subdisks.flatMap((one) => (one.move?.driveUuid === driveUuid ? [one.uuid] : [])),
  )
  const jobs = next.jobs.filter((job) => job.kind !== 'move' || !moves.has(job.targetUuid))
  return derive(withDrive({ ...next, jobs }, { ...drive, state: 'down' }))
}

/** The drive is back with its old content: complete subdisks serve again, the others wait for their job. */
export function returnDrive(model: VinumModel, driveUuid: string, device: string): VinumModel {
  const drive = model.drives.find((one) => one.uuid === driveUuid)
  if (!drive || (drive.state === 'up' && drive.device === device)) return model
  let next = withDrive(model, { ...drive, state: 'up', device })
  for (const subdisk of model.subdisks) {
    if (subdisk.driveUuid !== driveUuid || subdisk.state !== 'down') continue
    next = withSubdisk(next, { ...subdisk, state: 'up' })
  }
  return derive(next)
}

/** Subdisks that missed a write are stale: also those that were complete when their drive was lost. */
export function demoteSubdisks(model: VinumModel, uuids: readonly string[]): VinumModel {
  let next = model
  for (const uuid of uuids) {
    const subdisk = next.subdisks.find((one) => one.uuid === uuid)
    if (!subdisk || subdisk.state === 'stale') continue
    next = withSubdisk(next, { ...subdisk, state: 'stale' })
  }
  return next === model ? model : derive(next)
}
