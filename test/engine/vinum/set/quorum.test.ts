/**
 * Sets of drives when some are away or fail: which configuration counts, who is served, what comes back. The rules
 * themselves are tested in anchor/anchor-quorum.test.ts; here they are seen from outside, with data.
 */
import t from 'tap'
import { defined } from '../../../../src/base/assert.ts'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { AnchoredDevice } from '../../../../src/engine/anchor/anchored-device.ts'
import { decodeModel, encodeModel } from '../../../../src/engine/vinum/model/codec.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { MemoryDevice, type MemoryDeviceOptions } from '../../../support/memory-device.ts'
import { drivesIn } from '../../../support/objects.ts'
import { readAnchor } from '../../../support/read-anchor.ts'

async function machineWith(
  count: number,
  volumes: Readonly<Record<string, Readonly<Record<string, readonly string[]>>>>,
  blockBytes = 512,
): Promise<Machine> {
  const machine = await new Machine({ devices: count, blockBytes }).start()
  for (const [name, layout] of Object.entries(volumes)) {
    await machine.run('volume.create', { name, ...layout })
  }
  await machine.jobsDone()
  return machine
}

/** Writes to a volume and lets it go. */
async function store(machine: Machine, name: string, seed: number, offset = 0): Promise<void> {
  const volume = machine.open(name)
  await put(volume, offset, pattern(seed, MIB))
  await flush(volume)
  await volume.close()
}

async function holds(machine: Machine, name: string, seed: number, offset = 0): Promise<boolean> {
  const volume = machine.open(name)
  const found = await get(volume, offset, MIB)
  await volume.close()
  return found.equals(pattern(seed, MIB))
}

async function pullAll(machine: Machine, names: readonly string[]): Promise<void> {
  for (const name of names) machine.device(name).remove()
  await machine.topology.quiet()
  // A set that fails is taken apart in a change of its own.
  await machine.topology.quiet()
}

/** The same medium under other features, or twice. */
function copyOf(device: MemoryDevice, options: Partial<MemoryDeviceOptions> = {}): MemoryDevice {
  const { sizeBytes, logicalBlockBytes: blockBytes } = device.geometry
  const copy = new MemoryDevice({ sizeBytes, blockBytes, path: device.path, ...options })
  device.media.copy(copy.media)
  return copy
}

/** The newest configuration of a drive does not hold any more. */
async function rot(device: MemoryDevice): Promise<void> {
  const anchor = defined(await readAnchor(device), 'the anchor of a drive')
  const { offset } = anchor.slots[anchor.newestSlot]
  device.media.fill(0, offset, offset + device.geometry.logicalBlockBytes)
}

/** What calls it makes the drive lose all configurations since now, of which its label still tells. */
async function forgetting(machine: Machine, name: string): Promise<() => Promise<void>> {
  await new Promise((resolve) => setTimeout(resolve, 20))
  const before = Buffer.from(machine.device(name).media)
  return async () => {
    const device = machine.device(name)
    const { slots, newestSlot } = defined(await readAnchor(device), 'the anchor of a drive')
    const { offset, length } = slots[newestSlot === 0 ? 1 : 0]
    before.copy(device.media, offset, offset, offset + length)
    await rot(device)
  }
}

function said(machine: Machine, event: string): string[] {
  const { history } = machine.topology.events
  return history.filter((one) => one.event === event).map(({ message }) => message)
}

t.test('a mirror of two: who was left serves alone, who was away does not', async (t) => {
  const machine = await machineWith(2, { m: { mirror: ['d1', 'd2'] } })
  await store(machine, 'm', 1)
  await machine.pull('d2')
  await store(machine, 'm', 2)
  await machine.shutDown()
  await machine.start(['d1'])
  t.equal(machine.volume('m').health, 'DEGRADED')
  t.ok(await holds(machine, 'm', 2))
  await machine.shutDown()
  await machine.start(['d2'])
  t.throws(() => machine.volume('m'), 'what d2 has is old, and nobody is there who knows')
  const [text] = said(machine, 'set-incomplete')
  t.match(text, /1 drive is missing: d1\. .*plexus vinum assemble --force/)
  const waiting = drivesIn(machine.topology)
  t.match(waiting, [{ name: 'd2', state: 'WAITING', note: /is not assembled/ }])
  await machine.plug('d1')
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY', 'assembled as soon as d1 is there')
  await machine.pull('d1')
  t.ok(await holds(machine, 'm', 2), 'd2 has it now')
})

t.test('by force: the stale drive alone, and what was newer is no longer believed', async (t) => {
  const machine = await machineWith(2, { m: { mirror: ['d1', 'd2'] } })
  await store(machine, 'm', 1)
  await machine.pull('d2')
  await store(machine, 'm', 2)
  await machine.shutDown()
  await machine.start(['d2'])
  t.match(await failureOf(machine.run('vinum.assemble')), {
    kind: 'in-use',
    message: /d1.*--force/,
  })
  await machine.run('vinum.assemble', { force: true })
  t.equal(machine.volume('m').health, 'DEGRADED')
  t.ok(await holds(machine, 'm', 1), 'as d2 has it')
  await store(machine, 'm', 3)
  await machine.plug('d1')
  await machine.jobsDone()
  t.ok(await holds(machine, 'm', 3))
  t.notOk(await holds(machine, 'm', 2))
})

for (const blockBytes of [512, 4096]) {
  t.test(`half of four drives are lost at once (blocks of ${blockBytes})`, async (t) => {
    const volumes = { a: { mirror: ['d1', 'd3'] }, b: { mirror: ['d2', 'd4'] } }
    const machine = await machineWith(4, volumes, blockBytes)
    const a = machine.open('a')
    await put(a, 0, pattern(1, MIB))
    await pullAll(machine, ['d3', 'd4'])
    t.equal(machine.volume('a').health, 'DEGRADED', 'half is enough for those that were there')
    await put(a, MIB, pattern(2, MIB))
    t.ok((await get(a, 0, MIB)).equals(pattern(1, MIB)))
    await a.close()
    await machine.replug('d3')
    await machine.replug('d4')
    await machine.jobsDone()
    t.equal(machine.volume('a').health, 'HEALTHY')
    await machine.shutDown()
    await machine.start(['d2', 'd3', 'd4'])
    t.ok(await holds(machine, 'a', 2, MIB), 'd3 has what it missed')
    t.equal(machine.pool.leased, 0)
  })
}

t.test(
  'commits cut off in turn, each after another drive: what was before them counts',
  async (t) => {
    const machine = await machineWith(3, { r: { raid5: ['d1', 'd2', 'd3'] } })
    await store(machine, 'r', 1)
    await machine.shutDown()
    const names = ['d1', 'd2', 'd3']
    const labels = async (): Promise<readonly AnchoredDevice[]> => {
      const anchors = await Promise.all(names.map((name) => readAnchor(machine.device(name))))
      return names.map((name, at) =>
        AnchoredDevice.open(machine.device(name), defined(anchors[at], 'its anchor')),
      )
    }
    let relied = 0
    for (const [index, label] of (await labels()).entries()) {
      const slot = defined(await label.read(), 'a configuration')
      relied = slot.generation
      const generation = relied + 1 + index
      const model = decodeModel(slot.payload)
      const volumes = model.volumes.map((one) => ({ ...one, readPolicy: 'least-queue' as const }))
      await label.commit(generation, encodeModel({ ...model, generation, volumes }))
    }
    await machine.start()
    t.ok(await holds(machine, 'r', 1), 'what all of them carried before')
    await machine.shutDown()
    for (const label of await labels()) {
      const slot = defined(await label.read(), 'a configuration')
      t.match(decodeModel(slot.payload).volumes, [{ readPolicy: 'round-robin' }], 'and carry again')
      t.ok(slot.generation > relied + 3, 'above all that was seen')
    }
  },
)

t.test('more than half are lost at once: the set fails, and is back with its drives', async (t) => {
  const machine = await machineWith(3, { r: { raid5: ['d1', 'd2', 'd3'] } })
  await store(machine, 'r', 1)
  const unit = machine.open('r')
  const events: string[] = []
  unit.onEvent((event) => events.push(event))
  await pullAll(machine, ['d1', 'd2'])
  t.strictSame(events, ['gone'])
  t.match(await failureOf(put(unit, 0, pattern(9, MIB))), { kind: 'io' })
  await unit.close()
  t.match(said(machine, 'set-failed'), [/1 of 3 drives only, less than half/])
  t.notOk(machine.topology.providers.has('r'))
  await machine.replug('d1')
  await machine.replug('d2')
  await machine.jobsDone()
  // Also d3, which was here all the time: a set that had not been up for long takes it up again with the next drive.
  t.equal(machine.volume('r').health, 'HEALTHY')
  t.ok(await holds(machine, 'r', 1))
  const why = 'd2 was away, with what only it had of rows in doubt, when the set was taken up again'
  t.match(await failureOf(flush(machine.open('r'))), { message: /may be lost/ }, why)
  await store(machine, 'r', 2)
  await machine.shutDown()
  await machine.start()
  await machine.jobsDone()
  t.equal(machine.volume('r').health, 'HEALTHY')
  t.ok(await holds(machine, 'r', 2))
})

t.test('a write that hangs on all drives ends after the set has failed without them', async (t) => {
  const machine = await machineWith(2, { m: { mirror: ['d1', 'd2'] } })
  const volume = machine.open('m')
  await put(volume, 0, pattern(1, MIB))
  for (const name of ['d1', 'd2']) machine.device(name).hold()
  const write = failureOf(put(volume, 0, pattern(2, MIB)))
  await pullAll(machine, ['d1', 'd2'])
  t.match(said(machine, 'set-failed'), [/0 of 2 drives only/])
  for (const name of ['d1', 'd2']) machine.device(name).release()
  t.equal((await write).kind, 'gone')
  await volume.close()
  t.equal(machine.pool.leased, 0)
})

t.test('drives without which others can be served are away at the start', async (t) => {
  const machine = await machineWith(5, {
    b: { mirror: ['d4', 'd5'] },
    a: { mirror: ['d1', 'd2'] },
    c: { concat: ['d3'] },
  })
  await store(machine, 'b', 1)
  await machine.shutDown()
  await machine.start(['d1', 'd2', 'd3'])
  t.equal(machine.volume('a').health, 'HEALTHY')
  t.equal(machine.volume('c').health, 'HEALTHY')
  t.equal(machine.volume('b').health, 'FAULTED')
  await machine.plug('d4')
  t.equal(machine.volume('b').health, 'DEGRADED', 'd4 was as good as d5 when both went')
  await store(machine, 'b', 2, MIB)
  await machine.plug('d5')
  await machine.jobsDone()
  t.equal(machine.volume('b').health, 'HEALTHY')
  await machine.pull('d4')
  t.ok((await holds(machine, 'b', 1)) && (await holds(machine, 'b', 2, MIB)), 'd5 has all')
})

t.test('all drives of one volume are pulled at once, and come back in any order', async (t) => {
  for (const order of [
    ['d4', 'd5'],
    ['d5', 'd4'],
  ]) {
    const volumes = { b: { mirror: ['d4', 'd5'] }, a: { mirror: ['d1', 'd2'] } }
    const machine = await machineWith(5, { ...volumes, c: { concat: ['d3'] } })
    const b = machine.open('b')
    await put(b, 0, pattern(1, MIB))
    await pullAll(machine, ['d4', 'd5'])
    t.equal(machine.volume('b').health, 'FAULTED')
    t.equal(machine.volume('a').health, 'HEALTHY')
    t.match(await failureOf(put(b, 0, pattern(2, MIB))), {
      message: /no other good copy|is missing/,
    })
    for (const name of order) await machine.replug(name)
    await machine.jobsDone()
    t.equal(machine.volume('b').health, 'HEALTHY', order.join(' then '))
    t.ok((await get(b, 0, MIB)).equals(pattern(1, MIB)), 'what was refused is nowhere')
  }
})

t.test('a reviving drive that starts without its source is not taken for whole', async (t) => {
  const machine = await machineWith(5, {
    b: { mirror: ['d4', 'd5'] },
    a: { mirror: ['d1', 'd2'] },
    c: { concat: ['d3'] },
  })
  await store(machine, 'b', 1)
  await machine.pull('d5')
  await store(machine, 'b', 2)
  // d5 is back in the configuration, and power fails before any of it is copied.
  machine.device('d4').fail('read', 'io', 1000)
  await machine.replug('d5')
  await machine.topology.quiet()
  machine.cut()
  await machine.start(['d1', 'd2', 'd3', 'd5'])
  await machine.jobsDone()
  t.equal(machine.volume('b').health, 'FAULTED', 'old content is no content')
  await machine.plug('d4')
  await machine.jobsDone()
  if (machine.volume('b').health !== 'HEALTHY') {
    await machine.run('vinum.start', { objects: ['b'] })
    await machine.jobsDone()
  }
  t.equal(machine.volume('b').health, 'HEALTHY')
  await machine.pull('d4')
  t.ok(await holds(machine, 'b', 2), 'd5 got what it had missed')
})

t.test('no drive can be written: the set fails, and is not tried again and again', async (t) => {
  const machine = await machineWith(2, { a: { mirror: ['d1', 'd2'] } })
  for (const name of ['d1', 'd2']) machine.device(name).fail('write', 'io', 1e9)
  const a = machine.open('a')
  t.match(await failureOf(put(a, 0, pattern(2, MIB))), { kind: 'io' })
  await a.close()
  await machine.topology.quiet()
  const { counts } = machine.device('d1')
  await new Promise((resolve) => setTimeout(resolve, 50))
  const writes = counts.write
  await new Promise((resolve) => setTimeout(resolve, 200))
  t.equal(counts.write, writes, 'nobody hammers on the drives')
  t.equal(said(machine, 'set-failed').length, 1)
})

t.test('a drive that has lost its newest configuration waits for those that have it', async (t) => {
  const machine = await machineWith(2, { s: { stripe: ['d1', 'd2'] } })
  await store(machine, 's', 1)
  await machine.pull('d1')
  const forget = await forgetting(machine, 'd2')
  await machine.replug('d1')
  t.equal(machine.volume('s').health, 'HEALTHY')
  await machine.shutDown()
  // What is left on d2 names d2 alone.
  await forget()
  await machine.start(['d2', 'd1'])
  t.strictSame(said(machine, 'former-drive'), [])
  t.equal(machine.volume('s').health, 'HEALTHY')
  t.ok(await holds(machine, 's', 1))
})

t.test('a mirror of two: the one that went on alone cannot read its newest slot', async (t) => {
  for (const loses of ['one slot', 'all that it has learnt alone']) {
    const machine = await machineWith(2, { m: { mirror: ['d1', 'd2'] } })
    await store(machine, 'm', 1)
    const forget = await forgetting(machine, 'd2')
    await machine.pull('d1')
    await store(machine, 'm', 2)
    await machine.shutDown()
    if (loses === 'one slot') await rot(machine.device('d2'))
    else await forget()
    await machine.start()
    if (loses !== 'one slot') {
      t.throws(() => machine.volume('m'), 'd1 may be old')
      const [text] = said(machine, 'set-incomplete')
      t.match(text, /which may be the one that counts. To go on .*plexus vinum assemble --force/)
      await machine.run('vinum.assemble', { force: true })
    }
    await machine.jobsDone()
    t.equal(machine.volume('m').health, 'HEALTHY', loses)
    t.ok(await holds(machine, 'm', 2), 'as d2 has it, who was there last')
    await machine.pull('d2')
    t.ok(await holds(machine, 'm', 2), 'and d1 now')
  }
})

t.test('a drive that has lost what named others is not a set of its own', async (t) => {
  const machine = await machineWith(2, { s: { stripe: ['d1', 'd2'], size: '4M' } } as never)
  await machine.pull('d1')
  const forget = await forgetting(machine, 'd2')
  await machine.replug('d1')
  await machine.pull('d2')
  await machine.run('volume.create', { name: 'c', concat: ['d1'] })
  await store(machine, 'c', 7)
  await machine.shutDown()
  await forget()
  await machine.start(['d2'])
  t.throws(() => machine.volume('s'))
  await machine.plug('d1')
  await machine.jobsDone()
  t.equal(machine.volume('s').health, 'HEALTHY')
  t.ok(await holds(machine, 'c', 7), 'the volume that d2 knows nothing of')
})

t.test('a commit that a drive fails calls it down', async (t) => {
  const machine = await machineWith(3, { m: { mirror: ['d1', 'd2'] }, c: { concat: ['d3'] } })
  machine.device('d3').fail('write', 'io', 99)
  await machine.run('volume.set', { name: 'm', readPolicy: 'least-queue' })
  machine.device('d3').fail('write', 'io', 0)
  t.match(said(machine, 'drive-down'), [/d3 is out of service.*could not be written/])
  t.equal(machine.volume('c').health, 'FAULTED')
  t.equal(machine.volume('m').health, 'HEALTHY')
  await machine.shutDown()
  await machine.start(['d1', 'd2'])
  t.equal(machine.volume('m').health, 'HEALTHY', 'd3 votes no more: these two are all')
  await machine.plug('d3')
  t.equal(machine.volume('c').health, 'HEALTHY', 'it has missed nothing')
})

t.test(
  'a set is served when a commit was cut off by which more drives join than it had',
  async (t) => {
    const machine = await machineWith(5, { m: { mirror: ['d1', 'd2'] } })
    await store(machine, 'm', 1)
    for (const name of ['d3', 'd4', 'd5']) {
      const device = machine.device(name)
      const submit = device.submit.bind(device)
      // Labels are written, configurations do not get there.
      device.submit = (request) => {
        const isLabel = request.offset >= device.geometry.sizeBytes - 4096
        if (request.op !== 'write' || isLabel) submit(request)
      }
    }
    void failureOf(machine.run('volume.create', { name: 'r', raid5: ['d3', 'd4', 'd5'] })).catch(
      () => {},
    )
    await new Promise((resolve) => setTimeout(resolve, 100))
    machine.cut()
    await machine.start()
    t.strictSame(said(machine, 'set-failed'), [])
    t.ok(await holds(machine, 'm', 1))
    t.throws(() => machine.volume('r'), 'the volume that was being made is not, and can be')
    const layout = { raid5: ['d3', 'd4', 'd5'], wipeSignatures: true }
    await machine.run('volume.create', { name: 'r', ...layout })
    await machine.jobsDone()
    await store(machine, 'r', 2)
    t.ok(await holds(machine, 'r', 2))
  },
)

t.test('drives that commits cut off in turn did not reach are as good as the others', async (t) => {
  const machine = await new Machine({ devices: 3 }).start()
  const options = { raid5: ['d1', 'd2', 'd3'], stripeSize: '64KiB', size: '8MiB' }
  await machine.run('volume.create', { name: 'r', ...options })
  await machine.jobsDone()
  /** Power goes when all but this drive have got what `work` writes. */
  const cutOff = async (name: string, work: () => Promise<unknown>) => {
    const device = machine.device(name)
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      if (request.op !== 'write') submit(request)
    }
    void failureOf(work()).catch(() => {})
    await new Promise((resolve) => setTimeout(resolve, 100))
    machine.cut()
  }
  const volume = machine.open('r')
  await put(volume, 0, pattern(1, MIB), true)
  const [column] = machine.volume('r').components[0]?.children ?? []
  await cutOff('d3', () => machine.run('volume.set', { name: 'r', readPolicy: 'least-queue' }))
  await cutOff('d2', () => machine.start())
  // A write that was under way has reached the first unit of row 0, not its parity: that tells nothing of d2.
  pattern(2, 64 * KIB).copy(machine.device('d1').media, column?.driveOffsetBytes)
  await machine.start()
  t.strictSame(said(machine, 'drive-up'), [], 'none was away')
  await machine.jobsDone()
  t.equal(machine.volume('r').health, 'HEALTHY')
  const unit = await get(machine.open('r'), 64 * KIB, 64 * KIB)
  t.ok(unit.equals(pattern(1, MIB).subarray(64 * KIB, 128 * KIB)))
})

t.test('a set whose first commit fails lets go of a drive that came back with it', async (t) => {
  const machine = await machineWith(3, { m: { mirror: ['d1', 'd2', 'd3'] } })
  await machine.pull('d3')
  await machine.shutDown()
  for (const name of ['d1', 'd2']) machine.device(name).fail('write', 'io', 1e9)
  await machine.start()
  await machine.topology.quiet()
  t.equal(said(machine, 'set-failed').length, 1)
  for (const name of ['d1', 'd2', 'd3']) {
    t.equal(machine.topology.find(name).consumers.size, 0, `${name} is free`)
  }
  t.match(await failureOf(machine.run('vinum.assemble')), { message: /could be written to 0 of 2/ })
  await machine.topology.quiet()
  for (const name of ['d1', 'd2', 'd3']) {
    await machine.pull(name)
    await machine.replug(name)
  }
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY')
})

t.test('a drive that a commit cut off did not reach is not taken for an older copy', async (t) => {
  const machine = await machineWith(3, { r: { raid5: ['d1', 'd2', 'd3'] } })
  await store(machine, 'r', 1)
  machine.device('d3').hold()
  void failureOf(machine.run('volume.set', { name: 'r', readPolicy: 'least-queue' }))
  await new Promise((resolve) => setTimeout(resolve, 50))
  machine.cut()
  await machine.start(['d1', 'd2'])
  t.equal(machine.volume('r').health, 'DEGRADED')
  await machine.plug('d3')
  t.match(said(machine, 'drive-up'), [/^drive d3 is back \(d3\)$/])
  await machine.jobsDone()
  t.equal(machine.volume('r').health, 'HEALTHY')
  t.ok(await holds(machine, 'r', 1))
})

t.test('a labelled drive that cannot be written at all is left alone', async (t) => {
  const machine = await machineWith(3, { m: { mirror: ['d1', 'd2'] }, c: { concat: ['d3'] } })
  await machine.shutDown()
  const features = { readOnly: true }
  machine.devices.set('d2', copyOf(machine.device('d2'), { features }))
  await machine.start()
  t.equal(machine.volume('m').health, 'DEGRADED')
  t.equal(machine.topology.find('d2').consumers.size, 0)
})

t.test('a copy of a drive is left alone, whichever comes first', async (t) => {
  const machine = await machineWith(2, { m: { mirror: ['d1', 'd2'] } })
  await store(machine, 'm', 1)
  await machine.topology.addDevice('clone', copyOf(machine.device('d2')))
  t.match(said(machine, 'label-problem'), [/clone is not used: .* drive d2, which is in use on d2/])
  await store(machine, 'm', 2)
  await machine.shutDown()
  await machine.topology.addDevice('clone', copyOf(machine.device('d2')))
  await machine.start()
  const none = /and so does (d2|clone): copies, or paths/
  t.match(said(machine, 'label-problem'), [none, none], 'nobody can tell which one is right')
  t.throws(() => machine.volume('m'), 'd1 alone is no majority')
})

t.test('a drive that was taken out while it was away is not used again', async (t) => {
  const machine = await machineWith(3, { m: { mirror: ['d1', 'd2'] } })
  await store(machine, 'm', 1)
  await machine.pull('d2')
  await machine.run('volume.replace', { name: 'm', oldDrive: 'd2', newDevice: 'd3' })
  await machine.jobsDone()
  t.equal(machine.volume('m').health, 'HEALTHY')
  await machine.replug('d2')
  t.match(said(machine, 'former-drive'), [/d2 is not used: .*clear-label d2/])
  t.equal(machine.volume('m').health, 'HEALTHY')
  await machine.shutDown()
  await machine.start()
  t.equal(machine.volume('m').health, 'HEALTHY')
  t.ok(await holds(machine, 'm', 1))
})

t.test('a name of a device is taken by a volume on the disks, or the other way', async (t) => {
  const machine = await new Machine({ devices: 4 }).start(['d1', 'd2', 'd3'])
  t.match(await failureOf(machine.run('volume.create', { name: 'd3', mirror: ['d1', 'd2'] })), {
    kind: 'exists',
  })
  await machine.run('volume.create', { name: 'd4', mirror: ['d1', 'd2'] })
  await machine.run('volume.create', { name: 'c', concat: ['d3'] })
  await machine.jobsDone()
  t.match(await failureOf(machine.plug('d4')), { kind: 'exists' })
  await machine.shutDown()
  await machine.start(['d4', 'd1', 'd2', 'd3'])
  t.equal(machine.volume('c').health, 'HEALTHY')
  await machine.open('c').close()
  t.match(said(machine, 'name-taken'), [/d4 is the name of something else here/])
})
