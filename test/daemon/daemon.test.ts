/** plexusd as a process: start, reload under sessions, devices that come late, the end, exit codes. */
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { networkInterfaces, tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { main } from '../../src/daemon/plexusd.ts'
import { Daemon, type DaemonConfig, daemonCommand } from '../support/daemon.ts'
import { Initiator, type ScsiResult } from '../support/initiator.ts'

const A = 'iqn.2026-11.test.plexus:a'
const B = 'iqn.2026-11.test.plexus:b'
const BLOCK = 512
/** RFC 7143, 11.13.5: target not found. */
const NOT_FOUND = { message: /0203h/ }

const HAS_IPV6 = Object.values(networkInterfaces())
  .flat()
  .some((address) => address?.address === '::1')

const dir = mkdtempSync(join(tmpdir(), 'plexus-daemon-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function image(name: string, bytes = 8 * 2 ** 20): string {
  const path = join(dir, name)
  writeFileSync(path, '')
  truncateSync(path, bytes)
  return path
}

const target = (name: string, luns: readonly object[], auth = 'none') => ({
  name,
  portals: ['test'],
  auth,
  luns,
})

function cdb10(opcode: number, lba: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(10)
  cdb[0] = opcode
  cdb.writeUInt32BE(lba, 2)
  cdb.writeUInt16BE(blocks, 7)
  return cdb
}

const read = (session: Initiator, lba: number, lun = 0) =>
  session.scsi({ cdb: cdb10(0x28, lba, 1), read: BLOCK, lun })
const write = (session: Initiator, lba: number, data: Buffer, lun = 0) =>
  session.scsi({ cdb: cdb10(0x2a, lba, 1), write: data, lun })
const ready = (session: Initiator, lun = 0) => session.scsi({ cdb: Buffer.alloc(6), lun })
const sense = (result: ScsiResult) => ({ key: result.sense?.key, code: result.sense?.code })

/** Unit attentions that wait, oldest first, until the unit answers with something else. */
async function attentions(session: Initiator, lun = 0): Promise<number[]> {
  const codes: number[] = []
  for (let result = await ready(session, lun); result.sense?.key === 6; ) {
    codes.push(result.sense.code)
    result = await ready(session, lun)
  }
  return codes
}

async function login(daemon: Daemon, targetName: string): Promise<Initiator> {
  const session = await Initiator.open({ port: daemon.port, targetName })
  for (const lun of [0, 1]) await attentions(session, lun)
  return session
}

const saw = (daemon: Daemon, text: string) => daemon.log.some((line) => line.includes(text))

async function until(condition: () => boolean, what: string, timeoutMs = 10_000): Promise<void> {
  const end = Date.now() + timeoutMs
  while (!condition()) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 25))
  }
}

/** Applies a configuration and waits for the daemon's word on it. */
async function reload(daemon: Daemon, config: DaemonConfig): Promise<void> {
  daemon.configure(config)
  const seen = daemon.log.length
  daemon.signal('SIGHUP')
  await until(
    () => daemon.log.slice(seen).some((line) => /"event":"reload(ed|-failed)"/.test(line)),
    'reload',
    20_000,
  )
}

t.test('reload touches what changed and nothing else', async (t) => {
  const base = {
    devices: { a: image('a.img'), b: image('b.img') },
    targets: [target(A, [{ lun: 0, device: 'a' }])],
  }
  const daemon = await Daemon.start({ config: base })
  t.teardown(() => daemon.stop())
  const a = await login(daemon, A)
  const pattern = Buffer.alloc(BLOCK, 0x5a)
  t.equal((await write(a, 7, pattern)).status, 0)

  let busy = true
  let operations = 0
  const load = (async () => {
    while (busy) {
      const result = await read(a, 7)
      if (result.status !== 0 || !result.data.equals(pattern)) throw new Error('load broke')
      operations++
    }
  })()

  await t.rejects(login(daemon, B), NOT_FOUND, 'not there yet')
  const both = { ...base, targets: [...base.targets, target(B, [{ lun: 0, device: 'b' }])] }
  await reload(daemon, both)
  const b = await login(daemon, B)
  t.equal((await write(b, 1, pattern)).status, 0, 'the new target serves')

  await reload(daemon, base)
  await b.until(() => b.failure !== undefined, 'the removed target drops its sessions')
  await t.rejects(login(daemon, B), NOT_FOUND)

  const before = operations
  await until(() => operations > before + 5, 'the load goes on')
  busy = false
  await load
  t.strictSame(await attentions(a), [], 'the session next to all that was told nothing')

  await reload(daemon, {
    ...base,
    targets: [
      target(A, [
        { lun: 0, device: 'a' },
        { lun: 1, device: 'b', readOnly: true },
      ]),
    ],
  })
  t.ok((await attentions(a)).includes(0x3f0e), 'another LUN list is told')
  await attentions(a, 1)
  t.ok((await read(a, 1, 1)).data.equals(pattern), 'the new LUN is there at once')
  t.strictSame(sense(await write(a, 1, pattern, 1)), { key: 7, code: 0x2700 }, 'and read-only')

  // The device under another name is the same disk: same path, and here no WWID, so another unit.
  await reload(daemon, {
    devices: { c: base.devices.a },
    targets: [target(A, [{ lun: 0, device: 'c' }])],
  })
  t.ok((await attentions(a)).includes(0x3f0e))
  t.ok((await read(a, 7)).data.equals(pattern), 'a renamed device is open again at once')
  await reload(daemon, base)
  await attentions(a)

  // A configuration that is wrong changes nothing.
  await reload(daemon, { ...base, targets: [target(A, [{ lun: 0, devise: 'a' }])] })
  t.ok(saw(daemon, 'did you mean \\"device\\"?'), 'the problem is logged')
  t.ok(
    daemon.log.some((line) => /"where":"plexus\.yaml:\d+:\d+"/.test(line)),
    'with its place',
  )
  t.ok(saw(daemon, 'the old one runs on'))
  t.equal((await read(a, 0)).status, 0)

  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  const portals = [
    { name: 'test', listen: [`127.0.0.1:${daemon.port}`] },
    { name: 'more', listen: [`127.0.0.1:${port}`] },
  ]
  await reload(daemon, { ...base, portals, targets: [] } as DaemonConfig)
  t.ok(saw(daemon, 'EADDRINUSE'), 'an address that is taken')
  t.equal((await read(a, 0)).status, 0, 'refuses the whole change: the target is still there')
  await login(daemon, A).then((session) => session.close())
  taken.close()
  await a.close()
})

t.test('initiators are served while a large configuration is read and applied', async (t) => {
  const names = Array.from({ length: 2000 }, (_, at) => `iqn.2026-11.test.plexus:many${at}`)
  const base = {
    devices: { a: image('many.img') },
    targets: [A, ...names].map((name) => target(name, [{ lun: 0, device: 'a' }])),
  }
  const daemon = await Daemon.start({ config: base, startTimeoutMs: 60_000 })
  t.teardown(() => daemon.stop())
  const session = await login(daemon, A)
  let busy = true
  let worstMs = 0
  const load = (async () => {
    while (busy) {
      const startedMs = performance.now()
      if ((await read(session, 0)).status !== 0) throw new Error('load broke')
      worstMs = Math.max(worstMs, performance.now() - startedMs)
    }
  })()
  const during = async (config: DaemonConfig): Promise<number> => {
    worstMs = 0
    await reload(daemon, config)
    return Math.round(worstMs)
  }
  const unchanged = await during(base)
  t.ok(unchanged < 250, `an unchanged file: ${unchanged} ms at most for a read`)
  const more = Array.from({ length: 100 }, (_, at) => `more${at}`)
  const larger = await during({
    devices: {
      ...base.devices,
      ...Object.fromEntries(more.map((name) => [name, image(`${name}.img`)])),
    },
    targets: [
      ...base.targets,
      ...more.map((name) => target(`iqn.2026-11.test.plexus:${name}`, [{ lun: 0, device: name }])),
    ],
  })
  t.ok(larger < 250, `100 new devices: ${larger} ms at most for a read`)
  busy = false
  await load
  const fresh = await login(daemon, 'iqn.2026-11.test.plexus:more99')
  t.equal((await read(fresh, 0)).status, 0)
  await fresh.close()
  await session.close()
})

t.test('secrets change by reload', async (t) => {
  const daemon = await Daemon.start({ config: { devices: { a: image('s.img') }, targets: [] } })
  t.teardown(() => daemon.stop())
  const config = {
    auth: [{ name: 'g', chap: { user: 'u', secretFile: daemon.secretFile('s', 'first-secret') } }],
    devices: { a: join(dir, 's.img') },
    targets: [target(A, [{ lun: 0, device: 'a' }], 'g')],
  }
  const enter = (secret: string) =>
    Initiator.open({ port: daemon.port, targetName: A, chap: { user: 'u', secret } })
  await reload(daemon, config)
  const session = await enter('first-secret')
  daemon.secretFile('s', 'other-secret')
  const drop = /drop the session of iqn\S+ from 127\.0\.0\.1: .*does not admit this name/
  t.match((await daemon.plexus(['config', 'diff'])).out, drop, 'said before it is done')
  await reload(daemon, config)
  t.ok(await session.wire.closedWithin(2000), 'who proved the old secret is out')
  session.destroy()
  t.match(
    daemon.log.find((line) => line.includes('reload-step') && drop.test(line)),
    drop,
  )
  await t.rejects(enter('first-secret'), { message: /0201h/ })
  const other = await enter('other-secret')
  await reload(daemon, { ...config, targets: [...config.targets, target(B, [])] })
  await attentions(other)
  t.equal((await read(other, 0)).status, 0, 'who proved the new one stays in')
  await other.close()
})

t.test('a portal takes wider and narrower addresses by reload', async (t) => {
  const disk = {
    devices: { a: image('wide.img') },
    targets: [target(A, [{ lun: 0, device: 'a' }])],
  }
  const daemon = await Daemon.start({ config: disk })
  t.teardown(() => daemon.stop())
  const session = await login(daemon, A)
  const steps: readonly (readonly [listen: string[], reached: string[]])[] = [
    [['0.0.0.0'], ['127.0.0.1', '127.0.0.2']],
    [['[::]'], ['127.0.0.1', '::1']],
    [
      ['[::]', '127.0.0.1'],
      ['127.0.0.1', '::1'],
    ],
    [['127.0.0.1'], ['127.0.0.1']],
  ]
  for (const [hosts, reached] of steps) {
    const listen = hosts.map((host) => `${host}:${daemon.port}`)
    await reload(daemon, { ...disk, portals: [{ name: 'test', listen }] })
    for (const host of reached.filter((one) => HAS_IPV6 || one !== '::1')) {
      const other = await Initiator.open({ host, port: daemon.port, targetName: A })
      t.equal(await other.logout(), 0, `${host} by ${hosts.join(' and ')}`)
    }
  }
  await attentions(session)
  t.equal((await read(session, 0)).status, 0, 'who was in stays in')
  await session.close()
})

t.test('a device that comes late, and one that is busy', async (t) => {
  const path = join(dir, 'late.img')
  const daemon = await Daemon.start({
    config: { devices: { a: path }, targets: [target(A, [{ lun: 0, device: 'a' }])] },
  })
  t.teardown(() => daemon.stop())
  const session = await Initiator.open({ port: daemon.port, targetName: A })
  t.same(await attentions(session), [0x2900])
  t.equal(sense(await ready(session)).key, 2, 'not ready while the device is missing')
  t.ok(saw(daemon, '"event":"device-not-ready"'))
  const inquiry = () => session.scsi({ cdb: Buffer.from([0x12, 1, 0x83, 0, 255, 0]), read: 255 })
  const identity = (await inquiry()).data
  image('late.img')
  await until(() => saw(daemon, '"event":"device-ready"'), 'the device is noticed')
  // Between that and the logical unit is a change of the graph.
  const told: number[] = []
  for (let key: number | undefined = 2; key === 2 || key === 6; ) {
    const { sense } = await ready(session)
    key = sense?.key
    if (key === 6) told.push(sense?.code ?? 0)
  }
  t.ok(told.includes(0x2800), 'the change is told')
  t.equal((await read(session, 0)).status, 0)
  t.ok((await inquiry()).data.equals(identity), 'it is the same unit')

  const second = await Daemon.start({
    config: { devices: { a: path }, targets: [target(B, [{ lun: 0, device: 'a' }])] },
  })
  t.teardown(() => second.stop())
  await until(() => saw(second, '"kind":"in-use"'), 'two daemons never serve one file')
  const other = await Initiator.open({ port: second.port, targetName: B })
  await attentions(other)
  t.equal(sense(await ready(other)).key, 2)
  await other.close()
  await session.close()
})

t.test('identities outlive the process, which ends in order', async (t) => {
  const daemon = await Daemon.start({
    config: {
      devices: { a: image('i.img') },
      targets: [target(A, [{ lun: 0, device: 'a' }])],
    },
  })
  t.teardown(() => daemon.stop())
  const serial = async () => {
    const session = await login(daemon, A)
    const { data } = await session.scsi({ cdb: Buffer.from([0x12, 1, 0x80, 0, 255, 0]), read: 255 })
    await session.close()
    return data.toString('latin1', 4)
  }
  const first = await serial()
  t.match(first, /^[0-9a-f]{25}$/)
  await daemon.kill()
  await daemon.spawn()
  t.equal(await serial(), first, 'after a crash')

  const session = await login(daemon, A)
  const startedMs = Date.now()
  const stopped = daemon.stop(20_000)
  await session.until(() => session.asyncs.length > 0, 'the request to log out')
  t.equal(session.asyncs[0]?.header[36], 1, 'RFC 7143, 11.9.1: target requests logout')
  await session.logout()
  t.equal(await stopped, 0, 'exit code')
  t.ok(Date.now() - startedMs < 3000, 'who logs out is not waited for any longer')
  t.ok(saw(daemon, '"clean":true'))
  session.destroy()
})

t.test('the end does not wait for ever', async (t) => {
  const config = {
    devices: { a: image('f.img') },
    targets: [target(A, [{ lun: 0, device: 'a' }])],
  }
  const daemon = await Daemon.start({ config })
  const session = await login(daemon, A)
  const startedMs = Date.now()
  t.equal(await daemon.stop(20_000), 0, 'an initiator that stays is dropped')
  t.ok(Date.now() - startedMs < 8000)
  session.destroy()

  const other = await Daemon.start({ config })
  const stubborn = await login(other, A)
  other.signal('SIGTERM')
  await until(() => saw(other, '"event":"stopping"'), 'stopping')
  await new Promise((resolve) => setTimeout(resolve, 600))
  other.signal('SIGINT')
  const secondMs = Date.now()
  await until(() => !other.running, 'a second signal ends at once')
  t.ok(Date.now() - secondMs < 1500)
  await other.stop()
  stubborn.destroy()
})

/** Runs the command line in this process; what it wrote and its exit code. */
async function run(
  t: Test,
  ...args: string[]
): Promise<{ code: number; out: string; err: string }> {
  const out = t.capture(process.stdout, 'write', () => true)
  const err = t.capture(process.stderr, 'write', () => true)
  const code = await main(args)
  const text = (calls: readonly { args: readonly unknown[] }[]) =>
    calls.map((call) => String(call.args[0])).join('')
  const result = { code, out: text(out()), err: text(err()) }
  out.restore()
  err.restore()
  return result
}

t.test('command line and exit codes', async (t) => {
  const config = (name: string, text: string) => {
    writeFileSync(join(dir, name), text)
    return join(dir, name)
  }
  const good = config('good.yaml', 'version: 1\ndevices: { d: ./d }\n')
  t.match(await run(t, '--version'), { code: 0, out: /^\d+\.\d+\.\d+\n$/ })
  t.equal(JSON.parse((await run(t, '--schema')).out).type, 'object')
  t.match(await run(t, '--check', '--config', good), {
    code: 0,
    out: /good; 0 targets, 1 devices/,
  })
  const open = config(
    'open.yaml',
    'version: 1\nportals: [{ name: p, listen: [127.0.0.1] }]\ntargets: [{ name: "iqn.2026-01.x:a", portals: [p] }]\n',
  )
  t.match(await run(t, '--check', '--config', open), {
    code: 0,
    err: /3:11: warning: .*nobody may log in/,
  })
  t.match(await run(t, '--check', '--config', config('bad.yaml', 'version: 1\nportal: []\n')), {
    code: 2,
    err: /^bad\.yaml:2:1: unknown key "portal".*"portals"\?\n$/,
  })
  t.match(await run(t, '--config', join(dir, 'absent.yaml')), {
    code: 2,
    err: /absent\.yaml cannot be read/,
  })
  t.match(await run(t, '--no-such-option'), { code: 2, err: /unknown option/ })
})

t.test('a port that is taken', async (t) => {
  const taken = createServer()
  await new Promise<void>((resolve) => taken.listen(0, '127.0.0.1', resolve))
  const { port } = taken.address() as { port: number }
  const file = join(dir, 'busy.yaml')
  writeFileSync(
    file,
    `version: 1\nportals: [{ name: p, listen: ["127.0.0.1:${port}"] }]\nstate: { dir: ./state }\ncontrol: { dir: ./run }\n`,
  )
  const [command = '', ...rest] = daemonCommand()
  const { code, err } = await new Promise<{ code: unknown; err: string }>((resolve) => {
    execFile(command, [...rest, '--config', file], { timeout: 60_000 }, (error, _out, err) => {
      resolve({ code: error?.code, err })
    })
  })
  t.equal(code, 1)
  t.match(err, /portal .*cannot listen on .*another program listens there/)
  taken.close()
})
