/** The command line against a control server in this process: exit codes, questions, files, completion, reference. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type ErrorKind, PlexusError } from '../../src/base/errors.ts'
import { COMPLETION_SCRIPTS } from '../../src/cli/completion.ts'
import { VINUM_VERB_SPECS } from '../../src/control/vinum-verbs.ts'
import { VOLUME_VERB_SPECS } from '../../src/control/volume-verbs.ts'
import { aJob, aVolume, ControlRig, runTerminal, TestTerminal } from '../support/control.ts'
import { ROOT } from '../support/root.ts'

async function rig(t: Test): Promise<ControlRig> {
  const made = await new ControlRig([...VOLUME_VERB_SPECS, ...VINUM_VERB_SPECS]).start()
  t.teardown(() => made.stop())
  made.fake.objects = [aVolume()]
  return made
}

t.test('what is typed becomes the parameters of the verb', async (t) => {
  const made = await rig(t)
  const words =
    'volume create db --raid5 d1 d2 d3 --stripe-size 64KiB --parity left-symmetric --wipe-signatures --dry-run'
  made.fake.answer = {
    steps: [{ text: 'create volume db', object: 'db' }],
    warnings: ['w'],
    jobs: [],
  }
  const { exit, out, err } = await made.cli(words.split(' '))
  t.equal(exit, 0)
  t.equal(out, '  would create volume db\n')
  t.equal(err, '  warning: w\n')
  t.same(made.fake.calls[0], {
    name: 'volume.create',
    parameters: {
      name: 'db',
      raid5: ['d1', 'd2', 'd3'],
      stripeSize: '64KiB',
      parity: 'left-symmetric',
      wipeSignatures: true,
      dryRun: true,
    },
  })
  await made.cli(['vinum', 'mv', 'd4', 'db.p0.s0', 'db.p0.s1', '-f'])
  t.same(made.fake.calls[1], {
    name: 'vinum.move',
    parameters: { drive: 'd4', subdisks: ['db.p0.s0', 'db.p0.s1'], force: true },
  })
  const terminal = new TestTerminal()
  terminal.files.set('/tmp/my.conf', 'drive d1 device d1\n')
  await made.cli(['vinum', 'create', '/tmp/my.conf'], terminal)
  t.same(made.fake.calls[2]?.parameters, { file: 'drive d1 device d1\n' }, 'the text, not the name')
  t.match(await made.cli(['vinum', 'create', 'nofile']), { exit: 4, err: /nofile cannot be read/ })
})

t.test('nothing that the daemon says reaches the terminal raw', async (t) => {
  const made = await rig(t)
  // ESC, and CSI in one character, as a label on a disk may have them.
  const evil = 'db\u001b[2J\u009b31m'
  const job = aJob({ id: 'j1', object: evil, parent: evil, state: 'failed', error: evil })
  made.fake.objects = [aVolume({ name: evil, note: evil, status: evil, process: job })]
  made.fake.answer = {
    dryRun: false,
    steps: [{ text: evil, object: evil }],
    warnings: [evil],
    jobs: [job],
  }
  made.topology.events.emit('warning', 'drive-down', evil, evil)
  made.units = [
    {
      name: evil,
      ready: false,
      reason: evil,
      action: evil,
      identity: { naa: Buffer.alloc(16), serial: evil },
    },
  ]
  // biome-ignore lint/suspicious/noControlCharactersInRegex: they are what must not be there
  const raw = /[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/
  for (const command of [
    'status',
    'tree',
    'events',
    'volume create db --concat d1',
    'volume list',
    'lun list',
  ]) {
    const { out, err } = await made.cli(command.split(' '))
    t.notMatch(out + err, raw, command)
    t.match(out + err, /\S/)
  }
  const json = (await made.cli(['status', '--json'])).out
  t.notMatch(json, raw, 'JSON escapes it')
  t.equal(JSON.parse(json).objects[0].name, evil, 'and loses nothing')
})

t.test('exit codes', async (t) => {
  const made = await rig(t)
  const kinds: [ErrorKind, number][] = [
    ['invalid', 2],
    ['not-found', 4],
    ['in-use', 5],
    ['foreign', 5],
    ['exists', 5],
    ['permission', 6],
    ['timeout', 7],
    ['io', 1],
  ]
  for (const [kind, exit] of kinds) {
    made.fake.error = new PlexusError(kind, { op: 'grow', subject: 'db', message: `it is ${kind}` })
    const result = await made.cli(['volume', 'grow', 'db', 'd4'])
    t.same(result, { exit, out: '', err: `it is ${kind}\n` }, kind)
  }
  const verbose = await made.cli(['volume', 'grow', 'db', 'd4', '-v'])
  t.equal(verbose.err, 'it is io [io, grow, db]\n')
  made.fake.error = undefined

  const usage: string[][] = [
    ['volume', 'add-mirror', 'db'],
    ['volume', 'grwo', 'db'],
    ['volume', 'create', 'db', '--partiy', 'x'],
    ['vinum', 'setstate', 'sideways', 'db'],
    ['stat', '--count', '0'],
    ['device', 'list', '-o', 'nonsense'],
  ]
  for (const words of usage) t.match(await made.cli(words), { exit: 2, err: /./ }, words.join(' '))
  t.match(await runTerminal([], new TestTerminal()), { exit: 2 })
  t.match(await runTerminal(['--help'], new TestTerminal()), { exit: 0, out: /Usage: plexus/ })
  t.match(await runTerminal(['version'], new TestTerminal()), { exit: 0, out: /^plexus \d/ })
  const nobody = await runTerminal(['status', '--socket', '/nonexistent'], new TestTerminal())
  t.match(nobody, { exit: 3, out: '', err: /plexusd cannot be reached at \/nonexistent/ })
})

t.test('status, its exit code, JSON that begins with the version', async (t) => {
  const made = await rig(t)
  t.match(await made.cli(['status']), { exit: 0, out: /volume: db +state: UP {3}5.46 TiB/ })
  t.equal((await made.cli(['status', '--check'])).exit, 11, 'd2 is missing, the LUN leads nowhere')
  t.equal((await made.cli(['status', 'db', '--check'])).exit, 0)
  made.fake.objects = [aVolume({ health: 'DEGRADED', state: 'DEGRADED' })]
  t.equal((await made.cli(['status', 'db', '--check'])).exit, 10)
  t.match(await made.cli(['status', 'nodb']), { exit: 4, out: '', err: /no object "nodb"/ })
  const { out } = await made.cli(['status', '--json'])
  t.match(out, /^\{\n {2}"outputVersion": \{\n {4}"command": "status",\n {4}"major": 1,/)
  t.match(JSON.parse(out), { objects: [{ name: 'db', sizeBytes: 6001196802048 }] })
  t.match(await made.cli(['tree']), { exit: 0, out: /d1 ── disk\n {2}d2 ── missing: no such file/ })
  t.match(await made.cli(['stat', 'd1', '-I', '1ms']), { exit: 0, out: /^NAME +QUEUE/ })
  t.match(await made.cli(['device', 'list', '-o', 'name,reason', '--no-headings']), {
    out: 'd1\t-\nd2\tno such file\n',
  })
  t.match(await made.cli(['device', 'show', 'd1']), { out: / path: +\/dev\/d1\n/ })
  t.match(await made.cli(['config', 'dump']), { out: readFileSync(made.configFile, 'utf8') })
  t.match(await made.cli(['config', 'diff']), { out: `  ${made.configFile} is what runs\n` })
  t.match(await made.cli(['session', 'list']), { out: '  nobody is logged in\n' })
})

t.test('what overwrites foreign data asks for the device, or wants --yes', async (t) => {
  const made = await rig(t)
  const words = ['volume', 'create', 'db', '--concat', 'd1', '--wipe-signatures']
  made.fake.answer = {
    dryRun: false,
    steps: [{ text: 'write label on d1 (/dev/d1, overwrites ext4 "home")', object: 'd1' }],
    warnings: [],
    wipes: [{ text: 'ext4 "home" on d1 (/dev/d1)', object: 'd1' }],
    jobs: [],
  }
  const ran = (): number =>
    made.fake.calls.filter(({ parameters }) => parameters['dryRun'] !== true).length
  t.match(await made.cli(words), {
    exit: 2,
    err: /overwrites ext4 "home" on d1 .* repeat with --yes/,
  })
  t.match(await made.cli(words, new TestTerminal(['db'])), { exit: 1, err: /that is not "d1"/ })
  t.equal(ran(), 0)
  t.match(await made.cli(words, new TestTerminal(['d1'])), { exit: 0 })
  t.match(await made.cli([...words, '--yes']), { exit: 0 })
  t.equal(ran(), 2)
  made.fake.answer = { ...made.fake.answer, wipes: [] }
  t.match(await made.cli(words), { exit: 0 }, 'a blank device: no question')
})

t.test('what destroys asks for the name, or wants --yes', async (t) => {
  const made = await rig(t)
  made.fake.answer = {
    dryRun: false,
    steps: [{ text: 'remove db', object: 'db' }],
    warnings: [],
    jobs: [],
  }
  const silent = await made.cli(['volume', 'destroy', 'db'])
  t.equal(silent.exit, 2)
  t.match(silent.err, 'to do it: plexus volume destroy db --yes')
  t.same(made.fake.calls, [], 'the daemon was not asked')

  const wrong = new TestTerminal(['no'])
  t.match(await made.cli(['volume', 'destroy', 'db'], wrong), {
    exit: 1,
    err: /nothing was changed/,
  })
  t.same(wrong.questions, ['  To go on, type db: '])
  t.match(wrong.errText, '  would remove db\n', 'the plan is shown before the question')
  t.ok(made.fake.calls.every(({ parameters }) => parameters['dryRun'] === true))

  made.fake.calls.length = 0
  const right = new TestTerminal(['db'])
  t.match(await made.cli(['volume', 'destroy', 'db'], right), { exit: 0, out: '  remove db\n' })
  t.same(made.fake.calls.at(-1)?.parameters, { name: 'db' })

  made.fake.calls.length = 0
  t.match(await made.cli(['volume', 'destroy', 'db', '--yes']), { exit: 0 })
  t.same(made.fake.calls, [{ name: 'volume.destroy', parameters: { name: 'db' } }])
  t.match(await made.cli(['volume', 'destroy', 'db', '--dry-run']), { exit: 0 }, 'no question')

  const several = new TestTerminal(['db.p0.s1'])
  await made.cli(['vinum', 'rm', 'db.p0.s0', 'db.p0.s1'], several)
  t.same(several.questions, ['  To go on, type db.p0.s0 db.p0.s1: '])
  const all = new TestTerminal(['resetconfig'])
  t.match(await made.cli(['vinum', 'resetconfig'], all), { exit: 0 })
  const plex = new TestTerminal([''])
  await made.cli(['volume', 'remove-mirror', 'db', 'db.p1'], plex)
  t.same(plex.questions, ['  To go on, type db.p1: '])
})

t.test('--wait and wait follow jobs to their end', async (t) => {
  const made = await rig(t)
  const gates: (() => void)[] = []
  const start = (id: string, fails: boolean): void => {
    const gate = new Promise<void>((resolve) => gates.push(resolve))
    made.topology.jobs.start({
      id,
      kind: 'rebuild',
      object: 'db.p0',
      parent: 'db',
      totalBytes: 1024,
      startBytes: 0,
      async step() {
        await gate
        if (fails) throw new PlexusError('io', { op: 'read', subject: 'd1', message: 'd1 failed' })
        return 1024
      },
      async checkpoint() {},
      async finish() {},
      async abandon() {},
    })
  }
  start('j1', false)
  const late = await made.cli(['wait', 'db', '--for', 'rebuild', '--timeout', '1ms'])
  t.match(late, { exit: 7, err: /still run/ })
  t.match(await made.cli(['wait', 'db', '--now']), { exit: 7 })
  const terminal = new TestTerminal()
  const waiting = made.cli(['wait', 'db'], terminal)
  await terminal.rested
  gates[0]?.()
  t.match(await waiting, { exit: 0, err: 'rebuild of db.p0 is done\n' })
  t.match(await made.cli(['wait', 'db']), { exit: 0, err: '' }, 'nothing runs')
  t.match(await made.cli(['wait', 'nodb']), { exit: 4 })

  start('j2', true)
  made.fake.answer = { dryRun: false, steps: [], warnings: [], jobs: [aJob({ id: 'j2' })] }
  const other = new TestTerminal()
  const growing = made.cli(['volume', 'grow', 'db', 'd4', '--wait'], other)
  await other.rested
  gates[1]?.()
  t.match(await growing, { exit: 1, err: /rebuild of db.p0 failed: d1 failed/ })
})

t.test('events follow from what was, without a gap or a double', async (t) => {
  const made = await rig(t)
  const { events } = made.topology
  events.emit('info', 'one', 'a', 'First')
  t.match(await made.cli(['events']), { out: /SEVERITY.*\n.*one +a +First\n$/ })
  t.match(await made.cli(['events', '--json']), { out: /"outputVersion"/ })
  const terminal = new TestTerminal()
  const following = made.cli(['events', '--follow', '--since', '1h', '--json'], terminal)
  const lines = (): string[] => terminal.outText.split('\n').filter((line) => line !== '')
  const until = async (count: number): Promise<void> => {
    for (let n = 0; lines().length < count && n < 1000; n++) {
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }
  await until(1)
  events.emit('critical', 'two', 'b', 'Second')
  await until(2)
  t.same(
    lines().map((line) => JSON.parse(line).event),
    ['one', 'two'],
  )
  terminal.interrupted = true
  await made.server.close()
  await t.rejects(following, /interrupted/)
})

t.test('completion', async (t) => {
  const made = await rig(t)
  const offers = async (...words: string[]): Promise<string[]> => {
    const result = await runTerminal(
      ['__complete', '--socket', made.dir, '--', ...words],
      new TestTerminal(),
    )
    t.equal(result.exit, 0)
    return result.out.split('\n').flatMap((line) => line.split('\t')[0] || [])
  }
  t.match(await offers(''), ['status', 'tree', 'stat'])
  t.same(await offers('vol'), ['volume'])
  t.same(await offers('volume', 're'), ['rename', 'replace', 'remove-mirror'])
  t.same(await offers('volume', 'destroy', ''), ['db'], 'names come from the daemon')
  t.same(await offers('volume', 'grow', 'db', 'd2', 'd'), ['d1', 'd2'], 'the last one repeats')
  t.same(await offers('volume', 'create', 'x', '--raid5', 'd1', ''), ['d1', 'd2'])
  t.same(await offers('volume', 'create', 'x', '--parity', ''), [
    'left-symmetric',
    'left-asymmetric',
  ])
  t.same(await offers('vinum', 'setstate', 'd'), ['down', 'degraded'])
  t.same(await offers('vinum', 'create', ''), [':files'])
  t.same(await offers('completion', ''), ['bash', 'zsh', 'fish'])
  t.match(await offers('wait', 'db', '--f'), ['--for'])
  t.same(await offers('wait', 'db', '--for', 'reb'), ['rebuild', 'rebalance'])
  t.notMatch(await offers(''), ['__complete'])
  const alone = await runTerminal(
    ['__complete', '--socket', '/nonexistent', '--', 'volume', 'destroy', ''],
    new TestTerminal(),
  )
  t.same(alone, { exit: 0, out: '', err: '' }, 'without a daemon: nothing, and no noise')

  for (const [shell, script] of Object.entries(COMPLETION_SCRIPTS)) {
    const { out } = await runTerminal(['completion', shell], new TestTerminal())
    t.equal(out, script)
  }
})

t.test('the reference in docs is what plexus man prints', async (t) => {
  const { out } = await runTerminal(['man'], new TestTerminal())
  const file = join(ROOT, 'docs/cli-reference.md')
  t.equal(readFileSync(file, 'utf8'), out, 'run npm run docs')
})
