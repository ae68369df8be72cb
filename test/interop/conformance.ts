/**
 * `npm run conformance -- [SUITE ...]`: libiscsi's test suite (iscsi-test-cu, Debian package libiscsi-bin)
 * against a real plexusd, on an image file and on a loop device, without and with header digests. Prints a
 * table (with `--tables` only those of docs/conformance.md); a result that is not expected (expected.ts) fails the run.
 * Needs root for the loop device.
 */
import { execFileSync, spawn } from 'node:child_process'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Daemon, TARGET } from '../support/daemon.ts'
import { findFaults, parseOutput, type TestResult, type Verdict } from './cunit.ts'
import { EXPECTED_RESULTS, resultTable } from './expected.ts'

const TOOL = 'iscsi-test-cu'
const DISK_BYTES = 256 * 1024 * 1024
/** The longest suite takes 10 seconds (it waits for resets on purpose). */
const SUITE_TIMEOUT_MS = 60_000
const OUTPUT_LIMIT_BYTES = 16 * 1024 * 1024
/** Suites that need the unit in a certain state, which LUN 1 has: it is read-only. */
const READ_ONLY_SUITES: ReadonlySet<string> = new Set(['ReadOnly'])
const TWO_PATH_SUITES: ReadonlySet<string> = new Set(['MultipathIO'])

interface Setup {
  readonly name: string
  readonly loop: boolean
  readonly digest: boolean
}

const SETUPS: readonly Setup[] = [
  { name: 'file', loop: false, digest: false },
  { name: 'file, digest', loop: false, digest: true },
  { name: 'loop', loop: true, digest: false },
  { name: 'loop, digest', loop: true, digest: true },
]

/** Suites of the family ALL, and the one of SCSI that ALL lacks. */
function listSuites(): string[] {
  const url = `iscsi://127.0.0.1:1/${TARGET}/0`
  const listed = execFileSync(TOOL, ['-l', url], { encoding: 'utf8' }).split('\n')
  const suites = listed.filter((line) => /^ALL\.[^.]+$/.test(line)).map((line) => line.slice(4))
  const extra = listed
    .filter((line) => /^SCSI\.[^.]+$/.test(line))
    .map((line) => line.slice(5))
    .filter((suite) => !suites.includes(suite))
  if (suites.length === 0) throw new Error(`${TOOL} lists no suites`)
  return [...suites.map((suite) => `ALL.${suite}`), ...extra.map((suite) => `SCSI.${suite}`)]
}

async function runSuite(daemon: Daemon, setup: Setup, path: string): Promise<TestResult[]> {
  const suite = path.slice(path.indexOf('.') + 1)
  const lun = READ_ONLY_SUITES.has(suite) ? 1 : 0
  const query = setup.digest ? '?header_digest=crc32c' : ''
  const url = `iscsi://${daemon.host}:${daemon.port}/${TARGET}/${lun}${query}`
  const urls = TWO_PATH_SUITES.has(suite) ? [url, url] : [url]
  // Line by line, so that a test that hangs can be named.
  const child = spawn(
    'stdbuf',
    ['-oL', TOOL, '--dataloss', '--allow-sanitize', '-t', path, ...urls],
    {
      stdio: ['ignore', 'pipe', 'pipe'],
    },
  )
  let output = ''
  for (const stream of [child.stdout, child.stderr]) {
    stream.on('data', (chunk) => {
      if (output.length < OUTPUT_LIMIT_BYTES) output += chunk
    })
  }
  const timer = setTimeout(() => child.kill('SIGKILL'), SUITE_TIMEOUT_MS)
  await new Promise((resolve) => child.once('close', resolve))
  clearTimeout(timer)
  const results = parseOutput(suite, output)
  if (results.length > 0) return results
  const details = [`${TOOL} ran no test: ${output.slice(-500)}`]
  return [{ suite, test: '(start)', verdict: 'failed', details }]
}

async function runSetup(setup: Setup, suites: readonly string[]): Promise<TestResult[]> {
  const dir = mkdtempSync(join(tmpdir(), 'plexus-conformance-'))
  const loops: string[] = []
  const cleanUp = () => {
    for (const loop of loops.splice(0)) execFileSync('losetup', ['-d', loop])
    rmSync(dir, { recursive: true, force: true })
  }
  process.once('exit', cleanUp)
  const device = (name: string): string => {
    const path = join(dir, name)
    writeFileSync(path, '')
    truncateSync(path, DISK_BYTES)
    if (!setup.loop) return path
    const loop = execFileSync('losetup', ['--direct-io=on', '-f', '--show', path]).toString().trim()
    loops.push(loop)
    return loop
  }
  const results: TestResult[] = []
  let daemon: Daemon | undefined
  try {
    const luns = [
      { lun: 0, device: 'disk' },
      { lun: 1, device: 'still', readOnly: true },
    ]
    daemon = await Daemon.start({
      config: {
        devices: { disk: device('disk'), still: device('still') },
        targets: [{ name: TARGET, portals: ['test'], auth: 'none', luns }],
      },
      // A list admits only what it names: a session without the digest cannot come about by mistake.
      digests: { header: setup.digest ? ['CRC32C'] : 'None', data: 'None' },
    })
    const pid = daemon.pid
    for (const suite of suites) results.push(...(await runSuite(daemon, setup, suite)))
    if (!daemon.running || daemon.pid !== pid) {
      const details = daemon.log.slice(-20)
      results.push({ suite: 'plexusd', test: 'stays alive', verdict: 'failed', details })
    }
  } finally {
    await daemon?.stop()
    process.off('exit', cleanUp)
    cleanUp()
  }
  return results
}

function count(results: readonly TestResult[], verdict: Verdict): number {
  return results.filter((result) => result.verdict === verdict).length
}

/** `12` where all passed, `9+3` with skips, `9+3 1!` with failures. */
function cell(results: readonly TestResult[]): string {
  const [passed, skipped, failed] = (['passed', 'skipped', 'failed'] as const).map((verdict) =>
    count(results, verdict),
  )
  return `${passed}${skipped ? `+${skipped}` : ''}${failed ? ` ${failed}!` : ''}`
}

function printTable(runs: readonly { setup: Setup; results: readonly TestResult[] }[]): void {
  const suites = [...new Set(runs.flatMap((run) => run.results.map((result) => result.suite)))]
  const row = (first: string, cells: readonly string[]) =>
    console.log(first.padEnd(24) + cells.map((text) => text.padStart(14)).join(''))
  row(
    'passed+skipped failed!',
    runs.map((run) => run.setup.name),
  )
  for (const suite of suites) {
    row(
      suite,
      runs.map((run) => cell(run.results.filter((result) => result.suite === suite))),
    )
  }
}

const asked = process.argv.slice(2)
if (asked[0] === '--tables') {
  console.log(`${resultTable('skipped')}\n\n${resultTable('failed')}`)
  process.exit(0)
}
const all = listSuites()
const suites = all.filter((path) => asked.length === 0 || asked.includes(path.split('.')[1] ?? ''))
if (suites.length === 0) {
  console.error(`no suite ${asked.join(', ')}`)
  process.exit(2)
}
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
const runs: { setup: Setup; results: TestResult[] }[] = []
for (const setup of SETUPS) {
  const started = Date.now()
  const results = await runSetup(setup, suites)
  runs.push({ setup, results })
  console.log(`${setup.name}: ${cell(results)} in ${((Date.now() - started) / 1000).toFixed(0)} s`)
}
printTable(runs)
let faults = 0
for (const { setup, results } of runs) {
  for (const fault of findFaults(results, EXPECTED_RESULTS, setup.name)) {
    faults++
    console.log(`\n[${setup.name}] ${fault}`)
  }
}
const everything = runs.flatMap((run) => run.results)
console.log(
  `\n${count(everything, 'passed')} passed, ${count(everything, 'failed')} failed, ${count(everything, 'skipped')} skipped: ${faults === 0 ? 'as expected' : `${faults} not as expected`}`,
)
process.exit(faults > 0 ? 1 : 0)
