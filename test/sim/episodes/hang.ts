/**
 * A disk that answers nothing any more, for ever: users of volumes that can do without it, operators and the other
 * disks go on within minutes, also when the machine starts anew.
 */
import type { Stage } from '../stage.ts'
import { drivesOf, volumesOf } from '../view.ts'

/** Some timeouts of a disk in turn. */
const GO_ON_MS = 600_000

type Verb = readonly [noun: string, verb: string, parameters: Record<string, string | boolean>]

export async function hang({ world, random, faults, ...stage }: Stage): Promise<void> {
  const first = await stage.whole()
  const hung = first && faults.choose(first)
  if (!first || !hung) return
  faults.mark(first, hung)
  world.counts.faults++
  world.note('hang', `${hung.name} answers nothing any more`)
  hung.hang()
  await world.within(GO_ON_MS, 'users', stage.work(random.between(10, 100)))
  const used = new Set(volumesOf(first).flatMap((volume) => [...drivesOf(volume)]))
  const idle = world.disks.find(({ name, device }) => device && !used.has(name))
  // A set of three that loses two drives in one commit has no quorum: the loss of the first one is durable before.
  const save = () => world.within(GO_ON_MS, 'saveconfig', world.verb('vinum', 'saveconfig', {}))
  if (idle && !(await save())) {
    world.unplug(idle, false)
    await world.within(GO_ON_MS, `${idle.name} that comes back`, world.plug(idle))
  }
  const name = [...world.units][0]?.name ?? ''
  const verbs = random.shuffle<Verb>([
    ['vinum', 'list', {}],
    ['volume', 'set', { name, readPolicy: 'round-robin' }],
    ['vinum', 'setstate', { state: 'down', object: hung.name, force: true }],
    ['vinum', 'saveconfig', {}],
  ])
  for (const [noun, verb, parameters] of verbs.slice(0, random.between(1, 4))) {
    await world.within(GO_ON_MS, `${noun} ${verb}`, world.verb(noun, verb, parameters))
  }
  await world.within(GO_ON_MS, 'users', stage.work(random.between(10, 100)))
  const idleAll = Promise.all([...world.units].map((unit) => unit.idle()))
  await world.within(GO_ON_MS, 'requests while a disk hangs', idleAll)
  if (world.violation || random.chance(0.4)) return
  await world.within(GO_ON_MS, 'the end', stage.end())
  await world.within(GO_ON_MS, 'a start while a disk hangs', stage.boot())
  await world.within(GO_ON_MS, 'users', stage.work(random.between(10, 60)))
}
