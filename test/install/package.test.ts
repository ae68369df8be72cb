/**
 * The package: packed in a copy of the sources that was never built, and installed as an administrator does it, in a folder
 * of its own and without a network. What is installed must not need the clone, nor anything else beside it.
 */
import { type ExecFileException, execFile, spawn } from 'node:child_process'
import {
  cpSync,
  existsSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import t from 'tap'
import { plexusVersion } from '../../src/base/version.ts'
import { freePort } from '../support/daemon.ts'
import { ROOT } from '../support/root.ts'

const MADE = new Set(['.git', '.tap', 'node_modules', 'dist', 'build', 'var'])
const TIMEOUT_MS = 120_000

const dir = mkdtempSync(join(tmpdir(), 'plexus-package-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))
const clone = join(dir, 'clone')
const prefix = join(dir, 'prefix')
const installed = join(prefix, 'lib/node_modules/plexus')
const packageFile = join(clone, `plexus-${plexusVersion()}.tgz`)

interface Result {
  readonly exit: number
  readonly said: string
}

/** Without what npm tells the scripts that it runs, of which this test is one. */
const environment = Object.fromEntries(
  Object.entries(process.env).filter(([name]) => !/^(npm_|NODE_OPTIONS|TAP)/.test(name)),
)
const PATH = `${join(prefix, 'bin')}:${process.env['PATH']}`

function run(command: string, args: readonly string[], cwd = dir): Promise<Result> {
  const options = { cwd, env: { ...environment, PATH }, timeout: TIMEOUT_MS }
  return new Promise((resolve) => {
    execFile(command, args, options, (error: ExecFileException | null, out, err) => {
      resolve({ exit: error ? Number(error.code ?? -1) : 0, said: out + err })
    })
  })
}

t.test('npm pack builds', async (t) => {
  cpSync(ROOT, clone, { recursive: true, filter: (path) => !MADE.has(basename(path)) })
  const copied = await run('cp', ['-a', join(ROOT, 'node_modules/.'), join(clone, 'node_modules')])
  t.equal(copied.exit, 0, copied.said)
  const { exit, said } = await run('npm', ['pack', '--offline'], clone)
  t.equal(exit, 0, said)
  t.ok(existsSync(packageFile), said)
})

t.test('the package installs without a network, as a copy', async (t) => {
  const words = ['install', '--global', '--prefix', prefix, packageFile]
  const { exit, said } = await run('npm', [...words, '--offline', '--cache', join(dir, 'cache')])
  t.equal(exit, 0, said)
  t.notMatch(said, /script/, 'no remark on install scripts')
  t.ok(lstatSync(installed).isDirectory(), 'no link to the clone')
  rmSync(clone, { recursive: true })
})

t.test('it has what the unit and the documents name', async (t) => {
  const unit = readFileSync(join(installed, 'systemd/plexusd.service'), 'utf8')
  const named = [...unit.matchAll(/file:\/\/\/usr\/share\/doc\/plexus\/(\S+)/g)].map(
    ([, path]) => path,
  )
  t.ok(named.length > 0)
  const others = ['LICENSE', 'CHANGELOG.md', 'config/plexus.yaml', 'config/plexus.schema.json']
  const links = ['README.md', 'docs/install.md'].flatMap((page) => {
    const found = readFileSync(join(installed, page), 'utf8').matchAll(/\]\((?!https?:|#)([^)#]+)/g)
    return [...found].map(([, link]) => join(page, '..', link ?? ''))
  })
  t.ok(links.length > 10, `${links.length} links`)
  const absent = [...named, ...others, ...links].filter(
    (path) => !existsSync(join(installed, path ?? '')),
  )
  t.strictSame(absent, [])
})

t.test('its commands run, from the first start to the end', async (t) => {
  t.match(await run('plexusd', ['--version']), { exit: 0, said: `${plexusVersion()}\n` })
  t.match(await run('plexus', ['version']), { exit: 0, said: /^plexus \d/ })
  const work = join(dir, 'work')
  const config = join(work, 'plexus.yaml')
  mkdirSync(work)
  writeFileSync(
    config,
    `version: 1\nportals: [{ name: p, listen: ["127.0.0.1:${await freePort()}"] }]\n` +
      'state: { dir: ./state }\ncontrol: { dir: ./run }\n',
  )
  t.match(await run('plexus', ['config', 'check', config]), { exit: 0, said: /good/ })
  const daemon = spawn('plexusd', ['--config', config], {
    env: { ...environment, PATH },
    stdio: ['ignore', 'ignore', 'pipe'],
  })
  t.teardown(() => daemon.kill('SIGKILL'))
  const ended = new Promise((resolve) => daemon.once('exit', resolve))
  let log = ''
  await new Promise<void>((resolve) => {
    daemon.stderr.on('data', (chunk) => {
      log += chunk
      if (log.includes('"event":"ready"')) resolve()
    })
    daemon.once('exit', () => resolve())
  })
  const status = await run('plexus', ['status', '--socket', join(work, 'run')])
  t.equal(status.exit, 0, status.said + log)
  daemon.kill('SIGTERM')
  t.equal(await ended, 0, log)
})
