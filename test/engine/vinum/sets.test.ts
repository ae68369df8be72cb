/** Several native sets on one machine: names, verbs, reports; which set a bare name means. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { MemoryDevice } from '../../support/memory-device.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

/** A machine whose mirror `db` is on its d1 and d2, filled by `seed`. It is shut down. */
async function made(seed: number): Promise<Machine> {
  const machine = await new Machine({ devices: 2, sizeBytes: 8 * MIB }).start()
  await machine.run('volume.create', { name: 'db', mirror: ['d1', 'd2'] })
  await fill(machine, 'db', seed)
  await machine.jobsDone()
  await machine.shutDown()
  return machine
}

async function fill(machine: Machine, name: string, seed: number): Promise<void> {
  const volume = machine.open(name)
  await put(volume, 0, pattern(seed, MIB))
  await flush(volume)
  await volume.close()
}

async function holds(machine: Machine, name: string, seed: number): Promise<boolean> {
  const volume = machine.open(name)
  const data = await get(volume, 0, MIB)
  await volume.close()
  return data.equals(pattern(seed, MIB))
}

/** The disks of another machine, connected as e1, e2, … */
function connect(machine: Machine, other: Machine): readonly string[] {
  return [...other.devices.values()].map((device, index) => {
    const name = `e${index + 1}`
    const moved = new MemoryDevice({ sizeBytes: 8 * MIB, path: `/dev/${name}` })
    device.media.copy(moved.media)
    machine.devices.set(name, moved)
    return name
  })
}

/** Two sets with a mirror db each: the machine's own (seed 1), and one from elsewhere (seed 2). */
async function twoSets() {
  const [machine, other] = [await made(1), await made(2)]
  connect(machine, other)
  const spare = new MemoryDevice({ sizeBytes: 8 * MIB, path: '/dev/s1' })
  machine.devices.set('s1', spare)
  await machine.start()
  const names = [...machine.topology.providers.keys()].filter((name) => name.includes('/'))
  const [second = ''] = names.map((name) => name.slice(0, name.indexOf('/')))
  return { machine, second }
}

t.test(
  'two sets with a volume of one name: both are there, each under a name of its own',
  async (t) => {
    const { machine, second } = await twoSets()
    t.match(second, /^vinum-[0-9a-f]{8}$/, 'the second db is offered under the name of its set')
    t.ok(await holds(machine, 'db', 1), 'a bare name is that of the first set')
    t.ok(await holds(machine, `${second}/db`, 2))
    t.match(machine.volume(`${second}/db`), {
      set: second,
      health: 'HEALTHY',
      status: new RegExp(`offered as ${second}/db`),
      action: `To give it a name of its own: plexus volume rename ${second}/db NEW-NAME`,
    })
    t.match(machine.volume('db'), { status: '', action: '' })
    const drives = await machine.list('vinum.ld')
    t.strictSame(
      drives.map(({ name }) => name),
      ['d1', 'd2', `${second}/d1`, `${second}/d2`],
    )
    const shown = await machine.list('volume.show', { name: `${second}/db` })
    t.match(shown[0], { type: 'volume', name: `${second}/db`, set: second })
    t.equal(shown.filter(({ type }) => type === 'subdisk').length, 2)
    t.equal(shown.filter(({ type }) => type === 'drive').length, 2)
    await machine.shutDown()
  },
)

t.test('verbs work on the set of what they name', async (t) => {
  const { machine, second } = await twoSets()
  const db = `${second}/db`
  const before = machine.volume('db').uuid

  const dry = await machine.run('volume.replace', {
    name: db,
    oldDrive: `${second}/d2`,
    newDevice: 's1',
    dryRun: true,
  })
  t.ok(
    dry.steps.some(({ text }) => text.includes(`${second}/db.p1.s0`)),
    'by the names that are shown',
  )
  await machine.run('volume.replace', { name: db, oldDrive: `${second}/d2`, newDevice: 's1' })
  await machine.jobsDone()
  await machine.run('vinum.rm', { objects: [`${second}/d2`] })
  await machine.run('volume.scrub', { name: db })
  const jobs = await machine.jobsDone()
  t.match(jobs.at(-1), { kind: 'check', parent: db, mismatches: 0 })

  const mixed = await failureOf(
    machine.run('volume.replace', { name: db, oldDrive: 'd1', newDevice: 's1' }),
  )
  t.equal(mixed.kind, 'invalid')
  t.match(mixed.message, /d1 belongs to vinum-[0-9a-f]{8}, and .*\/db to vinum-/)
  const none = await failureOf(machine.run('volume.show', { name: 'vinum-00000000/db' }))
  t.equal(none.kind, 'not-found')

  await machine.run('volume.rename', { name: db, to: 'archive' })
  t.ok(await holds(machine, 'archive', 2))
  t.match(machine.volume('archive'), { status: '', action: '' })
  t.equal(machine.volume('db').uuid, before, 'nothing of the first set has changed')
  t.ok(await holds(machine, 'db', 1))
  await machine.run('volume.destroy', { name: 'archive' })
  await machine.run('volume.create', { name: `${second}/new`, concat: ['s1'] })
  t.equal(machine.volume('new').set, second, 'a new volume goes where its name says')
  machine.cut()
  await machine.start()
  t.ok(await holds(machine, 'db', 1))
  t.equal(machine.volume('new').set, second)
  await machine.shutDown()
})

t.test('verbs on a whole set ask which one, where there are several', async (t) => {
  const { machine, second } = await twoSets()
  const which = await failureOf(machine.run('vinum.resetconfig'))
  t.match(which.message, new RegExp(`vinum-[0-9a-f]{8}.*${second}`))
  const { text } = (await machine.run('vinum.printconfig', { set: second })) as unknown as {
    text: string
  }
  t.match(text, /^volume db/m, 'as it is created again elsewhere')
  await machine.run('vinum.resetconfig', { set: second })
  t.ok(await holds(machine, 'db', 1))
  t.throws(() => machine.volume(`${second}/db`))
  await machine.shutDown()
})
