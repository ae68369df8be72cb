/** Units that follow providers, devices that follow paths: src/daemon/{unit-slots,device-slots}.ts. */
import {
  mkdtempSync,
  renameSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { Clock } from '../../src/base/clock.ts'
import { LABEL_READ_MS, LABEL_RETRY_MS, MIB } from '../../src/base/limits.ts'
import { createLogger, silentLogger } from '../../src/base/log.ts'
import type { DeviceConfig } from '../../src/daemon/config.ts'
import { DeviceSlots } from '../../src/daemon/device-slots.ts'
import { ExportGuard } from '../../src/daemon/export-guard.ts'
import { IdentityStore } from '../../src/daemon/identity-store.ts'
import { UnitSlots } from '../../src/daemon/unit-slots.ts'
import type { IoEngine, IoOperation, IoSink } from '../../src/hal/io-engine.ts'
import { createIoQueue, OperationQueue } from '../../src/hal/io-queue.ts'
import { ThreadPool } from '../../src/hal/thread-pool.ts'
import { get, Machine, pattern, put } from '../support/engine.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDevice } from '../support/memory-device.ts'

const dir = mkdtempSync(join(tmpdir(), 'plexus-slots-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

/** `devices`: those that the configuration has, for LUNs that export them as they are. */
function units(
  machine: Machine,
  state: string,
  options: { devices?: ReadonlyMap<string, DeviceConfig>; clock?: Clock } = {},
) {
  const lines: string[] = []
  const replaced: string[] = []
  const log = createLogger('info', 'json', (line) => lines.push(line))
  const { topology, pool } = machine
  const identities = IdentityStore.open({ dir: join(dir, state), revision: '1', log })
  const onUnitReplaced = (name: string): void => {
    replaced.push(name)
  }
  const { classes } = topology
  const { devices, clock = topology.clock } = options
  const guard = new ExportGuard({ classes, identities, clock, log })
  const slots = new UnitSlots({
    topology,
    pool,
    clock,
    log,
    identities,
    guard,
    device: (name) => devices?.get(name),
    origin: () => ({ movedFrom: undefined, copiedFrom: undefined }),
    onUnitReplaced,
  })
  const said = (event: string) =>
    lines.map((line) => JSON.parse(line)).filter((line) => line.event === event)
  const add = async (names: readonly string[], blockBytes?: number): Promise<void> => {
    const known = await identities.change((draft) =>
      draft.identifyAll(names, new Set(names), { movedFrom: undefined, copiedFrom: undefined }),
    )
    await slots.add(
      names.map((name) => ({ name, blockBytes })),
      known,
    )
  }
  return { add, slots, replaced, said }
}

const device = (name: string): DeviceConfig => ({
  name,
  path: `/dev/${name}`,
  readOnly: false,
  exported: true,
  label: undefined,
  timeoutMs: 30_000,
})

t.test('a LUN on a volume that appears later, goes, and comes back', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  const { add, slots, replaced } = units(machine, 'later')
  await add(['db'])
  t.strictSame(slots.missing, ['db'])
  await machine.run('volume.create', { name: 'db', mirror: ['d1', 'd2'] })
  await machine.topology.quiet()
  t.strictSame(slots.missing, [])
  const unit = slots.unit('db')
  t.equal(unit?.device?.geometry.sizeBytes, machine.volume('db').sizeBytes)
  t.match(machine.topology.find('db').access, { read: 1, write: 1, exclusive: 1 })
  await t.rejects(machine.run('volume.destroy', { name: 'db' }), {
    kind: 'in-use',
    message: /db/,
  })
  const naa = unit?.identity.naa.toString('hex')
  await machine.jobsDone()
  for (const name of ['d1', 'd2']) machine.device(name).remove()
  await machine.topology.quiet()
  await machine.topology.quiet()
  t.strictSame(slots.missing, ['db'])
  t.equal(unit?.device, undefined, 'not ready')
  for (const name of ['d1', 'd2']) await machine.replug(name)
  await machine.topology.quiet()
  t.strictSame(slots.missing, [])
  t.equal(slots.unit('db'), unit, 'the same unit: initiators keep their LUN')
  t.equal(unit?.identity.naa.toString('hex'), naa)
  t.strictSame(replaced, [], 'LUN maps stay')
  await slots.close()
  t.equal(machine.topology.find('db').consumers.size, 0)
  t.equal(slots.unit('db'), undefined)
})

t.test('identity follows the volume, not its name', async (t) => {
  const machine = await new Machine({ devices: 3 }).start()
  await machine.run('volume.create', { name: 'a', concat: ['d1'] })
  const { add, slots, replaced } = units(machine, 'identity')
  await add(['a'])
  const first = slots.unit('a')
  const naa = first?.identity.naa
  replaced.length = 0
  await machine.run('volume.destroy', { name: 'a', force: true })
  await machine.topology.quiet()
  t.strictSame(slots.missing, ['a'])
  await machine.run('volume.create', { name: 'a', concat: ['d2'] })
  await machine.topology.quiet()
  const second = slots.unit('a')
  t.strictSame(replaced, ['a'], 'LUN maps are made anew')
  t.not(second, first)
  t.notOk(second?.identity.naa.equals(naa ?? Buffer.alloc(0)), 'another volume is another disk')
  await slots.close()
})

t.test(
  'a LUN on a device that is a drive of vinum is not ready, and the log says why',
  async (t) => {
    const machine = await new Machine({ devices: 2 }).start()
    await machine.run('volume.create', { name: 'v', concat: ['d1'] })
    const { add, slots, said } = units(machine, 'drive')
    await add(['d1', 'd2'])
    t.strictSame(slots.missing, ['d1'])
    t.match(said('unit-not-ready'), [
      { unit: 'd1', kind: 'in-use', msg: /in use by vinum drive d1/ },
    ])
    await t.rejects(machine.run('volume.create', { name: 'w', concat: ['d2'] }), {
      message: /logical unit d2/,
    })
    await slots.close()
  },
)

t.test('a LUN on a device that somebody holds takes it when it is let go', async (t) => {
  const machine = await new Machine({ devices: 1 }).start()
  const { topology } = machine
  const { add, slots, said } = units(machine, 'held')
  const access = { read: 1, write: 1, exclusive: 0 }
  const holder = topology.attach(topology.find('d1'), undefined, 'somebody', access)
  await add(['d1'])
  t.match(slots.report(), [{ name: 'd1', ready: false, reason: /in use by somebody/ }])
  await holder.close()
  await topology.quiet()
  t.match(slots.report(), [{ name: 'd1', ready: true, reason: undefined, action: undefined }])
  t.equal(said('unit-not-ready').length, 1)
  await slots.close()
})

t.test('a device that hangs while it is asked for its label', async (t) => {
  const clock = new ManualClock()
  const machine = await new Machine({ devices: 1 }).start()
  const { topology } = machine
  const devices = new Map([['d1', device('d1')]])
  const { add, slots } = units(machine, 'hangs', { clock, devices })
  machine.device('d1').hold()
  const added = add(['d1'])
  while (machine.device('d1').inFlight === 0) await new Promise((resolve) => setImmediate(resolve))
  clock.advance(LABEL_READ_MS)
  await added
  t.match(slots.report(), [
    { ready: false, reason: /cannot be seen whether .* did not answer/, action: /tried again/ },
  ])
  t.match(topology.events.history, [
    { event: 'export-refused', severity: 'critical', object: 'd1' },
  ])
  machine.device('d1').release()
  clock.advance(LABEL_RETRY_MS)
  await topology.quiet()
  t.strictSame(slots.missing, [])
  await slots.close()
})

t.test('whose label it is', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  await machine.run('volume.create', { name: 'v', concat: ['d1', 'd2'] })
  const { media } = machine.device('d1')
  const state = join(dir, 'whose')
  const identities = IdentityStore.open({ dir: state, revision: '1', log: silentLogger() })
  const other = new Machine({ devices: 0 })
  const guardOf = ({ topology }: Machine): ExportGuard =>
    new ExportGuard({
      classes: topology.classes,
      identities,
      clock: topology.clock,
      log: silentLogger(),
    })
  const [here, elsewhere] = [guardOf(machine), guardOf(other)]
  const disk = (wwid?: string, carried?: Buffer): MemoryDevice => {
    const identity = { wwid, serial: undefined, vendor: undefined, model: undefined }
    const made = new MemoryDevice({ sizeBytes: media.length, identity })
    carried?.copy(made.media)
    return made
  }
  const refused = (message: RegExp) => ({ kind: 'foreign', message })
  const known = refused(/other devices of this machine/)
  const doubtful = refused(/drive d1 of vinum set .* volume v, and nothing shows/)
  const [d1, d2] = [device('d1'), device('d2')]

  t.ok(await here.check(d1, disk('naa.1')), 'blank')
  await t.rejects(here.check(d1, disk('naa.1', media)), known)
  await t.rejects(elsewhere.check(d1, disk('naa.1', media)), doubtful)
  t.ok(await here.belongsHere(d1, disk('naa.1', media)))
  t.notOk(await elsewhere.belongsHere(d1, disk('naa.1', media)))

  const lend = (config: DeviceConfig, { identity }: MemoryDevice) =>
    identities.change((draft) => {
      draft.identify(config.name, identity, new Set(['d1', 'd2']))
      elsewhere.lend(draft, config, identity)
    })
  await lend(d1, disk('naa.1'))
  t.notOk(await elsewhere.check(d1, disk('naa.1', media)), 'labelled since it was exported')
  t.notOk(await elsewhere.check(d2, disk('naa.1', media)), 'whatever it is called')
  await t.rejects(elsewhere.check(d1, disk('naa.2', media)), doubtful, 'another disk')
  await t.rejects(here.check(d1, disk('naa.1', media)), known, 'its set is here all the same')
  t.notOk(await here.belongsHere(d1, disk('naa.1', media)), 'but it may be a copy')
  const broken = disk('naa.1', media)
  broken.fail('read', 'io', Number.POSITIVE_INFINITY)
  t.notOk(await elsewhere.check(d1, broken))
  t.notOk(await elsewhere.belongsHere(d2, broken))

  const again = IdentityStore.open({ dir: state, revision: '1', log: silentLogger() })
  t.ok(again.isLent('naa.1'), 'it outlives the process')
  await elsewhere.takeBack(d1, disk('naa.1').identity)
  await t.rejects(elsewhere.check(d1, disk('naa.1', media)), doubtful)
  broken.fail('read', 'io', Number.POSITIVE_INFINITY)
  await t.rejects(elsewhere.check(d1, broken), refused(/cannot be seen/))

  await lend(d2, disk())
  await t.rejects(elsewhere.check(d2, disk(undefined, media)), doubtful, 'a nameless disk')
  const said = { ...d2, label: 'initiator' } as const
  t.notOk(await elsewhere.check(said, disk(undefined, media)), 'the word of the configuration')
  await t.rejects(here.check(said, disk(undefined, media)), known)

  const damaged = disk('naa.3', media)
  const end = media.length - 512
  damaged.media.fill(0, 0, end)
  await t.rejects(elsewhere.check(d1, damaged), refused(/carries a drive of vinum set/))
})

t.test('blocks that do not fit what initiators saw: not ready, nothing held', async (t) => {
  const machine = await new Machine({ devices: 1, blockBytes: 4096 }).start()
  const { add, slots, said } = units(machine, 'blocks')
  await add(['d1'], 512)
  t.strictSame(slots.missing, ['d1'])
  t.match(said('unit-not-ready'), [{ unit: 'd1', kind: 'invalid' }])
  t.equal(machine.topology.find('d1').consumers.size, 0)
  await slots.close()
})

t.test('units let go with writes in flight: all have ended when it resolves', async (t) => {
  const machine = await new Machine({ devices: 1 }).start()
  const { add, slots } = units(machine, 'flight')
  await add(['d1'])
  const { device } = slots.unit('d1') ?? {}
  machine.device('d1').hold()
  let ended = false
  const write = put(device as never, 0, pattern(1, MIB)).then(() => {
    ended = true
  })
  let closed = false
  const closing = slots.close().then(() => {
    closed = true
  })
  await new Promise((resolve) => setImmediate(resolve))
  t.notOk(closed)
  machine.device('d1').release()
  await closing
  t.ok(ended)
  await write
})

/** Slots of devices on files, and a clock for them. */
function deviceSlots(
  t: Test,
  machine: Machine,
  state: string,
  queue = createIoQueue({ engine: 'threads', pool: machine.pool, log: silentLogger(), threads: 1 }),
) {
  const { topology } = machine
  const clock = new ManualClock()
  const log = silentLogger()
  t.teardown(() => queue.close())
  const identities = IdentityStore.open({ dir: join(dir, state), revision: '1', log })
  const guard = new ExportGuard({ classes: topology.classes, identities, clock, log })
  const slots = new DeviceSlots({ queue, topology, guard, clock, log })
  t.teardown(() => slots.close(1000))
  /** Lets time pass until the slot says so. */
  const until = async (condition: () => boolean): Promise<void> => {
    for (let tries = 0; !condition() && tries < 100; tries++) {
      clock.advance(1000)
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    await topology.quiet()
  }
  return { slots, topology, until }
}

function image(name: string, fill = 0): string {
  const path = join(dir, name)
  writeFileSync(path, Buffer.alloc(4 * MIB, fill))
  return path
}

t.test('a device that does not answer comes back when it has returned its requests', async (t) => {
  const clock = new ManualClock()
  const machine = await new Machine({ devices: 0, clock }).start()
  const stalled: IoOperation[] = []
  let stalls = false
  const makeThreads = (sink: IoSink): IoEngine => {
    const threads = new ThreadPool({ threads: 1, slots: 16, sink })
    const start = threads.start.bind(threads)
    return Object.assign(threads, {
      start: (one: IoOperation) => (stalls ? void stalled.push(one) : start(one)),
    })
  }
  const engines: IoEngine[] = []
  const make = (sink: IoSink): IoEngine => {
    const engine = makeThreads(sink)
    engines.push(engine)
    return engine
  }
  const queue = new OperationQueue(16, make, make)
  const { slots, topology, until } = deviceSlots(t, machine, 'stalls', queue)
  const ready = (): boolean => slots.report()[0]?.ready === true
  const path = image('stalls.img')
  await slots.add([{ ...device('a'), path, exported: false, timeoutMs: 5000 }])
  t.ok(ready())
  slots.keep({ ...device('a'), path, exported: false, timeoutMs: 2000 })

  const access = { read: 1, write: 1, exclusive: 0 }
  const user = topology.attach(topology.find('a'), undefined, 'test', access)
  stalls = true
  const write = put(user, 0, Buffer.alloc(4096, 7))
  const failed = t.rejects(write, { kind: 'gone', message: /^a: no answer for 2 s/ })
  clock.advance(3000)
  await failed
  await topology.quiet()
  const out = /^a: no answer for 2 s; .*; it has not returned \d requests? yet$/
  t.match(slots.report(), [{ ready: false, reason: out }])
  await until(ready)
  t.match(slots.report(), [{ ready: false, reason: out }], 'it is not opened a second time')
  stalls = false
  for (const one of stalled.splice(0)) engines[0]?.start(one)
  await until(ready)
  t.ok(ready())
  t.equal(machine.pool.leased, 0)
})

t.test('a file that is deleted or replaced is not served any longer', async (t) => {
  const machine = await new Machine({ devices: 0 }).start()
  const { slots, topology, until } = deviceSlots(t, machine, 'replaced')
  const ready = (): boolean => slots.report()[0]?.ready === true
  const take = async (path: string): Promise<void> => {
    await slots.remove(['a'])
    await slots.add([{ ...device('a'), path, exported: false }])
  }
  const first = async (): Promise<number | undefined> => {
    const access = { read: 1, write: 0, exclusive: 0 }
    const reader = topology.attach(topology.find('a'), undefined, 'test', access)
    const byte = (await get(reader, 0, 4096))[0]
    await reader.close()
    return byte
  }
  const path = image('served.img', 1)
  await take(path)
  t.ok(ready())

  // As an image is brought up to date: made beside it, and moved into its place.
  renameSync(image('newer.img', 2), path)
  await until(() => !ready())
  t.match(slots.report(), [{ ready: false, replaced: true, reason: /another file|deleted/ }])
  t.notOk(topology.providers.has('a'), 'its LUNs are not ready')
  t.match(topology.events.history.at(-1), {
    severity: 'critical',
    event: 'device-gone',
    object: 'a',
  })
  await until(ready)
  t.notOk(ready(), 'other content under the same identity is not taken by itself')
  t.match(slots.report(), [
    { reason: /another file than the one that was served; plexus config apply/ },
  ])
  t.strictSame([...slots.replaced], ['a'])
  await take(path)
  t.equal(await first(), 2, 'a reload takes it')

  unlinkSync(path)
  await until(() => !ready())
  t.match(slots.report(), [{ ready: false, reason: /deleted/ }])
  image('served.img', 3)
  await until(ready)
  t.notOk(ready(), 'one that is made anew is another file, even with the same inode number')
  await take(path)
  t.equal(await first(), 3)

  renameSync(path, `${path}.old`)
  await until(() => !ready())
  t.match(slots.report(), [{ ready: false, reason: /deleted or renamed/ }])
  renameSync(`${path}.old`, path)
  await until(ready)
  t.equal(await first(), 3, 'the same file is back')
  t.strictSame([...slots.replaced], [])

  truncateSync(path, 0)
  await until(() => !ready())
  t.match(slots.report(), [{ ready: false }], 'nothing is left of it')
  truncateSync(path, 4 * MIB)
  await until(ready)
  t.equal(await first(), 0, 'it is the same file')

  const link = join(dir, 'link.img')
  symlinkSync(image('one.img', 4), link)
  await take(link)
  t.equal(await first(), 4)
  symlinkSync(image('two.img', 5), `${link}.new`)
  renameSync(`${link}.new`, link)
  await until(() => !ready())
  t.match(slots.report(), [
    { ready: false, replaced: true, reason: /taken the place|another file/ },
  ])
})

t.test('devices: missing, appearing, refused a name, taken away', async (t) => {
  const machine = await new Machine({ devices: 1 }).start()
  const { slots, topology, until } = deviceSlots(t, machine, 'devices')
  const path = join(dir, 'disk')
  const at = (name: string, path: string) => ({ ...device(name), path, exported: false })
  await machine.run('volume.create', { name: 'v', concat: ['d1'] })
  writeFileSync(join(dir, 'other'), '')
  truncateSync(join(dir, 'other'), 4 * MIB)
  await slots.add([at('a', path), at('v', join(dir, 'other'))])
  t.equal(slots.total, 2)
  t.match(slots.missing, [
    { name: 'a', reason: /disk/ },
    { name: 'v', reason: /a provider named "v" exists already/ },
  ])
  t.strictSame(slots.open, [])
  t.not(topology.device('v')?.path, join(dir, 'other'))
  writeFileSync(join(dir, 'new'), '')
  truncateSync(join(dir, 'new'), 4 * MIB)
  renameSync(join(dir, 'new'), path)
  await machine.run('volume.destroy', { name: 'v' })
  await until(() => slots.missing.length === 0)
  t.strictSame(slots.missing, [], 'both have been tried again')
  t.strictSame(
    slots.report().map(({ name, ready }) => [name, ready]),
    [
      ['a', true],
      ['v', true],
    ],
  )
  const access = { read: 1, write: 1, exclusive: 0 }
  const user = topology.attach(topology.find('a'), undefined, 'test', access)
  await put(user, 0, pattern(1, MIB))
  t.ok((await get(user, 0, MIB)).equals(pattern(1, MIB)))
  await slots.remove(['a', 'unknown'])
  t.notOk(topology.providers.has('a'))
  await t.rejects(put(user, 0, pattern(1, MIB)), {
    kind: 'gone',
    message: /taken out of the config/,
  })
  await user.close()
  t.strictSame(await slots.close(1000), [])
})
