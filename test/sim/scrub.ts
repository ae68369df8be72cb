/** A scrub of a volume from its order to its end. Used by final-check.ts and wounds.ts. */
import type { Machine, World } from './world.ts'

const LOOK_MS = 50
const SCRUB_MS = 3_600_000

/** Mismatches that a scrub of a healthy volume finds; undefined: the machine or the run has ended before. */
export async function scrub(
  world: World,
  machine: Machine,
  name: string,
  how: { readonly repair?: true } = {},
): Promise<number | undefined> {
  // A job may have the name of one that has ended.
  const known = new Set(machine.topology.jobs.list())
  const error = await world.verb('volume', 'scrub', { name, ...how })
  if (error) {
    world.fail(`${name}: a scrub of a healthy volume is refused: ${error.message}`)
    return undefined
  }
  const endMs = world.nowMs + SCRUB_MS
  for (;;) {
    await world.pause(LOOK_MS)
    if (world.machine !== machine) return undefined
    const jobs = machine.topology.jobs.list().filter((job) => !known.has(job))
    const reports = jobs.map((job) => job.report())
    if (reports.length > 0 && reports.every(({ state }) => state === 'done')) {
      return reports.reduce((sum, { mismatches }) => sum + mismatches, 0)
    }
    const failed = reports.find(({ state }) => state === 'failed' || state === 'cancelled')
    if (failed || world.nowMs > endMs) {
      world.fail(
        `${name}: a scrub does not end well`,
        reports.map((one) => JSON.stringify(one)),
      )
      return undefined
    }
  }
}
