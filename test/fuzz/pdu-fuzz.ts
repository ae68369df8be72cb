/**
 * `npm run fuzz -- [--seconds 30] [--seed N] [--workers 16] [--case N] [--attack TEXT]`: attackers of chance (attacks.ts) against
 * a live plexusd while honest sessions read and write with verification. Fails when plexusd ends, when its
 * memory grows beyond a bound, when an honest session meets an error or waits too long, or when no new
 * initiator gets in afterwards. Every case can be run again alone: `--seed N --case M`.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { testUnitReady } from '../support/cdb.ts'
import { Daemon } from '../support/daemon.ts'
import { Initiator } from '../support/initiator.ts'
import { ATTACKS, runAttack, sleep } from './attacks.ts'
import { HonestSession } from './honest.ts'
import { Random } from './random.ts'

const MIB = 1024 * 1024
const DISK_BYTES = 64 * MIB
const HONEST = 'iqn.2026-11.test.plexus:honest'
const VICTIM = 'iqn.2026-11.test.plexus:victim'
const HONEST_KEYS: readonly Record<string, string>[] = [
  {},
  { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' },
  {
    InitialR2T: 'Yes',
    ImmediateData: 'No',
    MaxBurstLength: '16384',
    MaxRecvDataSegmentLength: '8192',
  },
]
const HONEST_BLOCKS = 32 * 1024
/** The smallest pool, so that attackers who hold buffers are felt at once. */
const POOL = '32MiB'
/** Memory that may come on top of what a warm daemon has: heap that is not collected yet, pool pages. */
const GROWTH_BYTES_MAX = 160 * MIB
const WARM_UP_MS = 3000
/** No command of an honest session may take longer. It shares two processors with all attackers. */
const LATENCY_MAX_MS = 5000
const ATTACK_TIMEOUT_MS = 30_000

const { values } = parseArgs({
  options: {
    seconds: { type: 'string', default: '30' },
    seed: { type: 'string' },
    workers: { type: 'string', default: '16' },
    case: { type: 'string' },
    /** Only attacks whose names contain this. */
    attack: { type: 'string', default: '' },
  },
})
const seconds = Number(values.seconds)
const seed = values.seed === undefined ? Math.floor(Math.random() * 2 ** 31) : Number(values.seed)
const workers = Number(values.workers)
const only = values.case === undefined ? undefined : Number(values.case)
const names = Object.keys(ATTACKS).filter((name) => name.includes(values.attack))
if (
  names.length === 0 ||
  ![seconds, seed, workers, only ?? 0].every((n) => Number.isInteger(n) && n >= 0)
) {
  console.error(
    'usage: npm run fuzz -- [--seconds N] [--seed N] [--workers N] [--case N] [--attack TEXT]',
  )
  process.exit(2)
}
console.log(`fuzz: seed ${seed}, ${seconds} s, ${workers} workers`)

const dir = mkdtempSync(join(tmpdir(), 'plexus-fuzz-'))
process.once('exit', () => rmSync(dir, { recursive: true, force: true }))
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
function image(name: string): string {
  const path = join(dir, name)
  writeFileSync(path, '')
  truncateSync(path, DISK_BYTES)
  return path
}
const target = (name: string, device: string) => ({
  name,
  portals: ['test'],
  auth: 'none',
  luns: [{ lun: 0, device }],
})
const daemon = await Daemon.start({
  config: {
    devices: { honest: image('honest'), victim: image('victim') },
    targets: [target(HONEST, 'honest'), target(VICTIM, 'victim')],
    limits: { sessions: 256, bufferPool: POOL },
  },
})
const { port, pid } = daemon

const faults: string[] = []
const counts = new Map<string, number>()
const inFlight = new Map<number, string>()
let nextCase = 0
let over = false

/** The first fault ends the run and names the cases that were under way. */
function fault(text: string): void {
  if (over && faults.length > 0) return
  over = true
  const suspects = [...inFlight].map(([number, name]) => `${number} (${name})`).join(', ')
  faults.push(`${text}\n  cases under way: ${suspects || 'none'}`)
}

async function attackOnce(number: number, worker: number): Promise<void> {
  const random = Random.forCase(seed, number)
  const name = random.pick(names)
  inFlight.set(number, name)
  counts.set(name, (counts.get(name) ?? 0) + 1)
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), ATTACK_TIMEOUT_MS)
  })
  const context = { port, targetName: VICTIM, random, address: `127.0.1.${worker + 1}` }
  // What becomes of an attacker is its own affair: a refused connection or a login that fails is no fault.
  const attack = runAttack(name, context).catch(() => undefined)
  if ((await Promise.race([attack, late])) === 'late') fault(`case ${number} (${name}) never ended`)
  clearTimeout(timer)
  inFlight.delete(number)
}

async function attacker(worker: number): Promise<void> {
  while (!over) await attackOnce(nextCase++, worker)
}

async function onlyCase(number: number): Promise<void> {
  await attackOnce(number, 0)
  await sleep(1000)
  over = true
}

const honest = await Promise.all(
  HONEST_KEYS.map((keys, index) =>
    HonestSession.open({
      port,
      targetName: HONEST,
      keys,
      firstBlock: index * HONEST_BLOCKS,
      blocks: HONEST_BLOCKS,
      seed: seed + index,
    }),
  ),
)
const honestWork = honest.map(async (session, index) => {
  try {
    await session.work(() => over)
  } catch (error) {
    fault(`honest session ${index}: ${error instanceof Error ? error.message : error}`)
  }
})

await sleep(WARM_UP_MS)
const warmBytes = daemon.residentBytes
let peakBytes = warmBytes
const started = Date.now()
const attackers =
  only === undefined
    ? Array.from({ length: workers }, (_, worker) => attacker(worker))
    : [onlyCase(only)]
while (!over && Date.now() - started < seconds * 1000) {
  await sleep(200)
  if (!daemon.running || daemon.pid !== pid) {
    fault('plexusd has ended')
    break
  }
  peakBytes = Math.max(peakBytes, daemon.residentBytes)
  if (peakBytes - warmBytes > GROWTH_BYTES_MAX) {
    fault(`plexusd grew from ${mib(warmBytes)} to ${mib(peakBytes)}`)
  }
}
over = true
await Promise.all([...attackers, ...honestWork])
if (!daemon.running) faults.push(`plexusd has ended:\n  ${daemon.log.slice(-12).join('\n  ')}`)

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`
}

if (faults.length === 0) {
  try {
    for (const session of honest) await session.finish()
    for (const targetName of [HONEST, VICTIM]) {
      const session = await Initiator.open({ port, targetName })
      await session.scsi({ cdb: testUnitReady() })
      const { status } = await session.scsi({ cdb: testUnitReady() })
      if (status !== 0) faults.push(`${targetName} is not ready after the attacks`)
      await session.close()
    }
  } catch (error) {
    faults.push(`after the attacks: ${error instanceof Error ? error.message : error}`)
  }
}
const endBytes = daemon.running ? daemon.residentBytes : 0
for (const session of honest) session.destroy()
const code = await daemon.stop()
if (faults.length === 0 && code !== 0) faults.push(`plexusd ended with exit status ${code}`)

const latencies = honest.flatMap((session) => session.latenciesMs).sort((a, b) => a - b)
const percentile = (p: number) =>
  latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * p))] ?? 0
const slowestMs = latencies.at(-1) ?? 0
if (slowestMs > LATENCY_MAX_MS) faults.push(`an honest command took ${slowestMs.toFixed(0)} ms`)
for (const [name, count] of [...counts].sort()) console.log(`${String(count).padStart(6)}  ${name}`)
const retries = honest.reduce((sum, session) => sum + session.retries, 0)
console.log(
  `honest: ${latencies.length} commands, ${retries} sent again, p50 ${percentile(0.5).toFixed(1)} ms, p99 ${percentile(0.99).toFixed(1)} ms, slowest ${slowestMs.toFixed(0)} ms`,
)
console.log(`memory: warm ${mib(warmBytes)}, peak ${mib(peakBytes)}, at the end ${mib(endBytes)}`)
for (const text of faults) console.log(`FAULT: ${text}`)
const cases = [...counts.values()].reduce((sum, count) => sum + count, 0)
console.log(`fuzz: seed ${seed}: ${cases} cases, ${faults.length} faults`)
process.exit(faults.length > 0 ? 1 : 0)
