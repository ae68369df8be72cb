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
import type { DriveState, PlexState, SubdiskState, VolumeState } from './model.ts'
import { hasParity, kindOf, type Organization } from './plex-kinds.ts'

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

/** Rows by their ids: when one fits, and the state that follows. */
function derived<F, S extends string>(
  rows: Readonly<Record<string, readonly [(facts: F) => boolean, S]>>,
): readonly DerivedRule<F, S>[] {
  return Object.entries(rows).map(([id, [when, state]]) => ({ id, when, state }))
}

const any = () => true

export const DRIVE_RULES = derived<DriveFacts, DriveState>({
  'drive-absent': [(f) => !f.present, 'down'],
  'drive-up': [(f) => f.state === 'up', 'up'],
  // Taken out or failed: only its return or `setstate up` brings it back, not the next derivation.
  'drive-down': [any, 'down'],
})

const away = (f: SubdiskFacts) => !f.driveUp || f.state === 'down'
const copying = (f: SubdiskFacts) => f.state === 'reviving' || f.state === 'initializing'

export const SUBDISK_RULES = derived<SubdiskFacts, SubdiskState>({
  // The original says down, and knows by CANGOUP that it is not: what missed writes must stay known as such.
  'subdisk-stale': [(f) => f.state === 'stale', 'stale'],
  'subdisk-copy-cut-short': [(f) => !f.driveUp && copying(f), 'stale'],
  'subdisk-reviving': [(f) => f.state === 'reviving', 'reviving'],
  'subdisk-initializing': [(f) => f.state === 'initializing', 'initializing'],
  // It left together with another column, which is back: the first write that needs it makes it stale. Until then it may
  // return as it is, which costs no rebuild, and its data counts where parity is in doubt.
  'subdisk-away-raid5': [(f) => !f.driveUp && f.state === 'down' && f.raid5, 'down'],
  // Writes go on without it from now on.
  'subdisk-away-redundant': [(f) => away(f) && f.otherCopy, 'stale'],
  // Nothing can be written without it, so that it is complete when it returns.
  'subdisk-away-last': [away, 'down'],
  'subdisk-up': [any, 'up'],
})

const whole = (f: PlexFacts) => f.up === f.subdisks
const oneMissing = (f: PlexFacts) => hasParity(f) && f.up === f.subdisks - 1

export const PLEX_RULES = derived<PlexFacts, PlexState>({
  'plex-narrow': [(f) => f.subdisks < kindOf(f).columnsMin, 'down'],
  // Serves: below the cursor by the new columns, above by the old ones.
  'plex-growing': [(f) => whole(f) && f.growing, 'growable'],
  // Serves, but has no redundancy yet; the original calls it up, and returns garbage when a column fails (8.2).
  'plex-raid5-initializing': [(f) => hasParity(f) && whole(f) && !f.parityValid, 'initializing'],
  'plex-up': [whole, 'up'],
  'plex-raid5-degraded': [(f) => oneMissing(f) && f.parityValid, 'degraded'],
  // The missing column cannot be computed from parity that is not right.
  'plex-raid5-no-parity': [oneMissing, 'down'],
  'plex-raid5-lost': [hasParity, 'down'],
  // The subdisks that are up serve, their neighbours' ranges come from the other plexes; the original gives up all.
  'plex-linear-partly': [(f) => f.mirrored && f.up > 0, 'degraded'],
  'plex-linear-copying': [(f) => f.out === 0 && f.jobRuns, 'degraded'],
  'plex-linear-copy-idle': [(f) => f.out === 0, 'down'],
  'plex-linear-lost': [any, 'down'],
})

export const VOLUME_RULES = derived<VolumeFacts, VolumeState>({
  'volume-empty': [(f) => f.plexes === 0, 'down'],
  // The original asks for one good plex; two which lost different parts have everything just as well.
  'volume-covered': [(f) => f.covered, 'up'],
  'volume-lost': [any, 'down'],
})

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
  /**
   * A part of what would be taken as it is has a valid copy in another plex, with which it may not agree. volume: whichever
   * plex is taken.
   */
  readonly clashes: boolean
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

type SetAction =
  | SetEffect
  | { readonly refuse: ErrorKind; readonly because: string; readonly instead: string }

export interface SetRule {
  readonly id: string
  readonly of: 'drive' | 'subdisk' | 'plex' | 'volume'
  readonly to: string
  readonly when: (facts: SetFacts) => boolean
  readonly action: SetAction
}

/** The rows for one state of one type, by their ids: when one fits, and what is done. */
function setting(
  of: SetRule['of'],
  to: string,
  rows: Readonly<Record<string, readonly [SetRule['when'], SetAction]>>,
): readonly SetRule[] {
  return Object.entries(rows).map(([id, [when, action]]) => ({ id, of, to, when, action }))
}

const unforced = (f: SetFacts) => !f.force
const openUnforced = (f: SetFacts) => f.open && !f.force
const lostForced = (f: SetFacts) => f.lost && f.force
const busy = (f: SetFacts) => f.busy
const otherCopy = (f: SetFacts) => f.otherCopy
const clashes = (f: SetFacts) => f.clashes

const refuse = (kind: ErrorKind, because: string, instead: string): SetAction => ({
  refuse: kind,
  because,
  instead,
})

const LAST_COPY = 'a part of the volume has no other valid copy'
const DERIVED = 'this state follows from the objects below, it cannot be set'
const ONLY_JOB = refuse('invalid', 'only a job sets this state', 'use start')
const OTHER_COPY = refuse(
  'invalid',
  'its content may be old, and a valid copy exists: two copies that differ must not both be up',
  'use start: it copies what is missing',
)
const CLASH = refuse(
  'invalid',
  'its content may be old, and a part of it has a valid copy: two copies that differ must not both be up',
  'take what that copy lacks instead; or, if that copy is to be given up, set it stale by force first',
)
const BUSY = refuse('in-use', 'a job works on it', 'wait for the job, or cancel it')

/** Before these rows, for every object: a state that it has already is set with success, where nothing is lost. */
export const SET_RULES: readonly SetRule[] = [
  ...setting('drive', 'down', {
    'set-drive-down-open': [
      openUnforced,
      refuse('in-use', 'a volume on it is open', 'use force, or take the LUNs off it'),
    ],
    'set-drive-down': [any, 'drive-down'],
  }),
  ...setting('drive', 'up', {
    // The original says up of a drive that is not there.
    'set-drive-up-absent': [
      (f) => !f.present,
      refuse('gone', 'its device is missing', 'connect the device'),
    ],
    'set-drive-up': [any, 'drive-up'],
  }),

  ...setting('subdisk', 'down', {
    'set-subdisk-down-attached': [
      (f) => f.attached && !f.force,
      refuse('in-use', 'it is attached to a plex', 'use force, or detach it'),
    ],
    'set-subdisk-down': [any, 'take-down'],
  }),
  ...setting('subdisk', 'reviving', {
    'set-subdisk-copying': [unforced, ONLY_JOB],
    'set-subdisk-copying-forced': [any, 'subdisk-state'],
  }),
  ...setting('subdisk', 'initializing', {
    'set-subdisk-init': [unforced, ONLY_JOB],
    'set-subdisk-init-forced': [any, 'subdisk-state'],
  }),
  ...setting('subdisk', 'stale', {
    'set-subdisk-stale': [
      unforced,
      refuse('invalid', 'its content would count no more', 'use force'),
    ],
    'set-subdisk-stale-forced': [any, 'subdisk-state'],
  }),
  ...setting('subdisk', 'up', {
    'set-subdisk-up-no-drive': [
      (f) => !f.present,
      refuse('gone', 'its drive is down', 'connect the drive, or set it up first'),
    ],
    // From down: it has missed nothing, else it were stale after the derivation.
    'set-subdisk-up-down': [(f) => f.state === 'down', 'raise'],
    'set-subdisk-up-detached': [(f) => !f.attached, 'accept'],
    'set-subdisk-up-busy': [busy, BUSY],
    // The original allows it with force: mirrors that differ, parity that is wrong (8.7).
    'set-subdisk-up-other-copy': [otherCopy, OTHER_COPY],
    'set-subdisk-up-clash': [(f) => f.force && f.clashes, CLASH],
    'set-subdisk-up-forced': [(f) => f.force, 'accept'],
    'set-subdisk-up-single': [(f) => f.state === 'stale' && !f.redundant, 'accept'],
    // From reviving or initializing, too: a copy that ended early is not good (8.6, 8.8).
    'set-subdisk-up': [
      any,
      refuse(
        'invalid',
        'its content may be old',
        'use start to bring it up to date; force takes it as it is',
      ),
    ],
  }),

  ...setting('plex', 'up', {
    // By the operator's word what the disks say is the content, and nothing else changes.
    'set-plex-up-lost': [lostForced, 'take-lost'],
    // Initializing: its parity goes on from where it was, and counts no further than it did.
    'set-plex-up': [(f) => ['up', 'growable', 'initializing'].includes(f.raised), 'raise'],
    'set-plex-up-busy': [busy, BUSY],
    'set-plex-up-unforced': [
      unforced,
      refuse(
        'invalid',
        'not all of its subdisks are up and valid',
        'use start; force takes them as they are',
      ),
    ],
    'set-plex-up-other-copy': [otherCopy, OTHER_COPY],
    'set-plex-up-clash': [clashes, CLASH],
    'set-plex-up-forced': [any, 'accept'],
  }),
  ...setting('plex', 'down', {
    // The original asks whether it is the only plex, or the last one not down: the copies decide.
    'set-plex-down-last': [
      (f) => f.attached && !f.otherCopy && !f.force,
      refuse('in-use', LAST_COPY, 'use force to take the volume down with it'),
    ],
    'set-plex-down': [any, 'take-down'],
  }),
  // The original wants force for degraded, and ignores the other two silently.
  ...setting('plex', 'degraded', {
    'set-plex-degraded': [any, refuse('invalid', DERIVED, 'set the subdisk down instead')],
  }),
  ...setting('plex', 'initializing', {
    'set-plex-initializing': [any, refuse('invalid', DERIVED, 'use start')],
  }),
  ...setting('plex', 'growable', {
    'set-plex-growable': [any, refuse('invalid', DERIVED, 'use grow')],
  }),

  ...setting('volume', 'up', {
    'set-volume-up-lost': [lostForced, 'take-lost'],
    'set-volume-up': [(f) => f.raised === 'up', 'raise'],
    'set-volume-up-busy': [busy, BUSY],
    'set-volume-up-unforced': [
      unforced,
      refuse(
        'invalid',
        'a part of it has no valid copy',
        'connect its drives; force takes the content of a plex as it is',
      ),
    ],
    'set-volume-up-clash': [clashes, CLASH],
    'set-volume-up-forced': [any, 'accept'],
  }),
  ...setting('volume', 'down', {
    'set-volume-down-open': [
      openUnforced,
      refuse('in-use', 'it is open', 'use force, or take the LUNs off it'),
    ],
    'set-volume-down': [any, 'take-down'],
  }),
]
