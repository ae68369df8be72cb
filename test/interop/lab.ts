/**
 * `npm run lab [SCENARIO ...]`: plexusd against a real Linux kernel with open-iscsi. Each script in lab/ is
 * one scenario; it runs in a kernel of its own, which the lab tools boot as a process in a network
 * namespace, while lab-host.ts serves the target. The tools' directory is PLEXUS_LAB_TOOLS, by default
 * ../shared/lab beside the repository; where it is absent the run is one counted skip. Needs root.
 */
import { spawn } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const SCENARIO_TIMEOUT_S = 120
/** The scripts are not compiled: they are read from the sources, two levels above build/test/interop. */
const here = dirname(fileURLToPath(import.meta.url))
const repository = resolve(here, '../../..')
const scripts = join(repository, 'test/interop/lab')
const tools = process.env['PLEXUS_LAB_TOOLS'] ?? resolve(repository, '../shared/lab')

interface Outcome {
  readonly name: string
  readonly passed: boolean
  readonly checks: number
  readonly seconds: number
}

/** `# host: key=value ...` lines of a script are settings for lab-host.ts. */
function settingsOf(script: string): Record<string, string> {
  const settings: Record<string, string> = {}
  for (const [, line = ''] of readFileSync(script, 'utf8').matchAll(/^# host: (.*)$/gm)) {
    for (const pair of line.split(/\s+/)) {
      const [key = '', value = ''] = pair.split('=')
      settings[key] = value
    }
  }
  return settings
}

async function runScenario(name: string): Promise<Outcome> {
  const share = mkdtempSync(join(tmpdir(), 'plexus-lab-share-'))
  const script = `${name}.sh`
  copyFileSync(join(scripts, 'lib.sh'), join(share, 'lib.sh'))
  copyFileSync(join(scripts, script), join(share, script))
  for (const directory of ['ask', 'done']) mkdirSync(join(share, directory))
  const host = [process.execPath, join(here, 'lab-host.js'), share]
  const settings = JSON.stringify(settingsOf(join(scripts, script)))
  const started = Date.now()
  const child = spawn(
    join(tools, 'run'),
    ['-t', String(SCENARIO_TIMEOUT_S), share, script, ...host, settings],
    { stdio: ['ignore', 'pipe', 'pipe'], env: { ...process.env, HOST_START_S: '0.2' } },
  )
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      output += chunk
    })
  }
  const code = await new Promise<number>((done) => {
    child.once('error', (error) => {
      output += error
      done(127)
    })
    child.once('close', (status) => done(status ?? 1))
  })
  const outcome = {
    name,
    passed: code === 0,
    checks: output.match(/^ok: /gm)?.length ?? 0,
    seconds: (Date.now() - started) / 1000,
  }
  if (!outcome.passed || process.env['PLEXUS_LAB_VERBOSE']) {
    console.log(output)
    const hostLog = join(share, 'host.log')
    if (existsSync(hostLog)) {
      console.log(
        `--- last lines of plexusd:\n${readFileSync(hostLog, 'utf8').split('\n').slice(-30).join('\n')}`,
      )
    }
  }
  rmSync(share, { recursive: true, force: true })
  return outcome
}

const asked = process.argv.slice(2)
const known = readdirSync(scripts)
  .filter((file) => file.endsWith('.sh') && file !== 'lib.sh')
  .map((file) => file.slice(0, -3))
const unknown = asked.filter((name) => !known.includes(name))
if (unknown.length > 0) {
  console.error(`no scenario ${unknown.join(', ')}; there are: ${known.join(', ')}`)
  process.exit(2)
}
if (!existsSync(join(tools, 'run'))) {
  console.log(`skipped: no lab tools in ${tools} (PLEXUS_LAB_TOOLS names another directory)`)
  console.log(`lab: 0 passed, 0 failed, ${known.length} skipped`)
  process.exit(0)
}
const outcomes: Outcome[] = []
for (const name of asked.length > 0 ? asked : known) {
  const outcome = await runScenario(name)
  outcomes.push(outcome)
  const verdict = outcome.passed ? 'passed' : 'FAILED'
  console.log(
    `${verdict}  ${name.padEnd(14)} ${String(outcome.checks).padStart(3)} checks  ${outcome.seconds.toFixed(1)} s`,
  )
}
const failed = outcomes.filter((outcome) => !outcome.passed)
console.log(`lab: ${outcomes.length - failed.length} passed, ${failed.length} failed, 0 skipped`)
process.exit(failed.length > 0 ? 1 : 0)
