/** Verbs on sets as wholes: stop, assemble, resetconfig; what is refused before anything is written; devices let go. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { freebsdMachine } from '../../support/freebsd-machine.ts'
import { type DriveView, drivesIn } from '../../support/objects.ts'

const DATA = pattern(5, 2 * MIB)

/** A machine with a mirror `db` on d1 and d2 that holds DATA, in sync. */
async function mirrored(devices = 3): Promise<Machine> {
  const machine = await new Machine({ devices, sizeBytes: 8 * MIB }).start()
  await machine.run('volume.create', { name: 'db', mirror: ['d1', 'd2'] })
  const volume = machine.open('db')
  await put(volume, 0, DATA)
  await flush(volume)
  await volume.close()
  await machine.jobsDone()
  return machine
}

async function holdsData(machine: Machine, expected = DATA): Promise<boolean> {
  const volume = machine.open('db')
  try {
    return (await get(volume, 0, expected.length)).equals(expected)
  } finally {
    await volume.close()
  }
}

function drives(machine: Machine): readonly DriveView[] {
  return drivesIn(machine.topology)
}

function holders(machine: Machine): readonly string[] {
  return [...machine.topology.providers.values()].flatMap(({ consumers }) =>
    [...consumers].map(({ holder }) => holder),
  )
}

function sets(machine: Machine): number {
  return machine.topology.report().filter(({ className }) => className === 'vinum').length
}

function events(machine: Machine, event: string): readonly string[] {
  return machine.topology.events.history
    .filter((one) => one.event === event)
    .map(({ message }) => message)
}

t.test('stop lets everything go until assemble', async (t) => {
  const machine = await mirrored()
  const open = machine.open('db')
  t.equal((await failureOf(machine.run('vinum.stop'))).kind, 'in-use')
  await open.close()
  const dry = await machine.run('vinum.stop', { dryRun: true })
  t.match(dry.steps[0]?.text, 'close 2 drives')
  t.ok(await holdsData(machine), 'a dry run stops nothing')
  await machine.run('vinum.stop')
  t.notOk(machine.topology.providers.has('db'))
  t.strictSame(holders(machine), [])
  t.equal(sets(machine), 0)
  t.strictSame(drives(machine), [])
  await machine.pull('d2')
  await machine.replug('d2')
  t.strictSame(holders(machine), [], 'who comes while it rests is left alone')
  t.equal(
    (await failureOf(machine.run('vinum.stop'))).kind,
    'not-found',
    'there is nothing to stop',
  )
  const seen = await machine.run('vinum.assemble', { dryRun: true })
  t.match(seen.steps[0]?.text, 'look at 3 devices')
  t.strictSame(holders(machine), [])
  const { steps } = await machine.run('vinum.assemble')
  t.match(steps[0]?.text, /^assemble vinum-/)
  t.ok(await holdsData(machine))
  t.equal(machine.volume('db').health, 'HEALTHY')
  t.notOk(machine.volume('db').process, 'it was stopped in peace: nothing to resync')
  t.match((await failureOf(machine.run('vinum.assemble'))).message, 'no set waits')
  await machine.run('vinum.stop')
  machine.cut()
  await machine.start()
  t.ok(await holdsData(machine), 'the next start takes it up again')
})

t.test('stop while a job runs; a new set while the old one rests', async (t) => {
  const machine = await mirrored(4)
  await machine.run('volume.add-mirror', { name: 'db', devices: ['d3'] })
  await machine.run('vinum.stop')
  t.strictSame(holders(machine), [])
  await machine.run('volume.create', { name: 'other', concat: ['d4'] })
  await machine.pull('d4')
  await machine.replug('d4')
  t.equal(machine.volume('other').health, 'HEALTHY', 'a set that was made since is served')
  await machine.run('vinum.assemble')
  await machine.jobsDone()
  t.equal(machine.volume('db').health, 'HEALTHY')
  await machine.pull('d1')
  await machine.pull('d2')
  t.ok(await holdsData(machine), 'the job went on and ended')
})

t.test("stop and assemble work on FreeBSD's drives, too", async (t) => {
  const machine = await freebsdMachine().start()
  const { topology } = machine
  const access = { read: 1, write: 0, exclusive: 0 }
  const open = topology.attach(topology.find('safe'), undefined, 'test', access)
  t.equal((await failureOf(machine.run('vinum.stop'))).kind, 'in-use')
  await open.close()
  await machine.run('vinum.stop')
  t.strictSame(holders(machine), [])
  t.equal(sets(machine), 0)
  const { steps } = await machine.run('vinum.assemble')
  t.strictSame(
    steps.map(({ object }) => object),
    ['vinum-freebsd'],
  )
  t.ok(topology.providers.has('safe'))
})

t.test('a repair does not go on with a copy that has been taken away', async (t) => {
  const machine = await mirrored()
  machine.topology.jobs.limitBytesPerSecond = 64 * 1024
  const { jobs } = await machine.run('volume.scrub', { name: 'db', repair: true })
  await machine.run('volume.remove-mirror', { name: 'db', plex: 'db.p0' })
  const newer = pattern(7, 2 * MIB)
  const volume = machine.open('db')
  await put(volume, 0, newer)
  await volume.close()
  machine.topology.jobs.limitBytesPerSecond = undefined
  const ended = await machine.jobsDone()
  t.match(
    ended.find(({ id }) => id === jobs[0]?.id),
    { kind: 'repair', state: 'done', mismatches: 0 },
  )
  t.ok(await holdsData(machine, newer), 'nothing old was written over it')
})

t.test('assemble by force: without the drives that are lost', async (t) => {
  const machine = await mirrored()
  await machine.shutDown()
  await machine.start(['d1', 'd3'])
  t.notOk(machine.topology.providers.has('db'))
  t.match(drives(machine)[0], { name: 'd1', state: 'WAITING' })
  const refusal = await failureOf(machine.run('vinum.assemble'))
  t.equal(refusal.kind, 'in-use')
  t.match(refusal.message, '1 drive is missing: d2')
  const dry = await machine.run('vinum.assemble', { force: true, dryRun: true })
  t.ok(dry.steps.some(({ text }) => text.includes('although 1 drive is missing')))
  t.notOk(machine.topology.providers.has('db'))
  await machine.run('vinum.assemble', { force: true })
  t.equal(machine.volume('db').health, 'DEGRADED')
  t.ok(await holdsData(machine))
  const newer = pattern(6, 2 * MIB)
  const volume = machine.open('db')
  await put(volume, 0, newer)
  await flush(volume)
  await volume.close()
  machine.cut()
  await machine.start()
  await machine.jobsDone()
  t.equal(machine.volume('db').health, 'HEALTHY', 'd2 is a copy again')
  await machine.pull('d1')
  t.ok(await holdsData(machine, newer), 'and has what it missed')
})

t.test('resetconfig ends the set; what comes next makes a new one', async (t) => {
  const machine = await mirrored()
  await machine.run('vinum.resetconfig')
  t.equal(sets(machine), 0)
  t.strictSame(drives(machine), [])
  t.strictSame(holders(machine), [])
  t.notOk(machine.topology.providers.has('db'))
  t.equal((await failureOf(machine.run('vinum.resetconfig'))).kind, 'not-found')
  await machine.run('volume.create', { name: 'db', mirror: ['d2', 'd3'] })
  await machine.jobsDone()
  machine.cut()
  await machine.start()
  t.equal(machine.volume('db').health, 'HEALTHY')
  t.strictSame(
    drives(machine).map(({ device }) => device),
    ['d2', 'd3'],
  )
})

t.test('rm of the last drive ends the set', async (t) => {
  const machine = await new Machine({ devices: 1, sizeBytes: 8 * MIB }).start()
  await machine.run('volume.create', { name: 'db', concat: ['d1'] })
  await machine.run('vinum.rm', { objects: ['d1'], recursive: true, force: true })
  t.equal(sets(machine), 0)
  t.strictSame(holders(machine), [])
  await machine.run('volume.create', { name: 'db', concat: ['d1'] })
  t.equal(machine.volume('db').health, 'HEALTHY')
})

t.test('a resetconfig that is cut off leaves labels that can be taken off', async (t) => {
  const machine = await mirrored()
  // The commit goes through, taking the labels off does not.
  for (const name of ['d1', 'd2']) {
    const device = machine.device(name)
    const submit = device.submit.bind(device)
    const anchorAt = device.media.length - 512
    device.submit = (request) => {
      const isWiped = request.op === 'write-zeroes' && request.offset === anchorAt
      if (isWiped) device.fail('write-zeroes', 'io')
      submit(request)
    }
  }
  const { warnings } = await machine.run('vinum.resetconfig')
  t.match(warnings.join(), 'the label on drive d1 may still be there')
  t.equal(sets(machine), 0)
  machine.cut()
  await machine.start()
  t.notOk(machine.topology.providers.has('db'))
  t.match(drives(machine)[0]?.note, 'its configuration was removed')
  t.match(events(machine, 'set-incomplete').join(), 'clear-label')
  const { topology } = machine
  for (const name of ['d1', 'd2']) {
    const access = { read: 1, write: 1, exclusive: 1 }
    const consumer = topology.attach(topology.find(name), undefined, 'clear-label', access)
    await consumer.close()
  }
  t.strictSame(drives(machine), [], 'who takes a device has it')
})

t.test('a name that something else has is refused before anything is written', async (t) => {
  const machine = await mirrored(4)
  await machine.run('nop.create', { provider: 'd3', name: 'taken' })
  const before = [...machine.devices.values()].map(({ media }) => Buffer.from(media))
  for (const [method, parameters] of [
    ['volume.create', { name: 'taken', concat: ['d4'] }],
    ['volume.create', { name: 'taken', concat: ['d4'], dryRun: true }],
    ['volume.rename', { name: 'db', to: 'taken' }],
    ['vinum.rename', { from: 'db', to: 'taken', recursive: true }],
  ] as const) {
    const { kind, message } = await failureOf(machine.run(method, parameters))
    t.equal(kind, 'exists', method)
    t.match(message, /taken.*choose another name/)
  }
  const after = [...machine.devices.values()].map(({ media }) => media)
  t.ok(after.every((media, index) => media.equals(before[index] as Buffer)))
})

t.test('a set that cannot be written is let go, until somebody asks for it', async (t) => {
  const machine = await mirrored(2)
  await machine.shutDown()
  for (const name of ['d1', 'd2']) machine.device(name).fail('write', 'io', 1e9)
  await machine.start()
  await machine.topology.quiet()
  t.strictSame(events(machine, 'set-assembled'), [])
  t.strictSame(holders(machine), [])
  t.equal(sets(machine), 0)
  const { write } = machine.device('d1').counts
  await new Promise((resolve) => setTimeout(resolve, 50))
  t.equal(machine.device('d1').counts.write, write, 'it is not tried again and again')
  machine.cut()
  await machine.start()
  t.ok(await holdsData(machine))
})

t.test('a label on a disk takes what was at its head away', async (t) => {
  const machine = new Machine({ devices: 1, sizeBytes: 8 * MIB })
  const { media } = machine.device('d1')
  Buffer.from('VINUM-1\0').copy(media, 4096)
  media.fill(0x77, 0, 4096)
  await machine.start()
  await machine.run('volume.create', { name: 'db', concat: ['d1'], wipeSignatures: true })
  t.ok(
    machine
      .device('d1')
      .media.subarray(0, 60 * 1024)
      .every((byte) => byte === 0),
  )
  machine.cut()
  await machine.start()
  t.equal(machine.volume('db').health, 'HEALTHY')
})
