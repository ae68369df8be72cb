/** Units that follow providers, devices that follow paths: src/daemon/{unit-slots,device-slots}.ts. */
import { mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { ManualClock } from '../../src/base/clock.ts'
import { DEVICE_RETRY_MS, MIB } from '../../src/base/limits.ts'
import { createLogger, silentLogger } from '../../src/base/log.ts'
import { DeviceSlots } from '../../src/daemon/device-slots.ts'
import { IdentityStore } from '../../src/daemon/identity-store.ts'
import { UnitSlots } from '../../src/daemon/unit-slots.ts'
import { createIoQueue } from '../../src/hal/io-queue.ts'
import { get, Machine, pattern, put } from '../support/engine.ts'

const dir = mkdtempSync(join(tmpdir(), 'plexus-slots-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function units(machine: Machine, state: string) {
  const lines: string[] = []
  const replaced: string[] = []
  const log = createLogger('info', 'json', (line) => lines.push(line))
  const { topology, pool } = machine
  const identities = IdentityStore.open({ dir: join(dir, state), revision: '1', log })
  const onUnitReplaced = (name: string): void => {
    replaced.push(name)
  }
  const slots = new UnitSlots({
    topology,
    pool,
    clock: topology.clock,
    log,
    identities,
    onUnitReplaced,
  })
  const said = (event: string) =>
    lines.map((line) => JSON.parse(line)).filter((line) => line.event === event)
  return { slots, replaced, said }
}

const config = (name: string, blockBytes?: number) => ({ name, blockBytes })

t.test('a LUN on a volume that appears later, goes, and comes back', async (t) => {
  const machine = await new Machine({ devices: 2 }).start()
  const { slots, replaced } = units(machine, 'later')
  await slots.add([config('db')], new Map())
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
  const { slots, replaced } = units(machine, 'identity')
  await slots.add([config('a')], new Map())
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
    const { slots, said } = units(machine, 'drive')
    await slots.add([config('d1'), config('d2')], new Map())
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

t.test('blocks that do not fit what initiators saw: not ready, nothing held', async (t) => {
  const machine = await new Machine({ devices: 1, blockBytes: 4096 }).start()
  const { slots, said } = units(machine, 'blocks')
  await slots.add([config('d1', 512)], new Map())
  t.strictSame(slots.missing, ['d1'])
  t.match(said('unit-not-ready'), [{ unit: 'd1', kind: 'invalid' }])
  t.equal(machine.topology.find('d1').consumers.size, 0)
  await slots.close()
})

t.test('units let go with writes in flight: all have ended when it resolves', async (t) => {
  const machine = await new Machine({ devices: 1 }).start()
  const { slots } = units(machine, 'flight')
  await slots.add([config('d1')], new Map())
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

t.test('devices: missing, appearing, refused a name, taken away', async (t) => {
  const machine = await new Machine({ devices: 1 }).start()
  const { topology, pool } = machine
  const clock = new ManualClock()
  const log = silentLogger()
  const queue = createIoQueue({ engine: 'threads', pool, log, threads: 1 })
  t.teardown(() => queue.close())
  const slots = new DeviceSlots({ queue, topology, clock, log })
  const path = join(dir, 'disk')
  const image = (name: string, at: string) => ({ name, path: at, readOnly: false, exported: false })
  await machine.run('volume.create', { name: 'v', concat: ['d1'] })
  writeFileSync(join(dir, 'other'), '')
  truncateSync(join(dir, 'other'), 4 * MIB)
  await slots.add([image('a', path), image('v', join(dir, 'other'))])
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
  clock.advance(DEVICE_RETRY_MS)
  for (let tries = 0; slots.missing.length > 0 && tries < 200; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  await topology.quiet()
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
