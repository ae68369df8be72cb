/** The conformance runner's reading and judging, and docs/conformance.md against the table behind it. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { ROOT } from '../support/root.ts'
import { type ExpectedResult, findFaults, parseOutput } from './cunit.ts'
import { EXPECTED_RESULTS, resultTable } from './expected.ts'

/** Lines as iscsi-test-cu 1.19.0 prints them. */
const OUTPUT = `
Suite: Sample
  Test: Good ...passed
  Test: Bad ...    [FAILED] READ10 command failed with status 2
FAILED
    1. test_sample.c:71  - CU_ASSERT_EQUAL(_r,0)
  Test: Told ...    [FAILED] RESERVE6 command: failed with sense, and that was right
passed
  Test: Skipped ...    [SKIPPED] ORWRITE is not implemented.
    [SKIPPED] ORWRITE is not implemented.
passed
  Test: 2Last ...passed    [SKIPPED] PERSISTENT RESERVE IN is not implemented.

Run Summary:    Type  Total    Ran Passed Failed Inactive
               tests      5      5      4      1        0
`

t.test('the output of the suite is read as it is meant', async (t) => {
  const results = parseOutput('Sample', OUTPUT)
  t.strictSame(
    results.map(({ test, verdict }) => [test, verdict]),
    [
      ['Good', 'passed'],
      ['Bad', 'failed'],
      ['Told', 'passed'],
      ['Skipped', 'skipped'],
      ['2Last', 'passed'],
    ],
  )
  t.strictSame(results[1]?.details, [
    '[FAILED] READ10 command failed with status 2',
    '1. test_sample.c:71  - CU_ASSERT_EQUAL(_r,0)',
  ])
  t.strictSame(results[3]?.details[0], 'ORWRITE is not implemented.')
})

t.test('a test tool that dies or hangs in a test is a failure of that test', async (t) => {
  const [, last] = parseOutput('S', 'Suite: S\n  Test: A ...passed\n  Test: B ...   begins\n')
  t.match(last, { test: 'B', verdict: 'failed' })
  t.match(last?.details.at(-1), /no verdict/)
})

t.test('what is not agreed on is a fault', async (t) => {
  const NOPE = { verdict: 'skipped', says: /^NOPE/, why: '' } as const
  const table: ExpectedResult[] = [{ ...NOPE, tests: ['S.A', 'S.B'] }]
  const result = (test: string, verdict: 'passed' | 'failed' | 'skipped', detail = '') => ({
    suite: 'S',
    test,
    verdict,
    details: [detail],
  })
  const asAgreed = [result('A', 'skipped', 'NOPE'), result('B', 'skipped', 'NOPE')]
  t.strictSame(findFaults(asAgreed, table), [])
  t.match(findFaults([...asAgreed, result('C', 'failed')], table), [/S\.C FAILED/])
  t.match(findFaults([...asAgreed, result('C', 'skipped', 'NOPE')], table), [/without being/])
  t.match(findFaults([result('A', 'skipped', 'other'), result('B', 'skipped', 'NOPE')], table), [
    /without being expected: other/,
  ])
  t.match(findFaults([result('A', 'passed'), result('B', 'skipped', 'NOPE')], table), [
    /passes now/,
  ])
  t.match(findFaults([result('A', 'skipped', 'NOPE')], table), [/S\.B stands .* is no test/])
  t.match(findFaults(asAgreed, [{ ...NOPE, tests: ['S.*'], setup: 'loop' }], 'file'), [
    /without/,
    /without/,
  ])
  const fails: ExpectedResult[] = [{ verdict: 'failed', tests: ['S.A'], says: /c:7/, why: '' }]
  t.strictSame(findFaults([result('A', 'failed', '1. test.c:7')], fails), [])
  t.match(findFaults([result('A', 'failed', '1. test.c:8')], fails), [/S\.A FAILED/])
  t.match(findFaults([result('A', 'passed')], fails), [/passes now/])
  t.match(findFaults([result('A', 'skipped', 'c:7')], fails), [/without being expected/])
})

t.test('docs/conformance.md has the tables', async (t) => {
  const page = readFileSync(join(ROOT, 'docs/conformance.md'), 'utf8')
  for (const verdict of ['skipped', 'failed'] as const) {
    t.ok(page.includes(resultTable(verdict)), `${verdict}: npm run conformance -- --tables`)
  }
  t.ok(EXPECTED_RESULTS.every((row) => row.why.length > 40))
})
