/**
 * A volume loses a disk, and a spare steps in: meanwhile the disk returns, spares die, the power goes, operators give orders.
 * Whatever happens, at most one column of the volume is away, so that its data is there all the time.
 */
import type { SimRandom } from '../random.ts'
import type { Stage } from '../stage.ts'
import { drivesOf, isRedundant, sparesIn, volumesOf } from '../view.ts'
import type { World } from '../world.ts'

/** They become spares, and nothing else. */
export const SPARE_DISKS: readonly string[] = ['s0', 's1']
const POOL = 'pool'

type Order = readonly [
  name: string,
  parameters: Readonly<Record<string, string | readonly string[]>>,
]

function delay(random: SimRandom): string {
  return random.pick(['0s', '1s', '30s'])
}

function copyBack(random: SimRandom): string {
  return random.pick(['manual', 'automatic'])
}

/** One order about spares, as an operator gives it: some are refused. */
export async function handleSpares(world: World, random: SimRandom, name: string): Promise<void> {
  const { machine } = world
  const volume = machine && volumesOf(machine).find((one) => one.name === name)
  const drives = volume ? [...drivesOf(volume)] : []
  const [spare, drive] = [random.pick(SPARE_DISKS), drives.length > 0 ? random.pick(drives) : 'd0']
  const orders: readonly Order[] = [
    ['create', { pool: POOL, devices: SPARE_DISKS, delay: delay(random) }],
    ['add', { pool: 'all', devices: [spare] }],
    ['delete', { pool: POOL, drives: [spare] }],
    ['replace', { pool: POOL, oldSpare: 's0', newDevice: 's1' }],
    ['set', { pool: POOL, delay: delay(random), copyBack: copyBack(random) }],
    ['enable', { drive: spare }],
    ['use', { volume: name, drive }],
    ['copy-back', { volume: name }],
    ['copy-back', { volume: name }],
  ]
  if (random.chance(0.3)) {
    const sparePool = random.chance(0.8) ? POOL : 'none'
    await world.verb('volume', 'set', { name, sparePool })
    return
  }
  const [verb, parameters] = random.pick(orders)
  const wipe = ['create', 'add', 'replace'].includes(verb) ? { wipeSignatures: true } : {}
  await world.verb('spare', verb, { ...parameters, ...wipe })
}

export async function spares(stage: Stage): Promise<void> {
  const { world, random, faults } = stage
  const machine = await stage.whole()
  if (!machine) return
  const kept = volumesOf(machine).filter(isRedundant)
  const name = kept.length > 0 ? random.pick(kept).name : await create(stage)
  if (name === undefined || world.machine !== machine) return
  await prepare(stage, name)
  if (!(await stage.whole()) || world.machine !== machine) return
  const volume = volumesOf(machine).find((one) => one.name === name)
  const disks = world.disks.filter((disk) => volume && drivesOf(volume).has(disk.name))
  const bearable = disks.filter((disk) => disk.present && faults.isBearable(machine, disk))
  const hasSpare = [...sparesIn(machine).values()].includes('AVAILABLE')
  if (bearable.length === 0 || !hasSpare) return
  await stage.work(random.between(5, 60))
  const lost = random.pick(bearable)
  if (world.machine !== machine || !faults.isBearable(machine, lost)) return
  faults.mark(machine, lost)
  world.counts.faults++
  world.note('spares', `${name} loses ${lost.name}`)
  world.unplug(lost, random.chance(0.6))
  for (let turns = random.between(1, 5); turns > 0 && !world.violation; turns--) {
    await world.pause(random.exponential(random.pick([5, 50, 2_000, 40_000])))
    await stage.work(random.between(0, 40))
    await happen(stage, name, lost.name)
    if (!world.machine) await stage.boot()
  }
  await stage.readAll()
  for (const disk of world.disks) if (SPARE_DISKS.includes(disk.name)) disk.heal()
  if (!(await stage.whole())) return
  await stage.readAll()
  if (random.chance(0.5)) await world.verb('spare', 'copy-back', { volume: name })
  if (!(await stage.whole())) return
  await stage.readAll()
}

/** All that is on spares goes back, and all spares are ready. */
async function prepare({ world, random, ...stage }: Stage, name: string): Promise<void> {
  const pool = { pool: POOL, delay: delay(random), copyBack: copyBack(random) }
  const refused = await world.verb('spare', 'create', {
    ...pool,
    devices: SPARE_DISKS,
    wipeSignatures: true,
  })
  if (refused) {
    await world.verb('spare', 'set', pool)
    for (const spare of SPARE_DISKS) {
      await world.verb('spare', 'add', { pool: POOL, devices: [spare], wipeSignatures: true })
      await world.verb('spare', 'enable', { drive: spare })
    }
  }
  for (const one of world.machine ? volumesOf(world.machine) : []) {
    await world.verb('spare', 'copy-back', { volume: one.name })
  }
  await stage.whole()
  await world.verb('volume', 'set', { name, sparePool: POOL })
}

async function happen(stage: Stage, name: string, lost: string): Promise<void> {
  const { world, random } = stage
  const disk = world.disks.find((one) => one.name === lost)
  const spare = world.disks.find((one) => one.name === random.pick(SPARE_DISKS))
  if (!world.machine || !disk || !spare) return
  const what = random.weighted([
    [3, 'nothing'],
    [3, 'the disk returns'],
    [3, 'a spare goes'],
    [2, 'a spare cannot be written'],
    [1, 'a spare cannot be read'],
    [4, 'the machine ends'],
    [2, 'an order'],
  ] as const)
  world.note('spares', what)
  // While parity is in doubt, or what it holds is there alone, it must not go.
  const isIdle = sparesIn(world.machine).get(spare.name) === 'AVAILABLE'
  const isHarmless = isIdle || stage.faults.isBearable(world.machine, spare)
  if (what === 'the disk returns' && !disk.present) await world.plug(disk)
  else if (what === 'a spare goes' && isHarmless && spare.device) world.unplug(spare, true)
  else if (what === 'a spare cannot be written' && isHarmless) spare.faults.writesFail = true
  else if (what === 'a spare cannot be read' && isHarmless) spare.faults.failReads = 3
  else if (what === 'the machine ends') {
    await stage.end()
    await stage.boot()
  } else if (what === 'an order') await handleSpares(world, random, name)
}

/** There is none with copies: a new one. Its name. */
async function create({ world, random, adopt, whole }: Stage): Promise<string | undefined> {
  const { machine } = world
  const names = world.disks.map(({ name }) => name).filter((one) => !SPARE_DISKS.includes(one))
  const disks = random.shuffle(names)
  if (!machine || disks.length < 3) return undefined
  const name = `spared${world.counts.verbs}`
  const layout = random.chance(0.5)
    ? { raid5: disks.slice(0, 3), stripeSize: String(16 * 1024) }
    : { mirror: disks.slice(0, 2) }
  const size = String(random.between(4, 24) * 64 * 1024)
  const wish = { name, ...layout, size, wipeSignatures: true }
  const refused = await world.verb('volume', 'create', wish)
  if (refused || world.machine !== machine) return undefined
  await adopt(machine)
  return (await whole()) ? name : undefined
}
