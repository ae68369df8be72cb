/**
 * Growths of a set's raid5 plexes with drives that leave and return, power cuts between: the growth stops, the column
 * gets what it lacks, the growth goes on, and every column can be lost afterwards.
 */
import t, { type Test } from 'tap'
import { type Clock, realClock } from '../../../../src/base/clock.ts'
import { MIB } from '../../../../src/base/limits.ts'
import type { Job } from '../../../../src/engine/jobs/job.ts'
import {
  createLayout,
  dataColumn,
  parityColumn,
} from '../../../../src/engine/vinum/raid5/layout.ts'
import { get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'

const BEFORE = ['d1', 'd2', 'd3']
const NEW = 'd4'
const CONTENT = pattern(1, 12 * MIB)

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const tick = () => new Promise((resolve) => setTimeout(resolve, 1))

async function filled(devices: number, stripeSize = '64KiB'): Promise<Machine> {
  const machine = await new Machine({ devices, sizeBytes: 10 * MIB }).start()
  await machine.run('volume.create', {
    name: 'v',
    raid5: BEFORE,
    stripeSize,
    parity: 'left-symmetric',
    size: '12MiB',
  })
  const volume = machine.open('v')
  await put(volume, 0, CONTENT, true)
  await volume.close()
  await machine.jobsDone()
  return machine
}

async function growing(devices = 4): Promise<Machine> {
  const machine = await filled(devices)
  machine.topology.jobs.limitBytesPerSecond = 20 * MIB
  await machine.run('volume.grow', { name: 'v', devices: [NEW] })
  return machine
}

function growthOf(machine: Machine): Job {
  const job = machine.topology.jobs.list().find((one) => one.report().kind === 'grow')
  if (!job) throw new Error('nothing grows')
  return job
}

async function reached(machine: Machine, bytes: number): Promise<void> {
  const job = growthOf(machine)
  while (job.doneBytes < bytes && job.state === 'running') await tick()
}

/** All data is there, with all columns and without each of them. */
async function checkWhole(
  t: Test,
  machine: Machine,
  names: readonly string[] = [...BEFORE, NEW],
): Promise<void> {
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  t.equal(machine.volume('v').components[0]?.state, 'UP')
  const volume = machine.open('v')
  t.equal(volume.geometry.sizeBytes, 18 * MIB)
  const all = await get(volume, 0, 18 * MIB)
  t.ok(all.subarray(0, CONTENT.length).equals(CONTENT), 'the content')
  for (const name of names) {
    await machine.pull(name)
    t.ok((await get(volume, 0, all.length)).equals(all), `without ${name}`)
    await machine.replug(name)
    await machine.jobsDone()
  }
  await volume.close()
}

for (const lost of ['d2', NEW]) {
  t.test(`${lost} is away for a while in the middle of a growth`, async (t) => {
    const machine = await growing()
    await reached(machine, 4 * MIB)
    await machine.pull(lost)
    await growthOf(machine).ended
    t.match(machine.volume('v'), { state: 'DEGRADED' })
    await machine.replug(lost)
    await checkWhole(t, machine)
  })

  t.test(`${lost} is away when the last rows are written, which no mark tells of`, async (t) => {
    const machine = await growing()
    await reached(machine, 15 * MIB)
    await machine.pull(lost)
    await growthOf(machine).ended
    await machine.replug(lost)
    await checkWhole(t, machine)
  })
}

for (const lost of ['d2', NEW]) {
  t.test(`${lost} dies in the middle of a growth and is replaced`, async (t) => {
    const machine = await growing(5)
    await reached(machine, 4 * MIB)
    await machine.pull(lost)
    await growthOf(machine).ended
    await machine.run('volume.replace', { name: 'v', oldDrive: lost, newDevice: 'd5' })
    const names = [...BEFORE, NEW].map((name) => (name === lost ? 'd5' : name))
    await checkWhole(t, machine, names)
  })
}

t.test('a drive that works is not replaced in the middle of a growth', async (t) => {
  const machine = await growing(5)
  await reached(machine, 4 * MIB)
  const request = { name: 'v', oldDrive: 'd1', newDevice: 'd5' }
  t.match(await failureOf(machine.run('volume.replace', request)), {
    kind: 'in-use',
    message: /\(grow\) works on v\.p0; wait for it, or cancel it/,
  })
  await checkWhole(t, machine)
})

t.test(
  'parity of the old layout is made right after a crash though the new drive is away',
  async (t) => {
    const machine = await growing()
    await reached(machine, 4 * MIB)
    await machine.pull(NEW)
    await growthOf(machine).ended
    const row = 80
    const layout = createLayout(BEFORE.length, 65_536, 'left-symmetric')
    const at = row * layout.rowDataBytes
    const content = CONTENT.subarray(at, at + layout.rowDataBytes)
    await put(machine.open('v'), at, content, true)
    const columns = machine.volume('v').components[0]?.children ?? []
    const parity = columns[parityColumn(layout, row)]
    const begin = (parity?.driveOffsetBytes ?? 0) + row * layout.stripeBytes
    machine.cut()
    // As when the power goes between the data of a row and its parity.
    machine.device(parity?.drive ?? '').media.fill(0x55, begin, begin + layout.stripeBytes)
    await machine.start(BEFORE)
    await machine.jobsDone()
    const lost = columns[dataColumn(layout, row, 0)]?.drive ?? ''
    await machine.pull(lost)
    const volume = machine.open('v')
    t.ok((await get(volume, at, content.length)).equals(content), `without ${NEW} and ${lost}`)
    await volume.close()
    await machine.replug(lost)
    await machine.plug(NEW)
    await checkWhole(t, machine)
  },
)

/** The first write of a job to this device, and all behind it, get no answer. */
function holdWrites(machine: Machine, name: string): () => Promise<void> {
  const device = machine.device(name)
  const submit = device.submit.bind(device)
  let held = 0
  device.submit = (request) => {
    if (request.op === 'write' && request.cause === 'sync') held++
    else submit(request)
  }
  return async () => {
    while (held === 0) await tick()
  }
}

t.test(
  'a column that is away when a window is written from its backup gets the new rows',
  async (t) => {
    // Its first window has several rows.
    const machine = await filled(4, '16KiB')
    const held = holdWrites(machine, 'd2')
    await machine.run('volume.grow', { name: 'v', devices: [NEW] })
    await held()
    machine.cut()
    await machine.start(['d1', 'd3', NEW])
    t.match(machine.volume('v'), { health: 'DEGRADED' })
    await machine.plug('d2')
    await checkWhole(t, machine)
  },
)

t.test(
  'a new column of a striped plex that is away while a window is in its backup alone comes back as it is',
  async (t) => {
    const machine = await new Machine({ devices: 3, sizeBytes: 10 * MIB }).start()
    await machine.run('volume.create', { name: 'v', stripe: ['d1', 'd2'], stripeSize: '64KiB' })
    const volume = machine.open('v')
    const { sizeBytes } = volume.geometry
    const content = pattern(2, sizeBytes)
    await put(volume, 0, content, true)
    const held = holdWrites(machine, 'd3')
    await machine.run('volume.grow', { name: 'v', devices: ['d3'] })
    await held()
    machine.cut()
    await machine.start(['d1', 'd2'])
    t.match(machine.volume('v'), { health: 'FAULTED' })
    const [, , column] = machine.volume('v').components[0]?.children ?? []
    t.equal(column?.state, 'DOWN', 'not stale: it has missed nothing')
    await machine.plug('d3')
    await machine.jobsDone()
    t.match(machine.volume('v'), { health: 'HEALTHY' })
    const again = machine.open('v')
    t.ok(again.geometry.sizeBytes > sizeBytes)
    t.ok((await get(again, 0, sizeBytes)).equals(content))
  },
)

t.test(
  'a window in its backup alone waits for a drive out of service, and status says what ends that',
  async (t) => {
    // It is tried again soon.
    const clock: Clock = {
      ...realClock,
      after: (ms, work) => realClock.after(Math.min(ms, 5), work),
    }
    const machine = await new Machine({ devices: 3, sizeBytes: 10 * MIB, clock }).start()
    await machine.run('volume.create', { name: 'v', stripe: ['d1', 'd2'], stripeSize: '64KiB' })
    const volume = machine.open('v')
    const content = pattern(3, volume.geometry.sizeBytes)
    await put(volume, 0, content, true)
    const device = machine.device('d2')
    const submit = device.submit.bind(device)
    let broken = true
    device.submit = (request) => {
      if (broken && request.op === 'write' && request.cause === 'sync') device.fail('write', 'io')
      submit(request)
    }
    const told = () =>
      machine.topology.events.history.filter(({ event }) => event === 'growth-stuck')
    await machine.run('volume.grow', { name: 'v', devices: ['d3'] })
    for (let i = 0; i < 2000 && told().length === 0; i++) await tick()
    t.match(told(), [
      {
        severity: 'critical',
        object: 'v.p0',
        message: /^v\.p0: \d+ bytes at 0 can be written .* requests for them wait, .*injected/,
      },
    ])
    let ended = false
    const read = get(volume, 0, 65_536).finally(() => {
      ended = true
    })
    await machine.run('vinum.setstate', { state: 'down', object: 'd2', force: true })
    broken = false
    for (let i = 0; i < 20; i++) await tick()
    t.notOk(ended)
    t.match(machine.volume('v'), {
      health: 'FAULTED',
      status: /The growth of v\.p0 has stopped in the middle of a window: requests for .* wait/,
      action: 'Look at drive d2, then take it back: plexus vinum setstate up d2',
    })
    await machine.run('vinum.setstate', { state: 'up', object: 'd2' })
    t.ok((await read).equals(content.subarray(0, 65_536)))
    t.equal(told().length, 1, 'it is told once')
    // The old rows were written again, or the new ones: then it has gone on.
    await machine.jobsDone()
    await machine.run('vinum.start', { objects: ['v'] })
    await machine.jobsDone()
    t.match(machine.volume('v'), { health: 'HEALTHY', action: '' })
    t.ok(volume.geometry.sizeBytes > content.length)
    t.ok((await get(volume, 0, content.length)).equals(content))
    await volume.close()
    await machine.shutDown()
  },
)
