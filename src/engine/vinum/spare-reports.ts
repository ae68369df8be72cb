/** What vinum reports of pools and spares (docs/vinum.md, 10): `plexus spare list`, and a part of `plexus status`. */
import { formatDuration } from '../../control/duration.ts'
import type { ObjectReport } from '../../control/reports.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import { byUuid, type PoolRecord, type SpareRecord, type VinumModel } from './model/model.ts'
import { poolsOf, spareOf, spareStateOf, usersOf, volumesUsing } from './model/spares.ts'

interface SpareView {
  readonly name: string
  readonly model: VinumModel
  readonly drives: ReadonlyMap<string, SetDrive>
}

/** Each pool, and its spares below it. */
export function poolReports(view: SpareView): readonly ObjectReport[] {
  return poolsOf(view.model).flatMap((pool) => {
    const spares = pool.driveUuids.flatMap((uuid) => spareOf(view.model, uuid) ?? [])
    return [
      poolReport(view, pool, spares),
      ...spares.map((spare) => spareReport(view, pool, spare)),
    ]
  })
}

function poolReport(
  { name: set, model }: SpareView,
  pool: PoolRecord,
  spares: readonly SpareRecord[],
): ObjectReport {
  const { name, uuid, delaySeconds, copyBack } = pool
  const states = spares.map((spare) => spareStateOf(model, spare))
  const available = states.filter((state) => state === 'available').length
  const volumes = volumesUsing(model, pool).map((one) => one.name)
  const broken = spares.filter((_, index) => states[index] === 'broken')
  const names = broken.map(({ driveUuid }) => byUuid(model.drives, driveUuid)?.name ?? driveUuid)
  const lacks = names.length > 0
  const sizeBytes = spares.reduce((sum, { driveUuid }) => sum + dataBytes(model, driveUuid), 0)
  return {
    type: 'pool',
    className: 'vinum',
    name,
    uuid,
    set,
    state: lacks ? 'DEGRADED' : 'UP',
    health: lacks ? 'DEGRADED' : 'HEALTHY',
    sizeBytes,
    note: `${available} of ${spares.length} spares available`,
    status: lacks ? `Spare ${names.join(', ')} is broken.` : '',
    action: lacks ? brokenAction(model, pool, broken) : '',
    facts: {
      spares: spares.length,
      available,
      delay: formatDuration(delaySeconds),
      delaySeconds,
      copyBack,
      volumes: volumes.join(', ') || undefined,
    },
  }
}

function brokenAction(
  { drives, subdisks }: VinumModel,
  { name }: PoolRecord,
  [first]: readonly SpareRecord[],
): string {
  const drive = byUuid(drives, first?.driveUuid)
  if (!drive) return ''
  const isUsed = subdisks.some(({ driveUuid }) => driveUuid === drive.uuid)
  const look =
    drive.state === 'up'
      ? `Look at its disk, then make it available: plexus spare enable ${drive.name}`
      : `Connect drive ${drive.name} again`
  const replace = `; or put another one in its place: plexus spare replace ${name} ${drive.name} NEW-DEVICE`
  return isUsed ? look : look + replace
}

function spareReport(
  { name: set, model, drives }: SpareView,
  pool: PoolRecord,
  spare: SpareRecord,
): ObjectReport {
  const { driveUuid, broken } = spare
  const record = byUuid(model.drives, driveUuid)
  const drive = drives.get(driveUuid)
  const users = usersOf(model, driveUuid)
  const from = users.flatMap(({ origin, driveUuid: on }) => {
    const uuid = on === driveUuid ? origin?.driveUuid : on
    return byUuid(model.drives, uuid)?.name ?? []
  })
  const absent = drive?.present ? '' : 'its device is missing'
  const down = record?.state === 'up' ? '' : 'its drive is out of service'
  return {
    type: 'spare',
    className: 'vinum',
    name: record?.name ?? driveUuid,
    uuid: driveUuid,
    set,
    parent: pool.name,
    state: spareStateOf(model, spare).toUpperCase(),
    sizeBytes: dataBytes(model, driveUuid),
    note: broken ?? (absent || down),
    device: drive?.consumer?.provider.name,
    lastDevice: record?.device ?? '???',
    facts: {
      holds: users.map(({ name }) => name).join(', ') || undefined,
      from: [...new Set(from)].join(', ') || undefined,
      rotational: drive?.consumer?.features.rotational,
    },
  }
}

/** What a spare has room for. */
function dataBytes({ drives }: VinumModel, driveUuid: string): number {
  const drive = byUuid(drives, driveUuid)
  return drive ? drive.dataEndBytes - drive.dataStartBytes : 0
}
