/** systemd/plexusd.service: what its commands do, run as systemd would run them, and what systemd says of the file. */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Daemon } from '../support/daemon.ts'
import { ROOT } from '../support/root.ts'

const UNIT = join(ROOT, 'systemd/plexusd.service')
/** Points of 100 that systemd-analyze(1) gives a service for what it may do: this one opens raw disks as root. */
const EXPOSURE_MAX = 47

const dir = mkdtempSync(join(tmpdir(), 'plexus-unit-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

/** The words of a setting that the unit has once. */
function setting(name: string): readonly string[] {
  const lines = readFileSync(UNIT, 'utf8').split('\n')
  const found = lines.filter((line) => line.startsWith(`${name}=`))
  if (found.length !== 1) throw new Error(`${found.length} lines ${name}=`)
  return found[0]?.slice(name.length + 1).split(' ') ?? []
}

t.test('a reload with a wrong file fails and says why', async (t) => {
  const daemon = await Daemon.start({ config: { devices: {}, targets: [] } })
  t.teardown(() => daemon.stop())
  const [env, program, ...words] = setting('ExecReload')
  t.same([env, program], ['/usr/bin/env', 'plexus'])
  t.match(await daemon.plexus(words), { exit: 0 })
  writeFileSync(daemon.configPath, 'version: 1\nportal: []\n')
  t.match(await daemon.plexus(words), { exit: 2, err: /:2:1: unknown key "portal"/ })
  t.match(await daemon.plexus(['version']), { exit: 0 })
  t.ok(daemon.running, 'the old configuration runs on')
})

t.test('a start that cannot work is not repeated', async (t) => {
  const [command = '', ...words] = setting('ExecStart')
  const never = setting('RestartPreventExitStatus').map(Number)
  const statusWith = (folder: string): number | null =>
    spawnSync(command, words, { env: { PATH: join(dir, folder) } }).status
  const program = (folder: string, mode: number): void => {
    mkdirSync(join(dir, folder))
    writeFileSync(join(dir, folder, 'plexusd'), '#!/usr/bin/env node\n')
    chmodSync(join(dir, folder, 'plexusd'), mode)
  }
  program('no-node', 0o755)
  program('no-permission', 0o644)
  const statuses = ['no-plexusd', 'no-node', 'no-permission'].map(statusWith)
  t.same(statuses, [127, 127, 126])
  t.same(
    statuses.filter((status) => !never.includes(status ?? 0)),
    [],
  )
  t.ok(never.includes(2), 'nor with a wrong configuration')
})

const analyze = (...words: string[]) =>
  spawnSync('systemd-analyze', words, { encoding: 'utf8', env: { ...process.env, LC_ALL: 'C' } })
const skip = analyze('--version').status === 0 ? false : 'systemd-analyze is not installed'

t.test('systemd finds nothing wrong with the unit', { skip }, async (t) => {
  t.match(analyze('verify', '--man=no', UNIT), { status: 0, stderr: '' })
})

t.test('the sandbox stays as tight as it is', { skip }, async (t) => {
  const { status, stdout } = analyze(
    'security',
    '--offline=yes',
    '--no-pager',
    `--threshold=${EXPOSURE_MAX}`,
    UNIT,
  )
  t.equal(status, 0, stdout)
  t.match(stdout, /Overall exposure level/)
})
