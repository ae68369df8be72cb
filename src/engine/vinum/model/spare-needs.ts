/**
 * What there is to do about the columns of volumes with spares, as rows of one table (docs/vinum.md, 10.2): pure, so that it
 * can be asked at any time, and asked again after a restart. spare-keeper.ts decides when it is done.
 */
import type { VinumJobKind } from '../../../control/reports.ts'
import { hasOtherCopy } from './coverage.ts'
import { byUuid, type SubdiskRecord, subdisksBelow, type VinumModel, volumeAbove } from './model.ts'
import { poolAbove, spareOf } from './spares.ts'

export type SpareNeedKind = 'put-back' | 'replace-spare' | 'step-in' | 'copy-back' | 'copy-away'

export interface SpareNeed {
  readonly kind: SpareNeedKind
  readonly subdiskUuid: string
  /** The same as long as it is about this column of its plex, whatever subdisk is there. */
  readonly column: string
  /** How long it must have been so. */
  readonly delaySeconds: number
}

/** What is known of drives beside the configuration. */
export interface NeedFacts {
  isPresent(driveUuid: string): boolean
  /** Do many reads of the drive fail? */
  isWeak(driveUuid: string): boolean
}

/** What the rows ask of a column. */
interface ColumnFacts {
  readonly up: boolean
  /** Out of service, and not being filled. */
  readonly out: boolean
  /** On a spare: one that serves; one that is broken, also when it is not here. undefined: on no spare. */
  readonly spare: 'good' | 'broken' | undefined
  /** Its spare is known to be bad: there is nothing to wait for. */
  readonly isBad: boolean
  /** A place of its own is kept for it. */
  readonly hasHome: boolean
  readonly isHomeHere: boolean
  /** Copied back without being asked: wanted; only after a while: by-pool. */
  readonly returns: 'wanted' | 'by-pool' | undefined
  /** Others have all that it holds. */
  readonly covered: boolean
  /** Its plex is being made larger, or the drive is no more. */
  readonly unfit: boolean
  /** A job fills its plex; any job but another move works on it. */
  readonly filling: boolean
  readonly working: boolean
  readonly moving: boolean
  readonly weak: boolean
  /** All of its volume is up. */
  readonly whole: boolean
}

type Row = readonly [SpareNeedKind, (f: ColumnFacts) => boolean, (f: ColumnFacts) => boolean]

const always = () => true

/** The first row that fits; the last column: does it wait for the delay of the pool? */
const ROWS: readonly Row[] = [
  // The job that filled it has ended early, and not because of the spare.
  ['put-back', (f) => f.out && f.spare === 'good' && f.hasHome && !f.filling, () => false],
  // More than one column away: nobody can compute what belongs there. It waits.
  [
    'replace-spare',
    (f) => f.out && f.spare === 'broken' && f.covered && !f.filling,
    (f) => !f.isBad,
  ],
  ['step-in', (f) => f.out && !f.spare && f.covered && !f.unfit && !f.filling, always],
  [
    'copy-back',
    (f) => f.up && f.isHomeHere && f.returns !== undefined && !f.working && !f.moving,
    (f) => f.returns === 'by-pool',
  ],
  ['copy-away', (f) => f.weak && f.whole && !f.spare && !f.working && !f.moving, () => false],
]

/** All needs, the most urgent first. */
export function spareNeeds(model: VinumModel, facts: NeedFacts): readonly SpareNeed[] {
  const needs: SpareNeed[] = []
  for (const volume of model.volumes) {
    if (volume.sparePoolUuid === undefined) continue
    const subdisks = subdisksBelow(model, volume.uuid)
    const whole = subdisks.every(({ state }) => state === 'up')
    for (const subdisk of subdisks) {
      const columnFacts = factsOf(model, subdisk, whole, facts)
      const row = ROWS.find(([, fits]) => fits(columnFacts))
      if (!row) continue
      const [kind, , waits] = row
      const delay = poolAbove(model, subdisk)?.delaySeconds ?? 0
      needs.push({
        kind,
        subdiskUuid: subdisk.uuid,
        column: `${subdisk.plexUuid}/${subdisk.plexOffsetBytes}`,
        delaySeconds: waits(columnFacts) ? delay : 0,
      })
    }
  }
  const rank = ({ kind }: SpareNeed): number => ROWS.findIndex(([one]) => one === kind)
  return needs.sort((a, b) => rank(a) - rank(b))
}

/** Jobs beside which a spare may step in: checks end for it, and the copies of other columns go on. */
const PATIENT: readonly VinumJobKind[] = ['check', 'repair', 'move']

function factsOf(
  model: VinumModel,
  subdisk: SubdiskRecord,
  whole: boolean,
  facts: NeedFacts,
): ColumnFacts {
  const { state, driveUuid, origin, move, plexUuid } = subdisk
  const isHere = (uuid: string): boolean =>
    byUuid(model.drives, uuid)?.state === 'up' && facts.isPresent(uuid)
  const out = state === 'stale' || state === 'down'
  const spare = spareOf(model, driveUuid)
  const isBad = spare?.broken !== undefined
  const plex = byUuid(model.plexes, plexUuid)
  const targets = new Set([plexUuid, volumeAbove(model, subdisk)?.uuid, subdisk.uuid])
  const jobs = model.jobs.filter(({ targetUuid }) => targets.has(targetUuid))
  const pool = poolAbove(model, subdisk)
  const byPool = pool?.copyBack === 'automatic' && origin?.copyBack === 'by-pool'
  return {
    up: state === 'up',
    out,
    spare: spare && (isBad || !isHere(driveUuid) ? 'broken' : 'good'),
    isBad,
    hasHome: origin !== undefined,
    isHomeHere: origin !== undefined && isHere(origin.driveUuid),
    returns: origin?.copyBack === 'wanted' ? 'wanted' : byPool ? 'by-pool' : undefined,
    covered: out && hasOtherCopy(model, subdisk, { without: new Set(), ownParity: true }),
    unfit: plex?.growth !== undefined || byUuid(model.drives, driveUuid)?.device === '',
    filling: jobs.some(({ kind }) => !PATIENT.includes(kind)),
    working: jobs.some(({ kind }) => kind !== 'move'),
    moving: move !== undefined,
    weak: isHere(driveUuid) && facts.isWeak(driveUuid),
    whole,
  }
}
