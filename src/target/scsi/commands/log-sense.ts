/**
 * LOG SENSE (SPC-5, 6.8) and its pages as a table: what smartctl, sg_logs and Windows ask for and the unit's own counters
 * answer. Counters begin with the process and nothing is saved. Temperatures, self-tests and background scans belong to
 * the disks below. A row of the command table. SP (save parameters), the obsolete PPC and a parameter pointer are
 * outside the usage mask, and admission refuses them.
 *
 *   byte 0  DS, SPF, PAGE CODE   byte 1  SUBPAGE CODE   byte 2  PAGE LENGTH   byte 4  list of pages, or parameters
 *   parameter  byte 0  PARAMETER CODE (2)   byte 2  DU, TSD, ETC, TMC, FORMAT AND LINKING   byte 3  length   byte 4  value
 */
import { failCdbField } from '../sense.ts'
import { thresholdsOf } from '../thresholds.ts'
import type { CommandStatistics, LogicalUnit, ScsiCommand } from '../types.ts'

const SUBPAGE_FORMAT = 0x40
const ALL_SUBPAGES = 0xff
/** PC, page control: current cumulative values. Of thresholds and defaults there are none. */
const CUMULATIVE = 1

/** FORMAT AND LINKING (SPC-5, 7.3.2.2.2): a counter, or a list of binary fields. */
const FORMAT = { COUNTER: 0x00, BINARY_LIST: 0x03 } as const

interface LogPage {
  readonly code: number
  readonly name: string
  /** False: this unit has no such page. */
  available?(lu: LogicalUnit): boolean
  /** The page behind its four header bytes. */
  build(lu: LogicalUnit): Buffer
}

/** The operation codes whose counters a page sums up. */
const READS = [0x08, 0x28, 0xa8, 0x88] as const
const WRITES = [0x0a, 0x2a, 0xaa, 0x8a, 0x2e, 0xae, 0x8e] as const

function sum(
  lu: LogicalUnit,
  opcodes: readonly number[],
  field: Exclude<keyof CommandStatistics, 'name'>,
): number {
  return opcodes.reduce((total, opcode) => total + (lu.statistics[opcode]?.[field] ?? 0), 0)
}

function parameter(code: number, format: number, value: Buffer): Buffer {
  const header = Buffer.from([0, 0, format, value.length])
  header.writeUInt16BE(code, 0)
  return Buffer.concat([header, value])
}

/** Unsigned 64-bit fields. */
function fields(...values: readonly number[]): Buffer {
  const data = Buffer.alloc(8 * values.length)
  values.forEach((value, index) => {
    data.writeBigUInt64BE(BigInt(Math.round(value)), 8 * index)
  })
  return data
}

/** Error counters (SPC-5, 7.3.6): 0005h total bytes processed, 0006h total uncorrected errors. */
function errorCounters(lu: LogicalUnit, opcodes: readonly number[]): Buffer {
  return Buffer.concat([
    parameter(0x0005, FORMAT.COUNTER, fields(sum(lu, opcodes, 'bytes'))),
    parameter(0x0006, FORMAT.COUNTER, fields(sum(lu, opcodes, 'mediumErrors'))),
  ])
}

/** SCOPE: the space is the unit's own. */
const DEDICATED = 1

/**
 * Logical block provisioning (SBC-4, 6.4.5): 0001h available and 0002h used LBA mapping resources, as RESOURCE COUNT (4) in
 * threshold sets (VPD B2h) and SCOPE.
 */
function provisioning(lu: LogicalUnit): Buffer {
  const { available = 0, used = 0 } = thresholdsOf(lu) ?? {}
  const resources = [available, used].map((count, index) => {
    const value = Buffer.alloc(8)
    value.writeUInt32BE(count, 0)
    value.writeUInt8(DEDICATED, 4)
    return parameter(index + 1, FORMAT.BINARY_LIST, value)
  })
  return Buffer.concat(resources)
}

/**
 * General statistics and performance (SPC-5, 7.3.9): 0001h commands, logical blocks received and transmitted, times; the two
 * weighted sums at its end are not kept and are 0. 0003h: the time unit, 1 x 10^-3 s. Idle time, 0002h, is not kept.
 */
function generalStatistics(lu: LogicalUnit): Buffer {
  const blocks = (opcodes: readonly number[]) => sum(lu, opcodes, 'bytes') / lu.blockBytes
  const counts = fields(
    sum(lu, READS, 'operations'),
    sum(lu, WRITES, 'operations'),
    blocks(WRITES),
    blocks(READS),
    sum(lu, READS, 'latencyMs'),
    sum(lu, WRITES, 'latencyMs'),
    0,
    0,
  )
  return Buffer.concat([
    parameter(0x0001, FORMAT.BINARY_LIST, counts),
    parameter(0x0003, FORMAT.BINARY_LIST, Buffer.from([0, 0, 0, 3, 0, 0, 0, 1])),
  ])
}

/** Informational exceptions (SPC-5, 7.3.11): 0000h ASC and ASCQ 0, none; temperature FFh, not known. */
function informationalExceptions(): Buffer {
  return parameter(0x0000, FORMAT.BINARY_LIST, Buffer.from([0, 0, 0xff, 0]))
}

/** In ascending order, as page 00h lists them. */
const pages: readonly LogPage[] = [
  {
    code: 0x00,
    name: 'supported log pages',
    build: (lu) => Buffer.from(pagesOf(lu).map((p) => p.code)),
  },
  { code: 0x02, name: 'write error counters', build: (lu) => errorCounters(lu, WRITES) },
  { code: 0x03, name: 'read error counters', build: (lu) => errorCounters(lu, READS) },
  {
    code: 0x0c,
    name: 'logical block provisioning',
    available: (lu) => thresholdsOf(lu) !== undefined,
    build: provisioning,
  },
  { code: 0x19, name: 'general statistics and performance', build: generalStatistics },
  { code: 0x2f, name: 'informational exceptions', build: informationalExceptions },
]

function pagesOf(lu: LogicalUnit): readonly LogPage[] {
  return pages.filter(({ available }) => available?.(lu) ?? true)
}

/** Page 00h/FFh: pairs of page and subpage code, itself among them. */
function supportedSubpages(lu: LogicalUnit): Buffer {
  const pairs = pagesOf(lu).flatMap(({ code }) => [
    [code, 0],
    ...(code === 0 ? [[0, ALL_SUBPAGES]] : []),
  ])
  return Buffer.from(pairs.flat())
}

function withHeader(code: number, subpage: number, page: Buffer): Buffer {
  const header = Buffer.from([code | (subpage === 0 ? 0 : SUBPAGE_FORMAT), subpage, 0, 0])
  header.writeUInt16BE(page.length, 2)
  return Buffer.concat([header, page])
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'LOG SENSE',
    opcode: 0x4d,
    cdbUsage: [0x4d, 0, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0],
    data: 'in',
    serialize: 'none',
    // SPC-2, table 10 lists LOG SENSE as allowed under another initiator's reservation.
    allow: { notReady: true, reserved: true },
    execute(task, lu) {
      const code = task.cdb.readUInt8(2) & 0x3f
      const control = task.cdb.readUInt8(2) >> 6
      const subpage = task.cdb.readUInt8(3)
      const page = pagesOf(lu).find((candidate) => candidate.code === code)
      if (!page) return failCdbField(task, 2, 5)
      if (subpage !== 0 && !(code === 0 && subpage === ALL_SUBPAGES)) return failCdbField(task, 3)
      // The lists of pages have no values to choose from.
      if (code !== 0 && control !== CUMULATIVE) return failCdbField(task, 2, 7)
      const data = subpage === 0 ? page.build(lu) : supportedSubpages(lu)
      task.goodWithData(withHeader(code, subpage, data), task.cdb.readUInt16BE(7))
    },
  },
]
