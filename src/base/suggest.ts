/**
 * "Did you mean": the nearest of the names that exist to one that does not. Used by the checks of the
 * configuration; measured by the edit distance of Levenshtein.
 */

/** The distance of two texts, or `limit` where it is that or more. */
function editDistance(a: string, b: string, limit: number): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 1; row <= a.length; row++) {
    const current = [row]
    for (let column = 1; column <= b.length; column++) {
      const replace = (previous[column - 1] ?? 0) + (a[row - 1] === b[column - 1] ? 0 : 1)
      current.push(Math.min(replace, (previous[column] ?? 0) + 1, (current[column - 1] ?? 0) + 1))
    }
    // It never becomes less again.
    if (Math.min(...current) >= limit) return limit
    previous = current
  }
  return previous[b.length] ?? 0
}

/** The name among `known` that is nearest to `name`, if one is near: two swapped letters, a third of a long name. */
export function nearest(name: string, known: Iterable<string>): string | undefined {
  let best: string | undefined
  const allowed = name.length < 4 ? 1 : Math.max(2, Math.floor(name.length / 3))
  let bestDistance = allowed + 1
  for (const candidate of known) {
    if (Math.abs(candidate.length - name.length) >= bestDistance) continue
    const distance = editDistance(name.toLowerCase(), candidate.toLowerCase(), bestDistance)
    if (distance < bestDistance) {
      best = candidate
      bestDistance = distance
    }
  }
  return best
}

/** `; did you mean "X"?`, or nothing where no name is near. */
export function didYouMean(name: string, known: Iterable<string>): string {
  const found = nearest(name, known)
  return found === undefined ? '' : `; did you mean "${found}"?`
}
