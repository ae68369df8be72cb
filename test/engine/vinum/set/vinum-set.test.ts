/** Sets of drives as a whole: verbs on a running engine, loss and return of drives, restarts, crashes. */
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { MIB } from '../../../../src/base/limits.ts'
import { keepOldPlaces, loseDrives } from '../../../../src/engine/vinum/model/membership.ts'
import type { VinumModel } from '../../../../src/engine/vinum/model/model.ts'
import { VinumSet } from '../../../../src/engine/vinum/set/vinum-set.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { buildModel, edit, uuidOf } from '../../../support/vinum-model.ts'

const SHAPES = {
  concat: { devices: ['d1', 'd2'], redundant: false },
  stripe: { devices: ['d1', 'd2'], redundant: false },
  mirror: { devices: ['d1', 'd2'], redundant: true },
  raid5: { devices: ['d1', 'd2', 'd3'], redundant: true },
} as const

for (const [shape, { devices, redundant }] of Object.entries(SHAPES)) {
  t.test(`${shape}: made, written, found again after a restart`, async (t) => {
    const machine = await new Machine({ devices: 3 }).start()
    const dry = await machine.run('volume.create', {
      name: 'db',
      [shape]: [...devices],
      dryRun: true,
    })
    t.ok(dry.dryRun)
    t.ok(dry.steps.some(({ text }) => text.includes('d1')))
    t.throws(() => machine.volume('db'), 'a dry run makes nothing')
    const made = await machine.run('volume.create', { name: 'db', [shape]: [...devices] })
    t.notOk(made.dryRun)
    const data = pattern(7, 4 * MIB)
    const volume = machine.open('db')
    await put(volume, MIB, data)
    t.ok((await get(volume, MIB, data.length)).equals(data))
    await flush(volume)
    await volume.close()
    const jobs = await machine.jobsDone()
    t.strictSame(
      jobs.map(({ state }) => state).filter((state) => state !== 'done'),
      [],
    )
    t.equal(machine.volume('db').health, 'HEALTHY')
    const size = machine.volume('db').sizeBytes
    await machine.shutDown()
    await machine.start()
    t.equal(machine.volume('db').sizeBytes, size)
    const again = machine.open('db')
    t.ok((await get(again, MIB, data.length)).equals(data))
    if (redundant) {
      await machine.pull('d2')
      t.equal(machine.volume('db').health, 'DEGRADED')
      t.ok((await get(again, MIB, data.length)).equals(data), 'served without d2')
      const more = pattern(9, 2 * MIB)
      await put(again, 2 * MIB, more)
      await machine.replug('d2')
      await machine.jobsDone()
      t.equal(machine.volume('db').health, 'HEALTHY', 'd2 is back and filled')
      await machine.pull('d1')
      t.ok((await get(again, 2 * MIB, more.length)).equals(more), 'd2 has what it missed')
    }
    t.equal(machine.pool.leased, 0)
  })
}

t.test('a job follows the name of what it works on', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  machine.topology.jobs.limitBytesPerSecond = 64 * 1024
  const [job] = (await machine.run('volume.create', { name: 'a', mirror: ['d1', 'd2'] })).jobs
  t.equal(job?.parent, 'a')
  await machine.run('volume.rename', { name: 'a', to: 'b' })
  t.match(machine.topology.jobs.get(job?.id ?? '').report(), { parent: 'b', object: 'b.p1' })
  t.match(machine.volume('b'), { state: 'SYNCING', process: { id: job?.id } })
  await machine.shutDown()
})

t.test('work that has stopped is said, with what goes on with it', async (t) => {
  const machine = await new Machine({ devices: 3 }).start()
  machine.topology.jobs.limitBytesPerSecond = 64 * 1024
  const parameters = { name: 'a', raid5: ['d1', 'd2', 'd3'] }
  const [job] = (await machine.run('volume.create', parameters)).jobs
  await machine.topology.jobs.get(job?.id ?? '').cancel()
  t.match(machine.volume('a'), {
    status: /^The parity of a\.p0 was made up to .* only\.$/,
    action: 'To go on: plexus vinum start a',
  })
  machine.topology.jobs.limitBytesPerSecond = undefined
  await machine.run('vinum.start', { objects: ['a'] })
  await machine.jobsDone()
  t.match(machine.volume('a'), { status: '', action: '', health: 'HEALTHY' })
  await machine.shutDown()
})

t.test(
  'a device that is exported as it is belongs to its initiators, whatever label it carries',
  async (t) => {
    const machine = await new Machine({ devices: 1 }).start()
    await machine.run('volume.create', { name: 'theirs', concat: ['d1'] })
    await machine.shutDown()
    const before = Buffer.from(machine.device('d1').media)
    await machine.topology.addDevice('d1', machine.device('d1'), { opaque: true })
    await machine.topology.settle()
    t.throws(() => machine.volume('theirs'), 'it is not assembled here')
    t.equal(machine.topology.find('d1').consumers.size, 0, 'nobody holds it')
    t.ok(machine.device('d1').media.equals(before), 'nothing is written')
  },
)

t.test(
  'vinum.md 8.16: the loss of a drive does not wait for requests that hang on it',
  async (t) => {
    const machine = await new Machine({ devices: 2 }).start()
    await machine.run('volume.create', { name: 'db', mirror: ['d1', 'd2'] })
    await machine.jobsDone()
    const volume = machine.open('db')
    const data = pattern(3, MIB)
    await put(volume, 0, data)
    const lost = machine.device('d2')
    lost.hold()
    const write = put(volume, 0, data)
    await machine.pull('d2')
    t.ok(lost.inFlight > 0, 'the write hangs on the lost drive')
    let changed = false
    await machine.topology.change(async () => {
      changed = true
    })
    t.ok(changed, 'and keeps nobody from changing the graph')
    t.equal(machine.volume('db').health, 'DEGRADED', 'the loss is known, and durable')
    t.ok((await get(volume, 0, data.length)).equals(data), 'reads are served from the other one')
    lost.release()
    await write
    await volume.close()
    t.equal(machine.pool.leased, 0)
  },
)

t.test('a move that ends as its target is lost has not taken place', async (t) => {
  const move = { driveUuid: uuidOf('d2'), driveOffsetBytes: 4 * MIB }
  const still = buildModel({ drives: ['d1:64MiB', 'd2:64MiB'], volumes: { a: ['concat d1:8MiB'] } })
  const before = edit(still, 'a.p0.s0', { move })
  const moved = edit(before, 'a.p0.s0', { ...move, move: undefined })
  const subdisk = (model: VinumModel) => model.subdisks[0]
  t.equal(keepOldPlaces(before, moved), moved, 'both drives are there: it has moved')
  const lost = loseDrives(moved, [uuidOf('d2')])
  t.not(subdisk(lost)?.state, 'up')
  t.match(subdisk(keepOldPlaces(before, lost)), {
    driveUuid: uuidOf('d1'),
    driveOffsetBytes: subdisk(still)?.driveOffsetBytes,
    state: 'up',
    move: undefined,
    origin: undefined,
  })
  t.equal(keepOldPlaces(before, lost).volumes[0]?.state, 'up')
  const both = loseDrives(moved, [uuidOf('d1'), uuidOf('d2')])
  t.equal(keepOldPlaces(before, both), both, 'there is no better place')
})

t.test('the copy that counts is not taken away while copies may differ', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  await machine.run('volume.create', { name: 'a', mirror: ['d1', 'd2'] })
  await machine.jobsDone()
  const volume = machine.open('a')
  await put(volume, 0, pattern(1, MIB))
  machine.cut()
  machine.topology.jobs.limitBytesPerSecond = 64 * 1024
  await machine.start()
  t.equal(machine.volume('a').state, 'RESYNCING')
  await t.rejects(machine.run('volume.remove-mirror', { name: 'a', plex: 'a.p0' }), {
    message: /wait until they are equal/,
  })
  await machine.run('volume.remove-mirror', { name: 'a', plex: 'a.p1' })
  t.equal(machine.volume('a').components.length, 1)
  await machine.shutDown()
})

t.test(
  'raid5: what is complete stays so while another column is away that comes back',
  async (t) => {
    const machine = await new Machine({ devices: 4 }).start()
    await machine.run('volume.create', { name: 'db', raid5: ['d1', 'd2', 'd3', 'd4'] })
    await machine.jobsDone()
    const data = pattern(9, 2 * MIB)
    let volume = machine.open('db')
    await machine.pull('d1')
    await put(volume, 0, data)
    await flush(volume)
    await machine.pull('d2')
    const set = [...machine.topology.geoms].find((one) => one instanceof VinumSet)
    if (!set) throw new Error('there is a set')
    // A write that was under way when d2 went fails on d3, too, and hears of it late.
    const [column] = [...set.objects.subdisks.values()].filter(({ record }) =>
      /s2$/.test(record.name),
    )
    const error = new PlexusError('io', { op: 'write', subject: 'd3', message: 'd3: write failed' })
    t.match(await failureOf(set.demote(column ? [column] : [], error)), {
      message: /has no other good copy/,
    })
    await volume.close()
    await machine.replug('d2')
    volume = machine.open('db')
    t.ok((await get(volume, 0, data.length)).equals(data), 'd2, d3 and d4 have all of it')
    await volume.close()
  },
)
