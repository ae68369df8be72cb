/** Plans, identities, notification and the bounded end. src/daemon/{reconcile,identity-store,systemd,shutdown}.ts. */
import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { withinTime } from '../../src/base/deadline.ts'
import { DRAIN_IO_MS, DRAIN_LOGOUT_MS } from '../../src/base/limits.ts'
import { silentLogger } from '../../src/base/log.ts'
import { didYouMean, nearest } from '../../src/base/suggest.ts'
import { plexusVersion } from '../../src/base/version.ts'
import type { Config, TargetConfig } from '../../src/daemon/config.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { IdentityStore } from '../../src/daemon/identity-store.ts'
import { describePlan, emptyConfig, planChanges } from '../../src/daemon/reconcile.ts'
import { type ShutdownParts, shutDown } from '../../src/daemon/shutdown.ts'
import { SystemdNotifier } from '../../src/daemon/systemd.ts'
import type { DeviceIdentity } from '../../src/hal/block-device.ts'
import { ManualClock } from '../support/manual-clock.ts'

const log = silentLogger()

const BASE = parseConfig(
  `version: 1
portals: [{ name: p, listen: [127.0.0.1:3261] }, { name: q, listen: [127.0.0.1:3262] }]
auth: [{ name: g, initiators: ["iqn.2026-01.x:*"] }]
devices: { a: ./a, b: ./b }
targets:
  - { name: "iqn.2026-01.x:a", portals: [p], auth: g, luns: [{ lun: 0, device: a }] }
  - { name: "iqn.2026-01.x:b", portals: [q], auth: none, luns: [{ lun: 0, device: b }] }
`,
  '/etc/plexus/plexus.yaml',
)

const change = (config: Config, part: Partial<Config>): Config => ({ ...config, ...part })
const targetsWith = (name: string, part: Partial<TargetConfig>) =>
  BASE.targets.map((one) => (one.name === name ? { ...one, ...part } : one))
const steps = async (after: Config, before = BASE) => describePlan(await planChanges(before, after))

t.test('plans', async (t) => {
  t.strictSame(await steps(BASE), [], 'nothing to do')
  t.strictSame(await steps(BASE, emptyConfig(BASE)), [
    'add portal p',
    'add portal q',
    'add auth group g',
    'add device a',
    'add device b',
    'add logical unit a',
    'add logical unit b',
    'add target iqn.2026-01.x:a',
    'add target iqn.2026-01.x:b',
  ])
  t.strictSame(await steps(change(BASE, { targets: BASE.targets.slice(1) })), [
    'remove target iqn.2026-01.x:a',
  ])
  t.strictSame(
    await steps(
      change(BASE, { devices: BASE.devices.map((one) => ({ ...one, path: `${one.path}2` })) }),
    ),
    [
      'change device a: path: "/etc/plexus/a" -> "/etc/plexus/a2"',
      'change device b: path: "/etc/plexus/b" -> "/etc/plexus/b2"',
      'change target iqn.2026-01.x:a',
      'change target iqn.2026-01.x:b',
    ],
    'a target changes with its devices',
  )
  t.strictSame(
    await steps(
      change(BASE, {
        auth: [{ ...BASE.auth[0], name: 'g', initiators: ['iqn.2027-01.y:z'] }] as Config['auth'],
      }),
    ),
    [
      'change auth group g: initiators: ["iqn.2026-01.x:*"] -> ["iqn.2027-01.y:z"]',
      'change target iqn.2026-01.x:a',
    ],
    'and with its auth group; the other target is left alone',
  )
  const moved = BASE.portals.map((one) =>
    one.name === 'p' ? { ...one, listen: [{ host: '127.0.0.1', port: 3263 }] } : one,
  )
  t.strictSame(await steps(change(BASE, { portals: moved })), [
    'change portal p: listen: [{host: "127.0.0.1", port: 3261}] -> [{host: "127.0.0.1", port: 3263}]',
  ])
  const discovery = BASE.portals.map((one) => ({ ...one, discoveryAuth: ['g'] }))
  t.strictSame(await steps(change(BASE, { portals: discovery })), [
    'change portal p (stays open): discoveryAuth: ["none"] -> ["g"]',
    'change portal q (stays open): discoveryAuth: ["none"] -> ["g"]',
  ])
  t.strictSame(
    await steps(change(BASE, { targets: targetsWith('iqn.2026-01.x:b', { alias: 'B' }) })),
    ['change target iqn.2026-01.x:b: alias: nothing -> "B"'],
  )
  const [lun] = BASE.targets[1]?.luns ?? []
  t.strictSame(
    await steps(
      change(BASE, {
        targets: targetsWith('iqn.2026-01.x:b', {
          luns: [{ ...lun, lun: 0, unit: 'a', readOnly: true }],
        }),
      }),
    ),
    [
      'change target iqn.2026-01.x:b: luns 0 unit: "b" -> "a"',
      'change target iqn.2026-01.x:b: luns 0 readOnly: false -> true',
    ],
    'from what to what',
  )
  t.strictSame(await steps(change(BASE, { onEvent: '/etc/plexus/on-event' })), [
    'change hook onEvent: nothing -> "/etc/plexus/on-event"',
  ])
  t.strictSame(await steps(change(BASE, { engine: 'threads', stateDir: '/elsewhere' })), [
    'at the next restart: hal: "auto" -> "threads"',
    `at the next restart: state: "${BASE.stateDir}" -> "/elsewhere"`,
  ])
})

t.test('a changed secret is a change, and is not shown', async (t) => {
  const group = (secret: string) => ({
    name: 'g',
    chap: { user: 'u', secret: Buffer.from(secret) },
    mutual: undefined,
    initiators: undefined,
  })
  const before = change(BASE, { auth: [group('first-secret!')] })
  const lines = await steps(change(BASE, { auth: [group('other-secret!')] }), before)
  t.strictSame(lines, [
    'change auth group g: chap secret: (secret) -> (secret)',
    'change target iqn.2026-01.x:a',
  ])
  t.strictSame(await steps(change(BASE, { auth: [group('first-secret!')] }), before), [])
})

const disk = (wwid?: string, serial?: string): DeviceIdentity => ({
  wwid,
  serial,
  vendor: 'V',
  model: 'M',
})

const identify = (
  store: IdentityStore,
  name: string,
  device?: DeviceIdentity,
  configured: readonly string[] = [name],
) => store.change((draft) => draft.identify(name, device, new Set(configured)))

t.test('identities', async (t) => {
  const dir = t.testdir()
  let next = 0
  const random = (bytes: number) => Buffer.alloc(bytes, ++next)
  const open = () => IdentityStore.open({ dir, revision: '9.9', log, random })
  const naaOf = async (
    store: IdentityStore,
    name: string,
    device?: DeviceIdentity,
    configured: string[] = [name],
  ) => (await identify(store, name, device, configured)).naa.toString('hex')

  const store = open()
  const first = await identify(store, 'd1', disk('naa.1'))
  t.strictSame(
    { ...first, naa: first.naa.toString('hex') },
    {
      naa: '602504c0101010101010101010101010',
      serial: '0101010101010101010101010',
      vendor: 'PLEXUS',
      product: 'iSCSI Disk',
      revision: '9.9',
    },
    'NAA 6h, a company id with the local bit set, random digits',
  )
  const d1 = first.naa.toString('hex')
  t.equal(await naaOf(store, 'd1', disk('naa.1')), d1, 'again')
  t.equal(await naaOf(store, 'd1'), d1, 'while it is missing')
  t.equal(await naaOf(open(), 'd1', disk('naa.1')), d1, 'after a restart')
  t.equal(await naaOf(store, 'renamed', disk('naa.1')), d1, 'under another name')
  const other = await naaOf(store, 'renamed', disk('naa.2'))
  t.not(other, d1, 'another disk under an old name is another unit')
  t.equal(
    await naaOf(store, 'back', disk('naa.1')),
    d1,
    'the disk that lost its name is still known',
  )

  const provisional = await naaOf(store, 'new')
  t.not(provisional, d1)
  t.equal(
    await naaOf(store, 'new', disk('naa.9')),
    provisional,
    'a missing disk keeps what was made for it',
  )
  await naaOf(store, 'moved')
  t.equal(await naaOf(store, 'moved', disk('naa.1')), d1, 'unless it turns out to be a known one')
  t.not(
    await naaOf(store, 'twin', disk('naa.1'), ['moved', 'twin']),
    d1,
    'two configured devices never share an identity',
  )

  const serial = await naaOf(store, 'virtio', disk(undefined, 'S1'))
  t.equal(
    await naaOf(store, 'virtio2', disk(undefined, 'S1')),
    serial,
    'a serial number marks, too',
  )
  const image = await naaOf(store, 'image', disk())
  t.equal(await naaOf(store, 'image', disk()), image)
  t.not(await naaOf(store, 'image2', disk()), image, 'image files go by their names alone')

  const tags = (from: IdentityStore, ...names: string[]) =>
    from.change((draft) => names.map((one) => draft.portalTags(names).get(one)))
  t.strictSame(await tags(store, 'san', 'lab'), [1, 2])
  t.strictSame(await tags(store, 'wan', 'san'), [3, 1])
  t.strictSame(await tags(open(), 'lab'), [2], 'tags survive a restart')
})

t.test('the identity file is never lost', async (t) => {
  const dir = t.testdir()
  const path = join(dir, 'identities.json')
  const open = () => IdentityStore.open({ dir, revision: '1', log })
  const store = open()
  const one = (await identify(store, 'one')).serial
  const two = (await identify(store, 'two')).serial
  t.ok(existsSync(`${path}.previous`), 'the copy before stays')
  t.notOk(existsSync(`${path}.new`), 'nothing is left half done')

  const good = readFileSync(path, 'utf8')
  writeFileSync(path, good.replace(two, two.replace(/./g, '0')))
  const restored = open()
  t.equal((await identify(restored, 'one')).serial, one, 'a flipped file: the copy before')
  const changed = (await identify(restored, 'three')).serial
  t.equal((await identify(open(), 'three')).serial, changed, 'and it goes on from there')

  rmSync(path)
  t.equal((await identify(open(), 'one')).serial, one, 'a lost file: the copy before')
  writeFileSync(path, '{}')
  writeFileSync(`${path}.previous`, 'rubbish')
  t.throws(open, { kind: 'corrupt', message: /restore/ }, 'never new identities over lost ones')
  rmSync(path)
  t.throws(open, { kind: 'corrupt', message: /previous/ })
  rmSync(`${path}.previous`)
  t.doesNotThrow(open, 'a fresh start')

  const blocked = join(mkdtempSync(join(tmpdir(), 'plexus-state-')), 'file')
  writeFileSync(blocked, '')
  t.throws(() => IdentityStore.open({ dir: blocked, revision: '1', log }), {
    kind: 'permission',
    message: /state folder/,
  })
  rmSync(join(blocked, '..'), { recursive: true })
})

t.test('systemd', async (t) => {
  const sent: string[] = []
  const make = (environment: NodeJS.ProcessEnv, send?: () => void) =>
    new SystemdNotifier({
      environment,
      pid: 7,
      log,
      send: send ?? ((socket, text) => sent.push(`${socket} ${text}`)),
    })
  const clock = new ManualClock()
  const none = make({ WATCHDOG_USEC: '1000' })
  none.ready()
  none.startWatchdog(clock)
  clock.advance(10)
  t.strictSame(sent, [], 'silent without NOTIFY_SOCKET')

  const some = make({ NOTIFY_SOCKET: '/s', WATCHDOG_USEC: '20000000', WATCHDOG_PID: '7' })
  some.ready()
  some.status('1 target')
  some.status('1 target')
  some.reloading()
  some.stopping(1500)
  t.match(sent.splice(0), [
    '/s READY=1',
    '/s STATUS=1 target',
    /^\/s RELOADING=1\nMONOTONIC_USEC=\d+$/,
    '/s STOPPING=1\nEXTEND_TIMEOUT_USEC=1500000',
  ])
  some.startWatchdog(clock)
  clock.advance(20_000)
  t.strictSame(sent.splice(0), ['/s WATCHDOG=1', '/s WATCHDOG=1'], 'at half the period')
  some.stopWatchdog()
  clock.advance(60_000)
  t.strictSame(sent, [])
  make({ NOTIFY_SOCKET: '/s', WATCHDOG_USEC: '1000', WATCHDOG_PID: '8' }).startWatchdog(clock)
  clock.advance(60_000)
  t.strictSame(sent, [], "another process's watchdog is not ours")
  const failing = make({ NOTIFY_SOCKET: '/s' }, () => {
    throw new Error('ENOENT')
  })
  t.doesNotThrow(() => failing.ready(), 'a deaf systemd does not stop the daemon')
})

t.test('the end is bounded, and in order', async (t) => {
  const hang = new Promise<void>(() => {})
  const run = async (parts: Partial<ShutdownParts>) => {
    const clock = new ManualClock()
    const calls: string[] = []
    const named = (name: string) => async () => void calls.push(name)
    const ended = shutDown(
      {
        drain: named('drain'),
        closeServer: named('closeServer'),
        closeDevices: async (ms) => {
          calls.push(`closeDevices ${ms}`)
          return []
        },
        closeQueue: named('closeQueue'),
        ...parts,
      },
      clock,
      log,
    )
    let clean: boolean | undefined
    void ended.then((value) => {
      clean = value
    })
    for (let s = 0; s < 60 && clean === undefined; s++) {
      await new Promise((resolve) => setImmediate(resolve))
      clock.advance(1000)
    }
    return { clean, calls }
  }
  const io = `closeDevices ${DRAIN_IO_MS}`
  t.strictSame(await run({}), { clean: true, calls: ['drain', 'closeServer', io, 'closeQueue'] })
  t.strictSame(
    await run({ drain: () => hang }),
    { clean: true, calls: [io, 'closeQueue'] },
    'an initiator that stays does not keep the disks from being flushed',
  )
  t.strictSame(await run({ drain: () => Promise.reject(new Error('x')) }), {
    clean: true,
    calls: [io, 'closeQueue'],
  })
  t.strictSame(
    await run({ closeDevices: async () => ['/dev/x did not answer'] }),
    { clean: false, calls: ['drain', 'closeServer'] },
    'a hung disk is told, and its engine is left',
  )
  t.strictSame((await run({ closeQueue: () => hang })).clean, true)
  t.ok(DRAIN_LOGOUT_MS + DRAIN_IO_MS < 60_000, 'well below what systemd waits')
})

t.test('waiting within time', async (t) => {
  const clock = new ManualClock()
  t.equal(await withinTime(clock, Promise.resolve(), 1), true)
  const late = withinTime(clock, new Promise(() => {}), 5)
  clock.advance(5)
  t.equal(await late, false)
  await t.rejects(withinTime(clock, Promise.reject(new Error('no')), 1), /no/)
})

t.test('suggestions and version', async (t) => {
  t.equal(nearest('devise', ['device', 'lun']), 'device')
  t.equal(nearest('inof', ['info', 'warn']), 'info')
  t.equal(nearest('d9', ['d1', 'data']), 'd1')
  t.equal(nearest('whatever', ['lun', 'alias']), undefined)
  t.equal(didYouMean('x', []), '')
  t.match(plexusVersion(), /^\d+\.\d+\.\d+/)
})
