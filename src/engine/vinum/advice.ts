/** What is the matter with a volume, and what to type next: the lines `status:` and `action:` of `plexus status`. */
import { formatSize } from '../../base/bytes.ts'
import { formatTime } from '../../control/duration.ts'
import type { Health, JobReport } from '../../control/reports.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import { lastResort } from './jobs/plans.ts'
import { returnDrives } from './model/membership.ts'
import {
  byUuid,
  type DriveRecord,
  type PlexRecord,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from './model/model.ts'
import { hasParity } from './model/plex-kinds.ts'
import { healthOf, mismatchesOf } from './model/state-rules.ts'
import { nameTaken } from './naming.ts'
import { lostBytes } from './raid5/lost.ts'
import { spareAction, spareText } from './spare-advice.ts'

/** Where copies, or data and parity, may not agree since a crash or a write that failed. */
export interface Doubt {
  readonly bytes: number
  /** Until the next resync begins; undefined: it runs, or nothing is planned. */
  readonly retrySeconds: number | undefined
}

/** All that is known of a volume. */
export interface Situation {
  readonly model: VinumModel
  readonly volume: VolumeRecord
  readonly plexes: readonly PlexRecord[]
  readonly drives: ReadonlyMap<string, SetDrive>
  readonly health: Health
  /** Subdisks that are not up. */
  readonly bad: readonly SubdiskRecord[]
  /** A job at work on it, or paused. */
  readonly process: JobReport | undefined
  readonly doubt: Doubt | undefined
  /** What the device of a drive that is missing has: it is here, but cannot be used. */
  readonly problemOf: (driveUuid: string) => DeviceProblem | undefined
  /** Why the last resync failed. */
  readonly resyncError: string | undefined
}

/** A device with the label of a drive, and why it is not used. */
export interface DeviceProblem {
  readonly device: string
  readonly text: string
  readonly action: string
}

export interface Advice {
  readonly status: string
  readonly action: string
}

export function adviceOf(situation: Situation): Advice {
  const { volume, process } = situation
  const texts = [statusText, spareText, doubtText, mismatchText]
  const told = texts
    .map((text) => text(situation))
    .filter(Boolean)
    .join(' ')
  const action = actionText(situation)
  const stopped = process ? undefined : stoppedText(situation)
  const status = told || (stopped ?? '')
  const next =
    stopped === undefined ? action : action || `To go on: plexus vinum start ${volume.name}`
  if (!volume.name.includes('/')) return { status, action: next }
  const taken = nameTaken(volume.name)
  return { status: `${status} ${taken.status}`.trim(), action: next || taken.action }
}

/** Of a volume in FreeBSD's format; `fault`: why it is not offered. */
export function importedAdvice(situation: Situation, fault: string | undefined): Advice {
  const { status } = adviceOf(situation)
  return {
    status:
      fault === undefined
        ? `Read-only, since its drives have FreeBSD's format. ${status}`.trim()
        : `Not served: ${fault}.`,
    action: importedAction(situation, fault),
  }
}

function importedAction(situation: Situation, fault: string | undefined): string {
  const missing = missingDrive(situation)
  if (missing) return `Connect drive ${missing.name} again: it is taken back by itself.`
  if (fault !== undefined || situation.bad.length > 0) {
    return 'Copy it to a new volume, or let FreeBSD bring it up to date.'
  }
  return 'To make it writable: plexus vinum convert'
}

/** Work that no job does any more, because it failed or was cancelled. */
function stoppedText({ model, plexes }: Situation): string | undefined {
  for (const plex of plexes) {
    const { name, growth, parityValidBytes } = plex
    if (growth) {
      return `The growth of ${name} has stopped at ${formatSize(growth.cursorBytes)}. It serves as it is.`
    }
    if (lacksParity(model, plex)) {
      return `The parity of ${name} was made up to ${formatSize(parityValidBytes)} only.`
    }
  }
  return undefined
}

function lacksParity(model: VinumModel, plex: PlexRecord): boolean {
  return hasParity(plex) && plex.parityValidBytes < sizeOfPlex(plex, subdisksOf(model, plex.uuid))
}

/**
 * The plex that would serve without a column, were its parity known to be right. Its writes have computed the parity
 * of what they wrote, so that no data is lost; where nothing was written parity may be anything.
 */
function unprotected({ model, plexes, health, bad }: Situation): PlexRecord | undefined {
  if (health !== 'FAULTED') return undefined
  return plexes.find(
    (plex) =>
      lacksParity(model, plex) && bad.filter(({ plexUuid }) => plexUuid === plex.uuid).length === 1,
  )
}

function statusText(situation: Situation): string {
  return [stateText(situation), lostText(situation)].filter(Boolean).join(' ')
}

function lostText({ plexes, model }: Situation): string {
  return plexes
    .filter(({ lost }) => lost)
    .map(({ lost, uuid }) => {
      const subdisks = subdisksOf(model, uuid)
      const columns = [...new Set((lost ?? []).map(({ column }) => subdisks[column]?.name ?? '?'))]
      return `${formatSize(lostBytes(lost))} of ${columns.join(', ')} are lost: reads of them fail (plexus events has the places).`
    })
    .join(' ')
}

function stateText(situation: Situation): string {
  const { model, volume, health, bad, process, doubt, plexes } = situation
  if (bad.length === 0) {
    return process?.kind === 'initialise'
      ? 'Parity is being made; until then one failure may lose what was never written.'
      : ''
  }
  const parts = [...new Set(bad.map((subdisk) => trouble(situation, subdisk)))].join(' ')
  const plex = unprotected(situation)
  if (plex) {
    const size = formatSize(sizeOfPlex(plex, subdisksOf(model, plex.uuid)))
    return (
      `${parts} The parity of ${plex.name} was made up to ${formatSize(plex.parityValidBytes)} of ${size} only, so ` +
      `that ${volume.name} does not go on without the drive by itself. Nothing that was written since that began is ` +
      `lost${doubt ? ', except perhaps where data and parity differ' : ''}.`
    )
  }
  const rest =
    health === 'FAULTED'
      ? ['Part of the data cannot be reached.', ...plexes.flatMap(heldText)].join(' ')
      : `${plexes.some(({ lost }) => lost) ? 'The rest of the data' : 'Data'} is intact; one more failure may lose it.`
  return `${parts} ${rest}`
}

/** A window that is in its backup alone (jobs/grow.ts). */
function heldText({ name, growth }: PlexRecord): readonly string[] {
  const { backup } = growth ?? {}
  if (!backup) return []
  const size = formatSize(backup.lengthBytes)
  return [
    `The growth of ${name} has stopped in the middle of a window: requests for ${size} of it wait.`,
  ]
}

function trouble({ drives, model, problemOf }: Situation, subdisk: SubdiskRecord): string {
  const drive = drives.get(subdisk.driveUuid)
  const record = byUuid(model.drives, subdisk.driveUuid)
  const name = record?.name ?? subdisk.driveUuid
  const problem = drive?.present ? undefined : problemOf(subdisk.driveUuid)
  if (problem) return `Drive ${name} is not used: ${problem.device} ${problem.text}.`
  if (!drive?.present) {
    const since = drive?.goneSince === undefined ? '' : ` since ${formatTime(drive.goneSince)}`
    const device = record?.device === name ? '' : ` (${record?.device ?? '?'})`
    return `Drive ${name}${device} is missing${since}.`
  }
  if (record?.state === 'down') return `Drive ${name} is out of service.`
  return subdisk.state === 'reviving'
    ? `Subdisk ${subdisk.name} on drive ${name} is being filled.`
    : `Subdisk ${subdisk.name} on drive ${name} is ${subdisk.state}.`
}

function doubtText({ doubt, plexes, process, resyncError }: Situation): string {
  if (!doubt) return ''
  const what = plexes.length > 1 ? 'Its copies' : 'Its data and parity'
  return (
    `${what} may differ in ${formatSize(doubt.bytes)} since a crash or a failed write${resyncText(doubt, process, resyncError)} ` +
    'Until then the loss of a drive may damage that part.'
  )
}

function mismatchText({ model, volume, plexes }: Situation): string {
  const found = mismatchesOf(model, volume)
  if (!found) return ''
  const what = plexes.length > 1 ? 'its copies do' : 'its data and parity do'
  const places = found.count === 1 ? 'one place' : `${found.count} places`
  return `The check that ended at ${formatTime(found.time)} found ${places} in which ${what} not agree (plexus events has them).`
}

function resyncText(
  { retrySeconds }: Doubt,
  process: JobReport | undefined,
  error: string | undefined,
): string {
  if (process?.kind === 'resync') {
    return process.state === 'paused'
      ? '; the resync that makes them agree is paused.'
      : '; a resync makes them agree.'
  }
  if (retrySeconds === undefined) return ', and no resync is under way.'
  if (error === undefined) return `; a resync begins in ${retrySeconds} s.`
  return `, and the resync has failed: ${error}. It is tried again in ${retrySeconds} s.`
}

function actionText(situation: Situation): string {
  const { model, volume, health, bad, process, doubt } = situation
  const { name } = volume
  const plex = unprotected(situation)
  const missing = missingDrive(situation)
  const problem = missing && situation.problemOf(missing.uuid)
  if (problem) return `${problem.device}: ${problem.action}`
  if (missing && plex) return goOnText(situation, plex, missing)
  const down = missing ? undefined : downDrive(situation)
  if (down) {
    const takeBack = `Look at drive ${down.name}, then take it back: plexus vinum setstate up ${down.name}`
    if (health === 'FAULTED') return takeBack
    return `${takeBack}, or replace it: plexus volume replace ${name} ${down.name} NEW-DEVICE`
  }
  if (process?.state === 'paused') return `To go on: plexus job resume ${process.id}`
  if (process && !missing) {
    return `Nothing to do. To follow it: plexus wait ${name} --for ${process.kind}`
  }
  const lost = situation.plexes.find((one) => one.lost)
  if (missing) {
    const connect = `Connect drive ${missing.name} again`
    if (health === 'FAULTED') return `${connect}: it is taken back by itself.`
    const replace = `or replace it: plexus volume replace ${name} ${missing.name} NEW-DEVICE`
    return lost
      ? `${connect}: what is lost may be on it; ${replace}. ${lostAction(lost)}`
      : `${connect}, ${replace}`
  }
  if (lost && bad.length === 0) return lostAction(lost)
  if (bad.length > 0) {
    const resort = health === 'FAULTED' ? lastResortOf(situation) : undefined
    if (resort !== undefined) return `${resort.charAt(0).toUpperCase()}${resort.slice(1)}`
    return `Look at its drive, then fill it again: plexus vinum start ${name}`
  }
  if (!doubt) {
    return mismatchesOf(model, volume)
      ? `To make them agree: plexus volume scrub ${name} --repair`
      : spareAction(situation)
  }
  return (
    `To try it now: plexus vinum start ${name}. If it fails again and again, plexus events shows what cannot be ` +
    'read: once that is written again, it can.'
  )
}

/** Of a volume that `start` cannot fill: no plex of it is good. */
function lastResortOf({ model, plexes }: Situation): string | undefined {
  const all = plexes.map((plex) => lastResort(model, plex))
  return all.includes(undefined) ? undefined : all[0]
}

function lostAction({ name }: PlexRecord): string {
  return (
    'Write the lost parts again, from a backup for example. To take what the disks say for them, right or wrong: ' +
    `plexus vinum setstate --force up ${name}`
  )
}

function goOnText({ model }: Situation, plex: PlexRecord, missing: DriveRecord): string {
  const job = model.jobs.find(({ targetUuid }) => targetUuid === plex.uuid)
  const cancel = job ? `plexus job cancel ${job.id}, then ` : ''
  return (
    `Connect drive ${missing.name} again: it is taken back by itself. If it is lost: ${cancel}plexus vinum setstate ` +
    `--force up ${plex.name} goes on without it; what was written is there, and what never was reads as anything.`
  )
}

/** A drive that is here, and out of service: only `setstate up` takes it back. */
function downDrive({ model, bad, drives }: Situation): DriveRecord | undefined {
  return bad
    .map(({ driveUuid }) => byUuid(model.drives, driveUuid))
    .find((one) => one?.state === 'down' && drives.get(one.uuid)?.present)
}

/**
 * The missing drive to connect first: one with which the volume serves again, else one that has missed nothing. A stale
 * one alone brings nothing back.
 */
function missingDrive({ model, volume, bad, drives }: Situation): DriveRecord | undefined {
  const away = bad.flatMap(({ driveUuid, state }) => {
    const record = byUuid(model.drives, driveUuid)
    return record && drives.get(driveUuid)?.present === false ? [{ record, state }] : []
  })
  const helps = ({ uuid, device }: DriveRecord): boolean =>
    healthOf(returnDrives(model, new Map([[uuid, device]])), volume.uuid) !== 'FAULTED'
  const first = away.find(({ record }) => helps(record)) ?? away.find((one) => one.state === 'down')
  return (first ?? away[0])?.record
}
