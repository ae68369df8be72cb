/** Turns the samples of the engine benchmark into rows, verdicts, tables and JSON. Pure: called by engine.ts. */
import { PlexusError } from '../src/base/errors.ts'
import { type Case, describeCase } from './cases.ts'
import {
  CONTESTANTS,
  type ContestantName,
  type Goal,
  goalOf,
  isReached,
  type Medium,
} from './engine-cases.ts'
import type { EngineSample } from './engine-load.ts'
import type { JobRate } from './engine-world.ts'
import type { XorResult } from './engine-xor.ts'
import { table } from './report.ts'
import { median, pairedRatio, spread } from './statistics.ts'

/** One case on one medium: per contestant, one sample per round. */
export interface EngineResult {
  readonly medium: Medium
  readonly test: Case
  readonly samples: ReadonlyMap<ContestantName, readonly EngineSample[]>
}

export interface EngineRow {
  readonly medium: Medium
  readonly test: string
  readonly contestant: ContestantName
  readonly opsPerSecond: number
  readonly megabytesPerSecond: number
  readonly meanUs: number
  readonly cpuUsPerOp: number
  /** Of the bytes per second, over the rounds. */
  readonly spread: number
  /** Median of the quotients of bytes per second in the same round, by the name of the base. */
  readonly ratios: Readonly<Partial<Record<ContestantName, number>>>
}

export interface EngineVerdict {
  readonly medium: Medium
  readonly test: string
  readonly goal: Goal
  readonly got: number
  readonly spread: number
  readonly reached: boolean
}

const BASES: readonly ContestantName[] = ['raw', 'raw2', 'raw4', 'raid5']

/** One row for each case and contestant: medians over the rounds. */
export function engineRows(results: readonly EngineResult[]): readonly EngineRow[] {
  return results.flatMap(({ medium, test, samples }) =>
    [...samples].map(([contestant, own]) => {
      const of = (key: keyof EngineSample): number[] => own.map((sample) => sample[key])
      const ratios: Partial<Record<ContestantName, number>> = {}
      for (const base of BASES) {
        const bytes = samples.get(base)?.map((sample) => sample.bytesPerSecond)
        if (bytes && base !== contestant) ratios[base] = pairedRatio(of('bytesPerSecond'), bytes)
      }
      return {
        medium,
        test: test.name,
        contestant,
        opsPerSecond: median(of('opsPerSecond')),
        megabytesPerSecond: median(of('bytesPerSecond')) / 1e6,
        meanUs: median(of('meanUs')),
        cpuUsPerOp: median(of('cpuUsPerOp')),
        spread: spread(of('bytesPerSecond')),
        ratios,
      }
    }),
  )
}

/** Devices that do nothing have no rate to compare with: their figures are of CPU time only. */
export function engineVerdicts(
  results: readonly EngineResult[],
  rows: readonly EngineRow[],
): readonly EngineVerdict[] {
  return results
    .filter(({ medium }) => medium !== 'null')
    .flatMap(({ medium, test }) =>
      rows
        .filter((row) => row.medium === medium && row.test === test.name)
        .flatMap((row) => {
          const goal = goalOf(test, row.contestant)
          const got = goal && row.ratios[goal.base]
          if (!goal || got === undefined) return []
          const reached = isReached(goal, got)
          return [{ medium, test: test.name, goal, got, spread: row.spread, reached }]
        }),
    )
}

const times = (value: number | undefined): string =>
  value === undefined ? '-' : `${value.toFixed(2)}x`
const percent = (value: number): string => `${(value * 100).toFixed(0)} %`

/** Each volume layout against the devices that hold its data, all at once. */
const SUM_COLUMNS: readonly (readonly [ContestantName, ContestantName])[] = [
  ['mirror', 'raw2'],
  ['stripe', 'raw4'],
  ['raid5', 'raw4'],
  ['raid5log', 'raid5'],
]

/** The tables of one medium, under a line that says what it is. */
export function renderMedium(
  medium: Medium,
  text: string,
  results: readonly EngineResult[],
  rows: readonly EngineRow[],
): string {
  const tests = results.filter((result) => result.medium === medium).map(({ test }) => test)
  const row = (test: Case, name: ContestantName): EngineRow | undefined =>
    rows.find((one) => one.medium === medium && one.test === test.name && one.contestant === name)
  const present = CONTESTANTS.filter((name) => tests.some((test) => row(test, name)))
  const parts = [`${medium}: ${text}`]
  if (medium !== 'null') parts.push(rateTable(tests, present, row))
  // The event loop never sleeps while paced devices look at the clock: it would be counted.
  if (medium !== 'paced') parts.push(cpuTable(tests, present, row))
  return `${parts.join('\n\n')}\n`
}

type FindRow = (test: Case, name: ContestantName) => EngineRow | undefined

function rateTable(tests: readonly Case[], present: readonly ContestantName[], row: FindRow) {
  const others = present.filter((name) => name !== 'raw')
  const sums = SUM_COLUMNS.filter((pair) => pair.every((name) => present.includes(name)))
  const lines = tests.map((test) => {
    const spreads = present.flatMap((name) => row(test, name)?.spread ?? [])
    return [
      describeCase(test),
      (row(test, 'raw')?.megabytesPerSecond ?? 0).toFixed(0),
      ...others.map((name) => times(row(test, name)?.ratios['raw'])),
      ...sums.map(([name, base]) => times(row(test, name)?.ratios[base])),
      percent(Math.max(0, ...spreads)),
    ]
  })
  const header = ['bytes per second, of raw', 'raw MB/s', ...others]
  return table([...header, ...sums.map((pair) => pair.join('/')), 'spread'], lines)
}

function cpuTable(tests: readonly Case[], present: readonly ContestantName[], row: FindRow) {
  const lines = tests.map((test) => [
    describeCase(test),
    ...present.map((name) => row(test, name)?.cpuUsPerOp.toFixed(2) ?? '-'),
  ])
  return table(['CPU us for one request', ...present], lines)
}

/** The goals with what was reached. */
export function renderEngineVerdicts(verdicts: readonly EngineVerdict[]): string {
  const lines = verdicts.map(({ medium, test, goal, got, spread, reached }) => [
    `${medium} ${test} ${goal.contestant} of ${goal.base}`,
    `${goal.sense === 'more' ? '>' : '>='} ${goal.wanted.toFixed(2)}`,
    got.toFixed(2),
    percent(spread),
    reached ? 'reached' : 'MISSED',
  ])
  const missed = verdicts.filter(({ reached }) => !reached).length
  const sum =
    verdicts.length === 0
      ? 'goals: nothing was judged'
      : `goals: ${verdicts.length - missed} of ${verdicts.length} are reached`
  return `${table(['goal', 'wanted', 'got', 'spread', ''], lines)}\n${sum}\n`
}

/** How fast the volumes were made ready, in one line. */
export function renderJobs(jobs: readonly JobRate[]): string {
  const rates = jobs.map((one) => `${one.kind} ${one.megabytesPerSecond.toFixed(0)} MB/s`)
  return `jobs: ${rates.join(', ')}`
}

export function renderXor(results: readonly XorResult[]): string {
  const lines = results.map((one) => [
    one.name,
    one.gigabytesPerSecond.toFixed(1),
    percent(one.spread),
  ])
  return `${table(['XOR of 4 sources', 'GB/s read', 'spread'], lines)}\n`
}

const BEGIN = '<!-- engine benchmark: begin -->'
const END = '<!-- engine benchmark: end -->'

/** `document` with `report` between the two marks. Throws `invalid` when it has not both of them, in order. */
export function replaceReport(document: string, report: string): string {
  const begin = document.indexOf(BEGIN)
  const end = document.indexOf(END)
  if (begin < 0 || end < begin) {
    throw new PlexusError('invalid', {
      op: 'update',
      subject: 'document',
      message: `the document has no place for the report: a line ${BEGIN} and one ${END}`,
    })
  }
  const before = document.slice(0, begin + BEGIN.length)
  return `${before}\n\n\`\`\`\n${report.trimEnd()}\n\`\`\`\n\n${document.slice(end)}`
}
