/**
 * `vinum setstate`, `start`, `checkparity`, `rebuildparity` and `volume scrub`: what changes states and starts
 * jobs. The rules are in state-rules.ts and jobs/plans.ts. docs/vinum.md, 5.2, 5.3 and 6.
 */
import type { VinumJobKind } from '../../../control/reports.ts'
import type { VerbSpec } from '../../../control/verb-spec.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import { VOLUME_SPECS } from '../../../control/volume-verbs.ts'
import { newJob } from '../jobs/plans.ts'
import { byUuid, type PlexRecord, type VolumeRecord } from '../model/model.ts'
import { hasParity } from '../model/plex-kinds.ts'
import { lostPlexes, setState } from '../model/state-rules.ts'
import type { PlanningVerb } from '../plan.ts'
import { lostBytes } from '../raid5/lost.ts'
import { type Draft, planning } from './draft.ts'
import { findObject, findTyped } from './lookup.ts'

export const SETSTATE = planning(VINUM_SPECS.setstate, [], (draft) => {
  const state = draft.text('state')
  const { type, record } = findObject(draft.model, draft.text('object'))
  const force = draft.flag('force')
  const lost = force && state === 'up' ? lostPlexes(draft.model, { record }) : []
  if (record.state === state && lost.length === 0) {
    draft.warn`${type} ${record.name} is ${state} already`
    return
  }
  draft.model = setState(draft.model, record.uuid, state, {
    force,
    isOpen: draft.context.isOpen,
    isPresent: draft.context.isPresent,
  })
  for (const plex of lost) {
    const bytes = lostBytes(plex.lost)
    draft.stepOn(plex.name, `take what the disks say for ${bytes} bytes of ${plex.name}`)
    draft.warn`what ${plex.name} has lost reads as anything from now on, until it is written`
  }
  if (lost.length > 0) return
  draft.stepOn(record.name, `set ${type} ${record.name} from ${record.state} to ${state}`)
  for (const { name, uuid, parityValidBytes } of draft.model.plexes) {
    const before = byUuid(draft.context.model.plexes, uuid)?.parityValidBytes ?? parityValidBytes
    if (parityValidBytes <= before) continue
    draft.warn`the parity of ${name} counts everywhere by order: what was never written reads as anything`
  }
  if (force && state === 'up') {
    draft.warn`${record.name} is up by order: what it missed while it was ${record.state} stays old`
  }
})

export const START = planning(VINUM_SPECS.start, [], (draft) => {
  const objects = draft.names('objects', 'object')
  for (const name of objects) {
    const { type, record } = findObject(draft.model, name)
    if (type === 'subdisk' || type === 'drive')
      throw draft.unsupported`${name} is a ${type}, and only volumes and plexes are started; name the plex above it`
    if (draft.startJobsOrThrow(record) > 0) continue
    const volume = type === 'plex' ? record.volumeUuid : record.uuid
    // Needs no record: the set takes up every resync that is due when a verb has ended.
    if (draft.context.inDoubt(volume ?? '')) draft.step`resync what is in doubt of ${name}`
    else draft.warn`${type} ${name} is ${record.state}: nothing to start`
  }
})

/** A job that compares: on a raid5 plex its parity, on a volume its copies. */
function addCheck(
  draft: Draft,
  kind: VinumJobKind,
  target: PlexRecord | VolumeRecord,
  restart: boolean,
): void {
  const running = draft.model.jobs.filter((one) => one.targetUuid === target.uuid)
  for (const job of running) {
    const check = job.kind === 'check' || job.kind === 'repair'
    if (check && job.paused && restart) {
      draft.model = { ...draft.model, jobs: draft.model.jobs.filter((one) => one !== job) }
      continue
    }
    const advice =
      check && job.paused
        ? `resume it (plexus job resume ${job.id}), or begin again with -f`
        : `wait for it, or cancel it: plexus job cancel ${job.id}`
    const why = `job ${job.id} (${job.kind}${job.paused ? ', paused' : ''}) works on ${target.name}; ${advice}`
    draft.fail('in-use', target.name, why)
  }
  draft.addJob(newJob(draft.model, { kind, targetUuid: target.uuid }, draft.context.random))
}

function checkWhole(draft: Draft, plex: PlexRecord): void {
  if (plex.state === 'up') return
  throw draft.invalid`plex ${plex.name} is ${plex.state}, not fully up; bring it up first: plexus vinum start ${plex.name}`
}

function parityVerb(spec: VerbSpec, kind: VinumJobKind): PlanningVerb {
  return planning(spec, [], (draft) => {
    const plexes = draft.names('plexes', 'plex')
    for (const name of plexes) {
      const plex = findTyped(draft.model, 'plex', name)
      if (!hasParity(plex))
        throw draft.unsupported`plex ${name} is ${plex.organization}, not raid5: it has no parity; plexus volume scrub VOLUME compares the copies of a volume`
      checkWhole(draft, plex)
      addCheck(draft, kind, plex, draft.flag('force'))
    }
  })
}

export const PARITY_VERBS: readonly PlanningVerb[] = [
  parityVerb(VINUM_SPECS.checkparity, 'check'),
  parityVerb(VINUM_SPECS.rebuildparity, 'repair'),
]

export const VOLUME_SCRUB = planning(VOLUME_SPECS.scrub, [], (draft) => {
  const volume = findTyped(draft.model, 'volume', draft.text('name'))
  const kind = draft.flag('repair') ? 'repair' : 'check'
  const plexes = draft.plexesOf(volume)
  const raid5 = plexes.filter(hasParity)
  if (plexes.length < 2 && raid5.length === 0)
    throw draft.unsupported`volume ${volume.name} has one copy and no parity: there is nothing to compare; add a copy: plexus volume add-mirror ${volume.name} DEVICE`
  for (const plex of plexes) checkWhole(draft, plex)
  for (const plex of raid5) addCheck(draft, kind, plex, false)
  if (plexes.length > 1) addCheck(draft, kind, volume, false)
})
