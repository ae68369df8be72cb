/** What `plexus status` says of a volume that is not whole, and that what it says to type helps. */
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import { MIB } from '../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

const SLOW = 20 * MIB
const UNIT = 64 * 1024

type Layout = Readonly<Record<string, readonly string[] | string>>

const REDUNDANT: Readonly<Record<string, { layout: Layout; what: string }>> = {
  mirror: { layout: { mirror: ['d1', 'd2'] }, what: 'Its copies' },
  raid5: { layout: { raid5: ['d1', 'd2', 'd3'] }, what: 'Its data and parity' },
}

/** A machine whose power was cut while the first 1 MiB of its volume `v` was being written. It is not started yet. */
async function cutOff(layout: Layout) {
  const machine = await new Machine({ devices: 3 }).start()
  await machine.run('volume.create', { name: 'v', ...layout })
  await machine.jobsDone()
  await put(machine.open('v'), 0, pattern(1, MIB))
  const subdisks = machine.volume('v').components.flatMap(({ children }) => children)
  const [dataOffset = 0] = subdisks.map(({ driveOffsetBytes }) => driveOffsetBytes ?? 0)
  machine.cut()
  return { machine, dataOffset }
}

const badSector = new PlexusError('io', {
  op: 'read',
  subject: '/dev/d1',
  message: '/dev/d1: a bad sector',
})

/** From now on 1 MiB of all devices cannot be read, until the returned function is called. */
function spoil(machine: Machine, from: number): () => void {
  const mended: (() => void)[] = []
  for (const device of machine.devices.values()) {
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      const isData = request.offset >= from && request.offset < from + MIB
      if (request.op !== 'read' || !isData) submit(request)
      else setImmediate(() => request.complete(badSector))
    }
    mended.push(() => {
      device.submit = submit
    })
  }
  return () => {
    for (const mend of mended) mend()
  }
}

async function listedHealth(machine: Machine): Promise<unknown> {
  return (await machine.list('volume.list'))[0]?.health
}

for (const [name, { layout, what }] of Object.entries(REDUNDANT)) {
  const prefix = `${what} may differ in 1 MiB since a crash or a failed write`
  const suffix = 'Until then the loss of a drive may damage that part.'

  t.test(`${name}: a resync after a crash is told of while it runs`, async (t) => {
    const { machine } = await cutOff(layout)
    machine.topology.jobs.limitBytesPerSecond = 1
    await machine.start()
    const said = () => machine.volume('v')
    const { process } = said()
    const id = process?.id ?? ''
    t.equal(process?.kind, 'resync')
    t.match(said(), {
      state: 'RESYNCING',
      health: 'DEGRADED',
      status:
        /^Its .* may differ in .* since a crash or a failed write; a resync makes them agree\. Until/,
      action: 'Nothing to do. To follow it: plexus wait v --for resync',
    })
    t.equal(await listedHealth(machine), 'DEGRADED')
    machine.topology.jobs.limitBytesPerSecond = undefined
    await machine.jobsDone()
    t.match(said(), { state: 'UP', health: 'HEALTHY', status: '', action: '', doubt: undefined })
    t.equal(await listedHealth(machine), 'HEALTHY')
    t.ok(id !== '')
    await machine.shutDown()
  })

  t.test(`${name}: a resync that has failed leaves it degraded until it has not`, async (t) => {
    const { machine, dataOffset } = await cutOff(layout)
    const mend = spoil(machine, dataOffset)
    await machine.start()
    t.match(await machine.jobsDone(), [{ kind: 'resync', state: 'failed' }])
    const report = machine.volume('v')
    t.equal(report.state, 'DEGRADED')
    t.equal(report.health, 'DEGRADED')
    t.equal(await listedHealth(machine), 'DEGRADED')
    t.match(
      report.status,
      new RegExp(
        `^${prefix}, and the resync has failed: .+\\. It is tried again in \\d+ s\\. ${suffix}$`,
      ),
    )
    t.match(report.action, /^To try it now: plexus vinum start v\. If it fails again and again, /)
    t.equal(report.doubt?.bytes, MIB)
    const seconds = report.doubt?.retrySeconds ?? 0
    t.ok(seconds > 20 && seconds <= 30, `${seconds} s`)

    const again = await machine.run('vinum.start', { objects: ['v'] })
    t.strictSame(
      again.steps.map(({ text }) => text),
      ['resync what is in doubt of v'],
    )
    t.match(await machine.jobsDone(), [{ kind: 'resync', state: 'failed' }])
    mend()
    const { steps } = await machine.run('vinum.start', { objects: ['v.p0'] })
    t.match(steps, [{ text: 'resync what is in doubt of v.p0' }])
    t.match(await machine.jobsDone(), [{ kind: 'resync', state: 'done' }])
    t.match(machine.volume('v'), {
      state: 'UP',
      health: 'HEALTHY',
      status: '',
      action: '',
      doubt: undefined,
    })
    const idle = await machine.run('vinum.start', { objects: ['v'] })
    t.match(idle.warnings, ['volume v is up: nothing to start'])
    const volume = machine.open('v')
    t.equal((await get(volume, 0, MIB)).length, MIB)
    await machine.shutDown()
  })

  t.test(`${name}: a resync that rests or was given up`, async (t) => {
    const { machine } = await cutOff(layout)
    machine.topology.jobs.limitBytesPerSecond = 1
    await machine.start()
    const job = machine.topology.jobs.get(machine.volume('v').process?.id ?? '')
    await job.pause()
    t.match(machine.volume('v'), {
      health: 'DEGRADED',
      status: /; the resync that makes them agree is paused\. Until/,
      action: `To go on: plexus job resume ${job.id}`,
    })
    await job.cancel()
    t.match(machine.volume('v'), {
      state: 'DEGRADED',
      health: 'DEGRADED',
      status: /, and no resync is under way\. Until/,
      action: /^To try it now: plexus vinum start v\./,
      doubt: { retrySeconds: undefined },
    })
    machine.topology.jobs.limitBytesPerSecond = undefined
    await machine.run('vinum.start', { objects: ['v'] })
    await machine.jobsDone()
    t.match(machine.volume('v'), { health: 'HEALTHY', status: '' })
    await machine.shutDown()
  })
}

for (const [name, { layout, what }] of Object.entries(REDUNDANT)) {
  t.test(`${name}: what a check found is told of until it was made right`, async (t) => {
    const machine = await new Machine({ devices: 3 }).start()
    await machine.run('volume.create', { name: 'v', ...layout })
    await machine.jobsDone()
    await put(machine.open('v'), 0, pattern(1, MIB))
    const scrub = async (repair: boolean): Promise<void> => {
      await machine.run('volume.scrub', { name: 'v', repair })
      await machine.jobsDone()
    }
    await scrub(false)
    t.match(machine.volume('v'), { health: 'HEALTHY', status: '' })
    const [, second] = machine.volume('v').components.flatMap(({ children }) => children)
    const at = second?.driveOffsetBytes ?? 0
    machine.device('d2').media[at] = 1 ^ (machine.device('d2').media[at] ?? 0)
    await scrub(false)
    const told = {
      state: 'DEGRADED',
      health: 'DEGRADED',
      status: new RegExp(
        `^The check that ended at .+ found one place in which ${what.toLowerCase()} do not agree`,
      ),
      action: 'To make them agree: plexus volume scrub v --repair',
    }
    t.match(machine.volume('v'), told)
    t.equal(await listedHealth(machine), 'DEGRADED')
    await machine.shutDown()
    await machine.start()
    await machine.jobsDone()
    t.match(machine.volume('v'), told, 'after a restart, too')
    await scrub(true)
    t.match(machine.volume('v'), { state: 'UP', health: 'HEALTHY', status: '', action: '' })
    await scrub(false)
    t.match(machine.volume('v'), { health: 'HEALTHY', status: '' })
    await machine.shutDown()
  })
}

t.test('a write that every copy has failed leaves doubt, too', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('v')
  await put(volume, 0, pattern(1, 4096))
  // It is tried once more, piece by piece.
  for (const name of ['d1', 'd2']) machine.device(name).fail('write', 'io', 2)
  await failureOf(put(volume, 0, pattern(1, 4096)))
  t.match(machine.volume('v'), {
    health: 'DEGRADED',
    status:
      /^Its copies may differ in .* since a crash or a failed write; a resync begins in \d+ s\./,
  })
  await machine.shutDown()
})

t.test('a new raid5 that loses a disk before its parity was made', async (t) => {
  const machine = await new Machine({ devices: 4 }).start()
  machine.topology.jobs.limitBytesPerSecond = SLOW
  // What is on the disks from before must not be taken for content.
  for (const { media } of machine.devices.values()) media.fill(0xee, MIB, 15 * MIB)
  await machine.run('volume.create', {
    name: 'v',
    raid5: ['d1', 'd2', 'd3'],
    stripeSize: String(UNIT),
    wipeSignatures: true,
  })
  const [job] = machine.topology.jobs.list()
  await job?.pause()
  const volume = machine.open('v')
  const { sizeBytes } = volume.geometry
  const written: { at: number; bytes: Buffer }[] = []
  const write = async (at: number, length: number): Promise<void> => {
    const bytes = pattern(written.length + 1, length)
    await put(volume, at, bytes)
    written.push({ at, bytes })
  }
  // Whole rows, parts of neighbouring units, and parts of the first or the second unit of a row.
  await write(sizeBytes - 2 * MIB, MIB)
  await write(6 * MIB + 32 * 1024, UNIT)
  const beside: number[] = []
  for (let row = 0; row < 12; row++) {
    const at = 4 * MIB + row * 2 * UNIT + 4096
    const second = row % 2
    await write(at + second * UNIT, 8192)
    beside.push(at + (1 - second) * UNIT)
  }
  await flush(volume)
  const allThere = async (): Promise<boolean> => {
    const volume = machine.open('v')
    try {
      for (const { at, bytes } of written) {
        if (!(await get(volume, at, bytes.length)).equals(bytes)) return false
      }
      return true
    } finally {
      await volume.close()
    }
  }
  t.ok(await allThere())

  await machine.pull('d2')
  const lost = machine.volume('v')
  t.match(lost, { state: 'DOWN', health: 'FAULTED' })
  t.match(
    lost.status,
    /^Drive d2 is missing since .+\. The parity of v\.p0 was made up to .* of .* only, so that v does not go on without the drive by itself\. Nothing that was written since that began is lost\.$/,
  )
  t.match(
    lost.action,
    /^Connect drive d2 again: it is taken back by itself\. If it is lost: plexus job cancel j\w+, then plexus vinum setstate --force up v\.p0 goes on without it; what was written is there, and what never was reads as anything\.$/,
  )

  // What is written until somebody decides is refused, and damages nothing.
  for (const at of beside) await failureOf(put(volume, at, pattern(99, 8192)))
  await failureOf(put(volume, 8 * MIB, pattern(99, MIB)))
  t.match(
    machine.volume('v').status,
    /is lost, except perhaps where data and parity differ\. Its data and parity may differ in /,
  )

  const force = { state: 'up', object: 'v.p0', force: true }
  t.match(await failureOf(machine.run('vinum.setstate', force)), { kind: 'in-use' })
  await job?.cancel()
  t.match(
    machine.volume('v').action,
    /If it is lost: plexus vinum setstate --force up v\.p0 goes on/,
  )
  t.match(await failureOf(machine.run('vinum.setstate', { ...force, force: false })), {
    kind: 'invalid',
  })
  const { warnings } = await machine.run('vinum.setstate', force)
  t.match(warnings[0], 'the parity of v.p0 counts everywhere by order')
  t.equal(machine.volume('v').health, 'DEGRADED')
  t.ok(await allThere(), 'all that was written, without the disk')
  await write(8 * MIB, UNIT)

  await volume.close()
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.run('volume.replace', { name: 'v', oldDrive: 'd2', newDevice: 'd4' })
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  await machine.pull('d1')
  t.ok(await allThere(), 'and its parity is right')
})

t.test('the disk that such a raid5 has lost comes back', async (t) => {
  const machine = await new Machine({ devices: 3 }).start()
  machine.topology.jobs.limitBytesPerSecond = SLOW
  await machine.run('volume.create', { name: 'v', raid5: ['d1', 'd2', 'd3'] })
  await machine.topology.jobs.list()[0]?.pause()
  const volume = machine.open('v')
  await put(volume, 6 * MIB, pattern(1, MIB))
  await flush(volume)
  await machine.pull('d2')
  t.equal(machine.volume('v').health, 'FAULTED')
  await put(volume, 6 * MIB, pattern(2, MIB)).catch(() => {})
  await machine.replug('d2')
  t.match(machine.volume('v'), { health: 'DEGRADED', state: 'INITIALISING' })
  const back = await get(volume, 6 * MIB, MIB)
  t.ok(back.length === MIB)
  await put(volume, 6 * MIB, pattern(3, MIB))
  machine.topology.jobs.limitBytesPerSecond = undefined
  for (const job of machine.topology.jobs.list()) if (job.state === 'paused') job.resume()
  await new Promise((resolve) => setImmediate(resolve))
  await machine.jobsDone()
  await machine.run('vinum.start', { objects: ['v'] })
  await machine.jobsDone()
  t.equal(machine.volume('v').health, 'HEALTHY')
  await machine.pull('d1')
  t.ok((await get(volume, 6 * MIB, MIB)).equals(pattern(3, MIB)))
})

t.test('of two drives that are missing, the one that helps is named', async (t) => {
  const machine = await new Machine({ devices: 4, sizeBytes: 8 * MIB }).start()
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2'] })
  await machine.run('volume.create', { name: 'w', mirror: ['d3', 'd4'] })
  await machine.jobsDone()
  await machine.pull('d1')
  const volume = machine.open('v')
  await put(volume, 0, pattern(2, MIB))
  await volume.close()
  await machine.pull('d2')
  t.match(machine.volume('v'), {
    health: 'FAULTED',
    action: 'Connect drive d2 again: it is taken back by itself.',
  })
  await machine.replug('d2')
  t.match(machine.volume('v'), {
    health: 'DEGRADED',
    action: /^Connect drive d1 again, or replace/,
  })
  await machine.shutDown()
})

t.test('of a mirror without a good copy, status names what lets one serve', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  for (const object of ['v.p0.s0', 'v.p1.s0']) {
    await machine.run('vinum.setstate', { state: 'stale', object, force: true })
  }
  t.match(machine.volume('v'), {
    health: 'FAULTED',
    action:
      /^Connect .*; if they are lost: plexus vinum setstate --force up v\.p0 serves it as it is$/,
  })
  await machine.run('vinum.setstate', { state: 'up', object: 'v.p0', force: true })
  t.match(machine.volume('v'), { health: 'DEGRADED', action: /plexus vinum start v$/ })
  await machine.run('vinum.start', { objects: ['v'] })
  await machine.jobsDone()
  t.match(machine.volume('v'), { health: 'HEALTHY', action: '' })
  await machine.shutDown()
})
