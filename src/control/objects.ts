/** Walks over the objects of reports.ts by their parents. Used by the engine, the daemon and the command line. */
import type { ObjectReport } from './reports.ts'

/** The parts of each object: what names it as its parent. */
export function partsIn(
  objects: readonly ObjectReport[],
): (one: ObjectReport) => readonly ObjectReport[] {
  const key = (className: string, name: string): string => `${className} ${name}`
  const parts = new Map<string, ObjectReport[]>()
  for (const one of objects) {
    if (one.parent === undefined) continue
    const above = key(one.className, one.parent)
    parts.set(above, [...(parts.get(above) ?? []), one])
  }
  return ({ className, name }) => parts.get(key(className, name)) ?? []
}

/** The object with all that is below it, in the order of the tree. */
export function withParts(
  one: ObjectReport,
  partsOf: (one: ObjectReport) => readonly ObjectReport[],
): readonly ObjectReport[] {
  return [one, ...partsOf(one).flatMap((part) => withParts(part, partsOf))]
}

/** The object that is above all that `one` is a part of. */
export function topOf(one: ObjectReport, objects: readonly ObjectReport[]): ObjectReport {
  const { className, parent } = one
  const above = objects.find((other) => other.className === className && other.name === parent)
  return above && parent !== undefined ? topOf(above, objects) : one
}
