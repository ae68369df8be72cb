/**
 * The tests of libiscsi's suite that Plexus is expected to skip, each with what the suite says and why. Anything
 * else that is skipped fails `npm run conformance`, and so does a row whose tests have begun to run.
 * docs/conformance.md is generated from this table; test/interop/conformance.test.ts holds it to that.
 */
import type { ExpectedSkip } from './cunit.ts'

export const EXPECTED_SKIPS: readonly ExpectedSkip[] = [
  {
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
    tests: ['ExtendedCopy.*', 'ReceiveCopyResults.*'],
    says: /^(EXTENDEDCOPY|RECEIVECOPYRESULT|RECEIVE_COPY_RESULTS)/,
    why: 'EXTENDED COPY and RECEIVE COPY RESULTS come with a later issue.',
  },
  {
    tests: ['GetLBAStatus.*'],
    says: /^GET_?LBA_?STATUS/,
    why: 'GET LBA STATUS needs to know which blocks are mapped. It comes with virstor, which knows; a block device of the kernel does not say.',
  },
  {
    tests: ['OrWrite.*', 'ReadOnly.ReadOnlySBC'],
    says: /^ORWRITE/,
    why: 'ORWRITE comes with a later issue. No common initiator uses it. ReadOnlySBC, which runs on a read-only unit, tries all writing commands in turn and ends where it meets ORWRITE.',
  },
  {
    tests: ['WriteAtomic16.*'],
    says: /^WRITEATOMIC16/,
    why: 'WRITE ATOMIC(16) promises that a write is never torn by a power failure. It comes with a class that can keep that promise.',
  },
  {
    tests: ['Sanitize.*'],
    says: /^SANITIZE/,
    why: 'SANITIZE promises that erased data cannot be recovered from the medium. Plexus cannot promise that for the devices below it.',
  },
  {
    tests: ['ReadDefectData10.*', 'ReadDefectData12.*'],
    says: /^READDEFECTDATA/,
    why: 'READ DEFECT DATA lists the defects of one physical disk. A logical unit has none of its own.',
  },
  {
    tests: ['PreventAllow.*', 'StartStopUnit.Simple'],
    says: /^(Logical unit is not removable|Media is not removable|PREVENT)/i,
    why: 'The medium of a logical unit cannot be removed, as INQUIRY says (RMB is 0); these tests eject it.',
  },
  {
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
]

/** The generated part of docs/conformance.md: one row per entry. */
export function skipTable(table: readonly ExpectedSkip[] = EXPECTED_SKIPS): string {
  const rows = table.map(({ tests, setup, why }) => {
    const names = tests.map((name) => `\`${name}\``).join(', ')
    return `| ${names}${setup ? ` (on a ${setup} device)` : ''} | ${why} |`
  })
  return ['| Tests | Why they are skipped |', '|---|---|', ...rows].join('\n')
}
