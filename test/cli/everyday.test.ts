/** What holds for all commands: columns, JSON, a daemon that hangs or is started again, the width of a terminal. */
import { mkdtempSync, rmSync } from 'node:fs'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { ALL_VERB_SPECS } from '../../src/control/all-verbs.ts'
import { commandName } from '../../src/control/daemon-verbs.ts'
import { NOP_VERB_SPECS } from '../../src/control/nop-verbs.ts'
import { socketPaths } from '../../src/control/protocol.ts'
import { VINUM_VERB_SPECS } from '../../src/control/vinum-verbs.ts'
import { VIRSTOR_VERB_SPECS } from '../../src/control/virstor-verbs.ts'
import { VOLUME_VERB_SPECS } from '../../src/control/volume-verbs.ts'
import { aVolume, ControlRig, runTerminal, TestTerminal, VOLUME_TYPE } from '../support/control.ts'

async function rig(t: Test): Promise<ControlRig> {
  const specs = [
    ...VOLUME_VERB_SPECS,
    ...VINUM_VERB_SPECS,
    ...VIRSTOR_VERB_SPECS,
    ...NOP_VERB_SPECS,
  ]
  const made = await new ControlRig(specs).start()
  t.teardown(() => made.stop())
  made.fake.objects = [aVolume()]
  return made
}

async function until(reached: () => boolean): Promise<void> {
  for (let n = 0; !reached() && n < 2000; n++)
    await new Promise((resolve) => setTimeout(resolve, 5))
}

t.test('a column that is not there is refused by every view', async (t) => {
  const made = await rig(t)
  made.fake.answer = { types: [VOLUME_TYPE], objects: [] }
  const views = ALL_VERB_SPECS.filter(({ readOnly, name }) => readOnly && name !== 'names')
  for (const spec of views) {
    const name = commandName(spec)
      .replace('events list', 'events')
      .replace('events follow', 'events')
    const words = spec.arguments.filter(({ optional }) => !optional).map(() => 'd1')
    for (const option of ['-o', '--sort']) {
      const { exit, err } = await made.cli([...name.split(' '), ...words, option, 'nonsense'])
      t.equal(exit, 2, `${name} ${option}`)
      t.match(err, /there is no column "nonsense"|unknown option/)
    }
  }
  made.fake.answer = { types: [VOLUME_TYPE, { ...VOLUME_TYPE, name: 'plex' }], objects: [] }
  const recursive = await made.cli(['vinum', 'lv', '-r', '-o', 'volume'])
  t.match(recursive, { exit: 2, err: /-o and --sort.*without -r/ })
  const near = await made.cli(['device', 'list', '-o', 'nmae'])
  t.match(near, { exit: 2, err: /did you mean "name"/ })
  t.match(await made.cli(['device', 'list', '--json', '-o', 'name']), { exit: 2 }, 'JSON has all')
  made.fake.answer = { types: [VOLUME_TYPE], objects: [] }
  t.match(await made.cli(['nop', 'list']), { exit: 0, out: /there are no volumes/ })
})

t.test('with --json every answer is JSON with its version, errors, too', async (t) => {
  const made = await rig(t)
  const waited = await made.cli(['wait', 'db', '--json'])
  t.match(JSON.parse(waited.out), { outputVersion: { command: 'wait', major: 1 }, jobs: [] })
  const missing = await made.cli(['status', 'nodb', '--json'])
  t.equal(missing.exit, 4)
  t.equal(missing.out, '')
  t.match(JSON.parse(missing.err), {
    outputVersion: { command: 'status', major: 1 },
    error: { kind: 'not-found', op: 'status', subject: 'nodb', message: /no object "nodb"/ },
  })
  const usage = await made.cli(['volume', 'grow', '--json'])
  t.equal(usage.exit, 2)
  t.match(JSON.parse(usage.err), { error: { kind: 'invalid', message: /missing required/ } })
})

t.test('stat fits a terminal of 80 columns', async (t) => {
  const made = await rig(t)
  const { out } = await made.cli(['stat', '-I', '1ms', '-c', '1'])
  // The widest values that are usual, beside the name.
  const heading = out.split('\n')[0] ?? ''
  t.ok(heading.length <= 64, `${heading.length}: ${heading}`)
  t.notMatch(heading, /CLASS/)
  t.match(await made.cli(['stat', '-v', '-I', '1ms', '-c', '1']), { out: /CLASS.*R99-MS/ })
})

t.test('a daemon that hangs: what only looks gives up after seconds', async (t) => {
  const dir = mkdtempSync(join(tmpdir(), 'plexus-hung-'))
  const sockets: Socket[] = []
  const server = createServer((socket) => {
    sockets.push(socket)
    socket.on('error', () => {})
  })
  await new Promise<void>((resolve) => server.listen(socketPaths(dir).control, () => resolve()))
  t.teardown(() => {
    for (const socket of sockets) socket.destroy()
    server.close()
    rmSync(dir, { recursive: true, force: true })
  })
  const began = performance.now()
  const views = ['status', 'tree', 'stat', 'lun list', 'volume list', 'events', 'config dump']
  await Promise.all(
    views.map(async (words) => {
      const args = [...words.split(' '), '--socket', dir]
      const { exit, err } = await runTerminal(args, new TestTerminal())
      t.equal(exit, 7, words)
      t.match(err, /plexusd has not answered within 5 s.*journalctl -u plexusd/)
    }),
  )
  t.ok(performance.now() - began < 10_000)
})

t.test('what follows goes on when the daemon is started again', async (t) => {
  const made = await rig(t)
  const commands: readonly (readonly [string, RegExp])[] = [
    ['status --watch', /volume: db/g],
    ['stat -c 100000', /NAME/g],
  ]
  for (const [words, sign] of commands) {
    const terminal = new TestTerminal()
    const running = made.cli(words.split(' '), terminal)
    const shown = (): number => terminal.outText.match(sign)?.length ?? 0
    await until(() => shown() > 0)
    await made.restart()
    const before = shown()
    await until(() => shown() > before + 1)
    t.ok(shown() > before + 1, `${words}: ${terminal.errText}`)
    t.equal(terminal.errText.match(/waiting for plexusd/g)?.length, 1, 'says so once')
    terminal.interrupted = true
    await t.rejects(running, /interrupted/)
  }
})

t.test('wait goes on when the daemon is started again', async (t) => {
  const made = await rig(t)
  let end = (): void => {}
  const gate = new Promise<void>((resolve) => {
    end = resolve
  })
  made.topology.jobs.start({
    id: 'j1',
    kind: 'rebuild',
    object: 'db.p0',
    parent: 'db',
    totalBytes: 1024,
    startBytes: 0,
    async step() {
      await gate
      return 1024
    },
    async checkpoint() {},
    async finish() {},
    async abandon() {},
  })
  const terminal = new TestTerminal()
  const waiting = made.cli(['wait', 'db'], terminal)
  await terminal.rested
  await made.restart()
  await until(() => /waiting for plexusd/.test(terminal.errText))
  end()
  t.match(await waiting, { exit: 0, err: /rebuild of db.p0 is done\n$/ })
})

t.test('events follow over a start of the daemon without a gap', async (t) => {
  const made = await rig(t)
  const { events } = made.topology
  const terminal = new TestTerminal()
  const words = ['events', '--follow', '--since', '1h', '--no-headings', '-o', 'event']
  const following = made.cli(words, terminal)
  events.emit('info', 'one', 'a', 'First')
  await until(() => terminal.outText !== '')
  await made.server.close()
  events.emit('info', 'two', 'a', 'While nobody could see it')
  await made.restart()
  await until(() => terminal.outText.includes('two'))
  events.emit('info', 'three', 'a', 'Third')
  await until(() => terminal.outText.includes('three'))
  t.equal(terminal.outText, 'one\ntwo\nthree\n')
  terminal.interrupted = true
  await made.server.close()
  await t.rejects(following, /interrupted/)
})
