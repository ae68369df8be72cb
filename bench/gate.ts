/**
 * The performance gate: what Plexus must reach beside its peers on the same machine in the same run.
 * It judges ratios and CPU time per operation, never absolute IOPS, so that it holds on any machine.
 * Pure: called by bench.ts and the tests.
 */
import { parseCase } from './cases.ts'
import type { BenchDevice } from './environment.ts'
import { type Row, table } from './report.ts'

export const GRADES = ['realistic', 'great'] as const
export type Grade = (typeof GRADES)[number]

type Measure = 'vs tgt-aio' | 'share of raw' | 'CPU us/op'

interface Rule {
  readonly tests: readonly string[]
  readonly measure: Measure
  readonly medium: BenchDevice['medium'] | 'any'
  /** A minimum of a ratio, a maximum of CPU time. */
  readonly realistic: number
  readonly great: number
}

const rule = (
  tests: string,
  measure: Measure,
  medium: Rule['medium'],
  realistic: number,
  great: number,
): Rule => ({ tests: tests.split(' '), measure, medium, realistic, great })

/** The goals; docs/performance.md explains where they come from. */
const RULES: readonly Rule[] = [
  rule('rr4k32', 'vs tgt-aio', 'ram', 1.3, 1.8),
  rule('rw4k32', 'vs tgt-aio', 'ram', 1.1, 1.4),
  rule('rr4k32', 'share of raw', 'ram', 0.27, 0.4),
  rule('rw4k32', 'share of raw', 'ram', 0.25, 0.31),
  rule('rr4k32x4', 'vs tgt-aio', 'ram', 1.2, 1.8),
  rule('rr4k1 rw4k1', 'vs tgt-aio', 'ram', 0.9, 1),
  rule('rr4k8 rw4k8', 'vs tgt-aio', 'ram', 0.7, 1),
  rule('sr128k8 sw128k8', 'vs tgt-aio', 'ram', 1, 1.25),
  rule('sr1m4 sw1m4', 'vs tgt-aio', 'ram', 1, 1.5),
  rule('rr4k32 rw4k32', 'CPU us/op', 'any', 8, 5.5),
  rule('rr4k32 rw4k32', 'share of raw', 'disk', 0.6, 0.75),
]

/** The cases that a gate on this medium needs, as a list for --tests. */
export function gateCases(medium: BenchDevice['medium']): string {
  const rules = RULES.filter((one) => one.medium === 'any' || one.medium === medium)
  return [...new Set(rules.flatMap((one) => one.tests))].join(',')
}

/** The contestants that a gate compares. */
export const GATE_TARGETS = 'raw,plexus,tgt-aio'

export interface Verdict {
  readonly test: string
  readonly measure: Measure
  readonly wanted: number
  /** Undefined: the case ran, but there is no figure, which fails, too. */
  readonly got: number | undefined
  readonly passed: boolean
}

function figure(row: Row | undefined, measure: Measure): number | undefined {
  if (!row) return undefined
  if (measure === 'CPU us/op') return row.cpuUsPerOp > 0 ? row.cpuUsPerOp : undefined
  return row.ratios[measure === 'share of raw' ? 'raw' : 'tgt-aio']
}

/** Judges every rule of the medium whose case has run. */
export function judge(
  rows: readonly Row[],
  grade: Grade,
  medium: BenchDevice['medium'],
): readonly Verdict[] {
  const ran = new Set(rows.map((row) => row.test))
  return RULES.filter((one) => one.medium === 'any' || one.medium === medium).flatMap((one) =>
    one.tests
      .map((name) => parseCase(name).name)
      .filter((test) => ran.has(test))
      .map((test) => {
        const wanted = one[grade]
        const row = rows.find(
          (candidate) => candidate.test === test && candidate.target === 'plexus',
        )
        const got = figure(row, one.measure)
        const passed =
          got !== undefined && (one.measure === 'CPU us/op' ? got <= wanted : got >= wanted)
        return { test, measure: one.measure, wanted, got, passed }
      }),
  )
}

/** The verdicts as a table; failures are marked in the last column. */
export function renderVerdicts(verdicts: readonly Verdict[], grade: Grade): string {
  const lines = verdicts.map((verdict) => [
    `${verdict.test} ${verdict.measure}`,
    `${verdict.measure === 'CPU us/op' ? '<=' : '>='} ${verdict.wanted}`,
    verdict.got === undefined ? 'nothing' : verdict.got.toFixed(2),
    verdict.passed ? 'ok' : 'BELOW',
  ])
  const below = verdicts.filter((verdict) => !verdict.passed).length
  const sum =
    verdicts.length === 0
      ? `gate ${grade}: nothing was judged: no case of it has run`
      : below === 0
        ? `gate ${grade}: all ${verdicts.length} goals are reached`
        : `gate ${grade}: ${below} of ${verdicts.length} goals are missed`
  return `${table([`gate ${grade}`, 'wanted', 'got', ''], lines)}\n${sum}\n`
}
