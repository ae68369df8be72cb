#!/usr/bin/env node
/**
 * Long mixed load on one target: does its memory stay flat, do sessions leave nothing behind, and does
 * every byte come back? Phases of different loads follow each other, each with new sessions; resident
 * memory is sampled every second and a line is fitted through it. See bench/README.md.
 *
 * `npm run -s build:tools && node build/bench/soak.js --minutes 30`
 */
import { readdirSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { formatSize, parseSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'
import { MIB } from '../src/base/limits.ts'
import { parseCase } from './cases.ts'
import { buildLoad, type Digests, runLoad, runVerify } from './client.ts'
import {
  machineLines,
  makeLoopDevice,
  requirePrograms,
  Teardown,
  temporaryDirectory,
  useDevice,
} from './environment.ts'
import { memoryOf, PEERS, type Server } from './peers.ts'
import { table } from './report.ts'
import { judgeMemory, median } from './statistics.ts'

interface Options {
  readonly minutes: number
  readonly phase: number
  readonly target: string
  readonly engine?: string
  readonly device?: string
  readonly yes: boolean
  readonly directory: string
  readonly size: string
  readonly json: boolean
}

interface Phase {
  readonly test: string
  readonly raw: boolean
  readonly digests: Digests
  readonly verify: boolean
}

const load = (test: string): Phase => ({ test, raw: false, digests: 'none', verify: false })
const PHASES: readonly Phase[] = [
  load('mix4k32'),
  load('rw4k8x8'),
  { ...load('mix64k16'), verify: true },
  load('sr128k8x2'),
  load('sw1m4x2'),
  { ...load('mix4k32x2'), raw: true, digests: 'both' },
  { ...load('mix1m8x2'), verify: true, raw: true, digests: 'both' },
]
/** Targets whose digests cannot be asked for without configuring them. */
const DIGEST_TARGETS = new Set(['plexus', 'istgt'])
/** A shorter run sees pools fill and code warm up, not leaks. */
const JUDGED_MINUTES = 5
const VERIFY_SPAN_BYTES = 64 * MIB

interface Outcome {
  readonly phase: string
  readonly iops: number
  readonly p99Us: number
  readonly maxUs: number
  readonly openFiles: number
}

function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

function minutes(text: string): number {
  const value = Number(text)
  if (Number.isFinite(value) && value > 0) return value
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: text,
    message: `"${text}" is not a number above 0`,
  })
}

const openFilesOf = (pid: number): number => readdirSync(`/proc/${pid}/fd`).length
/** Some targets notice closed connections late. */
const FILES_SETTLE_S = 20

/** Open files once the sessions are gone: waits until there are no more than `expected`. */
async function settledFiles(pid: number, expected: number, signal: AbortSignal): Promise<number> {
  for (let waitedS = 0; openFilesOf(pid) > expected && waitedS < FILES_SETTLE_S; waitedS++) {
    await sleep(1000, undefined, { signal })
  }
  return openFilesOf(pid)
}

interface MemorySeries {
  readonly seconds: number[]
  readonly residentBytes: number[]
}

/** Samples until stopped; a server that is gone ends it, which the next phase reports. */
function sampleMemory(pid: number, teardown: Teardown): MemorySeries {
  const series: MemorySeries = { seconds: [], residentBytes: [] }
  const startMs = performance.now()
  const timer = setInterval(() => {
    try {
      series.residentBytes.push(memoryOf(pid).residentBytes)
      series.seconds.push((performance.now() - startMs) / 1000)
    } catch {
      clearInterval(timer)
    }
  }, 1000)
  teardown.add('stopping the memory samples', async () => clearInterval(timer))
  return series
}

async function runPhase(
  program: string,
  server: Server,
  phase: Phase,
  seconds: number,
  signal: AbortSignal,
): Promise<Outcome> {
  const test = parseCase(phase.test)
  const label = [
    `${phase.test}${phase.verify ? ' verify' : ''}`,
    phase.digests === 'none' ? '' : `digests ${phase.digests}`,
  ]
  const common = {
    url: server.url,
    test,
    seconds,
    digests: phase.digests,
    raw: phase.raw,
    signal,
  }
  let figures = { iops: 0, p99Us: 0, maxUs: 0 }
  if (phase.verify) await runVerify(program, common, VERIFY_SPAN_BYTES)
  else figures = await runLoad(program, { ...common, serverPid: server.pid })
  // The target sees the closed connections a moment later.
  await sleep(500, undefined, { signal })
  const { iops, p99Us, maxUs } = figures
  return { phase: label.join(' ').trim(), iops, p99Us, maxUs, openFiles: openFilesOf(server.pid) }
}

function renderOutcomes(outcomes: readonly Outcome[]): string {
  const names = [...new Set(outcomes.map((outcome) => outcome.phase))]
  const lines = names.map((name) => {
    const all = outcomes.filter((outcome) => outcome.phase === name)
    const half = Math.ceil(all.length / 2)
    // A data check has no figures of its own: it is there to be right.
    if (all.every((one) => one.iops === 0)) return [name, `${all.length}`, '-', '-', '-', '-']
    const iops = (some: readonly Outcome[]): string =>
      median(some.map((one) => one.iops)).toFixed(0)
    return [
      name,
      `${all.length}`,
      iops(all.slice(0, half)),
      iops(all.slice(-half)),
      median(all.map((one) => one.p99Us)).toFixed(0),
      (Math.max(...all.map((one) => one.maxUs)) / 1000).toFixed(1),
    ]
  })
  return table(['phase', 'runs', 'IOPS 1st half', '2nd half', 'p99 us', 'worst ms'], lines)
}

async function soak(options: Options, teardown: Teardown, signal: AbortSignal): Promise<number> {
  const peer = Object.hasOwn(PEERS, options.target) ? PEERS[options.target] : undefined
  if (!peer) {
    throw new PlexusError('invalid', {
      op: 'parse',
      subject: options.target,
      message: `"${options.target}" is not a target; known are ${Object.keys(PEERS).join(', ')}`,
    })
  }
  await requirePrograms(['fio', 'gcc', 'losetup', ...peer.programs])
  const program = await buildLoad()
  const head = machineLines()
  const device = options.device
    ? useDevice(options.device, options.yes)
    : await makeLoopDevice(options.directory, parseSize(options.size), teardown, signal)
  const directory = await temporaryDirectory(teardown)
  const engine = options.engine === undefined ? {} : { engine: options.engine }
  const server = await peer.start({ device: device.path, directory, teardown, signal, ...engine })

  const phases = PHASES.filter(
    (one) => one.digests === 'none' || DIGEST_TARGETS.has(options.target),
  )
  const series = sampleMemory(server.pid, teardown)
  const outcomes: Outcome[] = []
  const endMs = performance.now() + options.minutes * 60_000
  for (let i = 0; performance.now() < endMs || i < phases.length; i++) {
    const phase = phases[i % phases.length]
    if (!phase) break
    const outcome = await runPhase(program, server, phase, options.phase, signal)
    outcomes.push(outcome)
    note(
      `${outcome.phase}: ${phase.verify ? 'data is right' : `${outcome.iops.toFixed(0)} IOPS, worst ${(outcome.maxUs / 1000).toFixed(1)} ms`}, ${formatSize(memoryOf(server.pid).residentBytes)}, ${outcome.openFiles} files`,
    )
  }

  const memory = judgeMemory(series.seconds, series.residentBytes)
  const firstFiles = outcomes[0]?.openFiles ?? 0
  const lastFiles = await settledFiles(server.pid, firstFiles, signal)
  const judged = options.minutes >= JUDGED_MINUTES
  const filesFlat = lastFiles <= firstFiles
  head.push(`device:  ${device.text}`, `target:  ${server.version}`)
  const verdict = [
    `memory ${judged ? (memory.flat ? 'flat' : 'GROWS') : `not judged below ${JUDGED_MINUTES} minutes`}: ${(memory.bytesPerHour / MIB).toFixed(2)} MiB/h by the fitted line, ${(memory.growthBytes / MIB).toFixed(2)} MiB over the window (tolerance ${(memory.toleranceBytes / MIB).toFixed(2)}), ${formatSize(memory.firstBytes)} to ${formatSize(memory.lastBytes)}, peak ${formatSize(memoryOf(server.pid).peakBytes)}`,
    `open files ${filesFlat ? 'flat' : 'GROW'}: ${firstFiles} after the first phase, ${lastFiles} after the last`,
    `data: all verify phases read back what they wrote`,
  ]
  if (options.json) {
    process.stdout.write(
      `${JSON.stringify({ head, outcomes, memory, series, firstFiles, lastFiles }, undefined, 2)}\n`,
    )
  } else {
    process.stdout.write(
      `${head.join('\n')}\n\n${renderOutcomes(outcomes)}\n\n${verdict.join('\n')}\n`,
    )
  }
  return (memory.flat || !judged) && filesFlat ? 0 : 1
}

const teardown = new Teardown()
const interrupt = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => interrupt.abort(new Error(`interrupted by ${signal}`)))
}
try {
  const program = new Command('soak')
    .description('Long mixed load on one target: memory flat, nothing left behind, data intact.')
    .option('--minutes <n>', 'how long; every phase runs at least once', minutes, 10)
    .option('--phase <s>', 'seconds of one phase', minutes, 15)
    .option('--target <name>', 'plexus, tgt-aio, tgt-rdwr or istgt', 'plexus')
    .option('--engine <name>', 'I/O engine of Plexus: io_uring or threads')
    .option('--device <path>', 'use this block device; its content is DESTROYED')
    .option('--yes', 'yes, overwrite --device', false)
    .option('--directory <path>', 'where the image behind the loop device is made', '/dev/shm')
    .option('--size <size>', 'of the loop device', '1GiB')
    .option('--json', 'print one JSON object', false)
    .parse(process.argv)
  process.exitCode = await soak(program.opts<Options>(), teardown, interrupt.signal)
} catch (error) {
  note(`soak: ${interrupt.signal.aborted ? 'interrupted' : (error as Error).message}`)
  process.exitCode = interrupt.signal.aborted ? 130 : 1
} finally {
  await teardown.run()
}
