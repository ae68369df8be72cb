/** The program of `hooks.onEvent`: real scripts, time by hand, and one run under plexusd. src/daemon/event-hook.ts. */
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import {
  HOOK_END_MS,
  HOOK_EVENTS,
  HOOK_KILL_MS,
  HOOK_MS,
  HOOK_REST_MS,
  HOOK_TEXT_CHARS,
} from '../../src/base/limits.ts'
import { createLogger } from '../../src/base/log.ts'
import type { EventReport } from '../../src/control/reports.ts'
import { lookAtProgram } from '../../src/daemon/config-files.ts'
import { EventHook } from '../../src/daemon/event-hook.ts'
import { Daemon } from '../support/daemon.ts'
import { ManualClock } from '../support/manual-clock.ts'

const dir = mkdtempSync(join(tmpdir(), 'plexus-hook-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function script(name: string, lines: string, mode = 0o755): string {
  const path = join(dir, name)
  writeFileSync(path, lines)
  chmodSync(path, mode)
  return path
}

/** What a script has written to `name` so far, by lines. */
function linesOf(name: string): string[] {
  const path = join(dir, name)
  return existsSync(path) ? readFileSync(path, 'utf8').split('\n').slice(0, -1) : []
}

async function until(condition: () => boolean, what: string): Promise<void> {
  const end = Date.now() + 20_000
  while (!condition()) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

function rig(program: string) {
  const clock = new ManualClock()
  const log: string[] = []
  const hook = new EventHook({
    clock,
    log: createLogger('info', 'json', (line) => log.push(JSON.parse(line).msg)),
  })
  hook.use(program)
  let sequence = 0
  const tell = (part: Partial<EventReport> = {}): void => {
    const time = '2026-11-30T21:00:00.000Z'
    const event = { time, event: 'drive-down', severity: 'critical', object: 'd1', message: 'gone' }
    hook.tell({ ...event, sequence: ++sequence, ...part } as EventReport)
  }
  return { clock, log, hook, tell }
}

t.test('the program gets the event as it is, one at a time', async (t) => {
  const program = script(
    'told',
    `#!/bin/sh
printf '%s\\n' "$0" "$#" "$@" "$(pwd)" "$(cat)" >> ${dir}/told.out
env | grep -e ^PATH= -e ^PLEXUS_ -e ^NOTIFY_ | sort >> ${dir}/told.out
echo end >> ${dir}/told.out
`,
  )
  process.env['NOTIFY_SOCKET'] = '/of/plexusd'
  t.teardown(() => delete process.env['NOTIFY_SOCKET'])
  const { hook, log, tell } = rig(program)
  const object = `iqn.2026-11.x:$(touch ${dir}/shell) "'; *\u0000\n`
  const message = `two\nlines${'.'.repeat(HOOK_TEXT_CHARS)}`
  tell({ object, message })
  tell({ event: 'drive-up', severity: 'info', object: 'd2' })
  await hook.close()
  const environment = (text: string, number: number): string[] => [
    'PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin',
    'PLEXUS_MISSED=0',
    `PLEXUS_SEQUENCE=${number}`,
    `PLEXUS_TEXT=${text}`,
    'PLEXUS_TIME=2026-11-30T21:00:00.000Z',
    'end',
  ]
  const text = message.replace('\n', '\\u000a').slice(0, HOOK_TEXT_CHARS)
  t.strictSame(linesOf('told.out'), [
    ...[program, '3', 'drive-down', 'critical'],
    ...[`iqn.2026-11.x:$(touch ${dir}/shell) "'; *\\u0000\\u000a`, '/', ''],
    ...environment(text, 1),
    ...[program, '3', 'drive-up', 'info', 'd2', '/', ''],
    ...environment('gone', 2),
  ])
  t.notOk(existsSync(join(dir, 'shell')), 'no shell has read it')
  t.strictSame(log, [])
})

t.test('a program that hangs is ended, with all that it has started', async (t) => {
  const program = script(
    'hangs',
    `#!/bin/sh
trap 'echo told to end >> ${dir}/hangs.out' TERM
[ "$3" = d1 ] || { echo $3 >> ${dir}/hangs.out; exit; }
setsid sleep 60 &
echo $! > ${dir}/hangs.away
sh -c 'trap "" TERM; echo $$ > ${dir}/hangs.pid; while :; do sleep 0.1; done' &
while :; do wait; done
`,
  )
  const { clock, hook, log, tell } = rig(program)
  tell()
  tell({ object: 'd2' })
  await until(() => linesOf('hangs.pid').length > 0, 'the script runs')
  clock.advance(HOOK_MS - 1)
  t.strictSame(log, [])
  clock.advance(1)
  await until(() => linesOf('hangs.out').length > 0, 'SIGTERM')
  clock.advance(HOOK_KILL_MS)
  t.teardown(() => {
    try {
      process.kill(Number(linesOf('hangs.away')[0]))
    } catch {
      // On a busy machine it was ended before it had a session of its own.
    }
  })
  await hook.close()
  t.strictSame(linesOf('hangs.out'), ['told to end', 'd2'], 'the next event is told')
  t.strictSame(log, [
    `${program} drive-down critical d1 has run for 30 s, and is ended`,
    `${program} drive-down critical d1 ended by SIGKILL`,
  ])
  const child = `/proc/${linesOf('hangs.pid')[0]}/stat`
  const isGone = (): boolean => !existsSync(child) || / Z /.test(readFileSync(child, 'utf8'))
  await until(isGone, 'its child has ended')
})

t.test('what goes wrong is in the log, in bounded size', async (t) => {
  const said = async (program: string, events = 1): Promise<string[]> => {
    const { hook, log, tell } = rig(program)
    for (let count = 0; count < events; count++) tell()
    await hook.close()
    return log.map((line) => line.replaceAll(program, 'HOOK'))
  }
  const hook = (name: string, commands: string, mode?: number) =>
    said(script(name, `#!/bin/sh\n${commands}\n`, mode), 2)
  const twice = (line: string): string[] => [line, line]
  const title = 'HOOK drive-down critical d1'
  t.strictSame(await hook('silent', 'exit 0'), [])
  t.strictSame(await hook('talks', 'echo a; echo; echo b'), twice(`${title}: a | b`))
  const failed = `${title} ended with exit status 3: no route`
  t.strictSame(await hook('fails', 'echo no route >&2; exit 3'), twice(failed))
  t.strictSame(await hook('dies', 'kill -9 $$'), twice(`${title} ended by SIGKILL`))
  const [line = ''] = await hook('floods', 'yes | head -c 1000000')
  t.match(line, /y \| y …$/)
  t.ok(line.length < 3 * HOOK_TEXT_CHARS, `${line.length} characters`)
  t.match(await said(script('lost', '#!/no/such/shell\n')), [/could not be run: .*ENOENT; .*#!/])

  // These are no news after the first event.
  t.match(await hook('plain', 'exit 0', 0o644), [
    /^no event is told: HOOK is not executable; run: /,
  ])
  t.match(await said('/no/such/hook', 2), [/^no event is told: HOOK cannot be looked at: ENOENT/])
  const open = /^no event is told: other users than root may write to HOOK, .*; run: chown root/
  t.match(await hook('open', 'exit 0', 0o757), [open])
})

t.test('a program that others can replace is not run', async (t) => {
  const inside = (folder: string, mode: number): string => {
    mkdirSync(join(dir, folder))
    const program = script(`${folder}/hook`, '#!/bin/sh\n')
    chmodSync(join(dir, folder), mode)
    return program
  }
  const good = inside('good', 0o755)
  t.strictSame(lookAtProgram(good), { path: good, fault: undefined })
  t.match(lookAtProgram(inside('anybody', 0o777)).fault, /may write to .*\/anybody, /)
  t.equal(lookAtProgram(inside('sticky', 0o1777)).fault, undefined, 'as /tmp')
  const link = join(dir, 'link')
  symlinkSync(good, link)
  t.strictSame(lookAtProgram(link), { path: good, fault: undefined }, 'what is run has no links')
  t.match(lookAtProgram(dir).fault, /is not a file/)
})

t.test('of a flood, what does not fit is counted, and what matters is told', async (t) => {
  const program = script(
    'flood',
    `#!/bin/sh
echo "$2 $3 $PLEXUS_MISSED" >> ${dir}/flood.out
while [ ! -e ${dir}/flood.go ]; do sleep 0.01; done
`,
  )
  const { clock, hook, log, tell } = rig(program)
  tell({ object: 'first' })
  await until(() => linesOf('flood.out').length > 0, 'the first call')
  for (let at = 0; at < HOOK_EVENTS; at++) tell({ severity: 'info', object: `info-${at}` })
  t.strictSame(log, [])
  for (let at = 0; at < 1000; at++) tell({ severity: 'info', object: 'too-many' })
  tell({ object: 'last' })
  writeFileSync(join(dir, 'flood.go'), '')
  const rested = (): boolean => {
    clock.advance(HOOK_REST_MS)
    return log.length > 1
  }
  await until(rested, 'all are told')
  const told = linesOf('flood.out')
  t.strictSame(told.slice(0, 3), ['critical first 0', 'info info-1 1001', 'info info-2 0'])
  t.equal(told.at(-1), 'critical last 0', 'in place of the oldest that does not matter')
  t.equal(told.length, 1 + HOOK_EVENTS)
  t.strictSame(log, [
    `${program} does not keep up with the events: some are not told to it; plexus events has all of them`,
    'the hook has caught up; 1001 events were not told to it',
  ])
  tell({ object: 'later' })
  await hook.close()
  t.equal(linesOf('flood.out').at(-1), 'critical later 0')
})

t.test('the end of plexusd does not wait for the next call to be due', async (t) => {
  const program = script('rests', `#!/bin/sh\necho $3 >> ${dir}/rests.out\n`)
  const { hook, tell } = rig(program)
  tell({ object: 'a' })
  tell({ object: 'b' })
  await until(() => linesOf('rests.out').length > 0, 'the script has run')
  await new Promise((resolve) => setTimeout(resolve, 100))
  t.strictSame(linesOf('rests.out'), ['a'])
  await hook.close()
  t.strictSame(linesOf('rests.out'), ['a', 'b'])
})

t.test('the end of plexusd waits for it a short time', async (t) => {
  const program = script('stays', `#!/bin/sh\necho $3 >> ${dir}/stays.out\nexec sleep 60\n`)
  const { clock, hook, log, tell } = rig(program)
  for (const object of ['a', 'b', 'c']) tell({ object })
  await until(() => linesOf('stays.out').length > 0, 'the script runs')
  const closed = hook.close()
  clock.advance(HOOK_END_MS)
  await closed
  tell({ object: 'd' })
  t.strictSame(linesOf('stays.out'), ['a'])
  t.strictSame(log, [
    `plexusd ends: ${program} is not told of 2 events`,
    `${program} drive-down critical a ended by SIGTERM`,
  ])
})

t.test('plexusd tells its events, and a reload takes another program', async (t) => {
  const notes = (name: string): string =>
    script(
      name,
      `#!/bin/sh
echo "$1 $2 $3: $PLEXUS_TEXT" >> ${dir}/${name}.out
echo $(for file in /proc/$$/fd/*; do readlink $file; done) >> ${dir}/${name}.files
`,
    )
  const image = (name: string): string => {
    writeFileSync(join(dir, name), '')
    truncateSync(join(dir, name), 24 * 2 ** 20)
    return join(dir, name)
  }
  const devices = { d1: image('d1.img'), d2: image('d2.img') }
  const daemon = await Daemon.start({
    config: { devices, targets: [], hooks: { onEvent: notes('hook1') } },
  })
  t.teardown(() => daemon.stop())
  const create = ['volume', 'create', 'db', '--mirror', 'd1', 'd2', '--wait']
  t.match(await daemon.plexus(create), { exit: 0 })
  const created = 'volume-create info db: write label on d1; '
  await until(() => linesOf('hook1.out').some((line) => line.startsWith(created)), created)
  t.match(linesOf('hook1.out')[0], /^started info plexusd: plexusd .* has started$/)
  t.notMatch(linesOf('hook1.files').join(), /\.img|anon_inode/, 'it holds no disk and no ring')
  t.match(linesOf('hook1.files')[0], /^\/dev\/null /)

  daemon.configure({ devices, targets: [], hooks: { onEvent: notes('hook2') } })
  const change = `change hook onEvent: "${dir}/hook1" -> "${dir}/hook2"`
  const applied = await daemon.plexus(['config', 'apply'])
  t.match(applied, { exit: 0, out: change })
  truncateSync(devices.d1, 0)
  await until(
    () => linesOf('hook2.out').some((line) => /^volume-state warning db: .*DEGRADED/.test(line)),
    'a lost disk is told',
  )
  t.equal(await daemon.stop(), 0)
  t.match(linesOf('hook2.out').at(-1), /^stopping info plexusd/)
  t.strictSame(
    daemon.log.filter((line) => line.includes('"part":"hook"')),
    [],
  )
})

t.test('a program that hangs does not keep plexusd from its end', async (t) => {
  const program = script(
    'stuck',
    `#!/bin/sh\ntrap '' TERM\necho $$ >> ${dir}/stuck.pid\nwhile :; do sleep 0.1; done\n`,
  )
  const daemon = await Daemon.start({
    config: { devices: {}, targets: [], hooks: { onEvent: program } },
  })
  t.teardown(() => daemon.stop())
  await until(() => linesOf('stuck.pid').length > 0, 'the script runs')
  t.equal(await daemon.stop(), 0)
  t.match(
    daemon.log.filter((line) => line.includes('"part":"hook"')),
    [/is not told of 1 events/, /started info plexusd ended by SIGKILL/],
  )
  t.notOk(existsSync(`/proc/${linesOf('stuck.pid')[0]}`))
})
