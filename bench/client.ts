/**
 * Runs one test case against one contestant: fio on the bare device, or our load generator (load.c)
 * on a target. Called by bench.ts and soak.ts.
 */
import { mkdir, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { PlexusError } from '../src/base/errors.ts'
import { GIB } from '../src/base/limits.ts'
import type { Case } from './cases.ts'
import { findLibiscsi, findProgram, projectRoot, run } from './environment.ts'

/** One measurement. Times are microseconds, CPU times are those of a whole process. */
export interface Sample {
  readonly iops: number
  readonly bytesPerSecond: number
  readonly meanUs: number
  readonly p50Us: number
  readonly p99Us: number
  readonly maxUs: number
  /** The longest time without any completion. */
  readonly gapUs: number
  readonly serverCpuUsPerOp: number
  readonly serverCpuSPerGib: number
  /** Cores that the client used: 1 is one core, all that its single thread can use. */
  readonly clientCores: number
  readonly errors: number
}

export type Digests = 'none' | 'header' | 'both'

export interface LoadOptions {
  readonly url: string
  readonly test: Case
  readonly seconds: number
  readonly serverPid: number
  readonly digests?: Digests
  /** Our own initiator instead of libiscsi: the only one with data digests. */
  readonly raw?: boolean
  readonly signal: AbortSignal
}

const SOURCES = [
  'load.c',
  'load-workload.c',
  'load-verify.c',
  'load-libiscsi.c',
  'load-raw.c',
  'load-raw-login.c',
]
export const WARMUP_S = 0.5
/** Beyond its own time, a run gets this long before it is killed: logins, draining, slow disks. */
const RUN_SLACK_MS = 30_000

/** Compiles the load generator when its sources are newer; returns the path of the program. */
export async function buildLoad(): Promise<string> {
  const library = await findLibiscsi()
  if (library === undefined) {
    throw new PlexusError('not-found', {
      op: 'build',
      subject: 'libiscsi',
      message: 'libiscsi.so is missing; install it with: apt-get install libiscsi-bin',
    })
  }
  return await compile('load', SOURCES, [library])
}

/** The same of the program that floods a target (flood.c). */
export function buildFlood(): Promise<string> {
  return compile('flood', ['flood.c', 'load-raw-login.c'], [])
}

async function compile(
  name: string,
  files: readonly string[],
  libraries: readonly string[],
): Promise<string> {
  const root = projectRoot()
  const program = join(root, 'build', 'bench', name)
  const sources = files.map((file) => join(root, 'bench', file))
  const inputs = await Promise.all(
    [...sources, join(root, 'bench', 'load.h'), join(root, 'bench', 'load-raw.h')].map((path) =>
      stat(path),
    ),
  )
  const builtMs = (await stat(program).catch(() => undefined))?.mtimeMs ?? 0
  if (inputs.some((input) => input.mtimeMs > builtMs)) {
    await mkdir(join(root, 'build', 'bench'), { recursive: true })
    await run(findProgram('gcc') ?? 'gcc', [
      '-std=gnu17',
      '-O2',
      '-Wall',
      '-Wextra',
      '-o',
      program,
      ...sources,
      ...libraries,
    ])
  }
  return program
}

export type FloodKind = 'nop' | 'inquiry' | 'text' | 'sendtargets'

export interface FloodOptions {
  readonly url: string
  readonly kind: FloodKind
  readonly sessions: number
  /** Requests outstanding of each session; one where the RFC allows no more. */
  readonly depth: number
  readonly seconds: number
  readonly signal: AbortSignal
}

/** Floods a target; the answers that all flooders together got in a second. */
export async function runFlood(program: string, options: FloodOptions): Promise<number> {
  const { url, kind, sessions, depth, seconds, signal } = options
  const args = [
    ...['--url', url, '--kind', kind, '--sessions', `${sessions}`],
    ...['--depth', `${depth}`, '--seconds', `${seconds}`],
  ]
  const output = await run(program, args, { signal, timeoutMs: seconds * 1000 + RUN_SLACK_MS })
  return (JSON.parse(output) as { answersPerSecond: number }).answersPerSecond
}

interface LoadReport {
  readonly ops: number
  readonly iops: number
  readonly bytesPerSecond: number
  readonly meanUs: number
  readonly p50Us: number
  readonly p99Us: number
  readonly maxUs: number
  readonly gapUs: number
  readonly seconds: number
  readonly clientCpuS: number
  readonly serverCpuS: number
  readonly errors: number
}

/** One case against a target. Errors of the target fail the run: figures with errors mean nothing. */
export async function runLoad(program: string, options: LoadOptions): Promise<Sample> {
  const { test } = options
  const args = [
    ['--url', options.url],
    ['--mode', test.kind],
    ['--bytes', `${test.bytes}`],
    ['--depth', `${test.depth}`],
    ['--sessions', `${test.sessions}`],
    ['--seconds', `${options.seconds}`],
    ['--warmup', `${WARMUP_S}`],
    ['--server-pid', `${options.serverPid}`],
    ['--seed', `${Date.now()}`],
    ['--digests', options.digests ?? 'none'],
    options.raw ? ['--raw'] : [],
  ].flat()
  const timeoutMs = (options.seconds + WARMUP_S) * 1000 + RUN_SLACK_MS
  const output = await run(program, args, { signal: options.signal, timeoutMs })
  const report = JSON.parse(output) as LoadReport
  const ops = Math.max(report.ops, 1)
  return {
    iops: report.iops,
    bytesPerSecond: report.bytesPerSecond,
    meanUs: report.meanUs,
    p50Us: report.p50Us,
    p99Us: report.p99Us,
    maxUs: report.maxUs,
    gapUs: report.gapUs,
    serverCpuUsPerOp: (report.serverCpuS * 1e6) / ops,
    serverCpuSPerGib: (report.serverCpuS * GIB) / (ops * test.bytes),
    clientCores: report.clientCpuS / report.seconds,
    errors: report.errors,
  }
}

export interface VerifyReport {
  readonly ok: boolean
  readonly writtenBytes: number
  readonly checkedBytes: number
  readonly errors: number
  readonly mismatches: number
}

/**
 * Writes and reads back patterns in the first `spanBytes` of a target, by sizes up to that of the
 * case, for `seconds` and two sweeps more. Throws when a block differs or a command fails.
 */
export async function runVerify(
  program: string,
  options: Omit<LoadOptions, 'serverPid'>,
  spanBytes: number,
): Promise<VerifyReport> {
  const { test } = options
  const args = [
    ...['--url', options.url, '--mode', 'verify', '--bytes', `${test.bytes}`],
    ...['--depth', `${test.depth}`, '--sessions', `${test.sessions}`],
    ...['--seconds', `${options.seconds}`, '--span', `${spanBytes}`, '--seed', `${Date.now()}`],
    ...['--digests', options.digests ?? 'none', ...(options.raw ? ['--raw'] : [])],
  ]
  const timeoutMs = options.seconds * 1000 + 4 * RUN_SLACK_MS
  return JSON.parse(await run(program, args, { signal: options.signal, timeoutMs })) as VerifyReport
}

interface FioSide {
  readonly iops: number
  readonly bw_bytes: number
  readonly total_ios: number
  readonly lat_ns: { readonly mean: number; readonly max: number }
  readonly clat_ns: { readonly percentile?: Readonly<Record<string, number>> }
}
interface FioReport {
  readonly jobs: readonly {
    readonly read: FioSide
    readonly write: FioSide
    readonly usr_cpu: number
    readonly sys_cpu: number
    readonly error: number
  }[]
}

const FIO_RW: Readonly<Record<Case['kind'], string>> = {
  rr: 'randread',
  rw: 'randwrite',
  mix: 'randrw',
  sr: 'read',
  sw: 'write',
}

/** The same case on the bare device: fio with io_uring and O_DIRECT, a job per session. */
export async function runFio(
  device: string,
  test: Case,
  seconds: number,
  signal: AbortSignal,
): Promise<Sample> {
  const args = [
    '--name=raw',
    `--filename=${device}`,
    '--direct=1',
    '--ioengine=io_uring',
    `--rw=${FIO_RW[test.kind]}`,
    '--rwmixread=70',
    `--bs=${test.bytes}`,
    `--iodepth=${test.depth}`,
    `--numjobs=${test.sessions}`,
    '--thread',
    '--group_reporting',
    '--time_based',
    `--runtime=${seconds}`,
    `--ramp_time=${WARMUP_S}`,
    '--randrepeat=0',
    '--norandommap',
    '--output-format=json',
  ]
  const timeoutMs = (seconds + WARMUP_S) * 1000 + RUN_SLACK_MS
  const output = await run(findProgram('fio') ?? 'fio', args, { signal, timeoutMs })
  // fio prints notes before the JSON when it has something to say.
  const job = (JSON.parse(output.slice(output.indexOf('{'))) as FioReport).jobs[0]
  if (job?.error !== 0) {
    throw new PlexusError('io', {
      op: 'measure',
      subject: device,
      message: `fio failed on ${device} (error ${job?.error ?? 'unknown'})`,
    })
  }
  const sides = [job.read, job.write].filter((side) => side.total_ios > 0)
  const ios = sides.reduce((sum, side) => sum + side.total_ios, 0)
  /** Over both directions, weighted by their operations; for percentiles an approximation. */
  const weighted = (value: (side: FioSide) => number): number =>
    sides.reduce((sum, side) => sum + value(side) * side.total_ios, 0) / Math.max(ios, 1)
  const percentileUs = (key: string): number =>
    weighted((side) => side.clat_ns.percentile?.[key] ?? 0) / 1e3
  const iops = job.read.iops + job.write.iops
  // usr_cpu and sys_cpu are percent of the run time of one job.
  const cores = ((job.usr_cpu + job.sys_cpu) / 100) * test.sessions
  return {
    iops,
    bytesPerSecond: job.read.bw_bytes + job.write.bw_bytes,
    meanUs: weighted((side) => side.lat_ns.mean) / 1e3,
    p50Us: percentileUs('50.000000'),
    p99Us: percentileUs('99.000000'),
    maxUs: Math.max(...sides.map((side) => side.lat_ns.max)) / 1e3,
    gapUs: 0,
    serverCpuUsPerOp: (cores * 1e6) / Math.max(iops, 1),
    serverCpuSPerGib: (cores * GIB) / Math.max(iops * test.bytes, 1),
    clientCores: 0,
    errors: 0,
  }
}
