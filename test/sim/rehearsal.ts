/**
 * Dry runs: a verb that only says what it would do must change nothing, not the configuration, not a label on any
 * disk. Used by admin.ts.
 */
import { jobsOf } from './view.ts'
import type { Machine, World } from './world.ts'

type Parameters = Readonly<Record<string, string | boolean | readonly string[]>>

/** Rehearses the verb. What is compared changes by itself while jobs run and while there is trouble. */
export async function rehearse(
  world: World,
  noun: string,
  name: string,
  parameters: Parameters,
  isCalm: () => boolean,
): Promise<void> {
  const { machine } = world
  if (!machine) return
  const isAtRest = (): boolean => isCalm() && jobsOf(machine).length === 0
  const wasAtRest = isAtRest()
  const jobs = machine.topology.jobs.list().length
  const before = await fingerprint(world, machine)
  await world.verb(noun, name, { ...parameters, dryRun: true })
  const after = await fingerprint(world, machine)
  if (world.machine !== machine || !wasAtRest || !isAtRest()) return
  if (jobs !== machine.topology.jobs.list().length) return
  const changed = after.filter((line, index) => line !== before[index])
  if (changed.length > 0) world.fail(`a dry run of ${noun} ${name} changes something`, changed)
}

/** What an operator sees of the configuration, and the last block of each disk, where its label is. */
async function fingerprint(world: World, machine: Machine): Promise<readonly string[]> {
  const answers: string[] = []
  for (const name of ['printconfig', 'list']) {
    await world.verb('vinum', name, {}, (answer) => answers.push(JSON.stringify(answer)))
  }
  const reports = machine.topology.classes.map((one) => JSON.stringify(one.report?.()))
  const labels = world.disks.map(({ name, media, options, sizeBytes }) => {
    return `${name} ${media.content.toString('hex', sizeBytes - options.blockBytes, sizeBytes)}`
  })
  return [...answers, ...reports, ...labels]
}
