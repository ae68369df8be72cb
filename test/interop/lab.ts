/**
 * `npm run lab [SCENARIO ...]`: plexusd against real Linux kernels with open-iscsi. Each script in lab/ is one scenario;
 * it runs in a kernel of its own, which vagrant/uml boots as a process in a network namespace, while lab-host.ts serves the
 * target. Where the lab cannot be set up the run is one counted skip. PLEXUS_LAB_VERBOSE shows what guests say.
 */
import { spawn, spawnSync } from 'node:child_process'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
} from 'node:fs'
import { availableParallelism, tmpdir } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { fileURLToPath } from 'node:url'

const SCENARIO_TIMEOUT_S = 180
/** At once: scenarios wait more than they compute, but they measure times, too. */
const SCENARIOS_AT_ONCE = Math.min(2, availableParallelism())
/** What vagrant/uml/setup ends with where there can be no lab. */
const NO_LAB = 3
/** The scripts are not compiled: they are read from the sources, two levels above build/test/interop. */
const here = dirname(fileURLToPath(import.meta.url))
const repository = resolve(here, '../../..')
const scripts = join(repository, 'test/interop/lab')
const uml = join(repository, 'vagrant/uml')

interface Outcome {
  readonly name: string
  readonly passed: boolean
  readonly checks: number
  readonly seconds: number
}

/** `# host: key=value ...` lines of a script are settings for lab-host.ts. */
function settingsOf(text: string): Record<string, string> {
  const settings: Record<string, string> = {}
  for (const [, line = ''] of text.matchAll(/^# host: (.*)$/gm)) {
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
  const text = readFileSync(join(scripts, script), 'utf8')
  const host = [process.execPath, join(here, 'lab-host.js'), share]
  // Both guests run the script, and find out by GUEST which of them they are.
  const guests = /^# guests: 2$/m.test(text) ? ['-2', script] : []
  const started = Date.now()
  const child = spawn(
    join(uml, 'run'),
    [
      '-t',
      String(SCENARIO_TIMEOUT_S),
      ...guests,
      share,
      script,
      ...host,
      JSON.stringify(settingsOf(text)),
    ],
    { stdio: ['ignore', 'pipe', 'pipe'] },
  )
  const interrupt = () => child.kill('SIGTERM')
  for (const signal of SIGNALS) process.on(signal, interrupt)
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
  for (const signal of SIGNALS) process.off(signal, interrupt)
  const outcome = {
    name,
    passed: code === 0,
    checks: output.match(/^(second: )?ok: /gm)?.length ?? 0,
    seconds: (Date.now() - started) / 1000,
  }
  if ((!outcome.passed && !interrupted) || process.env['PLEXUS_LAB_VERBOSE']) {
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

/** Each ends the scenario, which cleans up behind itself, and the run. */
const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
let interrupted = false
for (const signal of SIGNALS) {
  process.on(signal, () => {
    interrupted = true
  })
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
const chosen = asked.length > 0 ? asked : known
const setup = spawnSync(join(uml, 'setup'), { stdio: ['ignore', 'inherit', 'pipe'] })
if (setup.status !== 0) {
  console.log(setup.stderr.toString())
  const skipped = setup.status === NO_LAB
  console.log(`lab: 0 passed, ${skipped ? 0 : 1} failed, ${skipped ? chosen.length : 0} skipped`)
  process.exit(skipped ? 0 : 1)
}
const outcomes: Outcome[] = []
const waiting = [...chosen]
async function work(): Promise<void> {
  for (let name = waiting.shift(); name !== undefined && !interrupted; name = waiting.shift()) {
    const outcome = await runScenario(name)
    if (interrupted) return
    outcomes.push(outcome)
    const verdict = outcome.passed ? 'passed' : 'FAILED'
    console.log(
      `${verdict}  ${name.padEnd(14)} ${String(outcome.checks).padStart(3)} checks  ${outcome.seconds.toFixed(1)} s`,
    )
  }
}
await Promise.all(Array.from({ length: SCENARIOS_AT_ONCE }, work))
if (interrupted) process.exit(130)
const failed = outcomes.filter((outcome) => !outcome.passed)
console.log(`lab: ${outcomes.length - failed.length} passed, ${failed.length} failed, 0 skipped`)
process.exit(failed.length > 0 ? 1 : 0)
