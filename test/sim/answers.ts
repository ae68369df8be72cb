/** The writes that one block may show, and which of them hide others. Pure; used by oracle.ts. */
/** Content of a block: the number of a write, or one of these; below PINNED: bytes that were found. */
export const ZERO = 0
/** Anything, but always the same. */
export const UNKNOWN = -1
/** Anything, and not always the same. */
export const UNSTABLE = -2
/** Nothing: it was given up, and a read of it fails. */
export const LOST = -3
export const PINNED = -10

export const NEVER = Number.POSITIVE_INFINITY

export interface Write {
  readonly value: number
  readonly begin: number
  /** NEVER while it is under way. */
  end: number
  /** Acknowledged without an error. */
  ok: boolean
  durable: boolean
}

export function describe(value: number): string {
  if (value > 0) return `write #${value}`
  if (value === ZERO) return 'zeroes'
  if (value === UNKNOWN) return 'anything'
  if (value === UNSTABLE) return 'anything, after a discard'
  if (value === LOST) return 'lost'
  return `what was found first (${value})`
}

/** Content that stands since for ever. */
export function settled(value: number): Write {
  return { value, begin: 0, end: 0, ok: true, durable: true }
}

/** Those that no write hides which ended before `before`, and is good enough to hide. */
export function visible(
  list: readonly Write[],
  hides: 'ok' | 'durable',
  before: number,
): readonly Write[] {
  if (list.length === 1) return list
  // A write hides what ended before it began: the one that began last hides all that any of them hides.
  let begin = 0
  for (const by of list) if (by[hides] && by.end < before && by.begin > begin) begin = by.begin
  return list.every(({ end }) => end >= begin) ? list : list.filter(({ end }) => end >= begin)
}

/** Drops what not even a power cut would bring back. */
export function prune(list: readonly Write[]): readonly Write[] {
  return visible(list, 'durable', NEVER)
}

/** Lists are the same for many blocks in a row: `work` is done once for them. */
export function shared<T>(work: (list: readonly Write[]) => T): (list: readonly Write[]) => T {
  let last: readonly Write[] | undefined
  let result: T
  return (list) => {
    if (list !== last) {
      result = work(list)
      last = list
    }
    return result
  }
}

/** Were there several right answers, one of which is now known to be there? */
export function isOpen(allowed: readonly Write[], match: Write): boolean {
  const open = allowed.length > 1 || match.value === UNKNOWN
  return open && allowed.every(({ ok, value }) => ok && value !== UNSTABLE)
}

export function memo(clones: Map<Write, Write>, of: Write, clone: Write): Write {
  const known = clones.get(of)
  if (known) return known
  clones.set(of, clone)
  return clone
}
