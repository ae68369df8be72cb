/** The control sockets: who may do what, hostile clients, the methods of the daemon. */
import {
  chmodSync,
  chownSync,
  existsSync,
  lstatSync,
  readFileSync,
  renameSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { createConnection, createServer } from 'node:net'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { PlexusError } from '../../src/base/errors.ts'
import {
  CONTROL_CLIENTS,
  CONTROL_LINE_BYTES,
  CONTROL_REQUESTS,
  MIB,
} from '../../src/base/limits.ts'
import { EVENT_SPECS, methodName } from '../../src/control/daemon-verbs.ts'
import { RPC_CODE } from '../../src/control/protocol.ts'
import { RpcClient } from '../../src/control/rpc-client.ts'
import type { VerbSpec } from '../../src/control/verb-spec.ts'
import { VOLUME_VERB_SPECS } from '../../src/control/volume-verbs.ts'
import type { Config } from '../../src/daemon/config.ts'
import { FairShare } from '../../src/daemon/fair-share.ts'
import { controlMethods } from '../../src/daemon/methods/table.ts'
import { findLabel } from '../../src/engine/anchor/anchor-find.ts'
import { AnchoredDevice } from '../../src/engine/anchor/anchored-device.ts'
import type { JobPlan } from '../../src/engine/jobs/job.ts'
import { VIRSTOR_CODEC } from '../../src/engine/virstor/codec.ts'
import { emptyVirstor, type VirstorModel } from '../../src/engine/virstor/model.ts'
import { aVolume, ControlRig } from '../support/control.ts'
import { ManualClock } from '../support/manual-clock.ts'

async function rig(t: Test, specs: readonly VerbSpec[] = VOLUME_VERB_SPECS): Promise<ControlRig> {
  const made = await new ControlRig(specs).start()
  t.teardown(() => made.stop())
  return made
}

async function client(t: Test, path: string): Promise<RpcClient> {
  const made = await RpcClient.connect(path)
  t.teardown(() => made.close())
  return made
}

/** What the verbs want that a looker tries. */
const PARAMETERS: Readonly<Record<string, object>> = {
  'volume.destroy': { name: 'db' },
  'device.clear-label': { name: 'd1' },
  'job.cancel': { job: 'j1' },
  'config.apply': {},
}

t.test('the modes of the socket files are the policy', async (t) => {
  const made = await rig(t)
  const { control, status } = made.paths
  t.equal(statSync(control).mode & 0o777, 0o660)
  t.equal(statSync(status).mode & 0o777, 0o666)
  const looker = await client(t, status)
  t.match(await looker.call('status'), {
    outputVersion: { command: 'status', major: 1, minor: 0 },
    health: 'FAULTED',
  })
  for (const [method, parameters] of Object.entries(PARAMETERS)) {
    await t.rejects(
      looker.call(method, parameters),
      {
        name: 'PlexusError',
        kind: 'permission',
        message: /needs control\.sock .*status\.sock is open/,
      },
      method,
    )
  }
  t.same(made.fake.calls, [])
  const doer = await client(t, control)
  t.match(await doer.call('volume.destroy', { name: 'db', force: true }), {
    outputVersion: { command: 'volume destroy' },
    dryRun: false,
  })
  t.same(made.fake.calls, [{ name: 'volume.destroy', parameters: { name: 'db', force: true } }])
  await made.server.close()
  t.notOk(existsSync(control))
  t.notOk(existsSync(status))
  await t.rejects(
    doer.call('status'),
    { name: 'PlexusError', kind: 'gone' },
    'the server has ended',
  )
})

t.test('who is logged in, from where and as whom is not for everybody', async (t) => {
  const made = await rig(t)
  made.fake.objects = [aVolume()]
  made.sessions = [
    {
      id: 1,
      tsih: 1,
      initiatorName: 'iqn.2026-01.secret:host7',
      targetName: 'iqn.2026-01.lab.plexus:db',
      portalGroup: 'san',
      remoteAddress: '10.9.8.7',
      authenticatedAs: 'alice',
      commands: 5,
      outstanding: 0,
    },
  ]
  const access = new Map([['iqn.2026-01.secret:host7', [{ lun: 0, readOnly: false }]]])
  const targets = made.config.targets.map((one) => ({ ...one, access }))
  made.config = { ...made.config, targets }
  const names = /host7|10\.9\.8\.7|alice/
  const doer = await client(t, made.paths.control)
  t.match(JSON.stringify(await doer.call('session.list')), names)
  t.match(await doer.call('lun.list'), { luns: [{ sessions: ['host7'] }] })
  const looker = await client(t, made.paths.status)
  const looking = controlMethods(made.topology)
    .filter(({ spec }) => spec.readOnly && !spec.confidential && spec !== EVENT_SPECS.follow)
    .filter(({ spec }) => spec.arguments.every(({ optional }) => optional))
    .map(({ spec }) => methodName(spec))
  t.ok(looking.includes('lun.list') && looking.includes('events.list'), looking.join(' '))
  for (const method of looking) {
    t.notMatch(JSON.stringify(await looker.call(method)), names, method)
  }
  t.match(await looker.call('status'), {
    sessions: 1,
    objects: [{ exported: [{ sessions: [/hidden/] }] }],
  })
  const kept = ['session.list', 'device.show', 'config.dump', 'config.backups', 'config.diff']
  for (const method of kept) {
    const parameters = method === 'device.show' ? { name: 'd1' } : {}
    const refused = { kind: 'permission', message: /status\.sock/ } as const
    await t.rejects(looker.call(method, parameters), refused, method)
  }
})

t.test('clients take turns, and rest in proportion to what they cost', async (t) => {
  const clock = new ManualClock()
  const share = new FairShare(clock, 1 / 5)
  const done: string[] = []
  const [a, b] = [{}, {}]
  const ask = (client: object, name: string): void =>
    share.run(client, () => {
      done.push(name)
      clock.advance(10)
    })
  for (const name of ['a1', 'a2', 'a3']) ask(a, name)
  ask(b, 'b1')
  t.strictSame(done, [], 'nothing in the turn in which it was asked for')
  const turn = () => new Promise((resolve) => setImmediate(resolve))
  await turn()
  t.strictSame(done, ['a1'])
  await turn()
  clock.advance(39)
  t.strictSame(done, ['a1'], '10 ms of work, 40 ms of rest')
  clock.advance(1)
  t.strictSame(done, ['a1', 'b1'], 'who has waited goes first')
  share.forget(a)
  clock.advance(1000)
  await turn()
  t.strictSame(done, ['a1', 'b1'], 'who has left costs nothing')
  ask(b, 'b2')
  await turn()
  t.strictSame(done, ['a1', 'b1', 'b2'], 'after a rest nobody waits')
})

t.test('many who ask without end leave the event loop to others', async (t) => {
  const made = await rig(t)
  const [target] = made.config.targets
  const targets = Array.from({ length: 2000 }, (_, at) => ({
    ...target,
    name: `iqn.2026-01.x:${at}`,
  }))
  made.config = { ...made.config, targets: targets as Config['targets'] }
  const request = `${JSON.stringify({ jsonrpc: '2.0', id: 1, method: 'lun.list' })}\n`
  let answers = 0
  for (let n = 0; n < 20; n++) {
    const socket = createConnection(made.paths.status)
    t.teardown(() => socket.destroy())
    socket.write(request)
    socket.on('data', (chunk) => {
      if (chunk.at(-1) !== 10) return
      answers++
      socket.write(request)
    })
  }
  await new Promise((resolve) => setTimeout(resolve, 300))
  const before = performance.eventLoopUtilization()
  await new Promise((resolve) => setTimeout(resolve, 1500))
  const { utilization } = performance.eventLoopUtilization(before)
  t.ok(answers > 0)
  // A fifth, and what these clients themselves take in this process.
  t.ok(utilization < 0.6, `${Math.round(utilization * 100)} % of the event loop`)
})

t.test('parameters are checked before a verb sees them, errors come as they are', async (t) => {
  const made = await rig(t)
  const doer = await client(t, made.paths.control)
  await t.rejects(doer.call('volume.destroy', {}), {
    kind: 'invalid',
    message: /<name> is missing/,
  })
  await t.rejects(doer.call('volume.destroy', { name: 'db', forse: true }), {
    kind: 'invalid',
    message: /no parameter "forse"; did you mean "force"/,
  })
  t.same(made.fake.calls, [])
  made.fake.error = new PlexusError('foreign', {
    op: 'create',
    subject: 'd1',
    message: 'ext4 found',
  })
  await t.rejects(doer.call('volume.create', { name: 'x', stripe: ['d1', 'd2'], dryRun: true }), {
    kind: 'foreign',
    subject: 'd1',
    op: 'create',
    message: 'ext4 found',
  })
  await t.rejects(doer.call('volume.destory'), {
    message: /no method.*did you mean "volume.destroy"/,
  })
})

t.test('a socket file of a dead daemon is replaced, one of a living one is not', async (t) => {
  const first = await rig(t)
  const second = new ControlRig(VOLUME_VERB_SPECS)
  t.teardown(() => second.stop())
  await t.rejects(second.server.listen(first.dir), { kind: 'in-use', message: /another plexusd/ })
  const looker = await client(t, first.paths.status)
  t.ok(await looker.call('status'), 'the first one still answers')

  // A socket whose listener was killed: bound, and nobody accepts.
  const stale = join(second.dir, 'control.sock')
  const { spawnSync } = await import('node:child_process')
  const script = `require('net').createServer().listen(${JSON.stringify(stale)}, () => process.kill(process.pid, 'SIGKILL'))`
  spawnSync(process.execPath, ['-e', script])
  t.ok(existsSync(stale))
  await second.server.listen(second.dir)
  t.ok(await (await client(t, stale)).call('status'))
})

t.test('a file that is no socket is left alone', async (t) => {
  const made = new ControlRig(VOLUME_VERB_SPECS)
  t.teardown(() => made.stop())
  writeFileSync(made.paths.control, 'precious')
  await t.rejects(made.server.listen(made.dir), { name: 'PlexusError', kind: 'in-use' })
  t.equal(readFileSync(made.paths.control, 'utf8'), 'precious')
})

t.test('hostile lines', async (t) => {
  const made = await rig(t)
  const raw = await made.raw(made.paths.control)
  raw.send('nonsense\n')
  t.match(await raw.next(), { id: null, error: { code: RPC_CODE.PARSE } })
  raw.send('[]\n{"jsonrpc":"2.0","id":4,"method":"status","params":[]}\n')
  t.match(await raw.next(), { error: { code: RPC_CODE.INVALID_REQUEST } })
  t.match(await raw.next(), { id: 4, error: { code: RPC_CODE.INVALID_PARAMS } })
  raw.request(5, '__proto__')
  t.match(await raw.next(), { id: 5, error: { code: RPC_CODE.METHOD_NOT_FOUND } })
  raw.request(6, 'tree')
  t.match(await raw.next(), { id: 6, result: { outputVersion: { command: 'tree' } } })
  // Never a line end: the connection goes, the memory does not grow.
  raw.send(`{"jsonrpc":"2.0","id":7,"x":"${'x'.repeat(CONTROL_LINE_BYTES)}`)
  t.match(await raw.next(), { id: null, error: { message: /a line has at most/ } })
  await raw.ended
  const looker = await client(t, made.paths.status)
  t.ok(await looker.call('status'), 'others are served')
})

t.test('requests under way, clients, and answers that nobody reads are bounded', async (t) => {
  const made = await rig(t)
  const raw = await made.raw(made.paths.status)
  for (let id = 1; id <= CONTROL_REQUESTS; id++) raw.request(id, 'events.follow')
  raw.request(99, 'status')
  t.match(await raw.next(), { id: 99, error: { message: /requests are under way/ } })
  // It subscribed often and never reads: dropped, not buffered for ever.
  raw.socket.pause()
  const text = 'x'.repeat(64 * 1024)
  for (let n = 0; n < 200 && !raw.socket.destroyed; n++) {
    made.topology.events.emit('info', 'noise', 'x', text)
    await new Promise((resolve) => setImmediate(resolve))
  }
  raw.socket.resume()
  await raw.ended

  const others: RpcClient[] = []
  for (let n = 0; n < CONTROL_CLIENTS; n++) others.push(await client(t, made.paths.status))
  const late = await client(t, made.paths.status)
  await t.rejects(late.call('status'), { name: 'PlexusError', kind: 'exhausted' })
  t.ok(await (await client(t, made.paths.control)).call('status'), 'the other socket has its own')
  others[0]?.close()
  // The server hears of the end a moment later.
  const again = async (): Promise<unknown> => {
    try {
      return await (await client(t, made.paths.status)).call('status')
    } catch (error) {
      if (!(error instanceof PlexusError) || error.kind !== 'exhausted') throw error
      return again()
    }
  }
  t.ok(await again(), 'a place is free again')
})

t.test('events: what was, what comes, and only while somebody listens', async (t) => {
  const made = await rig(t)
  const { events } = made.topology
  events.emit('warning', 'drive-down', 'd3', 'Drive d3 stopped answering')
  const looker = await client(t, made.paths.status)
  t.match(await looker.call('events.list'), { events: [{ event: 'drive-down', object: 'd3' }] })
  t.match(await looker.call('events.list', { since: '2099-01-01T00:00:00Z' }), { events: [] })
  await t.rejects(looker.call('events.list', { since: 'yesterday' }), {
    name: 'PlexusError',
    kind: 'invalid',
  })
  const heard = new Promise((resolve) => looker.onNotification((...all) => resolve(all)))
  const following = looker.call('events.follow')
  following.catch(() => {})
  await looker.call('status')
  events.emit('info', 'rebuild-started', 'db', 'A rebuild has started')
  t.match(await heard, ['event', { event: 'rebuild-started', object: 'db', severity: 'info' }])
  looker.close()
})

function slowJob(over: Partial<JobPlan> = {}): JobPlan & { go(): void } {
  let go = (): void => {}
  const gate = new Promise<void>((resolve) => {
    go = resolve
  })
  return {
    id: 'j1',
    kind: 'rebuild',
    object: 'db.p0',
    parent: 'db',
    totalBytes: MIB,
    startBytes: 0,
    step: async () => {
      await gate
      return MIB
    },
    checkpoint: async () => {},
    finish: async () => {},
    abandon: async () => {},
    go,
    ...over,
  }
}

t.test('jobs are shown, limited, waited for', async (t) => {
  const made = await rig(t)
  made.fake.objects = [aVolume()]
  const plan = slowJob()
  made.topology.jobs.start(plan)
  const doer = await client(t, made.paths.control)
  t.match(await doer.call('job.list'), { jobs: [{ id: 'j1', state: 'running', parent: 'db' }] })
  t.match(await doer.call('job.limit', { job: 'j1', rate: '1MiB/s' }), {
    jobs: [{ limitBytesPerSecond: MIB }],
  })
  t.match(await doer.call('job.limit', { job: 'all', rate: '2MiB' }), { jobs: [{ id: 'j1' }] })
  t.equal(made.topology.jobs.limitBytesPerSecond, 2 * MIB)
  await doer.call('job.limit', { job: 'all', rate: 'none' })
  t.equal(made.topology.jobs.limitBytesPerSecond, undefined)
  await t.rejects(doer.call('job.limit', { job: 'j1', rate: '0' }), {
    name: 'PlexusError',
    kind: 'invalid',
  })
  await t.rejects(doer.call('job.pause', { job: 'j9' }), { name: 'PlexusError', kind: 'not-found' })
  t.match(await doer.call('wait', { name: 'db', now: true }), { done: false })
  t.match(await doer.call('wait', { name: 'db', for: 'scrub' }), { done: true, jobs: [] })
  await t.rejects(doer.call('wait', { name: 'dbb' }), {
    kind: 'not-found',
    message: /did you mean "db"/,
  })
  const waiting = doer.call('wait', { name: 'db', for: 'rebuild' })
  plan.go()
  t.match(await waiting, { done: true, jobs: [{ id: 'j1', state: 'done' }] })
})

t.test('devices: what is there, what is on it, and our label taken off', async (t) => {
  const made = await rig(t)
  const doer = await client(t, made.paths.control)
  t.match(await doer.call('device.list'), {
    devices: [
      { name: 'd1', state: 'ready', sizeBytes: 16 * MIB, blockBytes: 512, holders: [] },
      { name: 'd2', state: 'missing', reason: 'no such file' },
    ],
  })
  t.match(await doer.call('device.probe'), { devices: [{ name: 'd1', contents: '', free: true }] })
  await t.rejects(doer.call('device.probe', { names: ['d2'] }), {
    kind: 'gone',
    message: /no such file/,
  })
  await t.rejects(doer.call('device.show', { name: 'd7' }), {
    name: 'PlexusError',
    kind: 'not-found',
  })
  await t.rejects(doer.call('device.clear-label', { name: 'd1' }), {
    name: 'PlexusError',
    kind: 'not-found',
  })

  const setUuid = '11111111-1111-4111-8111-111111111111'
  const deviceUuid = '22222222-2222-4222-8222-222222222222'
  await AnchoredDevice.format(made.device, { setUuid, deviceUuid, className: 'vinum' })
  t.match(await doer.call('device.probe', { names: ['d1'] }), {
    devices: [{ free: false, label: `vinum, set ${setUuid}, generation 0` }],
  })
  const provider = made.topology.find('d1')
  const access = { read: 1, write: 1, exclusive: 0 }
  const holder = made.topology.attach(provider, undefined, 'vinum drive d1', access)
  await t.rejects(doer.call('device.clear-label', { name: 'd1' }), {
    kind: 'in-use',
    message: /in use by vinum drive d1/,
  })
  await holder.close()
  t.match(await doer.call('device.clear-label', { name: 'd1', dryRun: true }), { dryRun: true })
  t.ok(await findLabel(made.device), 'a dry run changes nothing')
  t.match(await doer.call('device.clear-label', { name: 'd1' }), {
    dryRun: false,
    steps: [{ text: /remove the label from d1/ }],
  })
  t.equal(await findLabel(made.device), undefined)
})

t.test('labels of thin devices: dump and clear', async (t) => {
  const made = await rig(t)
  const doer = await client(t, made.paths.control)
  const devices = ['d1']
  await t.rejects(doer.call('virstor.dump', { devices }), {
    kind: 'unsupported',
    message: /device d1 carries no label of virstor/,
  })
  await t.rejects(doer.call('virstor.clear', { devices }), {
    name: 'PlexusError',
    kind: 'not-found',
  })
  const setUuid = '11111111-1111-4111-8111-111111111111'
  const deviceUuid = '22222222-2222-4222-8222-222222222222'
  await AnchoredDevice.format(made.device, { setUuid, deviceUuid, className: 'vinum' })
  await t.rejects(doer.call('virstor.clear', { devices }), {
    kind: 'foreign',
    message: /carries a label of vinum/,
  })
  const label = await AnchoredDevice.format(made.device, {
    setUuid,
    deviceUuid,
    className: 'virstor',
  })
  const { dataStartBytes, dataEndBytes } = label.anchor
  const drive = {
    uuid: deviceUuid,
    name: 'c1',
    state: 'up',
    device: 'd1',
    last: undefined,
  } as const
  const model: VirstorModel = {
    ...emptyVirstor(setUuid),
    name: 'thin',
    uuid: '33333333-3333-4333-8333-333333333333',
    virtualBytes: 64 * MIB,
    chunkBytes: MIB,
    blockBytes: 512,
    drives: [{ ...drive, mediaBytes: 16 * MIB, blockBytes: 512, dataStartBytes, dataEndBytes }],
    components: [
      { id: 1, driveUuid: deviceUuid, startBytes: dataStartBytes, chunks: 9, leaving: false },
    ],
    nextComponent: 2,
    copies: [{ component: 1, epoch: 1, runs: [{ number: 0, count: 1 }] }],
    nextEpoch: 2,
    journalBlocks: 32,
  }
  await label.commit(7, VIRSTOR_CODEC.encode(model))
  t.match(await doer.call('virstor.dump', { devices }), {
    devices: [
      {
        device: 'd1',
        format: 'native',
        setUuid,
        drive: 'c1',
        generation: 7,
        name: 'thin',
        virtualBytes: 64 * MIB,
        component: 1,
        chunks: 9,
        mapEpoch: 1,
      },
    ],
  })
  t.match(await made.cli(['virstor', 'dump', 'd1']), { exit: 0, out: /chunkBytes: +1 MiB/ })
  const holder = made.topology.attach(made.topology.find('d1'), undefined, 'virstor drive c1', {
    read: 1,
    write: 1,
    exclusive: 0,
  })
  await t.rejects(doer.call('virstor.clear', { devices }), {
    kind: 'in-use',
    message: /in use by virstor drive c1/,
  })
  await holder.close()
  await t.rejects(doer.call('virstor.clear', { devices: ['d1', 'd1'] }), {
    kind: 'invalid',
    message: /device d1 is named twice/,
  })
  t.match(await doer.call('virstor.clear', { devices, dryRun: true }), { dryRun: true })
  t.ok(await findLabel(made.device), 'a dry run changes nothing')
  t.match(await made.cli(['virstor', 'clear', 'd1', '--yes']), { exit: 0, out: /remove the label/ })
  t.equal(await findLabel(made.device), undefined)
  t.equal((await made.cli(['virstor', 'dump', 'd1'])).exit, 1)
})

t.test(
  'the configuration: difference, backup, and the old file when the new one fails',
  async (t) => {
    const made = await rig(t)
    const doer = await client(t, made.paths.control)
    const before = readFileSync(made.configFile, 'utf8')
    t.match(await doer.call('config.dump'), { text: before })
    t.match(await doer.call('config.diff'), { steps: [] })
    t.match(await doer.call('status'), { drift: [] })
    const after = before.replace('  d3: /dev/d3\n', '')
    writeFileSync(made.configFile, after)
    t.match(await doer.call('status'), { drift: [/has changed since it was applied/] })
    t.match(await doer.call('config.diff'), { steps: [/remove device d3/] })
    writeFileSync(made.configFile, before)

    await t.rejects(doer.call('config.apply', { file: 'version: 9\n' }), {
      name: 'PlexusError',
      kind: 'invalid',
    })
    t.match(await doer.call('config.apply', { file: after, dryRun: true }), {
      dryRun: true,
      steps: [{ text: /remove device d3/ }],
    })
    t.equal(readFileSync(made.configFile, 'utf8'), before)
    t.equal(made.reloads, 0)
    chmodSync(made.configFile, 0o640)
    t.match(await doer.call('config.apply', { file: after }), { dryRun: false })
    t.equal(made.reloads, 1)
    t.equal(readFileSync(made.configFile, 'utf8'), after)
    t.equal(statSync(made.configFile).mode & 0o777, 0o640, 'the mode stays')
    const { backups } = (await doer.call('config.backups')) as { backups: { path: string }[] }
    t.equal(backups.length, 1)
    t.equal(readFileSync(backups[0]?.path ?? '', 'utf8'), before)
    if (process.getuid?.() === 0) {
      const real = join(made.dir, 'real.yaml')
      renameSync(made.configFile, real)
      symlinkSync('real.yaml', made.configFile)
      chownSync(real, 1234, 4321)
      await doer.call('config.apply', { file: after })
      t.ok(lstatSync(made.configFile).isSymbolicLink(), 'a link stays one')
      t.match(statSync(real), { uid: 1234, gid: 4321, mode: 0o100640 }, 'owner and group stay')
      chownSync(real, 0, 0)
    }

    made.failReload = new PlexusError('in-use', {
      op: 'listen',
      subject: 'san',
      message: 'port taken',
    })
    await t.rejects(doer.call('config.apply', { file: before }), {
      name: 'PlexusError',
      kind: 'in-use',
    })
    t.equal(readFileSync(made.configFile, 'utf8'), after, 'what could not be applied does not stay')
  },
)

t.test('what there is', async (t) => {
  const made = await rig(t)
  made.fake.objects = [aVolume()]
  const looker = await client(t, made.paths.status)
  t.match(await looker.call('status'), {
    objects: [
      { name: 'db', exported: [{ target: 'iqn.2026-01.lab.plexus:db', lun: 0, sessions: [] }] },
    ],
    problems: [
      { object: 'd2', health: 'DEGRADED' },
      { object: 'iqn.2026-01.lab.plexus:db lun 0', health: 'FAULTED' },
    ],
  })
  t.match(await looker.call('status', { name: 'db' }), { problems: [], health: 'HEALTHY' })
  await t.rejects(looker.call('status', { name: 'nodb' }), {
    name: 'PlexusError',
    kind: 'not-found',
  })
  t.match(await looker.call('target.list'), { targets: [{ auth: 'none', luns: 1, sessions: 0 }] })
  t.match(await looker.call('lun.list'), { luns: [{ lun: 0, volume: 'db', state: 'not ready' }] })
  t.match(await (await client(t, made.paths.control)).call('session.list'), { sessions: [] })
  t.match(await looker.call('geom.list'), { geoms: [{ className: 'disk', name: 'd1' }] })
  t.match(await looker.call('stat'), {
    providers: [{ name: 'd1', rank: 0, operations: { read: { operations: Number } } }],
  })
  await t.rejects(looker.call('stat', { name: 'd9' }), { name: 'PlexusError', kind: 'not-found' })
  t.match(await looker.call('names', { kind: 'device' }), { names: ['d1', 'd2'] })
  t.match(await looker.call('names', { kind: 'volume' }), { names: ['db'] })
  for (const kind of ['nonsense', 'constructor', '__proto__', 'toString']) {
    t.match(await looker.call('names', { kind }), { names: [] }, kind)
  }
})

t.test('the client knows a daemon from something else', async (t) => {
  const made = await rig(t)
  await t.rejects(RpcClient.connect(join(made.dir, 'nobody.sock')), {
    kind: 'gone',
    message: /systemctl start plexusd/,
  })
  const path = join(made.dir, 'other.sock')
  const other = createServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => socket.write('220 mail ready\n'))
  })
  await new Promise<void>((resolve) => other.listen(path, resolve))
  t.teardown(() => other.close())
  const confused = await client(t, path)
  await t.rejects(confused.call('status'), { name: 'PlexusError', kind: 'protocol' })
  const silentPath = join(made.dir, 'silent.sock')
  const silent = createServer((socket) => socket.on('error', () => {}))
  await new Promise<void>((resolve) => silent.listen(silentPath, resolve))
  t.teardown(() => silent.close())
  const patient = await client(t, silentPath)
  await t.rejects(patient.call('status', {}, { timeoutMs: 20 }), {
    name: 'PlexusError',
    kind: 'timeout',
  })
})
