/**
 * Reads what iscsi-test-cu (libiscsi's conformance suite, CUnit underneath) prints, and judges it against
 * the table of expected skips. CUnit counts a skipped test as passed; here a test that says [SKIPPED]
 * before its verdict is a skip. No processes: conformance.ts runs the tool.
 */

export type Verdict = 'passed' | 'failed' | 'skipped'

export interface TestResult {
  readonly suite: string
  readonly test: string
  readonly verdict: Verdict
  /** Why it was skipped, or what failed; one line each. */
  readonly details: readonly string[]
}

/** A test that is agreed not to pass: which, what it says, and why that is right. */
export interface ExpectedResult {
  readonly verdict: 'skipped' | 'failed'
  /** `Suite.Test`, or `Suite.*` for all tests of a suite. */
  readonly tests: readonly string[]
  /** Only in set-ups whose name begins so; absent: in all. */
  readonly setup?: string
  /** What the suite prints: the reason of a skip, or some line of a failure. */
  readonly says: RegExp
  /** For docs/conformance.md. */
  readonly why: string
}

const TEST_LINE = /^ {2}Test: (.+?) \.\.\./
const VERDICT = /(?:^|\.\.\.)(passed|FAILED)(?=\s|$)/
const SKIPPED = /\[SKIPPED\]\s*(.*?)\s*$/

/** Results of one run of one suite. A test without a verdict is a failure: the tool died or hung in it. */
export function parseOutput(suite: string, output: string): TestResult[] {
  const results: TestResult[] = []
  let current: { name: string; lines: string[]; verdict: string | undefined } | undefined
  const finish = () => {
    if (current) results.push(judge(suite, current))
    current = undefined
  }
  for (const line of output.split('\n')) {
    const begins = TEST_LINE.exec(line)
    if (begins) {
      finish()
      current = { name: begins[1] ?? '', lines: [], verdict: undefined }
    }
    if (/^(Suite:|Run Summary:)/.test(line)) finish()
    if (!current) continue
    const verdict = current.verdict === undefined ? VERDICT.exec(line) : undefined
    if (current.verdict === undefined) {
      const text = line.slice(begins?.[0].length ?? 0, verdict?.index)
      if (text.trim() !== '') current.lines.push(text.trim())
    } else if (current.verdict === 'FAILED' && /^\s+\d+\. /.test(line)) {
      current.lines.push(line.trim())
    }
    if (verdict) current.verdict = verdict[1]
  }
  finish()
  return results
}

function judge(
  suite: string,
  test: { name: string; lines: string[]; verdict: string | undefined },
): TestResult {
  const skips = test.lines.flatMap((line) => SKIPPED.exec(line)?.[1] ?? [])
  if (test.verdict === 'passed' && skips.length > 0) {
    return { suite, test: test.name, verdict: 'skipped', details: skips }
  }
  if (test.verdict === 'passed') return { suite, test: test.name, verdict: 'passed', details: [] }
  const details = [...test.lines]
  if (test.verdict === undefined)
    details.push('no verdict: the test tool died or hung in this test')
  return { suite, test: test.name, verdict: 'failed', details }
}

function matches(pattern: string, suite: string, test: string): boolean {
  return pattern === `${suite}.${test}` || pattern === `${suite}.*`
}

/** The row that expects this test not to pass. */
function expectedResult(
  table: readonly ExpectedResult[],
  suite: string,
  test: string,
): ExpectedResult | undefined {
  return table.find((row) => row.tests.some((pattern) => matches(pattern, suite, test)))
}

/**
 * What is wrong with the results: failures and skips that nobody expects or that say something else, and tests
 * that pass against expectation. Empty: the run is good.
 */
export function findFaults(
  results: readonly TestResult[],
  everywhere: readonly ExpectedResult[],
  setup = '',
): string[] {
  const table = everywhere.filter((row) => setup.startsWith(row.setup ?? ''))
  const faults: string[] = []
  for (const { suite, test, verdict, details } of results) {
    const name = `${suite}.${test}`
    const expected = expectedResult(table, suite, test)
    const said = verdict === 'skipped' ? (details[0] ?? '') : details.join('\n')
    const agreed = expected?.verdict === verdict && expected.says.test(said)
    if (verdict === 'failed' && !agreed) {
      faults.push(`${name} FAILED\n    ${details.join('\n    ')}`)
    }
    if (verdict === 'skipped' && !agreed) {
      faults.push(`${name} is skipped without being expected: ${details[0]}`)
    }
    if (verdict === 'passed' && expected) {
      faults.push(`${name} passes now: take it out of test/interop/expected.ts`)
    }
  }
  for (const pattern of table.flatMap((row) => row.tests)) {
    const [suite = ''] = pattern.split('.')
    const ran = results.some((result) => result.suite === suite)
    if (ran && !results.some((result) => matches(pattern, result.suite, result.test))) {
      faults.push(`${pattern} stands in test/interop/expected.ts but is no test`)
    }
  }
  return faults
}
