/**
 * Which configuration of a set is the right one, when its voters carry several: the rules of all native classes,
 * without I/O. docs/adr/0005-quorum-of-drives.md has the proof; test/model tries every history of a small set.
 *
 * The voters of a commit are the drives that it calls up and, where those are even in number, the witness of the
 * machine. Each commit names `relied`, the last one that was relied upon for certain, and that one's voters (`before`).
 *   W  A commit counts, and may be relied upon, when all voters that it names carry it, and at least half of `before`.
 *   L  Of the commits that are named as relied upon or are known to count, the last one. Everything that does not name
 *      it as relied upon is history, or dead.
 *   N  A child of L, one that names it, may count when none of its voters that are here lacks it, and those of
 *      `before` that had it or are missing are at least half. It is chosen, else L. Two that may count, neither of
 *      which is built on the other, leave the set waiting for whoever is missing.
 *   R  The set is served when more than half of the voters of the choice are here and, unless it is known to count,
 *      more than half of `before`, with at least half that can take the first commit (S): those that missed something
 *      come back after it; and when no unreadable slot may have had something newer that counts.
 *   S  Nothing is served before a new commit counts that is built on the choice.
 *   K  Each voter keeps the choice in one of its two slots until a later commit counts (`placeOf`); a drive that comes back
 *      keeps what it is known by (`keptOf`).
 *   F  An operator's word (`--force`, `--from`) begins a new line. Of two lines neither of which continues the other,
 *      none is chosen.
 */

/** A committed configuration by its number and content: the name of a transaction. */
export interface CommitId {
  /** UUID of the line: all commits without an operator's word between them (anchor-quorum.ts). */
  readonly line: string
  readonly generation: number
  readonly payloadCrc: number
}

export function isSameCommit(a: CommitId, b: CommitId): boolean {
  return a.line === b.line && a.generation === b.generation && a.payloadCrc === b.payloadCrc
}

/** A line, and its last commit that counts for certain; 0: there is none. */
export interface LineEnd {
  readonly line: string
  readonly generation: number
}

/** A line that came before another one, as far as the other one is built on it. */
export interface Ancestor extends LineEnd {
  /** The commit that the other one was built on, where nobody could tell whether it counts: others may that are as new. */
  readonly tip: Pick<CommitId, 'generation' | 'payloadCrc'> | undefined
}

/** What a commit says for the vote. */
export interface Commit extends CommitId {
  readonly voters: readonly string[]
  /** Voters of `relied`, and of each commit after it that this one is built on; none: it is the first of its line. */
  readonly before: readonly (readonly string[])[]
  /** What it was built on. */
  readonly follows: CommitId | undefined
  /** The last commit that was relied upon for certain. Itself, in the second copy, which is written when it counts. */
  readonly relied: CommitId | undefined
  /** The lines before its own. */
  readonly ancestors: readonly Ancestor[]
}

/** What one voter that is here says. A device of the set that carries nothing yet has no commits. */
export interface VoterCopy {
  readonly uuid: string
  /** Of its slots that can be read. */
  readonly commits: readonly Commit[]
  /** What it is known to have carried in a slot that cannot be read. */
  readonly claimed?: CommitId | undefined
  /** It has no payload: the set cannot be assembled from it. */
  readonly isWitness?: boolean | undefined
}

export interface Chosen {
  /**
   * `serve`: the set may be assembled. Otherwise it waits, or an operator decides: voters are `missing`; commits that
   * may count are `undecided` between themselves; what is newer, or the choice itself, is in `damaged` slots.
   */
  readonly kind: 'serve' | 'missing' | 'undecided' | 'damaged'
  readonly commit: Commit
  /** It is known to count: commits built on it name it as relied upon. */
  readonly isCertain: boolean
  /** Voters that have missed nothing of it. */
  readonly current: ReadonlySet<string>
  /** Voters whose slot and payload can be read. */
  readonly members: readonly string[]
  /** Voters that are not here. */
  readonly missing: readonly string[]
  /** Above all that was seen. */
  readonly nextGeneration: number
}

export type Choice =
  | Chosen
  /** The set was used in parts apart from each other, by an operator's word: the last commit of each. */
  | { readonly kind: 'split'; readonly heads: readonly CommitId[] }
  | { readonly kind: 'none' }

/** Rule W, for what `has` says of each voter. */
export function counts(
  { voters, before }: Pick<Commit, 'voters' | 'before'>,
  has: (uuid: string) => boolean,
): boolean {
  const isHalf = (some: readonly string[]): boolean => some.filter(has).length * 2 >= some.length
  return voters.every(has) && before.every(isHalf)
}

/** Is `id` the commit that `last` stands for, or one that its line came from? Within a line numbers only grow. */
export function isBehind(id: CommitId, last: LineEnd & Pick<Commit, 'ancestors'>): boolean {
  const { ancestors } = last
  const isTip = ancestors.some(({ line, tip }) => tip && isSameCommit(id, { line, ...tip }))
  const isOlder = ({ line, generation }: LineEnd): boolean =>
    id.line === line && id.generation <= generation
  return isTip || [last, ...ancestors].some(isOlder)
}

/**
 * Rule K: the slot that the next commit goes to, so that `keep` stays: the one that the anchor names where that cannot
 * be read; the same after the anchor has been made to name the other one; or the other one.
 */
export function placeOf(
  named: CommitId | undefined,
  other: CommitId | undefined,
  keep: CommitId | undefined,
): 'named' | 'retreat' | 'other' {
  if (!named) return other ? 'named' : 'other'
  const isKept = (id: CommitId | undefined): boolean => !!id && !!keep && isSameCommit(id, keep)
  return isKept(other) && !isKept(named) ? 'retreat' : 'other'
}

/**
 * Which commit stays on a device: `follows`, what the next one is built on, or, on a drive that comes back, what shows
 * that it had `last`. As often as the commit of its return fails, the next return finds that.
 */
export function keptOf(
  slots: readonly (Built | undefined)[],
  follows: CommitId | undefined,
  last: CommitId | undefined,
): CommitId | undefined {
  return slots.find((one) => one && last && showsThat(one, last)) ?? follows
}

type Built = CommitId & Pick<Commit, 'follows' | 'relied'>

/** Has a device that carries `commit` had `last`? */
function showsThat(commit: Built, last: CommitId): boolean {
  return [commit, commit.follows, commit.relied].some((id) => id && isSameCommit(id, last))
}

/** Chooses among what the voters of one set say, at most one copy of each. */
export function choose(copies: readonly VoterCopy[]): Choice {
  const view = new View(copies)
  const heads = view.heads()
  if (heads.length > 1) return { kind: 'split', heads }
  const [last] = heads
  const children = view.commits.filter((one) => !last || view.isBuiltOn(one, last))
  const alive = children.filter((one) => view.mayCount(one))
  const tips = alive.filter((one) => !alive.some((other) => view.isBuiltOn(other, one)))
  // Where nothing may count and no drive has L any more, what was built on L and failed still has all that L had.
  const fallbacks = [last && view.commitOf(last), ...children].flatMap((one) => one ?? [])
  const commit = tips[0] ?? fallbacks.find((one) => view.membersOf(one).length > 0) ?? fallbacks[0]
  if (!commit) return { kind: 'none' }
  return view.chosen(commit, last !== undefined && isSameCommit(commit, last), tips.length > 1)
}

/** What the voters that are here say together. */
class View {
  readonly #copies: readonly VoterCopy[]
  readonly #known = new Map<string, Commit>()
  /** What each voter is known to have had: what it carries, and what that is built on. */
  readonly #had: ReadonlyMap<string, ReadonlySet<string>>

  constructor(copies: readonly VoterCopy[]) {
    this.#copies = copies
    for (const one of copies.flatMap(({ commits }) => commits)) this.#known.set(keyOf(one), one)
    this.#had = new Map(copies.map((copy) => [copy.uuid, this.#historyOf(idsOf(copy))]))
  }

  /** All that can be read, newest first. */
  get commits(): readonly Commit[] {
    return [...this.#known.values()].sort((a, b) => b.generation - a.generation)
  }

  commitOf(id: CommitId): Commit | undefined {
    return this.#known.get(keyOf(id))
  }

  #historyOf(ids: readonly CommitId[]): ReadonlySet<string> {
    const history = new Set<string>()
    const stack = [...ids]
    for (let id = stack.pop(); id; id = stack.pop()) {
      if (history.has(keyOf(id))) continue
      history.add(keyOf(id))
      const { follows, relied } = this.commitOf(id) ?? {}
      if (follows) stack.push(follows)
      if (relied) stack.push(relied)
    }
    return history
  }

  /** Those that have it with its payload. */
  membersOf(id: CommitId): readonly string[] {
    return this.#copies
      .filter((copy) => !copy.isWitness && copy.commits.some((one) => isSameCommit(one, id)))
      .map(({ uuid }) => uuid)
  }

  isBuiltOn(later: CommitId, earlier: CommitId): boolean {
    return !isSameCommit(later, earlier) && this.#historyOf([later]).has(keyOf(earlier))
  }

  /** L of each line that no other one continues. */
  heads(): readonly CommitId[] {
    const named = this.#copies.flatMap(({ commits }) =>
      commits.flatMap(({ relied }) => relied ?? []),
    )
    const certain = this.commits.filter((one) => counts(one, (uuid) => this.#has(uuid, one)))
    const relied = new Map([...named, ...certain].map((id) => [keyOf(id), id]))
    const all = [...relied.values()]
    const isOver = (id: CommitId, by: CommitId): boolean => {
      const { ancestors = [] } = this.commits.find(({ line }) => line === by.line) ?? {}
      return id !== by && isBehind(id, { ...by, ancestors })
    }
    return all.filter((id) => !all.some((by) => isOver(id, by)))
  }

  #isHere(uuid: string): boolean {
    return this.#had.has(uuid)
  }

  #has(uuid: string, id: CommitId): boolean {
    return this.#had.get(uuid)?.has(keyOf(id)) === true
  }

  /** Rule N. */
  mayCount(commit: Commit): boolean {
    const lost = this.#lostAfter(commit, new Set())
    return counts(
      commit,
      (uuid) => !this.#isHere(uuid) || this.#has(uuid, commit) || lost.has(uuid),
    )
  }

  chosen(commit: Commit, isCertain: boolean, isUndecided: boolean): Chosen {
    const { voters } = commit
    const quorums = isCertain ? [voters] : [voters, ...commit.before]
    const last = isCertain ? commit : { ...commit, generation: 0, ...commit.relied }
    const lost = this.#lostAfter(last, this.#historyOf([commit]))
    const isFollowed = quorums.some((some) => {
      const may = some.filter((uuid) => lost.has(uuid) || !this.#isHere(uuid))
      return some.some((uuid) => lost.has(uuid)) && may.length * 2 >= some.length
    })
    const members = this.membersOf(commit)
    const here = voters.filter((uuid) => this.#isHere(uuid))
    // Who has had it has missed nothing, whatever failed since. Where all that is newer was lost, those who had it.
    const current = here.filter((uuid) =>
      isFollowed ? lost.has(uuid) : !isCertain || this.#has(uuid, commit),
    )
    const canCommit = (uuid: string): boolean =>
      current.includes(uuid) || this.#copies.some((one) => one.isWitness && one.uuid === uuid)
    return {
      kind: quorums.some((some) => !this.#areMostHere(some))
        ? 'missing'
        : isUndecided
          ? 'undecided'
          : isFollowed || members.length === 0
            ? 'damaged'
            : counts({ voters: [], before: quorums }, canCommit)
              ? 'serve'
              : 'missing',
      commit,
      isCertain,
      current: new Set(current),
      members,
      missing: [...new Set(quorums.flat())].filter((uuid) => !this.#isHere(uuid)),
      nextGeneration: 1 + Math.max(...this.#copies.flatMap(idsOf).map((id) => id.generation)),
    }
  }

  #areMostHere(voters: readonly string[]): boolean {
    return voters.filter((uuid) => this.#isHere(uuid)).length * 2 > voters.length
  }

  /** Voters that may have carried something after `last` that nobody can read any more. */
  #lostAfter(
    last: LineEnd & Pick<Commit, 'ancestors'>,
    history: ReadonlySet<string>,
  ): ReadonlySet<string> {
    const losers = this.#copies.filter(({ commits, claimed }) =>
      [claimed, ...commits.map(({ follows }) => follows)].some(
        (id) => id && !this.commitOf(id) && !history.has(keyOf(id)) && !isBehind(id, last),
      ),
    )
    return new Set(losers.map(({ uuid }) => uuid))
  }
}

function idsOf({ commits, claimed }: VoterCopy): readonly CommitId[] {
  return claimed ? [...commits, claimed] : commits
}

function keyOf({ line, generation, payloadCrc }: CommitId): string {
  return `${line}/${generation}/${payloadCrc}`
}

/**
 * How a drive that comes back stands to the set that runs: it knows `last`, the commit that it had when it was called
 * down, so that the set knows what it missed since; it is an older copy, or nobody knows; or it was used apart from the
 * set, by an operator's word.
 */
export function standingOf(
  copy: VoterCopy,
  now: Pick<Commit, 'line' | 'ancestors'>,
  last: CommitId | undefined,
): 'behind' | 'older' | 'apart' {
  // Of its own line the set has seen all that counts: what is newer there has failed.
  const line = { ...now, generation: Number.POSITIVE_INFINITY }
  if (idsOf(copy).some((id) => !isBehind(id, line))) return 'apart'
  const { commits, claimed } = copy
  if (!last) return 'older'
  const isKnown = commits.some((one) => showsThat(one, last))
  return isKnown || (claimed && isSameCommit(claimed, last)) ? 'behind' : 'older'
}

/** What the next commit is built on, and whom it asks. */
export interface Base extends Pick<Commit, 'ancestors' | 'before' | 'follows' | 'relied'> {
  readonly line: string
}

/** After a start by this choice. `newLine`: by an operator's word, for which nobody else's vote is asked. */
export function baseOf({ commit, isCertain }: Chosen, newLine?: string): Base {
  const { line, ancestors, voters } = commit
  const relied = isCertain ? commit : commit.relied
  if (newLine !== undefined) {
    const end = endOf(commit, relied)
    return { line: newLine, ancestors: [end, ...ancestors], before: [], follows: commit, relied }
  }
  const isListed = commit.before.some((one) => one.join() === voters.join())
  const before = isCertain ? [voters] : isListed ? commit.before : [...commit.before, voters]
  return { line, ancestors, before, follows: commit, relied }
}

/** Of the line of `commit`, for a line that is built on that; `relied`: the last one that counts for certain. */
function endOf({ line, generation, payloadCrc }: Commit, relied: CommitId | undefined): Ancestor {
  const certain = relied?.line === line ? relied.generation : 0
  const tip = certain === generation ? undefined : { generation, payloadCrc }
  return { line, generation: certain, tip }
}

/** After a commit that counts. */
export function baseAfter(id: CommitId, { ancestors }: Base, voters: readonly string[]): Base {
  return { line: id.line, ancestors, before: [voters], follows: id, relied: id }
}
