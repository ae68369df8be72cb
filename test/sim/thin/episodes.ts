/** Stories of one kind of disaster each, and what is demanded of a thin device after it. Played by thin-play.ts. */
import type { SimRandom } from '../random.ts'
import type { Machine, World } from '../world.ts'
import { disksUnder, thinDevice, thinDevices } from './thin-view.ts'
import type { Trouble } from './trouble.ts'

/** What an episode needs of the play that it is part of. */
export interface ThinStage {
  readonly world: World
  readonly random: SimRandom
  readonly trouble: Trouble
  /** Takes all trouble away: everything is whole and at rest. undefined: the run has ended. */
  whole(): Promise<Machine | undefined>
  boot(): Promise<Machine>
  work(operations: number): Promise<void>
  readAll(): Promise<void>
  end(how?: 'cut' | 'kill' | 'shutdown'): Promise<void>
}

/** Some timeouts of a disk in turn, and the wait for space. */
const GO_ON_MS = 900_000

/** One of two copies of the map decays: nobody notices, at the next start least of all. */
export async function decay({ world, random, trouble, ...stage }: ThinStage): Promise<void> {
  const machine = await stage.whole()
  if (!machine) return
  await stage.work(random.between(5, 80))
  if (world.machine !== machine) return
  // Before the end, which writes the map, or after it.
  const isEarly = random.chance(0.5)
  let disk = isEarly ? trouble.decay(machine) : undefined
  const how = random.pick(['cut', 'kill', 'shutdown'] as const)
  if (!isEarly && how === 'shutdown') for (const unit of world.units) await unit.idle()
  disk ??= isEarly ? undefined : trouble.decay(machine)
  await stage.end(how)
  await stage.boot()
  await stage.readAll()
  await stage.work(random.between(5, 60))
  if (!disk || world.violation) return
  // It must be written anew by now: the other one may go.
  trouble.faulty = undefined
}

/** A disk answers nothing any more: what lies elsewhere goes on within minutes, also when the machine starts anew. */
export async function hang({ world, random, trouble, ...stage }: ThinStage): Promise<void> {
  const first = await stage.whole()
  const hung = first && trouble.choose(first)
  if (!first || !hung) return
  trouble.mark(first, hung)
  world.note('hang', `${hung.name} answers nothing any more`)
  hung.hang()
  await world.within(GO_ON_MS, 'users', stage.work(random.between(10, 100)))
  await world.within(GO_ON_MS, 'virstor list', world.verb('virstor', 'list', {}))
  await world.within(GO_ON_MS, 'users', stage.work(random.between(10, 100)))
  const idleAll = Promise.all([...world.units].map((unit) => unit.idle()))
  await world.within(GO_ON_MS, 'requests while a disk hangs', idleAll)
  if (world.violation || random.chance(0.4)) return
  await world.within(GO_ON_MS, 'the end', stage.end())
  await world.within(GO_ON_MS, 'a start while a disk hangs', stage.boot())
  await world.within(GO_ON_MS, 'users', stage.work(random.between(10, 60)))
}

/** A start with less than half of the disks, by an operator's force; the others come later, having missed nothing but that. */
export async function force({ world, random, trouble, ...stage }: ThinStage): Promise<void> {
  const first = await stage.whole()
  if (!first) return
  await stage.work(random.between(5, 60))
  if (world.machine !== first) return
  const device = random.pick([...thinDevices(first)])
  const names = device ? disksUnder(first, device) : new Set()
  const disks = random.shuffle(world.disks.filter(({ name }) => names.has(name)))
  const [left] = disks
  if (!left || disks.length < 2) return
  const away = disks.slice(0, random.between(1, disks.length - 1))
  trouble.markAll(left)
  // A cut in a commit may leave it on those that are away only: then they have been used apart.
  await stage.end('shutdown')
  for (const disk of away) disk.present = false
  world.note('force', `the machine starts without ${away.map(({ name }) => name).join()}`)
  const machine = await stage.boot()
  if (!thinDevice(machine, device?.uuid ?? '')) {
    await world.verb('virstor', 'assemble', { force: true })
    if (world.machine !== machine) return
    for (const unit of world.units) await unit.open(machine)
  }
  await stage.readAll()
  await stage.work(random.between(5, 60))
  if (random.chance(0.3)) {
    await stage.end()
    await stage.boot()
  }
  for (const disk of away) {
    if (world.machine && random.chance(0.7)) await world.plug(disk)
    await stage.work(random.between(1, 20))
  }
}

/** The machine's own vote is not to be had, or is gone: no write is lost by that. */
export async function witness({ world, random, trouble, ...stage }: ThinStage): Promise<void> {
  if (!(await stage.whole())) return
  world.witness.trouble = random.pick(['unwritable', 'hung'] as const)
  world.note('witness', world.witness.trouble)
  await stage.work(random.between(5, 80))
  const machine = world.machine
  const disk = machine && random.chance(0.5) ? trouble.choose(machine) : undefined
  if (machine && disk) {
    // A mirror of two goes on without one of them by that vote only.
    trouble.markAll(disk)
    world.unplug(disk, random.chance(0.5))
    await stage.work(random.between(5, 60))
  }
  if (random.chance(0.5)) {
    await stage.end()
    if (random.chance(0.5)) world.witness.trouble = 'none'
    if (random.chance(0.3) && !disk) world.witness.lose()
    await stage.boot()
    await stage.work(random.between(5, 40))
  }
  world.witness.trouble = 'none'
}
