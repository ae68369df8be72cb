/** Walks over the objects of reports.ts by their parents. Used by the engine, the daemon and the command line. */
import type { ObjectReport } from './reports.ts'

/**
 * What each part is a part of: in its class and set the first that has the name. That stands before its parts, so that no
 * name that a disk may have makes a circle.
 */
function wholesOf(objects: readonly ObjectReport[]): ReadonlyMap<ObjectReport, ObjectReport> {
  const first = new Map<string, ObjectReport>()
  const wholes = new Map<ObjectReport, ObjectReport>()
  for (const one of objects) {
    const { className, set, name, parent } = one
    const key = (word: string): string => JSON.stringify([className, set, word])
    const whole = parent === undefined ? undefined : first.get(key(parent))
    if (whole) wholes.set(one, whole)
    if (!first.has(key(name))) first.set(key(name), one)
  }
  return wholes
}

/** The parts of each object: what names it as its parent. For objects of this list. */
export function partsIn(
  objects: readonly ObjectReport[],
): (one: ObjectReport) => readonly ObjectReport[] {
  const parts = new Map<ObjectReport, ObjectReport[]>()
  for (const [part, whole] of wholesOf(objects)) {
    const known = parts.get(whole)
    if (known) known.push(part)
    else parts.set(whole, [part])
  }
  return (one) => parts.get(one) ?? []
}

/** The object with all that is below it, in the order of the tree. */
export function withParts(
  one: ObjectReport,
  partsOf: (one: ObjectReport) => readonly ObjectReport[],
): readonly ObjectReport[] {
  return [one, ...partsOf(one).flatMap((part) => withParts(part, partsOf))]
}

/** The object that is above all that `one`, of this list, is a part of. */
export function topOf(one: ObjectReport, objects: readonly ObjectReport[]): ObjectReport {
  const wholes = wholesOf(objects)
  let top = one
  for (let whole = wholes.get(top); whole; whole = wholes.get(top)) top = whole
  return top
}
