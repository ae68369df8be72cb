/**
 * The tests of libiscsi's suite that Plexus is expected to skip or to fail, each with what the suite says and why. Anything
 * else that does not pass fails `npm run conformance`, and so does a row whose tests have begun to pass.
 * The tables of docs/conformance.md are generated from this one; test/interop/conformance.test.ts holds it to that.
 */
import type { ExpectedResult } from './cunit.ts'

export const EXPECTED_RESULTS: readonly ExpectedResult[] = [
  {
    verdict: 'skipped',
    tests: [
      'PrinReadKeys.*',
      'PrinServiceactionRange.*',
      'PrinReportCapabilities.*',
      'ProutRegister.*',
      'ProutClear.*',
      'ProutPreempt.*',
      'ProutReserve.*',
    ],
    says: /^(PROUT Not Supported|PERSISTENT RESERVE (IN|OUT)|PRIN|PROUT)/,
    why: 'Persistent reservations (PERSISTENT RESERVE IN and OUT) come with a later issue; until then initiators are told that the commands do not exist. RESERVE(6) and RELEASE(6) work.',
  },
  {
    verdict: 'skipped',
    tests: ['ExtendedCopy.*', 'ReceiveCopyResults.*'],
    says: /^(EXTENDEDCOPY|RECEIVECOPYRESULT|RECEIVE_COPY_RESULTS)/,
    why: 'EXTENDED COPY and RECEIVE COPY RESULTS come with a later issue.',
  },
  {
    verdict: 'skipped',
    tests: ['OrWrite.*', 'ReadOnly.ReadOnlySBC'],
    says: /^ORWRITE/,
    why: 'ORWRITE comes with a later issue. No common initiator uses it. ReadOnlySBC, which runs on a read-only unit, tries all writing commands in turn and ends where it meets ORWRITE.',
  },
  {
    verdict: 'skipped',
    tests: ['WriteAtomic16.*'],
    says: /^WRITEATOMIC16/,
    why: 'WRITE ATOMIC(16) promises that a write is never torn by a power failure. It comes with a class that can keep that promise.',
  },
  {
    verdict: 'skipped',
    tests: ['Sanitize.*'],
    says: /^SANITIZE/,
    why: 'SANITIZE promises that erased data cannot be recovered from the medium. Plexus cannot promise that for the devices below it.',
  },
  {
    verdict: 'skipped',
    tests: ['PreventAllow.*', 'StartStopUnit.Simple'],
    says: /^(Logical unit is not removable|Media is not removable|PREVENT)/i,
    why: 'The medium of a logical unit cannot be removed, as INQUIRY says (RMB is 0); these tests eject it.',
  },
  {
    verdict: 'skipped',
    tests: [
      'CompareAndWrite.InvalidDataOutSize',
      'WriteSame10.UnmapUnaligned',
      'WriteSame10.InvalidDataOutSize',
      'WriteSame16.UnmapUnaligned',
      'WriteSame16.InvalidDataOutSize',
    ],
    setup: 'loop',
    says: /^LBPPB < 2/,
    why: 'These tests need physical blocks larger than logical ones. The loop device has none; the tests run on the image file.',
  },
  {
    verdict: 'failed',
    tests: ['WriteSame10.UnmapUntilEnd'],
    says: /did not read back as zero/,
    why: 'The test sends WRITE SAME with UNMAP = 1 and a block of FFh, and expects zeroes. SBC lets UNMAP = 1 unmap only where the unmapped blocks then read as the block that was sent; this block has to be written, and Plexus writes it. Initiators in use send zeroes, which are unmapped.',
  },
  {
    verdict: 'failed',
    tests: ['iSCSIResiduals.Read10Invalid'],
    says: /test_read10_invalid\.c:262/,
    why: 'The last step sends a READ that is flagged as a write (W = 1) with a block of Data-Out, and expects GOOD. GOOD would tell the initiator that its data was taken. Plexus refuses with 05/0E/03 (INVALID FIELD IN COMMAND INFORMATION UNIT), as it does for a WRITE that is flagged as a read.',
  },
  {
    verdict: 'failed',
    tests: ['GetLBAStatus.UnmapSingle'],
    setup: 'file',
    says: /test_get_lba_status_unmap_single\.c:135/,
    why: 'The second part of the test asks for the status of block i + 1 and demands that the answer begins at block i + n, with n logical blocks in a physical one. That holds for n = 1 only; the image file has 8. On the loop device the test passes.',
  },
]

/** What the generated tables of docs/conformance.md say above their second column. */
const HEADINGS = {
  skipped: 'Why they are skipped',
  failed: 'Why they fail',
} as const

/** A generated table of docs/conformance.md: one row per entry with that verdict. */
export function resultTable(
  verdict: ExpectedResult['verdict'],
  table: readonly ExpectedResult[] = EXPECTED_RESULTS,
): string {
  const rows = table
    .filter((row) => row.verdict === verdict)
    .map(({ tests, setup, why }) => {
      const names = tests.map((name) => `\`${name}\``).join(', ')
      return `| ${names}${setup ? ` (set-up ${setup})` : ''} | ${why} |`
    })
  return [`| Tests | ${HEADINGS[verdict]} |`, '|---|---|', ...rows].join('\n')
}
