/** Turns samples into rows, tables and JSON. Pure: called by bench.ts and the tests. */
import { formatSize } from '../src/base/bytes.ts'
import { type Case, describeCase } from './cases.ts'
import type { Sample } from './client.ts'
import type { MemoryUse } from './peers.ts'
import { median, pairedRatio, spread } from './statistics.ts'

/** The samples of one case: per contestant, one per round. */
export interface CaseResult {
  readonly test: Case
  readonly samples: ReadonlyMap<string, readonly Sample[]>
}

export interface Row {
  readonly test: string
  readonly target: string
  readonly iops: number
  readonly megabytesPerSecond: number
  readonly meanUs: number
  readonly p50Us: number
  readonly p99Us: number
  readonly cpuUsPerOp: number
  readonly cpuSPerGib: number
  readonly clientCores: number
  readonly spread: number
  /** Median of the quotients of IOPS in the same round, by the name of the base. */
  readonly ratios: Readonly<Record<string, number>>
}

/** Above this share of a core the client may be what is measured: it has one thread. */
export const CLIENT_CORES_MAX = 0.85

function rowOf(result: CaseResult, target: string, bases: readonly string[]): Row {
  const samples = result.samples.get(target) ?? []
  const of = (key: keyof Sample): number[] => samples.map((sample) => sample[key])
  const ratios: Record<string, number> = {}
  for (const base of bases) {
    const baseIops = result.samples.get(base)?.map((sample) => sample.iops)
    if (baseIops && base !== target) ratios[base] = pairedRatio(of('iops'), baseIops)
  }
  return {
    test: result.test.name,
    target,
    iops: median(of('iops')),
    megabytesPerSecond: median(of('bytesPerSecond')) / 1e6,
    meanUs: median(of('meanUs')),
    p50Us: median(of('p50Us')),
    p99Us: median(of('p99Us')),
    cpuUsPerOp: median(of('serverCpuUsPerOp')),
    cpuSPerGib: median(of('serverCpuSPerGib')),
    clientCores: median(of('clientCores')),
    spread: spread(of('iops')),
    ratios,
  }
}

/** One row per case and contestant: medians over the rounds. */
export function makeRows(results: readonly CaseResult[], bases: readonly string[]): readonly Row[] {
  return results.flatMap((result) =>
    [...result.samples.keys()].map((target) => rowOf(result, target, bases)),
  )
}

/** Cells in aligned columns; the first column to the left, the others to the right. */
export function table(header: readonly string[], lines: readonly (readonly string[])[]): string {
  const widths = header.map((title, column) =>
    Math.max(title.length, ...lines.map((line) => line[column]?.length ?? 0)),
  )
  return [header, ...lines]
    .map((line) =>
      line
        .map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0)))
        .join('  ')
        .trimEnd(),
    )
    .join('\n')
}

const number = (value: number, digits = 0): string => value.toFixed(digits)
const ratio = (value: number | undefined): string =>
  value === undefined ? '-' : `${value.toFixed(2)}x`

/** The table of each case, under a line that says what it is. */
export function renderCases(
  results: readonly CaseResult[],
  rows: readonly Row[],
  bases: readonly string[],
): string {
  const header = [
    ...[
      'target',
      'IOPS',
      'MB/s',
      'mean us',
      'p50 us',
      'p99 us',
      'CPU us/op',
      'CPU s/GiB',
      'client',
    ],
    ...['spread', ...bases.map((base) => `vs ${base}`)],
  ]
  return results
    .map((result) => {
      const lines = rows
        .filter((row) => row.test === result.test.name)
        .map((row) => [
          row.target,
          number(row.iops),
          number(row.megabytesPerSecond),
          number(row.meanUs, 1),
          number(row.p50Us, 1),
          number(row.p99Us, 1),
          number(row.cpuUsPerOp, 1),
          number(row.cpuSPerGib, 2),
          row.clientCores === 0 ? '-' : number(row.clientCores, 2),
          `${number(row.spread * 100)} %`,
          ...bases.map((base) => ratio(row.ratios[base])),
        ])
      return `${result.test.name}: ${describeCase(result.test)}\n${table(header, lines)}\n`
    })
    .join('\n')
}

/** Rows whose figure may be the client's, not the server's. */
export function clientWarnings(rows: readonly Row[]): readonly string[] {
  return rows
    .filter((row) => row.clientCores > CLIENT_CORES_MAX)
    .map(
      (row) =>
        `warning: ${row.test} on ${row.target}: the client used ${number(row.clientCores * 100)} % of its core and may be the bottleneck`,
    )
}

export interface MemoryRow {
  readonly target: string
  readonly before: MemoryUse
  readonly after: MemoryUse
}

/** Resident memory of the servers before and after all runs, and its peak. */
export function renderMemory(rows: readonly MemoryRow[]): string {
  const lines = rows.map((row) => [
    row.target,
    formatSize(row.before.residentBytes),
    formatSize(row.after.residentBytes),
    formatSize(row.after.peakBytes),
  ])
  return `${table(['memory', 'before', 'after', 'peak'], lines)}\n`
}

/**
 * What digests cost: each case against the same client and target without digests. Rows of the
 * contestants `none`, `header` and `both`.
 */
export function renderDigests(rows: readonly Row[]): string {
  const lines = rows.map((row) => {
    const off = rows.find((other) => other.test === row.test && other.target === 'none')
    const loss = row.target === 'none' ? undefined : 1 - (row.ratios['none'] ?? 0)
    return [
      `${row.test} ${row.target}`,
      number(row.iops),
      number(row.megabytesPerSecond),
      number(row.p99Us, 1),
      number(row.cpuUsPerOp, 1),
      off && loss !== undefined ? number(row.cpuUsPerOp - off.cpuUsPerOp, 1) : '-',
      loss === undefined ? '-' : `${number(loss * 100)} %`,
      number(row.clientCores, 2),
    ]
  })
  const header = ['digests', 'IOPS', 'MB/s', 'p99 us', 'CPU us/op', 'more CPU', 'loss', 'client']
  return `${table(header, lines)}\n`
}
