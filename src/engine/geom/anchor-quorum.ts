/**
 * Which configuration of a set is the right one, when its devices carry several: the rule of all native
 * classes, without I/O. Used by a class's set when it assembles and when it commits.
 *
 * A copy names its voters: the devices that its configuration calls up. Two rules together keep an old
 * configuration from ever being taken for the present one.
 *   W  A commit may be relied upon when at least half of the voters before it carry it, and all voters that it
 *      names itself do. A device that could not be written must be called down by the commit. The voters
 *      before it are written first, devices that join after them.
 *   R  A set is assembled from a configuration when more than half of its voters are present.
 * Of the voters before a commit at most half lack it (W), so that more than half (R) include one that has it:
 * whoever is assembled by R sees every commit that was relied upon. Half is enough in W because a mirror of
 * two must go on when one of them dies; then the dead one alone is half, and R does not let it be assembled.
 *
 * A crash in the middle of a commit leaves a generation on some devices only. It was not relied upon; it is
 * taken where it cannot be told from one that was, and given up where it must have failed. Hence the third rule:
 *   S  A set serves nothing before all voters of its configuration carry it: it commits once after assembling,
 *      unless the choice is `settled`.
 *
 * A device has two slots. Were each commit to go over the older one, two that are cut off in turn would leave no
 * trace of the last one that was relied upon, and sets that gather afterwards could not tell what counts:
 *   K  What was cut off or has failed is written over first ({@link goesOverNewest}); what was relied upon stays on
 *      each device until a later commit is. So both slots are looked at, and what a damaged one had counts as unknown.
 */
import { defined } from '../../base/assert.ts'
import { type CommitId, isSameCommit } from './anchor-codec.ts'

/** A configuration and what it says of the vote. */
export interface CommitCopy extends CommitId {
  /** UUIDs of the devices that this configuration calls up. */
  readonly payloadVoters: readonly string[]
  /**
   * Voters of the last configuration that was relied upon before this one, as the commit recorded them. Empty or
   * left out: taken to be the same as `payloadVoters`.
   */
  readonly oldVoters?: readonly string[] | undefined
  /** What the set carried before: the commit that this one follows. */
  readonly previous?: CommitId | undefined
}

/**
 * What one device carries: what AnchoredDevice.read gave, and the voters from the payload. A device of the set
 * that carries nothing yet has generation 0 and no voters: it is here, and that counts.
 */
export interface AnchorCopy extends CommitCopy {
  readonly deviceUuid: string
  /** What its other slot has, if that is older. */
  readonly older?: CommitCopy | undefined
  /** For a damaged copy: the commit that the device's anchor names, and that it must have carried. */
  readonly claimed?: CommitId | undefined
}

export interface Side extends CommitId {
  /** Devices that carry it, or those that carried it before, where no other does: any of them has the payload. */
  readonly members: readonly string[]
  /** What it follows, as those who have it say. */
  readonly previous: readonly CommitId[]
}

export type Choice =
  /**
   * Assemble from a copy of `members`. `stale` carry something older, or something given up. The next commit
   * has `nextGeneration` or more, which is above all that was seen. Unless `settled` (all voters carry it), commit
   * it again before anything is served by it: what a crash has cut off may look different with other devices.
   */
  | (Side & {
      readonly kind: 'complete'
      readonly stale: readonly string[]
      readonly settled: boolean
      /** One of its voters is here and never had it: it was not relied upon, if that disk speaks the truth. */
      readonly refuted: boolean
      /** Of the configuration before it. */
      readonly oldVoters: readonly string[]
      readonly nextGeneration: number
    })
  /** Too few devices: wait for `missing`, or let an operator decide to go on with this configuration. */
  | (Side & {
      readonly kind: 'incomplete'
      readonly missing: readonly string[]
      readonly nextGeneration: number
    })
  /** The set was used in parts apart from each other: only an operator can say which one counts. */
  | { readonly kind: 'split'; readonly sides: readonly Side[] }
  | { readonly kind: 'none' }

/** A group of devices with one configuration in one of their slots. */
interface Group extends Side {
  /** Those that carry it now. */
  readonly carriers: readonly string[]
  readonly voters: readonly string[]
  readonly oldVoters: readonly string[]
}

/** How many of some voters carry a commit, may carry it because nobody knows, and how many there are. */
interface Count {
  readonly all: number
  readonly carry: number
  readonly missing: number
}

/**
 * Chooses among the readable copies of one set, at most one of each device. `split` is corruption of the set:
 * such copies are never merged.
 */
export function chooseMajority(copies: readonly AnchorCopy[]): Choice {
  const all = groupCopies(copies)
  const highest = all[0]
  if (!highest) return { kind: 'none' }
  const whole = wholeGroups(all, copies)
  if (whole.length > 1) return { kind: 'split', sides: whole.map(sideOf) }
  const nextGeneration = Math.max(...copies.map(highestOf)) + 1
  // Most of its voters are at the whole one: whatever is higher was cut off, or failed.
  if (whole[0]) return completeChoice(whole[0], copies, nextGeneration)
  // What cannot have been relied upon is taken only where there is nothing else.
  for (const mustBeRelied of [true, false]) {
    for (const group of all) {
      const verdict = judge(group, all, copies, mustBeRelied)
      if (verdict === 'complete') return completeChoice(group, copies, nextGeneration)
      if (verdict === 'incomplete' && mustBeRelied) break
      if (verdict === 'incomplete') return incompleteChoice(group, copies, nextGeneration)
    }
  }
  return incompleteChoice(highest, copies, nextGeneration)
}

function completeChoice(
  group: Group,
  copies: readonly AnchorCopy[],
  nextGeneration: number,
): Choice {
  const { oldVoters, voters, carriers, members } = group
  const stale = copies.map((copy) => copy.deviceUuid).filter((uuid) => !members.includes(uuid))
  const settled = voters.every((uuid) => carriers.includes(uuid))
  const refuted = isRefuted(group, copies)
  return { kind: 'complete', ...sideOf(group), stale, settled, refuted, oldVoters, nextGeneration }
}

function incompleteChoice(
  group: Group,
  copies: readonly AnchorCopy[],
  nextGeneration: number,
): Choice {
  const present = new Set(copies.map((copy) => copy.deviceUuid))
  const wanted = new Set([...group.voters, ...group.oldVoters])
  const missing = [...wanted].filter((uuid) => !present.has(uuid))
  return { kind: 'incomplete', ...sideOf(group), missing, nextGeneration }
}

/**
 * Groups that most of their voters carry now. A commit that is relied upon leaves the one before it with half of
 * its voters at most, so that two such groups are two lines of history.
 */
function wholeGroups(groups: readonly Group[], copies: readonly AnchorCopy[]): readonly Group[] {
  const damaged = new Set(
    copies.filter(({ claimed }) => claimed !== undefined).map((copy) => copy.deviceUuid),
  )
  const whole = groups.filter((group) => {
    const carriers = group.carriers.filter((uuid) => !damaged.has(uuid))
    return isWhole(group, new Set(carriers), copies)
  })
  // A commit that only devices without a past carry does not follow from the lower one: it was cut off.
  return whole.filter((group, index) => index === whole.length - 1 || !isFresh(group))
}

/** Had none of its members a configuration before? */
function isFresh(group: Group): boolean {
  return group.previous.length === 0
}

/**
 * Rule W: may a commit be relied upon that the devices `reached` carry now? `oldVoters` are those of the last
 * configuration that was relied upon; `newVoters` those that the new one names: one that was not reached makes
 * the commit void (call it down and commit again). After a choice that is not settled, ask twice: for its own
 * voters and for its `oldVoters`, since nobody knows which of the two configurations was relied upon.
 */
export function commitAllowed(
  oldVoters: readonly string[],
  reached: readonly string[],
  newVoters: readonly string[] = reached,
): boolean {
  const has = new Set(reached)
  const carried = oldVoters.filter((uuid) => has.has(uuid)).length
  return carried * 2 >= oldVoters.length && newVoters.every((uuid) => has.has(uuid))
}

/**
 * Rule K: does the first commit after this choice go over the newest slot of that device? Then that has the choice,
 * which was not relied upon, or what was given up by it. Later commits do until one is relied upon.
 */
export function goesOverNewest(
  slot: CommitId & { readonly older?: CommitId | undefined },
  choice: CommitId & { readonly refuted: boolean },
): boolean {
  if (isSameCommit(slot, choice)) return choice.refuted
  return slot.older !== undefined && isSameCommit(slot.older, choice)
}

/**
 * What the first commit after a choice follows, until one is relied upon: a choice that was not relied upon is history
 * before anybody has built on it.
 */
export function followedBy(choice: Side & { readonly refuted: boolean }): CommitId {
  const [before] = choice.previous
  return choice.refuted && before ? before : choice
}

/**
 * The voters before a commit, as it records them, when it follows a choice that is not settled: both those of the
 * chosen configuration and those before it, until a commit is relied upon. A commit that fails must not make the
 * next assembly forget whom the last relied upon configuration named; so it also asks for half of these.
 */
export function votersAfter(
  voters: readonly string[],
  oldVoters: readonly string[],
): readonly string[] {
  return [...new Set([...voters, ...oldVoters])]
}

function judge(
  group: Group,
  all: readonly Group[],
  copies: readonly AnchorCopy[],
  mustBeRelied: boolean,
): 'complete' | 'incomplete' | 'given-up' {
  const carriers = carriersOf(group, copies)
  const own = count(group.voters, carriers, copies)
  const old = count(group.oldVoters, carriers, copies)
  const mayBeRelied = [own, old].map(({ all, carry, missing }) => (carry + missing) * 2 >= all)
  // Half of the old voters have it, and nothing else can have followed what was before it.
  const isAhead = old.carry * 2 >= old.all
  if (!mayBeRelied.every(Boolean) && (mustBeRelied || !isAhead)) return 'given-up'
  if (mayBeFollowed(group, all, copies)) return 'incomplete'
  if (isWhole(group, carriers, copies)) return 'complete'
  // Something newer may be on those that are missing, unless most are here.
  const mostAreHere = [own, old].every(({ all, missing }) => (all - missing) * 2 > all)
  if (!mostAreHere) return 'incomplete'
  if (isAhead) return 'complete'
  // Forward too, unless those that lack it have gone on without it.
  const lacking = copies.filter(
    (copy) => group.voters.includes(copy.deviceUuid) && !carriers.has(copy.deviceUuid),
  )
  const haveWaited = lacking.every((copy) => group.previous.some((one) => isSameCommit(one, copy)))
  return haveWaited ? 'complete' : 'incomplete'
}

/** A commit is relied upon only when all that it names have it (W): does one of them say that it never had it? */
function isRefuted(
  { generation, voters }: Pick<Group, 'generation' | 'voters'>,
  copies: readonly AnchorCopy[],
): boolean {
  return copies.some((copy) => voters.includes(copy.deviceUuid) && highestOf(copy) < generation)
}

/** The highest generation that a device is known to have carried. */
function highestOf({ generation, claimed }: AnchorCopy): number {
  return Math.max(generation, claimed?.generation ?? 0)
}

/**
 * May a commit after this one have been relied upon? Newer ones follow it, or a damaged slot had one. The first of them
 * needed half of the voters before it: those of this one or, should this one not have counted, those before it. By rule
 * K whoever had what was relied upon still has it, unless a slot cannot be read: of a commit that nobody has, only the
 * missing can tell.
 */
function mayBeFollowed(
  group: Group,
  all: readonly Group[],
  copies: readonly AnchorCopy[],
): boolean {
  const followed = copies.flatMap(({ previous, claimed }) => [previous ?? [], claimed ?? []].flat())
  const newer = followed.filter(({ generation }) => generation > group.generation)
  if (newer.length === 0) return false
  const isHere = newer.some((one) => {
    const known = all.find((other) => isSameCommit(one, other))
    if (known) return !isRefuted(known, copies)
    return copies.some(
      ({ claimed, previous, older }) => claimed === one || (previous === one && !older),
    )
  })
  const beyond = copies.filter((copy) => isHere && highestOf(copy) > group.generation)
  const carriers = new Set(beyond.map(({ deviceUuid }) => deviceUuid))
  return [group.voters, group.oldVoters].some((voters) => {
    const { all, carry, missing } = count(voters, carriers, copies)
    return (carry + missing) * 2 >= all
  })
}

/** Do more than half of its voters carry it, and at least half of those before it? */
function isWhole(
  group: Group,
  carriers: ReadonlySet<string>,
  copies: readonly AnchorCopy[],
): boolean {
  const own = count(group.voters, carriers, copies)
  const old = count(group.oldVoters, carriers, copies)
  return own.carry * 2 > own.all && old.carry * 2 >= old.all
}

/** Members, devices whose damaged slot had it, and those that had it before something that was given up. */
function carriersOf(group: Group, copies: readonly AnchorCopy[]): ReadonlySet<string> {
  const carriers = copies.filter(
    (copy) =>
      isSameCommit(copy, group) ||
      (copy.claimed !== undefined && isSameCommit(copy.claimed, group)) ||
      (copy.previous !== undefined && isSameCommit(copy.previous, group)) ||
      (copy.older !== undefined && isSameCommit(copy.older, group)),
  )
  return new Set(carriers.map((copy) => copy.deviceUuid))
}

function count(
  voters: readonly string[],
  carriers: ReadonlySet<string>,
  copies: readonly AnchorCopy[],
): Count {
  const present = new Set(copies.map((copy) => copy.deviceUuid))
  return {
    all: voters.length,
    carry: voters.filter((uuid) => carriers.has(uuid)).length,
    missing: voters.filter((uuid) => !present.has(uuid)).length,
  }
}

/** Highest generation first; of one generation, the one that more devices carry. */
function groupCopies(copies: readonly AnchorCopy[]): readonly Group[] {
  const found = new Map<string, Holder[]>()
  const add = (holder: Holder): void => {
    const key = `${holder.generation}/${holder.payloadCrc}`
    found.set(key, [...(found.get(key) ?? []), holder])
  }
  for (const copy of copies.filter(({ generation }) => generation > 0)) {
    const { deviceUuid, older } = copy
    add({ ...copy, isNewest: true })
    if (older) add({ ...older, deviceUuid, isNewest: false })
  }
  return [...found.values()].map(toGroup).sort(byRank)
}

/** One slot of one device. */
interface Holder extends CommitCopy {
  readonly deviceUuid: string
  readonly isNewest: boolean
}

function toGroup(holders: readonly Holder[]): Group {
  const first = defined(holders[0], 'the first copy of a group')
  const newest = holders.filter(({ isNewest }) => isNewest)
  const carriers = newest.map(({ deviceUuid }) => deviceUuid)
  return {
    carriers,
    generation: first.generation,
    payloadCrc: first.payloadCrc,
    voters: first.payloadVoters,
    oldVoters: first.oldVoters?.length ? first.oldVoters : first.payloadVoters,
    members: carriers.length > 0 ? carriers : holders.map(({ deviceUuid }) => deviceUuid),
    previous: holders.flatMap(({ previous }) => (previous ? [previous] : [])),
  }
}

function byRank(a: Group, b: Group): number {
  return b.generation - a.generation || b.carriers.length - a.carriers.length
}

function sideOf({ generation, payloadCrc, members, previous }: Group): Side {
  return { generation, payloadCrc, members, previous }
}
