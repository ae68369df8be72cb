/**
 * `npm run fuzz -- [--seconds 30] [--seed N] …`: attackers of chance (attacks.ts) and disturbed sessions (disturb.ts)
 * against a live plexusd, in rounds, with reloads and a slow disk beside them; between the rounds, one flood
 * (floods.ts) after the other. Honest sessions read and write with verification all the time. After each round
 * everything has to come back to the pool (balance.ts). A fault ends the run and says how to repeat it.
 */
import { fitLine } from '../../bench/statistics.ts'
import { socketPaths } from '../../src/control/protocol.ts'
import { RpcClient } from '../../src/control/rpc-client.ts'
import { testUnitReady } from '../support/cdb.ts'
import { Initiator } from '../support/initiator.ts'
import { parseFuzzArguments } from './arguments.ts'
import { sleep } from './attack-context.ts'
import { ATTACKS, runAttack } from './attacks.ts'
import { Balance } from './balance.ts'
import { floodInThread } from './flood-worker.ts'
import { FLOODS, type Flood } from './floods.ts'
import { HonestSession, OwnDelay } from './honest.ts'
import { Random } from './random.ts'
import { steadyReader, steadyWriter } from './steady.ts'
import { Surroundings } from './surroundings.ts'
import { HONEST, startWorld, VICTIM, VICTIM_DISK } from './world.ts'

const MIB = 1024 * 1024
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
const HONEST_BLOCKS = 24 * 1024
/** Of the honest sessions' unit, for those who share it with them. */
const STEADY_BLOCK = HONEST_KEYS.length * HONEST_BLOCKS
const SPARE_BLOCK = STEADY_BLOCK + 2 * 8192
/** Memory that may come on top of what a warm daemon has: heap that is not collected yet, pool pages. */
const GROWTH_BYTES_MAX = 160 * MIB
/** The same at the end, after the honest sessions have worked alone for a while. */
const LEFT_BYTES_MAX = 96 * MIB
const SETTLE_MS = 3000
/** Growth over the second half of a run, which is judged from this length on. */
const GROWING_BYTES_MAX = 32 * MIB
const JUDGED_S = 300
const WARM_UP_MS = 3000
const ALONE_MS = 1500
/** No command of an honest session may wait longer. It shares two processors with all attackers. */
const WAIT_MS = 2000
const FLOOD_WAIT_MS = 10_000
/** Beside a flood the honest sessions keep this part of their rate alone. */
const FLOOD_SHARE = 1 / 20
const CASE_MAX_S = 30
const ATTACK_TIMEOUT_MS = CASE_MAX_S * 1000
/** Beyond its own time: warm-up, cases and counts that are under way, the end. */
const RUN_SLACK_S = 180
/** What attackers had must have come back by then. */
const BALANCE_MS = 5000
/** How a line of the log begins that says why plexusd ends by itself. */
const FATAL_LINE = '{"level":60'
/** Rounds and floods of a short run; a long one has longer ones. */
const ROUND_MS = 3000
const FLOOD_MIN_MS = 2000

type Row = Omit<Flood, 'run'>

const { seconds, seed, workers, attack, replay } = parseFuzzArguments()
const attacks = Object.keys(ATTACKS).filter((name) => name.includes(attack))
const STEADY: Row = { name: 'a slow but steady reader and writer', wantedMs: 45_000 }
const floods: readonly Row[] = [...FLOODS, STEADY].filter(({ name }) => name.includes(attack))
if (attacks.length + floods.length === 0) {
  console.error(`fuzz: no attack and no flood is called "${attack}"`)
  process.exit(2)
}
/** Half of a long run is for the floods, each as long as it wants to be. */
const floodScale = Math.min(
  1,
  (seconds * 500) /
    Math.max(
      1,
      floods.reduce((sum, { wantedMs }) => sum + wantedMs, 0),
    ),
)
function floodMs({ wantedMs }: Row): number {
  return Math.max(Math.min(wantedMs, FLOOD_MIN_MS), wantedMs * floodScale)
}
const repeat = `npm run fuzz -- --seed ${seed}${attack === '' ? '' : ` --attack '${attack}'`}`
console.log(`fuzz: seed ${seed}, ${seconds} s, ${workers} workers`)

const { daemon, config, spare } = await startWorld()
const { port, pid } = daemon
const paths = socketPaths(daemon.controlDir)
const control = await RpcClient.connect(paths.control)

const startedMs = performance.now()
const faults: string[] = []
const counts = new Map<string, number>()
const inFlight = new Map<number, string>()
let nextCase = replay?.[0] ?? 0
/** The first case since all had come back. */
let firstUncounted = nextCase
/** What goes on, for the text of a fault. */
let activity = 'the start'
let waitMaxMs = WAIT_MS
let over = false

/** The first fault ends the run and names the cases that were under way. */
function fault(text: string): void {
  if (faults.length > 0) return
  over = true
  const seconds = ((performance.now() - startedMs) / 1000).toFixed(1)
  const suspects = [...inFlight].map(([number, name]) => `${number} (${name})`).join(', ')
  const under = suspects === '' ? '' : `\n  cases under way: ${suspects}`
  faults.push(`${text}\n  after ${seconds} s and ${nextCase} cases, during ${activity}${under}`)
}

function report(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

async function runCase(number: number, worker: number): Promise<void> {
  const random = Random.forCase(seed, number)
  const name = random.pick(attacks)
  inFlight.set(number, name)
  counts.set(name, (counts.get(name) ?? 0) + 1)
  let timer: NodeJS.Timeout | undefined
  const late = new Promise<'late'>((resolve) => {
    timer = setTimeout(() => resolve('late'), ATTACK_TIMEOUT_MS)
  })
  // What becomes of an attacker is its own affair: a refused connection or a login that fails is no fault.
  const attacked = runAttack(name, {
    port,
    targetName: VICTIM,
    sharedTargetName: HONEST,
    spareBlock: SPARE_BLOCK,
    random,
    address: `127.0.1.${worker + 1}`,
  }).catch(() => undefined)
  if ((await Promise.race([attacked, late])) === 'late') {
    fault(`case ${number} (${name}) never ended`)
  }
  clearTimeout(timer)
  inFlight.delete(number)
}

/** A run that does not end by itself says where it stands. */
const watchdog = setTimeout(
  () => {
    console.log(`FAULT: the fuzzer hangs during ${activity}${faults.map((text) => `\n  ${text}`)}`)
    process.exit(1)
  },
  (seconds + RUN_SLACK_S + (replay ? (replay[1] - replay[0]) * CASE_MAX_S : 0)) * 1000,
)
watchdog.unref()

const ownDelay = new OwnDelay()
const honest = await Promise.all(
  HONEST_KEYS.map((keys, index) =>
    HonestSession.open({
      ownDelay,
      port,
      targetName: HONEST,
      keys,
      firstBlock: index * HONEST_BLOCKS,
      blocks: HONEST_BLOCKS,
      seed: seed + index,
    }),
  ),
)
const honestCommands = (): number => honest.reduce((sum, one) => sum + one.latenciesMs.length, 0)
const honestWork = honest.map(async (session, index) => {
  try {
    await session.work(() => over)
  } catch (error) {
    fault(`honest session ${index}: ${report(error)}`)
  }
})
const surroundings = await Surroundings.start(
  {
    daemon,
    config,
    spare,
    victim: VICTIM,
    random: new Random(seed ^ 0x5eed),
    fault,
  },
  VICTIM_DISK,
  control,
)
const balance = new Balance(daemon, control)

/** Everything rests, and everything must have come back. */
async function settle(): Promise<void> {
  if (over) return
  const during = activity
  activity = `the count behind ${during}`
  await surroundings.calm()
  await Promise.all(honest.map((session) => session.rest()))
  const missing = await balance.missing(honest.length, BALANCE_MS)
  if (missing !== undefined) {
    fault(`${missing}\n  look for the case: ${repeat} --cases ${firstUncounted}-${nextCase - 1}`)
  }
  firstUncounted = nextCase
  balance.sampleMemory()
  for (const session of honest) session.resume()
}

async function attackRound(ms: number): Promise<void> {
  activity = 'attacks'
  waitMaxMs = WAIT_MS
  const endMs = performance.now() + ms
  surroundings.resume()
  const worker = async (_: unknown, index: number): Promise<void> => {
    while (!over && performance.now() < endMs) await runCase(nextCase++, index)
  }
  await Promise.all(Array.from({ length: workers }, worker))
}

/** A new initiator gets in, is served and leaves. */
async function newcomer(): Promise<void> {
  const session = await Initiator.open({ port, targetName: HONEST, timeoutMs: FLOOD_WAIT_MS })
  await session.scsi({ cdb: testUnitReady(), timeoutMs: FLOOD_WAIT_MS })
  await session.close()
}

const floodLines: string[] = []
async function steady(): Promise<{ left: number; answers: number }> {
  const options = { port, targetName: HONEST, durationMs: floodMs(STEADY) }
  await Promise.all([
    steadyReader({ ...options, firstBlock: STEADY_BLOCK }),
    steadyWriter({ ...options, firstBlock: STEADY_BLOCK + 8192 }),
  ])
  return { left: 0, answers: 0 }
}

async function floodRound(flood: Row, aloneRate: number): Promise<void> {
  activity = `flood "${flood.name}"`
  waitMaxMs = FLOOD_WAIT_MS
  const ms = floodMs(flood)
  const beginMs = performance.now()
  const before = honestCommands()
  const isOver = (): boolean => over || performance.now() - beginMs > ms
  const options = { name: flood.name, port, targetName: VICTIM, statusPath: paths.status, isOver }
  const flooding = flood === STEADY ? steady() : floodInThread(options)
  const flooded = flooding.catch((error) => {
    fault(`${flood.name}: ${report(error)}`)
    return { left: 0, answers: 0 }
  })
  await sleep(ms / 2)
  await newcomer().catch((error) => fault(`a new initiator does not get in: ${report(error)}`))
  const { left, answers } = await flooded
  if (over) return
  const tookS = (performance.now() - beginMs) / 1000
  const rate = (honestCommands() - before) / tookS
  floodLines.push(
    `${flood.name}: ${tookS.toFixed(1)} s, ${(answers / tookS).toFixed(0)} answers/s, honest ${rate.toFixed(1)}/s (${((100 * rate) / aloneRate).toFixed(1)} % of alone)`,
  )
  if (rate < aloneRate * FLOOD_SHARE) {
    fault(`honest sessions got ${rate.toFixed(1)} commands a second, ${aloneRate.toFixed(0)} alone`)
  }
  if (flood.droppedAfterMs !== undefined && ms > flood.droppedAfterMs && left > 0) {
    fault(`${left} clients that took nothing for ${(ms / 1000).toFixed(0)} s are still connected`)
  }
}

function watch(): void {
  if (over) return
  if (!daemon.running || daemon.pid !== pid) {
    fault('plexusd has ended')
    return
  }
  const bytes = daemon.residentBytes
  peakBytes = Math.max(peakBytes, bytes)
  if (warmBytes > 0 && bytes - warmBytes > GROWTH_BYTES_MAX) {
    fault(`plexusd grew from ${mib(warmBytes)} to ${mib(bytes)}`)
  }
  for (const [index, { waitingMs }] of honest.entries()) {
    if (waitingMs > waitMaxMs) {
      fault(`honest session ${index} has waited ${waitingMs.toFixed(0)} ms for its command`)
    }
  }
}

/** What the line through the counts of the second half says of memory. */
function growth(): { readonly bytes: number; readonly bytesPerMinute: number } {
  const { seconds: times, residentBytes } = balance.memory
  const half = Math.floor(times.length / 2)
  const late = times.slice(half)
  if (late.length < 2) return { bytes: 0, bytesPerMinute: 0 }
  const { slope } = fitLine(late, residentBytes.slice(half))
  return {
    bytes: slope * ((late.at(-1) ?? 0) - (late[0] ?? 0)),
    bytesPerMinute: slope * 60,
  }
}

/** The defect that ended plexusd, where its log has one; else its last lines. */
function lastWords(): string {
  const fatal = daemon.log.findLast((line) => line.startsWith(FATAL_LINE))
  if (fatal === undefined) return daemon.log.slice(-12).join('\n')
  return (JSON.parse(fatal) as { err?: { stack?: string } }).err?.stack ?? fatal
}

function mib(bytes: number): string {
  return `${(bytes / MIB).toFixed(1)} MiB`
}

let peakBytes = 0
let warmBytes = 0
const watching = setInterval(watch, 50)
await sleep(WARM_UP_MS)
const warmCommands = honestCommands()
await sleep(ALONE_MS)
const aloneRate = ((honestCommands() - warmCommands) / ALONE_MS) * 1000
await surroundings.calm()
balance.warm()
warmBytes = daemon.residentBytes

if (replay) {
  for (const [, last] = replay; nextCase <= last && !over; ) {
    const number = nextCase++
    activity = `case ${number}`
    await runCase(number, 0)
    await settle()
  }
} else {
  const endMs = performance.now() + seconds * 1000
  for (let turn = seed; !over && performance.now() < endMs; turn++) {
    if (attacks.length > 0) {
      await attackRound(Math.min(seconds * 500, Math.max(ROUND_MS, seconds * 50)))
      await settle()
    }
    const flood = floods[turn % Math.max(1, floods.length)]
    if (flood && !over) {
      await floodRound(flood, aloneRate)
      await settle()
    }
  }
}
activity = 'the end'
if (!over) {
  waitMaxMs = WAIT_MS
  await sleep(SETTLE_MS)
  const grown = growth()
  if (seconds >= JUDGED_S && grown.bytes > GROWING_BYTES_MAX) {
    fault(`plexusd grew by ${mib(grown.bytes)} over the second half of the run`)
  }
  const leftBytes = daemon.residentBytes - warmBytes
  if (leftBytes > LEFT_BYTES_MAX) fault(`plexusd has kept ${mib(leftBytes)} more than when warm`)
}
over = true
await Promise.all([surroundings.stop(), ...honestWork])
clearInterval(watching)
ownDelay.stop()
if (!daemon.running) faults.push(`plexusd has ended:\n${lastWords()}`)

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
    faults.push(`after the attacks: ${report(error)}`)
  }
}
const endBytes = daemon.running ? daemon.residentBytes : 0
control.close()
for (const session of honest) session.destroy()
const code = await daemon.stop()
if (faults.length === 0 && code !== 0) faults.push(`plexusd ended with exit status ${code}`)

const latencies = honest.flatMap((session) => session.latenciesMs).sort((a, b) => a - b)
const percentile = (p: number) =>
  latencies[Math.min(latencies.length - 1, Math.floor(latencies.length * p))] ?? 0
for (const [name, count] of [...counts, ...surroundings.counts].sort()) {
  console.log(`${String(count).padStart(6)}  ${name}`)
}
for (const line of floodLines) console.log(`flood:  ${line}`)
const retries = honest.reduce((sum, session) => sum + session.retries, 0)
console.log(
  `honest: ${latencies.length} commands (${aloneRate.toFixed(0)}/s alone), ${retries} sent again, p50 ${percentile(0.5).toFixed(1)} ms, p99 ${percentile(0.99).toFixed(1)} ms, slowest ${(latencies.at(-1) ?? 0).toFixed(0)} ms`,
)
console.log(
  `memory: warm ${mib(warmBytes)}, peak ${mib(peakBytes)}, at the end ${mib(endBytes)}, ${(growth().bytesPerMinute / MIB).toFixed(1)} MiB a minute over the second half`,
)
for (const text of faults) console.log(`FAULT: ${text}`)
if (faults.length > 0) console.log(`repeat: ${repeat} --seconds ${seconds}`)
const cases = [...counts.values()].reduce((sum, count) => sum + count, 0)
console.log(`fuzz: seed ${seed}: ${cases} cases, ${faults.length} faults`)
process.exit(faults.length > 0 ? 1 : 0)
