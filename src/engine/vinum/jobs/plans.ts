/**
 * Which jobs a configuration needs: what `start` means (docs/vinum.md, 5.3), what begins by itself when a drive
 * returns, and what a job's end does to the model. Pure. Nothing here
 * writes over data of which no valid copy exists elsewhere (8.11).
 */
import { PlexusError } from '../../../base/errors.ts'
import type { Random } from '../../../base/random.ts'
import type { VinumJobKind } from '../../../control/reports.ts'
import { hasOtherCopy } from '../model/coverage.ts'
import {
  byUuid,
  type GrowthRecord,
  holdsData,
  type JobRecord,
  type PlexRecord,
  plexesOf,
  putRecord,
  type SubdiskRecord,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
} from '../model/model.ts'
import { hasParity } from '../model/plex-kinds.ts'
import { clashes, derive, withStates } from '../model/state-rules.ts'

export interface JobOptions {
  readonly random: Random
  /**
   * Has the volume's intent map marked every write since the content of this subdisk was whole? Then only what
   * the map names is copied. Without it: everything, which is right always.
   */
  isTracked?(subdisk: SubdiskRecord): boolean
}

export interface JobsNeeded {
  /** With the new records, and the subdisks that they fill reviving. */
  readonly model: VinumModel
  /** The new ones. */
  readonly jobs: readonly JobRecord[]
}

/** What one plex, or one move, needs: a job with what it fills, or the reason why nothing helps, or nothing. */
type Need =
  | (NewJob & { readonly fills: readonly SubdiskRecord[] })
  | { readonly refusal: PlexusError }
  | undefined

/**
 * The jobs that bring an object up to date: a volume, a plex, or a subdisk that is to move; without `targetUuid`
 * all of the set, where what cannot be helped is passed over. Returns no jobs when nothing is needed. Throws
 * `not-found` for an unknown object, `in-use` when a job works on it already, `invalid` when nothing can help.
 */
export function jobsNeeded(
  model: VinumModel,
  targetUuid: string | undefined,
  options: JobOptions,
): JobsNeeded {
  if (targetUuid === undefined) {
    const plexes = model.plexes.map((one) => needOfPlex(model, one, options))
    const moves = model.subdisks.map((one) => needOfMove(model, one))
    return withJobs(model, [...plexes, ...moves], options)
  }
  const { refusals, ...needed } = jobsForAll(model, [targetUuid], options)
  if (refusals[0]) throw refusals[0]
  return needed
}

/** As {@link jobsNeeded} for several objects, with the refusals of those that get no job although they need one. */
export function jobsForAll(
  model: VinumModel,
  targetUuids: readonly string[],
  options: JobOptions,
): JobsNeeded & { readonly refusals: readonly PlexusError[] } {
  const all = targetUuids.map((uuid) => needsOf(model, uuid, options))
  const refusals = all.flatMap((needs) => {
    const refused = needs.find((one) => one !== undefined && 'refusal' in one)
    const hasJob = needs.some((one) => one !== undefined && !('refusal' in one))
    return refused && 'refusal' in refused && !hasJob ? [refused.refusal] : []
  })
  return { ...withJobs(model, all.flat(), options), refusals }
}

function withJobs(model: VinumModel, needs: readonly Need[], { random }: JobOptions): JobsNeeded {
  let next = model
  const jobs: JobRecord[] = []
  for (const need of needs) {
    if (!need || 'refusal' in need) continue
    const { fills, ...plan } = need
    const job = newJob(next, plan, random)
    next = withStates(next, fills, need.kind === 'grow' ? 'up' : 'reviving')
    next = { ...next, jobs: [...next.jobs, job] }
    jobs.push(job)
  }
  return jobs.length === 0 ? { model, jobs } : { model: derive(next), jobs }
}

export type NewJob = Pick<JobRecord, 'kind' | 'targetUuid'> &
  Partial<Pick<JobRecord, 'cursorBytes' | 'scope' | 'limitBytesPerSecond'>>

/** A new job's record, with an id that is free in the set (`j3f9a`). The caller puts it into the model. */
export function newJob(model: VinumModel, plan: NewJob, random: Random): JobRecord {
  let id: string
  do id = `j${random.bytes(2).toString('hex')}`
  while (model.jobs.some((one) => one.id === id))
  return {
    id,
    kind: plan.kind,
    targetUuid: plan.targetUuid,
    cursorBytes: plan.cursorBytes ?? 0,
    scope: plan.scope ?? 'all',
    paused: false,
    limitBytesPerSecond: plan.limitBytesPerSecond,
    mismatches: 0,
  }
}

/**
 * The model after a job: its record is gone. `done`: what it filled is up, parity that it computed is valid. Else
 * what it was filling is stale again: a copy that has ended early is never good (8.6, 8.8). The ends of grow and
 * move, which change places and sizes, are their own business (grow.ts, move.ts).
 */
export function endJob(
  model: VinumModel,
  jobId: string,
  outcome: 'done' | 'failed' | 'cancelled',
): VinumModel {
  const job = model.jobs.find((one) => one.id === jobId)
  if (!job) return model
  let next: VinumModel = { ...model, jobs: model.jobs.filter((one) => one !== job) }
  if (job.kind === 'sync' || job.kind === 'rebuild') {
    const filled = subdisksOf(next, job.targetUuid).filter((one) => one.state === 'reviving')
    next = withStates(next, filled, outcome === 'done' ? 'up' : 'stale')
  }
  const plex = byUuid(next.plexes, job.targetUuid)
  if (outcome === 'done' && plex && job.kind === 'initialise') {
    const parityValidBytes = sizeOfPlex(plex, subdisksOf(next, plex.uuid))
    next = putRecord(next, 'plexes', { ...plex, parityValidBytes })
  }
  return derive(next)
}

function needsOf(model: VinumModel, uuid: string, options: JobOptions): readonly Need[] {
  const volume = byUuid(model.volumes, uuid)
  if (volume) {
    const plexes = plexesOf(model, uuid)
    if (plexes.length === 0) {
      return [refuse('invalid', `volume ${volume.name}`, 'it has no plexes; attach one first')]
    }
    const job = model.jobs.find((one) => one.targetUuid === uuid)
    if (job) return [busy(`volume ${volume.name}`, job)]
    return plexes.map((one) => needOfPlex(model, one, options))
  }
  const plex = byUuid(model.plexes, uuid)
  if (plex) return [needOfPlex(model, plex, options)]
  const subdisk = byUuid(model.subdisks, uuid)
  if (subdisk?.move) return [needOfMove(model, subdisk)]
  const drive = byUuid(model.drives, uuid)
  if (subdisk || drive) {
    const type = subdisk ? 'subdisk' : 'drive'
    const name = `${type} ${subdisk?.name ?? drive?.name}`
    const parent = byUuid(model.plexes, subdisk?.plexUuid)
    const hint = parent ? `: start ${parent.name}` : ''
    return [
      refuse('invalid', name, `a ${type} is not started; start its plex or its volume${hint}`),
    ]
  }
  throw new PlexusError('not-found', {
    op: 'start',
    subject: uuid,
    message: `there is no object ${uuid} in the vinum configuration`,
  })
}

function refuse(kind: 'invalid' | 'in-use', object: string, reason: string): Need {
  const message = `${object}: ${reason}`
  return { refusal: new PlexusError(kind, { op: 'start', subject: object, message }) }
}

function busy(object: string, job: JobRecord): Need {
  return refuse(
    'in-use',
    object,
    `job ${job.id} (${job.kind}) works on it; wait for it, or cancel it`,
  )
}

function need(
  kind: VinumJobKind,
  { uuid: targetUuid }: { readonly uuid: string },
  fills: readonly SubdiskRecord[],
  plan: Pick<NewJob, 'cursorBytes' | 'scope'> = {},
): Need {
  return { kind, targetUuid, fills, ...plan }
}

function needOfMove(model: VinumModel, subdisk: SubdiskRecord): Need {
  if (!subdisk.move) return undefined
  const job = model.jobs.find((one) => one.targetUuid === subdisk.uuid)
  if (job) return busy(`subdisk ${subdisk.name}`, job)
  if (subdisk.state !== 'up') {
    return refuse(
      'invalid',
      `subdisk ${subdisk.name}`,
      `it is ${subdisk.state}: nothing to move from`,
    )
  }
  return need('move', subdisk, [])
}

function needOfPlex(model: VinumModel, plex: PlexRecord, options: JobOptions): Need {
  const subdisks = subdisksOf(model, plex.uuid)
  const parityValid = plex.parityValidBytes >= sizeOfPlex(plex, subdisks)
  const out = subdisks.filter((one) => one.state !== 'up')
  const raid5 = hasParity(plex)
  if (out.length === 0 && !plex.growth && (!raid5 || parityValid)) return undefined
  const job = model.jobs.find((one) => one.targetUuid === plex.uuid)
  if (job) return busy(`plex ${plex.name}`, job)
  if (plex.growth) return needOfGrowth(model, plex, plex.growth, out, options)
  if (raid5 && out.length === 0) {
    return need('initialise', plex, [], { cursorBytes: plex.parityValidBytes })
  }
  if (raid5 && out.length === 1 && parityValid) return needOfColumn(model, plex, out, options)
  return needOfSync(model, plex, out, options)
}

/** A growth goes on with all columns. Before, a column of raid5 that lacks data is computed from the others. */
function needOfGrowth(
  model: VinumModel,
  plex: PlexRecord,
  growth: GrowthRecord,
  out: readonly SubdiskRecord[],
  options: JobOptions,
): Need {
  const subdisks = subdisksOf(model, plex.uuid)
  const lacking = out.filter((one) => holdsData(growth, subdisks.indexOf(one)))
  if (lacking.length === 0) {
    if (!out.every((one) => isHere(model, one))) return missing(model, plex, out)
    return need('grow', plex, out, { cursorBytes: growth.cursorBytes })
  }
  const parityValid = plex.parityValidBytes >= sizeOfPlex(plex, subdisks)
  if (hasParity(plex) && parityValid && lacking.length === 1) {
    return needOfColumn(model, plex, lacking, options)
  }
  return refuse(
    'invalid',
    `plex ${plex.name}`,
    `it cannot grow on: ${listed(lacking)}; bring them back first`,
  )
}

/** raid5 with one column out: it is computed from the others. */
function needOfColumn(
  model: VinumModel,
  plex: PlexRecord,
  out: readonly SubdiskRecord[],
  options: JobOptions,
): Need {
  const fills = out.filter((one) => isHere(model, one))
  if (fills.length === 0) return missing(model, plex, out)
  return need('rebuild', plex, fills, { scope: scopeOf(fills, options) })
}

/** What the other plexes of the volume can fill. */
function needOfSync(
  model: VinumModel,
  plex: PlexRecord,
  out: readonly SubdiskRecord[],
  options: JobOptions,
): Need {
  const here = out.filter((one) => isHere(model, one))
  if (here.length === 0) return missing(model, plex, out)
  const fills = here.filter((one) => hasCopyElsewhere(model, plex, one))
  if (fills.length === 0) {
    const reason = `${listed(out)}, and no good copy of it exists; ${lastResort(model, plex)}`
    return refuse('invalid', `plex ${plex.name}`, reason)
  }
  return need('sync', plex, fills, { scope: scopeOf(fills, options) })
}

function hasCopyElsewhere(model: VinumModel, plex: PlexRecord, subdisk: SubdiskRecord): boolean {
  const without = new Set(subdisksOf(model, plex.uuid).map((one) => one.uuid))
  return hasOtherCopy(model, subdisk, { without, ownParity: false })
}

/**
 * What lets a plex serve again that other plexes cannot fill, since none of them has what it lacks. undefined: they can
 * fill a part of it, or it lacks nothing on drives that are here.
 */
export function lastResort(model: VinumModel, plex: PlexRecord): string | undefined {
  const out = subdisksOf(model, plex.uuid).filter((one) => one.state !== 'up')
  const here = out.filter((one) => isHere(model, one))
  if (here.length === 0 || here.some((one) => hasCopyElsewhere(model, plex, one))) return undefined
  if (here.some((one) => one.state === 'down')) {
    return `plexus vinum setstate up ${plex.name} lets it serve again`
  }
  const volume = clashes(model, here) ? byUuid(model.volumes, plex.volumeUuid) : undefined
  const force = volume
    ? `plexus vinum setstate --force up ${volume.name} takes a plex that fits what is valid of it`
    : `plexus vinum setstate --force up ${plex.name} serves it as it is`
  return `connect the disks that have newer data; if they are lost: ${force}`
}

function scopeOf(fills: readonly SubdiskRecord[], options: JobOptions): JobRecord['scope'] {
  return fills.every((one) => options.isTracked?.(one) === true) ? 'dirty' : 'all'
}

function isHere(model: VinumModel, subdisk: SubdiskRecord): boolean {
  return byUuid(model.drives, subdisk.driveUuid)?.state === 'up'
}

function listed(out: readonly SubdiskRecord[]): string {
  return out.map((one) => `subdisk ${one.name} is ${one.state}`).join(', ')
}

function missing(model: VinumModel, plex: PlexRecord, out: readonly SubdiskRecord[]): Need {
  const names = new Set(out.map((one) => byUuid(model.drives, one.driveUuid)?.name ?? '?'))
  const drives = [...names].join(', ')
  const [first = drives] = names
  const reason = `${listed(out)}; drive ${drives} is down: connect it, or take it back: plexus vinum setstate up ${first}; or replace it`
  return refuse('invalid', `plex ${plex.name}`, reason)
}
