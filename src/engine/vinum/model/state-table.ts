/**
 * The state rules of vinum as one table: how states follow from what lies below (docs/vinum.md, 5.1), and which
 * states may be set by hand (5.2). The first row that fits decides. state-rules.ts applies the rows;
 * test/engine/vinum/model/state-rules.test.ts has a test for every one, and fails for one without.
 *
 * What differs from the original has its reason beside it. Two things differ throughout:
 * - `down` of a subdisk means: out of reach, and it has missed nothing, because no copy went on without it. One
 *   that may have missed a write is `stale` at once. So no flag CANGOUP is needed, and none can be wrong (8.8).
 * - A state set by hand holds: setting a plex or a volume sets the subdisks from which its state follows.
 */
import type { ErrorKind } from '../../../base/errors.ts'
import type { DriveState, Organization, PlexState, SubdiskState, VolumeState } from './model.ts'

export interface DriveFacts {
  readonly state: DriveState
  readonly present: boolean
}

export interface SubdiskFacts {
  readonly state: SubdiskState
  readonly driveUp: boolean
  /** All that it holds is valid elsewhere in its volume, and can be written there without it. */
  readonly otherCopy: boolean
  /** A column of raid5. */
  readonly raid5: boolean
}

export interface PlexFacts {
  readonly organization: Organization
  readonly subdisks: number
  readonly up: number
  /** Reviving, initializing. */
  readonly copying: number
  /** Down, stale. */
  readonly out: number
  /** raid5: parity is right everywhere. */
  readonly parityValid: boolean
  readonly growing: boolean
  /** The volume has other plexes. */
  readonly mirrored: boolean
  /** A sync or a rebuild works on it. */
  readonly jobRuns: boolean
}

export interface VolumeFacts {
  readonly plexes: number
  /** Every byte has a valid copy in one of the plexes. */
  readonly covered: boolean
}

export interface DerivedRule<F, S> {
  readonly id: string
  readonly when: (facts: F) => boolean
  readonly state: S
}

export const DRIVE_RULES: readonly DerivedRule<DriveFacts, DriveState>[] = [
  { id: 'drive-absent', when: (f) => !f.present, state: 'down' },
  { id: 'drive-up', when: (f) => f.state === 'up', state: 'up' },
  // Taken out or failed: only its return or `setstate up` brings it back, not the next derivation.
  { id: 'drive-down', when: () => true, state: 'down' },
]

const away = (f: SubdiskFacts) => !f.driveUp || f.state === 'down'
const copying = (f: SubdiskFacts) => f.state === 'reviving' || f.state === 'initializing'

export const SUBDISK_RULES: readonly DerivedRule<SubdiskFacts, SubdiskState>[] = [
  // The original says down, and knows by CANGOUP that it is not: what missed writes must stay known as such.
  { id: 'subdisk-stale', when: (f) => f.state === 'stale', state: 'stale' },
  { id: 'subdisk-copy-cut-short', when: (f) => !f.driveUp && copying(f), state: 'stale' },
  { id: 'subdisk-reviving', when: (f) => f.state === 'reviving', state: 'reviving' },
  { id: 'subdisk-initializing', when: (f) => f.state === 'initializing', state: 'initializing' },
  // It left together with another column, which is back: the first write that needs it makes it stale. Until then it may
  // return as it is, which costs no rebuild, and its data counts where parity is in doubt.
  {
    id: 'subdisk-away-raid5',
    when: (f) => !f.driveUp && f.state === 'down' && f.raid5,
    state: 'down',
  },
  // Writes go on without it from now on.
  { id: 'subdisk-away-redundant', when: (f) => away(f) && f.otherCopy, state: 'stale' },
  // Nothing can be written without it, so that it is complete when it returns.
  { id: 'subdisk-away-last', when: away, state: 'down' },
  { id: 'subdisk-up', when: () => true, state: 'up' },
]

const linear = (f: PlexFacts) => f.organization !== 'raid5'

export const PLEX_RULES: readonly DerivedRule<PlexFacts, PlexState>[] = [
  { id: 'plex-empty', when: (f) => f.subdisks === 0, state: 'down' },
  {
    id: 'plex-striped-narrow',
    when: (f) => f.organization === 'striped' && f.subdisks < 2,
    state: 'down',
  },
  {
    id: 'plex-raid5-narrow',
    when: (f) => f.organization === 'raid5' && f.subdisks < 3,
    state: 'down',
  },
  // Serves: below the cursor by the new columns, above by the old ones.
  { id: 'plex-growing', when: (f) => f.up === f.subdisks && f.growing, state: 'growable' },
  // Serves, but has no redundancy yet; the original calls it up, and returns garbage when a column fails (8.2).
  {
    id: 'plex-raid5-initializing',
    when: (f) => !linear(f) && f.up === f.subdisks && !f.parityValid,
    state: 'initializing',
  },
  { id: 'plex-up', when: (f) => f.up === f.subdisks, state: 'up' },
  {
    id: 'plex-raid5-degraded',
    when: (f) => !linear(f) && f.up === f.subdisks - 1 && f.parityValid,
    state: 'degraded',
  },
  // The missing column cannot be computed from parity that is not right.
  { id: 'plex-raid5-no-parity', when: (f) => !linear(f) && f.up === f.subdisks - 1, state: 'down' },
  { id: 'plex-raid5-lost', when: (f) => !linear(f), state: 'down' },
  // The subdisks that are up serve, their neighbours' ranges come from the other plexes; the original gives up all.
  { id: 'plex-linear-partly', when: (f) => f.mirrored && f.up > 0, state: 'degraded' },
  { id: 'plex-linear-copying', when: (f) => f.out === 0 && f.jobRuns, state: 'degraded' },
  { id: 'plex-linear-copy-idle', when: (f) => f.out === 0, state: 'down' },
  { id: 'plex-linear-lost', when: () => true, state: 'down' },
]

export const VOLUME_RULES: readonly DerivedRule<VolumeFacts, VolumeState>[] = [
  { id: 'volume-empty', when: (f) => f.plexes === 0, state: 'down' },
  // The original asks for one good plex; two which lost different parts have everything just as well.
  { id: 'volume-covered', when: (f) => f.covered, state: 'up' },
  { id: 'volume-lost', when: () => true, state: 'down' },
]

/** What `setstate` sees of its object after a derivation. */
export interface SetFacts {
  readonly force: boolean
  /** A volume on it is open. */
  readonly open: boolean
  /** drive: its device is there. subdisk: its drive is up. */
  readonly present: boolean
  /** subdisk, plex: has a parent. */
  readonly attached: boolean
  /** Its state now. */
  readonly state: string
  /** subdisk, plex: all that it holds is valid elsewhere in its volume. */
  readonly otherCopy: boolean
  /** plex, volume: a part of a raid5 plex is lost. */
  readonly lost: boolean
  /** subdisk: its plex is raid5, or the volume has other plexes. */
  readonly redundant: boolean
  /** A job works on it or on its plex. */
  readonly busy: boolean
  /** State that its `down` subdisks with drives would give it when they went up; they have missed nothing. */
  readonly raised: string
}

/** How a state is set; state-rules.ts has a function for each. */
export type SetEffect =
  | 'drive-down'
  | 'drive-up'
  | 'subdisk-state'
  | 'take-down'
  | 'raise'
  | 'accept'
  | 'take-lost'

export interface SetRule {
  readonly id: string
  readonly of: 'drive' | 'subdisk' | 'plex' | 'volume'
  readonly to: string
  readonly when: (facts: SetFacts) => boolean
  readonly action:
    | SetEffect
    | { readonly refuse: ErrorKind; readonly because: string; readonly instead: string }
}

const any = () => true
const refuse = (kind: ErrorKind, because: string, instead: string) =>
  ({ refuse: kind, because, instead }) as const

const LAST_COPY = 'a part of the volume has no other valid copy'
const DERIVED = 'this state follows from the objects below, it cannot be set'
const OTHER_COPY = refuse(
  'invalid',
  'its content may be old, and a valid copy exists: two copies that differ must not both be up',
  'use start: it copies what is missing',
)
const BUSY = refuse('in-use', 'a job works on it', 'wait for the job, or cancel it')

/** Before these rows, for every object: a state that it has already is set with success, where nothing is lost. */
export const SET_RULES: readonly SetRule[] = [
  {
    id: 'set-drive-down-open',
    of: 'drive',
    to: 'down',
    when: (f) => f.open && !f.force,
    action: refuse('in-use', 'a volume on it is open', 'use force, or take the LUNs off it'),
  },
  { id: 'set-drive-down', of: 'drive', to: 'down', when: any, action: 'drive-down' },
  // The original says up of a drive that is not there.
  {
    id: 'set-drive-up-absent',
    of: 'drive',
    to: 'up',
    when: (f) => !f.present,
    action: refuse('gone', 'its device is missing', 'connect the device'),
  },
  { id: 'set-drive-up', of: 'drive', to: 'up', when: any, action: 'drive-up' },

  {
    id: 'set-subdisk-down-attached',
    of: 'subdisk',
    to: 'down',
    when: (f) => f.attached && !f.force,
    action: refuse('in-use', 'it is attached to a plex', 'use force, or detach it'),
  },
  { id: 'set-subdisk-down', of: 'subdisk', to: 'down', when: any, action: 'take-down' },
  {
    id: 'set-subdisk-copying',
    of: 'subdisk',
    to: 'reviving',
    when: (f) => !f.force,
    action: refuse('invalid', 'only a job sets this state', 'use start'),
  },
  {
    id: 'set-subdisk-copying-forced',
    of: 'subdisk',
    to: 'reviving',
    when: any,
    action: 'subdisk-state',
  },
  {
    id: 'set-subdisk-init',
    of: 'subdisk',
    to: 'initializing',
    when: (f) => !f.force,
    action: refuse('invalid', 'only a job sets this state', 'use start'),
  },
  {
    id: 'set-subdisk-init-forced',
    of: 'subdisk',
    to: 'initializing',
    when: any,
    action: 'subdisk-state',
  },
  {
    id: 'set-subdisk-stale',
    of: 'subdisk',
    to: 'stale',
    when: (f) => !f.force,
    action: refuse('invalid', 'its content would count no more', 'use force'),
  },
  {
    id: 'set-subdisk-stale-forced',
    of: 'subdisk',
    to: 'stale',
    when: any,
    action: 'subdisk-state',
  },
  {
    id: 'set-subdisk-up-no-drive',
    of: 'subdisk',
    to: 'up',
    when: (f) => !f.present,
    action: refuse('gone', 'its drive is down', 'connect the drive, or set it up first'),
  },
  // From down: it has missed nothing, else it were stale after the derivation.
  {
    id: 'set-subdisk-up-down',
    of: 'subdisk',
    to: 'up',
    when: (f) => f.state === 'down',
    action: 'raise',
  },
  {
    id: 'set-subdisk-up-detached',
    of: 'subdisk',
    to: 'up',
    when: (f) => !f.attached,
    action: 'accept',
  },
  { id: 'set-subdisk-up-busy', of: 'subdisk', to: 'up', when: (f) => f.busy, action: BUSY },
  // The original allows it with force: mirrors that differ, parity that is wrong (8.7).
  {
    id: 'set-subdisk-up-other-copy',
    of: 'subdisk',
    to: 'up',
    when: (f) => f.otherCopy,
    action: OTHER_COPY,
  },
  { id: 'set-subdisk-up-forced', of: 'subdisk', to: 'up', when: (f) => f.force, action: 'accept' },
  {
    id: 'set-subdisk-up-single',
    of: 'subdisk',
    to: 'up',
    when: (f) => f.state === 'stale' && !f.redundant,
    action: 'accept',
  },
  // From reviving or initializing, too: a copy that ended early is not good (8.6, 8.8).
  {
    id: 'set-subdisk-up',
    of: 'subdisk',
    to: 'up',
    when: any,
    action: refuse(
      'invalid',
      'its content may be old',
      'use start to bring it up to date; force takes it as it is',
    ),
  },

  // By the operator's word what the disks say is the content, and nothing else changes.
  {
    id: 'set-plex-up-lost',
    of: 'plex',
    to: 'up',
    when: (f) => f.lost && f.force,
    action: 'take-lost',
  },
  {
    id: 'set-plex-up',
    of: 'plex',
    to: 'up',
    // Initializing: its parity goes on from where it was, and counts no further than it did.
    when: (f) => ['up', 'growable', 'initializing'].includes(f.raised),
    action: 'raise',
  },
  { id: 'set-plex-up-busy', of: 'plex', to: 'up', when: (f) => f.busy, action: BUSY },
  {
    id: 'set-plex-up-unforced',
    of: 'plex',
    to: 'up',
    when: (f) => !f.force,
    action: refuse(
      'invalid',
      'not all of its subdisks are up and valid',
      'use start; force takes them as they are',
    ),
  },
  {
    id: 'set-plex-up-other-copy',
    of: 'plex',
    to: 'up',
    when: (f) => f.otherCopy,
    action: OTHER_COPY,
  },
  { id: 'set-plex-up-forced', of: 'plex', to: 'up', when: any, action: 'accept' },
  // The original asks whether it is the only plex, or the last one not down: the copies decide.
  {
    id: 'set-plex-down-last',
    of: 'plex',
    to: 'down',
    when: (f) => f.attached && !f.otherCopy && !f.force,
    action: refuse('in-use', LAST_COPY, 'use force to take the volume down with it'),
  },
  { id: 'set-plex-down', of: 'plex', to: 'down', when: any, action: 'take-down' },
  // The original wants force for degraded, and ignores the other two silently.
  {
    id: 'set-plex-degraded',
    of: 'plex',
    to: 'degraded',
    when: any,
    action: refuse('invalid', DERIVED, 'set the subdisk down instead'),
  },
  {
    id: 'set-plex-initializing',
    of: 'plex',
    to: 'initializing',
    when: any,
    action: refuse('invalid', DERIVED, 'use start'),
  },
  {
    id: 'set-plex-growable',
    of: 'plex',
    to: 'growable',
    when: any,
    action: refuse('invalid', DERIVED, 'use grow'),
  },

  {
    id: 'set-volume-up-lost',
    of: 'volume',
    to: 'up',
    when: (f) => f.lost && f.force,
    action: 'take-lost',
  },
  { id: 'set-volume-up', of: 'volume', to: 'up', when: (f) => f.raised === 'up', action: 'raise' },
  { id: 'set-volume-up-busy', of: 'volume', to: 'up', when: (f) => f.busy, action: BUSY },
  {
    id: 'set-volume-up-unforced',
    of: 'volume',
    to: 'up',
    when: (f) => !f.force,
    action: refuse(
      'invalid',
      'a part of it has no valid copy',
      'connect its drives; force takes the content of a plex as it is',
    ),
  },
  { id: 'set-volume-up-forced', of: 'volume', to: 'up', when: any, action: 'accept' },
  {
    id: 'set-volume-down-open',
    of: 'volume',
    to: 'down',
    when: (f) => f.open && !f.force,
    action: refuse('in-use', 'it is open', 'use force, or take the LUNs off it'),
  },
  { id: 'set-volume-down', of: 'volume', to: 'down', when: any, action: 'take-down' },
]
