/**
 * The graph and the one check that all requests pass: geom/{topology,consumer,provider,bio,statistics,events,disk-geom}.ts.
 * Classes here are the nop class and small ones that record what they are told.
 */
import t from 'tap'
import { PlexusError } from '../../../src/base/errors.ts'
import { createKernels } from '../../../src/base/kernels.ts'
import { EVENT_HISTORY, MIB } from '../../../src/base/limits.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { systemRandom } from '../../../src/base/random.ts'
import type { Anchor } from '../../../src/engine/anchor/anchor-layout.ts'
import { AnchoredDevice } from '../../../src/engine/anchor/anchored-device.ts'
import type { Bio } from '../../../src/engine/geom/bio.ts'
import type { Consumer } from '../../../src/engine/geom/consumer.ts'
import { EventLog } from '../../../src/engine/geom/events.ts'
import type { Provider } from '../../../src/engine/geom/provider.ts'
import { LATENCY_BUCKETS_US, OpStatistics } from '../../../src/engine/geom/statistics.ts'
import { Topology } from '../../../src/engine/geom/topology.ts'
import type { AccessCounts, Geom, GeomClass } from '../../../src/engine/geom/types.ts'
import { JobManager } from '../../../src/engine/jobs/job.ts'
import { createNopClass } from '../../../src/engine/nop/nop-class.ts'
import { allocateAligned, createAlignedPool } from '../../../src/hal/aligned-pool.ts'
import type { IoOp, IoRequest } from '../../../src/hal/block-device.ts'
import { flush, readAt, writeAt } from '../../../src/hal/io.ts'
import { failureOf } from '../../support/failure.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { MemoryDevice, type MemoryDeviceOptions } from '../../support/memory-device.ts'

const pool = createAlignedPool(32 * MIB)
const READ = { read: 1, write: 0, exclusive: 0 }
const WRITE = { read: 1, write: 1, exclusive: 0 }
const ALONE = { read: 1, write: 1, exclusive: 1 }

interface Bench {
  readonly topology: Topology
  readonly clock: ManualClock
}

function bench(...classes: GeomClass[]): Bench {
  const clock = new ManualClock()
  const log = silentLogger()
  const events = new EventLog(() => new Date(0))
  const jobs = new JobManager({ clock, log, events })
  const all = [createNopClass(), ...classes]
  const kernels = createKernels()
  const random = systemRandom
  return {
    topology: new Topology({ classes: all, pool, kernels, clock, random, log, events, jobs }),
    clock,
  }
}

function disk(options: Partial<MemoryDeviceOptions> = {}): MemoryDevice {
  return new MemoryDevice({ sizeBytes: MIB, path: '/dev/disk', ...options })
}

async function withDisk(options: Partial<MemoryDeviceOptions> = {}, ...classes: GeomClass[]) {
  const { topology, clock } = bench(...classes)
  const device = disk(options)
  const provider = await topology.addDevice('disk', device)
  return { topology, clock, device, provider }
}

function lun(topology: Topology, name: string, access: AccessCounts = WRITE): Consumer {
  return topology.attach(topology.find(name), undefined, 'lun', access)
}

async function nop(topology: Topology, provider: string, name: string): Promise<Provider> {
  const verb = topology.classes
    .flatMap(({ verbs }) => verbs)
    .find(({ spec }) => spec.noun === 'nop' && spec.name === 'create')
  await verb?.run({ provider, name }, topology)
  return topology.find(name)
}

/** Sends any request and resolves to its error. */
function send(target: Consumer, part: Partial<IoRequest> & { op: IoOp }) {
  return new Promise<PlexusError | undefined>((resolve) => {
    target.submit({
      offset: 0,
      length: 0,
      data: undefined,
      dataOffset: 0,
      fua: false,
      cause: 'initiator',
      complete: resolve,
      ...part,
    })
  })
}

/** A geom with one consumer and no providers that writes down what it is told. */
class Holder implements Geom {
  readonly className = 'holder'
  readonly name = 'h'
  readonly providers = []
  consumers: Consumer[] = []
  readonly told: string[] = []

  hold(topology: Topology, provider: Provider, access: AccessCounts): Consumer {
    const consumer = topology.attach(provider, this, 'holder h', access)
    this.consumers.push(consumer)
    topology.addGeom(this)
    return consumer
  }
  start(request: Bio): void {
    queueMicrotask(() => request.complete(undefined))
  }
  async orphan(consumer: Consumer, reason: PlexusError): Promise<void> {
    this.told.push(`orphan ${consumer.provider.name}: ${reason.message}`)
    this.consumers = this.consumers.filter((one) => one !== consumer)
    await consumer.close()
  }
  spoil(consumer: Consumer): void {
    this.told.push(`spoil ${consumer.provider.name}`)
  }
  resized(consumer: Consumer): void {
    this.told.push(`resized ${consumer.provider.sizeBytes}`)
  }
  async wither(): Promise<void> {
    for (const consumer of this.consumers.splice(0)) await consumer.close()
  }
}

function recorder(name: string, taste: GeomClass['taste']): GeomClass {
  return { name, verbs: [], taste }
}

for (const blockBytes of [512, 4096]) {
  t.test(`blocks of ${blockBytes}: the central check`, async (t) => {
    const { topology, device, provider } = await withDisk({ blockBytes })
    const { sizeBytes } = provider
    const target = lun(topology, 'disk')
    const data = allocateAligned(4 * blockBytes)
    const rows: [string, Partial<IoRequest> & { op: IoOp }, RegExp | undefined][] = [
      ['all of it', { op: 'discard', offset: 0, length: sizeBytes }, undefined],
      ['nothing', { op: 'read', length: 0, data }, undefined],
      [
        'the last block',
        { op: 'read', offset: sizeBytes - blockBytes, length: blockBytes, data },
        undefined,
      ],
      [
        'over the end',
        { op: 'write', offset: sizeBytes - blockBytes, length: 2 * blockBytes, data },
        /outside its/,
      ],
      [
        'behind the end',
        { op: 'discard', offset: sizeBytes + blockBytes, length: blockBytes },
        /outside its/,
      ],
      [
        'before the start',
        { op: 'read', offset: -blockBytes, length: blockBytes, data },
        /outside its/,
      ],
      ['negative length', { op: 'write-zeroes', length: -blockBytes }, /outside its/],
      ['no number', { op: 'read', offset: Number.NaN, length: blockBytes, data }, /outside its/],
      ['half a block', { op: 'read', length: blockBytes / 2, data }, /not whole blocks/],
      [
        'between blocks',
        { op: 'write', offset: blockBytes / 2, length: blockBytes, data },
        /not whole blocks/,
      ],
      ['a fraction', { op: 'discard', offset: 0.5, length: blockBytes }, /not whole blocks/],
      ['no buffer', { op: 'read', length: blockBytes }, /buffer that is too short/],
      ['short buffer', { op: 'write', length: 8 * blockBytes, data }, /buffer that is too short/],
      [
        'short rest',
        { op: 'read', length: 2 * blockBytes, data, dataOffset: 3 * blockBytes },
        /too short/,
      ],
      [
        'before the buffer',
        { op: 'read', length: blockBytes, data, dataOffset: -blockBytes },
        /too short/,
      ],
      ['flush looks at no range', { op: 'flush', offset: -1 }, undefined],
    ]
    for (const [what, request, message] of rows) {
      const before = Object.values(device.counts).reduce((a, b) => a + b)
      const error = await send(target, request)
      if (message) {
        t.match(error, { kind: 'invalid', subject: 'disk', message }, what)
        t.match(error?.message, request.op, `${what}: the operation is named`)
      } else t.equal(error, undefined, what)
      const after = Object.values(device.counts).reduce((a, b) => a + b)
      t.equal(
        after - before,
        message ? 0 : 1,
        `${what}: ${message ? 'never reaches' : 'reaches'} the disk`,
      )
    }
    t.equal(target.inFlight, 0)
    t.equal(provider.inFlight, 0)
    await target.close()
  })
}

t.test('nobody is answered from within submit', async (t) => {
  const { topology } = await withDisk()
  const target = lun(topology, 'disk', READ)
  for (const op of ['write', 'flush'] as const) {
    let within = true
    const answer = new Promise<boolean>((resolve) => {
      const complete = (): void => resolve(within)
      const request = { op, offset: 0, length: 0, data: undefined, dataOffset: 0 }
      target.submit({ ...request, fua: false, cause: 'initiator', complete })
    })
    within = false
    t.equal(await answer, false, op === 'write' ? 'a refusal' : 'an answer')
  }
})

t.test('rights: what was not opened is not done', async (t) => {
  const { topology } = await withDisk()
  const data = allocateAligned(512)
  const reader = lun(topology, 'disk', READ)
  const writer = lun(topology, 'disk', { read: 0, write: 1, exclusive: 0 })
  t.equal(await send(reader, { op: 'read', length: 512, data }), undefined)
  t.equal(await send(reader, { op: 'flush' }), undefined, 'a flush changes nothing')
  for (const op of ['write', 'discard', 'write-zeroes'] as const) {
    t.match(await send(reader, { op, length: 512, data }), {
      kind: 'permission',
      message: /lun has not opened it for writing/,
    })
    t.equal(await send(writer, { op, length: 512, data }), undefined)
  }
  t.match(await send(writer, { op: 'read', length: 512, data }), {
    kind: 'permission',
    message: /not opened it for reading/,
  })
  await reader.close()
  t.match(await send(reader, { op: 'read', length: 512, data }), {
    kind: 'gone',
    message: /lun has closed it/,
  })
  t.throws(() => reader.changeAccess(READ), /not opened again/)
  t.throws(
    () => writer.changeAccess({ read: -1, write: 0, exclusive: 0 }),
    /never becomes negative/,
  )
  await writer.close()
  await writer.close()
  t.strictSame(topology.find('disk').access, { read: 0, write: 0, exclusive: 0 })
  t.equal(topology.find('disk').consumers.size, 0)
})

t.test('access counts: who may share, and who is named when not', async (t) => {
  const { topology, provider } = await withDisk()
  const open = (holder: string, access: AccessCounts) =>
    topology.attach(provider, undefined, holder, access)
  const exclusive = { read: 1, write: 0, exclusive: 1 }
  const first = open('logical unit a', ALONE)
  t.strictSame(provider.access, { read: 1, write: 1, exclusive: 1 })
  for (const access of [ALONE, WRITE, exclusive]) {
    t.throws(() => open('b', access), {
      kind: 'in-use',
      message: 'disk is in use by logical unit a',
    })
  }
  t.equal(provider.consumers.size, 1, 'who is refused is not attached')
  const reader = open('reader', READ)
  first.changeAccess({ read: 0, write: 0, exclusive: -1 })
  const writer = open('writer', WRITE)
  t.throws(() => open('b', exclusive), /in use by logical unit a/, 'another one writes')
  await first.close()
  t.throws(() => open('b', exclusive), /in use by writer/)
  await writer.close()
  const alone = open('alone', exclusive)
  t.throws(() => reader.changeAccess({ read: 0, write: 1, exclusive: 0 }), /in use by alone/)
  t.strictSame(reader.access, READ, 'a refusal changes nothing')
  t.strictSame(provider.access, { read: 2, write: 0, exclusive: 1 })
  await alone.close()
  await reader.close()
  t.strictSame(provider.access, { read: 0, write: 0, exclusive: 0 })
})

t.test('a read-only disk is not opened for writing', async (t) => {
  const { topology } = await withDisk({ features: { readOnly: true } })
  t.throws(() => lun(topology, 'disk'), { kind: 'permission', message: 'disk is read-only' })
  await lun(topology, 'disk', READ).close()
})

t.test('spoil: who has not opened hears of writers that belong to no class', async (t) => {
  const { topology, provider } = await withDisk()
  const looker = new Holder()
  const consumer = looker.hold(topology, provider, { read: 0, write: 0, exclusive: 0 })
  await lun(topology, 'disk', READ).close()
  t.strictSame(looker.told, [])
  const writer = lun(topology, 'disk')
  t.strictSame(looker.told, ['spoil disk'])
  await writer.close()
  consumer.changeAccess(READ)
  await lun(topology, 'disk').close()
  t.equal(looker.told.length, 1, 'who has it open sees to itself')
})

t.test('the graph has no cycle', async (t) => {
  const { topology } = await withDisk()
  const middle = await nop(topology, 'disk', 'middle')
  const top = await nop(topology, 'middle', 'top')
  t.same([topology.find('disk').rank, middle.rank, top.rank], [0, 1, 2])
  for (const provider of [middle, top]) {
    t.throws(() => topology.attach(provider, middle.geom, 'itself', READ), {
      kind: 'invalid',
      message: /stand on itself/,
    })
  }
  t.equal(middle.consumers.size, 1)
  await topology.attach(topology.find('disk'), top.geom, 'below is fine', READ).close()
})

t.test('a loss reaches the top of a stack, once each, and frees the names', async (t) => {
  const { topology, device, provider } = await withDisk()
  const middle = await nop(topology, 'disk', 'middle')
  const top = await nop(topology, 'middle', 'top')
  const events: string[] = []
  topology.onProvider((one, event) => events.push(`${event} ${one.name}`))
  const unit = lun(topology, 'top')
  unit.onEvent((event) => events.push(`unit: ${event}`))
  t.ok(topology.report().some(({ name, consumers }) => name === 'top' && consumers[0] === 'middle'))
  device.hold()
  const waits = send(unit, { op: 'read', length: 512, data: allocateAligned(512) })
  device.remove()
  t.match(provider.error, { kind: 'gone', message: /disk is gone; connect it again/ }, 'at once')
  device.release()
  t.match(await waits, { kind: 'gone' })
  await topology.quiet()
  t.strictSame(events, ['gone disk', 'gone middle', 'gone top', 'unit: gone'])
  t.match(await send(unit, { op: 'flush' }), { kind: 'gone', message: /connect it again/ })
  for (const one of [provider, middle, top]) t.equal(one.error?.kind, 'gone', one.name)
  t.equal(topology.providers.size, 0)
  t.equal(topology.geoms.size, 0)
  t.throws(() => lun(topology, 'top'), { kind: 'not-found', message: /"top"/ })
  t.throws(() => unit.changeAccess(READ), { kind: 'gone', message: /connect it again/ })
  await unit.close()
  await topology.addDevice('disk', disk())
  t.not(topology.find('disk'), provider, 'the name is free for the disk that returns')
})

t.test('what an old device tells is nothing to the new one of its name', async (t) => {
  const { topology, device } = await withDisk()
  await topology.removeDevice(
    'disk',
    new PlexusError('gone', { op: 'x', subject: 'x', message: 'x' }),
  )
  const next = await topology.addDevice('disk', disk({ sizeBytes: 2 * MIB }))
  device.remove()
  device.resize(4 * MIB)
  await topology.quiet()
  t.equal(topology.find('disk'), next)
  t.equal(next.error, undefined)
  t.equal(next.sizeBytes, 2 * MIB)
  await topology.removeDevice(
    'other',
    new PlexusError('gone', { op: 'x', subject: 'x', message: 'x' }),
  )
  t.equal(topology.find('disk'), next, 'one that is not there')
})

t.test('a device that comes and goes while the graph is busy leaves nothing behind', async (t) => {
  const { topology } = bench()
  let goOn = () => {}
  const gate = new Promise<void>((resolve) => {
    goOn = resolve
  })
  const busy = topology.change(() => gate)
  const pulled = disk()
  const removed = disk()
  const grown = disk()
  const lost = topology.addDevice('pulled', pulled)
  const taken = topology.addDevice('removed', removed)
  const larger = topology.addDevice('grown', grown)
  pulled.remove()
  const reason = new PlexusError('gone', { op: 'use', subject: 'x', message: 'taken away' })
  const removal = topology.removeDevice('removed', reason)
  grown.resize(2 * MIB)
  const again = topology.addDevice('pulled', disk())
  goOn()
  await busy
  await t.rejects(lost, { kind: 'gone', message: /disk is gone; connect it again/ })
  await t.rejects(taken, reason)
  await removal
  t.equal((await again).error, undefined, 'the name is free for the one that returns')
  t.equal((await larger).sizeBytes, 2 * MIB)
  t.strictSame([...topology.providers.keys()], ['grown', 'pulled'])
  t.equal(topology.geoms.size, 2)
  t.equal(topology.device('removed'), undefined)
})

t.test('a device that goes while it is tasted is out of the graph afterwards', async (t) => {
  const device = disk()
  const tasted: string[] = []
  const taster = recorder('taster', async ({ name, error }) => {
    device.remove()
    tasted.push(`${name} ${error?.kind}`)
    return false
  })
  const { topology } = bench(taster)
  await topology.addDevice('disk', device)
  await topology.quiet()
  t.equal(topology.providers.size, 0)
  t.equal(topology.geoms.size, 0)
  t.equal(tasted.length, 1)
})

t.test('a device is taken away with requests in flight: each ends once', async (t) => {
  const { topology, device, provider } = await withDisk()
  const unit = lun(topology, 'disk')
  const before = provider.statistics.read.operations
  device.hold()
  let ends = 0
  const answers = Array.from({ length: 8 }, (_, index) =>
    send(unit, { op: 'read', offset: index * 512, length: 512, data: allocateAligned(512) }).then(
      (error) => {
        ends++
        return error
      },
    ),
  )
  const reason = new PlexusError('gone', { op: 'use', subject: 'disk', message: 'taken away' })
  const removed = topology.removeDevice('disk', reason)
  const late = await send(unit, { op: 'flush' })
  t.equal(late, reason, 'what comes now fails at once, with the reason')
  await removed
  t.equal(ends, 0, 'nobody says of a disk that holds on that it has answered')
  let closed = false
  const closing = unit.close().then(() => {
    closed = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  t.notOk(closed, 'close waits for what is in flight')
  device.release()
  for (const answer of answers) await answer
  await closing
  t.equal(ends, 8)
  t.equal(provider.inFlight, 0)
  t.equal(provider.statistics.read.operations - before, 8)
})

t.test('who is closed by another one while all hear of a loss hears nothing', async (t) => {
  const { topology, provider } = await withDisk()
  const second = new Holder()
  const first = new Holder()
  first.hold(topology, provider, READ)
  const orphan = first.orphan.bind(first)
  first.orphan = async (consumer, reason) => {
    await orphan(consumer, reason)
    await second.wither()
  }
  second.hold(topology, provider, READ)
  await topology.removeDevice(
    'disk',
    new PlexusError('gone', { op: 'x', subject: 'x', message: 'x' }),
  )
  t.strictSame(first.told, ['orphan disk: x'])
  t.strictSame(second.told, [])
})

t.test("a name is somebody's", async (t) => {
  const { topology, provider } = await withDisk()
  const unit = lun(topology, 'disk')
  await t.rejects(topology.addDevice('disk', disk()), { kind: 'exists', message: /"disk"/ })
  await nop(topology, 'disk', 'n').catch(() => {})
  t.equal(topology.geoms.size, 1, 'a refusal leaves nothing behind')
  await unit.close()
  const top = await nop(topology, 'disk', 'n')
  await t.rejects(topology.addDevice('n', disk()), {
    kind: 'exists',
    message: /choose another name/,
  })
  t.equal(topology.device('n'), undefined)
  t.equal(topology.geoms.size, 2)
  await t.rejects(
    topology.change(async () => topology.renameProvider(top, 'disk')),
    { kind: 'exists', message: /"disk"/ },
  )
  t.throws(() => topology.find('dusk'), { kind: 'not-found', message: /did you mean "disk"/i })
  t.equal(topology.find('disk'), provider)
})

t.test('another name: who holds it keeps it, listeners hear both', async (t) => {
  const { topology } = await withDisk()
  const top = await nop(topology, 'disk', 'old')
  const unit = lun(topology, 'old')
  const events: string[] = []
  const stop = topology.onProvider((one, event) => events.push(`${event} ${one.name}`))
  await topology.change(async () => topology.renameProvider(top, 'new'))
  t.strictSame(events, ['gone old', 'arrived new'])
  t.equal(unit.path, 'new')
  await writeAt(unit, allocateAligned(512), 0)
  t.throws(() => topology.find('old'), { kind: 'not-found', message: /"old"/ })
  t.equal(topology.find('new'), top)
  stop()
  await topology.removeDevice(
    'disk',
    new PlexusError('gone', { op: 'x', subject: 'x', message: 'x' }),
  )
  t.equal(events.length, 2, 'who has stopped to listen hears no more')
  t.equal(topology.providers.size, 0)
})

t.test('holes are known to whoever attaches to a disk, and to nobody above a class', async (t) => {
  const device = Object.assign(disk(), {
    extentAt: async (offset: number, length: number) =>
      offset < 4096 ? { allocated: true, length: 4096 - offset } : { allocated: false, length },
  })
  const { topology } = bench()
  await topology.addDevice('disk', device)
  const held = lun(topology, 'disk')
  t.same(await held.extentAt(512, MIB - 512), { allocated: true, length: 3584 })
  t.same(await held.extentAt(4096, 8192), { allocated: false, length: 8192 })
  await held.close()
  await nop(topology, 'disk', 'n')
  t.same(await lun(topology, 'n').extentAt(4096, 8192), { allocated: true, length: 8192 })
  const plain = await withDisk()
  const other = lun(plain.topology, 'disk')
  t.same(await other.extentAt(0, 512), { allocated: true, length: 512 }, 'nobody knows')
})

t.test('another size is told, with the size already there', async (t) => {
  const { topology, device, provider } = await withDisk()
  const holder = new Holder()
  holder.hold(topology, provider, READ)
  const unit = lun(topology, 'disk')
  const seen: number[] = []
  const stop = unit.onEvent(() => seen.push(unit.geometry.sizeBytes))
  device.resize(2 * MIB)
  await topology.quiet()
  t.strictSame(seen, [2 * MIB])
  t.strictSame(holder.told, [`resized ${2 * MIB}`])
  t.equal(await send(unit, { op: 'discard', offset: MIB, length: MIB }), undefined)
  stop()
  device.resize(MIB)
  await topology.quiet()
  t.match(await send(unit, { op: 'discard', offset: MIB, length: 512 }), { kind: 'invalid' })
  provider.update({ features: { ...provider.features, rotational: true } })
  t.equal(holder.told.length, 2, 'only sizes are told')
  t.equal(seen.length, 1)
})

t.test('one change at a time; one that fails stops none', async (t) => {
  const { topology } = bench()
  const order: string[] = []
  const slow = topology.change(async () => {
    order.push('a begins')
    await new Promise((resolve) => setImmediate(resolve))
    order.push('a ends')
    return 1
  })
  const bad = topology.change(async () => {
    order.push('b')
    throw new Error('b')
  })
  const last = topology.change(async () => {
    order.push('c')
  })
  await t.rejects(bad, /b/)
  t.equal(await slow, 1)
  await last
  await topology.quiet()
  t.strictSame(order, ['a begins', 'a ends', 'b', 'c'])
})

t.test('tasting: lowest first, by the class of the anchor, until somebody takes it', async (t) => {
  const tasted: string[] = []
  const note =
    (name: string, takes: boolean): GeomClass['taste'] =>
    async (provider: Provider, anchor: Anchor | undefined) => {
      tasted.push(`${name} ${provider.name} ${anchor?.className ?? '-'}`)
      return takes
    }
  const sees = recorder('sees', note('sees', false))
  const takes = recorder('takes', note('takes', true))
  const late = recorder('late', note('late', true))
  const { topology } = await withDisk({}, sees, takes, late)
  t.strictSame(tasted, ['sees disk -', 'takes disk -'])
  tasted.length = 0
  await nop(topology, 'disk', 'n')
  t.strictSame(tasted, ['sees n -', 'takes n -'], 'what a class makes is tasted, too')
  tasted.length = 0
  const setUuid = '00000000-0000-4000-8000-000000000001'
  const deviceUuid = '00000000-0000-4000-8000-000000000002'
  const device = new MemoryDevice({ sizeBytes: 2 * MIB })
  await AnchoredDevice.format(device, { setUuid, className: 'late', deviceUuid })
  await topology.addDevice('labelled', device)
  t.strictSame(tasted, ['late labelled late'], 'a label is the business of its class')
  tasted.length = 0
  topology.tasteAgain(topology.find('labelled'))
  await topology.change(() => topology.tastePending())
  t.strictSame(tasted, ['late labelled late'])
})

t.test('a taste that fails does not stop the others, nor the device, nor the start', async (t) => {
  const tasted: string[] = []
  const failing: GeomClass = {
    ...recorder('failing', async (provider) => {
      tasted.push(`failing ${provider.name}`)
      throw new PlexusError('io', { op: 'taste', subject: provider.name, message: 'no' })
    }),
    async settled() {
      tasted.push('failing settled')
      throw new PlexusError('io', { op: 'settle', subject: 'all', message: 'no' })
    },
  }
  const other: GeomClass = {
    ...recorder('other', async (provider) => {
      tasted.push(`other ${provider.name}`)
      return false
    }),
    async settled() {
      tasted.push('other settled')
    },
  }
  const { topology } = await withDisk({}, failing, other, failing)
  t.strictSame(tasted, ['failing disk', 'other disk', 'failing disk'])
  t.equal(topology.find('disk').consumers.size, 0)
  tasted.length = 0
  t.notOk(topology.complete)
  await topology.settle()
  t.ok(topology.settled && topology.complete)
  const settled = ['failing settled', 'other settled', 'failing settled']
  t.strictSame(tasted, settled)
  tasted.length = 0
  await topology.addDevice('two', disk())
  t.strictSame(
    tasted,
    ['failing two', 'other two', 'failing two', ...settled],
    'after the start, everything is known again when the newcomer is',
  )
  const broken = disk()
  broken.fail('read', 'io', 100)
  tasted.length = 0
  await topology.addDevice('broken', broken)
  t.ok(topology.find('broken'), 'one that cannot be read is there all the same')
})

t.test('a defect of a class is not passed over', async (t) => {
  const { topology } = bench(
    recorder('broken', async () => {
      throw new TypeError('a defect')
    }),
  )
  await t.rejects(topology.addDevice('disk', disk()), TypeError)
})

t.test('statistics of a provider: operations, bytes, errors, latency, in flight', async (t) => {
  const { topology, clock, device, provider } = await withDisk()
  const unit = lun(topology, 'disk')
  const data = allocateAligned(4096)
  const before = provider.statistics.read.operations
  device.hold()
  const waits = [
    readAt(unit, data, 0),
    writeAt(unit, allocateAligned(512), 0),
    flush(unit),
    send(unit, { op: 'discard', length: 1024 }),
    send(unit, { op: 'write-zeroes', length: 2048 }),
  ]
  t.equal(provider.inFlight, 5)
  t.equal(unit.inFlight, 5)
  clock.advance(3)
  device.release()
  await Promise.all(waits)
  const { statistics } = provider
  t.equal(statistics.read.operations - before, 1)
  const rows = [
    ['write', 512],
    ['flush', 0],
    ['discard', 1024],
    ['write-zeroes', 2048],
  ] as const
  for (const [op, bytes] of rows) {
    const { operations, errors, totalMs, buckets } = statistics[op]
    t.strictSame([operations, statistics[op].bytes, errors, totalMs], [1, bytes, 0, 3], op)
    // 3 ms lie below 4096 us, the bound with index 8.
    t.equal(buckets[8], 1)
    t.equal(LATENCY_BUCKETS_US[8], 4096)
  }
  device.fail('write', 'io')
  t.match(await failureOf(writeAt(unit, data, 0)), { kind: 'io' })
  t.strictSame(
    [statistics.write.operations, statistics.write.bytes, statistics.write.errors],
    [2, 512, 1],
    'what failed moved no bytes',
  )
  t.equal(provider.inFlight, 0)
  t.equal(unit.inFlight, 0)
})

t.test('latency buckets: bounds are exclusive, and nothing is too long', async (t) => {
  const last = LATENCY_BUCKETS_US.length
  const rows: [number, number][] = [
    [0, 0],
    [0.015, 0],
    [0.016, 1],
    [0.031, 1],
    [0.032, 2],
    [1, 6],
    [16_777.215, last - 1],
    [16_777.216, last],
    [5_000_000, last],
    [1e12, last],
  ]
  for (const [ms, bucket] of rows) {
    const statistics = new OpStatistics()
    statistics.count(1, ms, false)
    t.equal(statistics.buckets.indexOf(1), bucket, `${ms} ms`)
  }
})

t.test('events: numbered, bounded, and heard', async (t) => {
  let seconds = 0
  const log = new EventLog(() => new Date(++seconds * 1000))
  const heard: number[] = []
  const stop = log.onEvent(({ sequence }) => heard.push(sequence))
  const first = log.emit('warning', 'x-happened', 'object', 'text')
  t.strictSame(first, {
    time: '1970-01-01T00:00:01.000Z',
    sequence: 1,
    event: 'x-happened',
    severity: 'warning',
    object: 'object',
    message: 'text',
  })
  for (let count = 1; count < EVENT_HISTORY + 10; count++) log.emit('info', 'e', 'o', 'm')
  t.equal(log.history.length, EVENT_HISTORY)
  t.equal(log.history[0]?.sequence, 11)
  t.equal(log.history.at(-1)?.sequence, EVENT_HISTORY + 10)
  t.equal(heard.length, EVENT_HISTORY + 10)
  stop()
  log.emit('info', 'e', 'o', 'm')
  t.equal(heard.length, EVENT_HISTORY + 10)
})

t.test('the end: classes stop, jobs are parked first', async (t) => {
  const stopped: string[] = []
  const one: GeomClass = {
    ...recorder('one', async () => false),
    async stop() {
      stopped.push('one')
    },
  }
  const { topology } = await withDisk({}, one)
  await topology.stop()
  t.strictSame(stopped, ['one'])
  t.throws(
    () =>
      topology.jobs.start({
        id: 'j1',
        kind: 'check',
        object: 'o',
        parent: undefined,
        totalBytes: 1,
        startBytes: 0,
        step: async () => 1,
        checkpoint: async () => {},
        finish: async () => {},
        abandon: async () => {},
      }),
    { kind: 'aborted', message: /the daemon is stopping/ },
  )
})
