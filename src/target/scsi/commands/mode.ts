/**
 * MODE SENSE(6) and (10) (SPC-5, 6.14 and 6.15) and MODE SELECT(6) and (10) (6.12 and 6.13). Rows of the
 * command table; the pages are in mode-pages.ts.
 *
 *   header (6)   byte 0  MODE DATA LENGTH      byte 1  MEDIUM TYPE   byte 2  WP, DPOFUA
 *                byte 3  BLOCK DESCRIPTOR LENGTH
 *   header (10)  byte 0  MODE DATA LENGTH (2)  byte 2  MEDIUM TYPE   byte 3  WP, DPOFUA
 *                byte 4  LONGLBA               byte 6  BLOCK DESCRIPTOR LENGTH (2)
 *   block descriptor  short: blocks (4), reserved, block length (3); long: blocks (8), reserved (4), length (4)
 *   then pages.
 */
import { defined } from '../../../base/assert.ts'
import { ASC, failCdbField, failParameterField, failWith, SENSE_KEY } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit, ModeState, ScsiCommand } from '../types.ts'
import { makeDurable } from './make-durable.ts'
import { defaultModeState, headerBytesOf, type ModePage, modePagesOf } from './mode-pages.ts'

const LLBAA = 0x10
const DBD = 0x08
const PAGE_FORMAT = 0x10
const LONGLBA = 0x01
const WRITE_PROTECTED = 0x80
const DPOFUA = 0x10
const SUBPAGE_FORMAT = 0x40
const PAGE_CODE = 0x3f
const ALL_PAGES = 0x3f
const ALL_SUBPAGES = 0xff
const SHORT_DESCRIPTOR_BYTES = 8
const LONG_DESCRIPTOR_BYTES = 16

/** PC, page control: which values of the pages. Saved values (3) do not exist. */
const PAGE_CONTROL: ReadonlyArray<((page: ModePage, lu: LogicalUnit) => Buffer) | undefined> = [
  (page, lu) => page.values(lu.mode, lu),
  (page, lu) => page.changeable(lu),
  (page, lu) => page.values(defaultModeState(lu), lu),
]

/** Where the 6 and the 10 byte commands differ. */
interface ModeFormat {
  readonly headerBytes: 4 | 8
  /** Allocation length or parameter list length. */
  length(cdb: Buffer): number
}
const FORMAT_6: ModeFormat = { headerBytes: 4, length: (cdb) => cdb.readUInt8(4) }
const FORMAT_10: ModeFormat = { headerBytes: 8, length: (cdb) => cdb.readUInt16BE(7) }

// ---- MODE SENSE ----

function header(
  format: ModeFormat,
  bytesAfter: number,
  writeProtected: boolean,
  descriptorBytes: number,
): Buffer {
  const data = Buffer.alloc(format.headerBytes)
  const specific = (writeProtected ? WRITE_PROTECTED : 0) | DPOFUA
  // MODE DATA LENGTH counts what follows it, whatever the allocation length cuts off.
  if (format.headerBytes === 4) {
    data.writeUInt8(3 + bytesAfter, 0)
    data.writeUInt8(specific, 2)
    data.writeUInt8(descriptorBytes, 3)
  } else {
    data.writeUInt16BE(6 + bytesAfter, 0)
    data.writeUInt8(specific, 3)
    data.writeUInt8(descriptorBytes === LONG_DESCRIPTOR_BYTES ? LONGLBA : 0, 4)
    data.writeUInt16BE(descriptorBytes, 6)
  }
  return data
}

function blockDescriptor(lu: LogicalUnit, long: boolean): Buffer {
  if (long) {
    const data = Buffer.alloc(LONG_DESCRIPTOR_BYTES)
    data.writeBigUInt64BE(BigInt(lu.blocks), 0)
    data.writeUInt32BE(lu.blockBytes, 12)
    return data
  }
  const data = Buffer.alloc(SHORT_DESCRIPTOR_BYTES)
  data.writeUInt32BE(Math.min(lu.blocks, 0xffff_ffff), 0)
  data.writeUIntBE(lu.blockBytes, 5, 3)
  return data
}

/** The pages of a page code, with all of their subpages; none where no page has the code. */
function pagesOfCode(lu: LogicalUnit, code: number): readonly ModePage[] {
  return modePagesOf(lu).filter((page) => code === ALL_PAGES || page.code === code)
}

function hasSubpage({ subpage = 0 }: ModePage, wanted: number): boolean {
  return wanted === ALL_SUBPAGES || subpage === wanted
}

function modeSense(task: Task, lu: LogicalUnit, format: ModeFormat): void {
  const { cdb } = task
  const selection = cdb.readUInt8(2)
  const subpage = cdb.readUInt8(3)
  const code = selection & PAGE_CODE
  const ofCode = pagesOfCode(lu, code)
  const selected = ofCode.filter((page) => hasSubpage(page, subpage))
  const values = PAGE_CONTROL[selection >> 6]
  // All pages come with page_0 or with all subpages.
  const isReserved = code === ALL_PAGES && subpage !== 0 && subpage !== ALL_SUBPAGES
  if (ofCode.length === 0) failCdbField(task, 2, 5)
  else if (selected.length === 0 || isReserved) failCdbField(task, 3)
  else if (!values) {
    failWith(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.SAVING_PARAMETERS_NOT_SUPPORTED)
  } else {
    const pages = selected.map((page) => values(page, lu))
    task.goodWithData(modeData(task, lu, format, pages), format.length(cdb))
  }
}

/** Header, block descriptor unless DBD forbids it, and the pages. */
function modeData(task: Task, lu: LogicalUnit, format: ModeFormat, pages: Buffer[]): Buffer {
  const flags = task.cdb.readUInt8(1)
  const long = format === FORMAT_10 && (flags & LLBAA) !== 0
  const descriptor = (flags & DBD) !== 0 ? Buffer.alloc(0) : blockDescriptor(lu, long)
  const body = Buffer.concat([descriptor, ...pages])
  const writeProtected =
    defined(task.mapping, 'mapping of an admitted task').readOnly ||
    lu.mode.softwareWriteProtect ||
    (lu.device?.features.readOnly ?? false)
  return Buffer.concat([header(format, body.length, writeProtected, descriptor.length), body])
}

// ---- MODE SELECT ----

/** What a parameter list asks for, or what is wrong with it. */
type Selection =
  | { readonly kind: 'state'; readonly state: ModeState }
  | { readonly kind: 'length' }
  | { readonly kind: 'field'; readonly byte: number; readonly bit?: number }

const LENGTH_ERROR: Selection = { kind: 'length' }

function parseList(list: Buffer, format: ModeFormat, lu: LogicalUnit): Selection {
  const { headerBytes } = format
  if (list.length < headerBytes) return LENGTH_ERROR
  const short = headerBytes === 4
  // MODE DATA LENGTH and the device-specific byte are reserved here; initiators send back what they read.
  const mediumTypeAt = short ? 1 : 2
  if (list.readUInt8(mediumTypeAt) !== 0) return { kind: 'field', byte: mediumTypeAt }
  const long = !short && (list.readUInt8(4) & LONGLBA) !== 0
  const descriptorBytes = short ? list.readUInt8(3) : list.readUInt16BE(6)
  const fault = checkDescriptor(list, headerBytes, descriptorBytes, long, lu)
  return fault ?? parsePages(list, headerBytes + descriptorBytes, lu)
}

/** A block descriptor may be there, but block length and capacity belong to the configuration. */
function checkDescriptor(
  list: Buffer,
  at: number,
  bytes: number,
  long: boolean,
  lu: LogicalUnit,
): Selection | undefined {
  if (bytes === 0) return undefined
  if (bytes !== (long ? LONG_DESCRIPTOR_BYTES : SHORT_DESCRIPTOR_BYTES)) {
    return { kind: 'field', byte: at === 4 ? 3 : 6 }
  }
  if (list.length < at + bytes) return LENGTH_ERROR
  const blocks = long ? list.readBigUInt64BE(at) : BigInt(list.readUInt32BE(at))
  const lengthAt = at + (long ? 12 : 5)
  const blockBytes = long ? list.readUInt32BE(lengthAt) : list.readUIntBE(lengthAt, 3)
  // 0: leave the capacity as it is; all ones: the most there is (SBC-4, 6.5.2).
  const most = long ? 0xffff_ffff_ffff_ffffn : 0xffff_ffffn
  if (blocks !== 0n && blocks !== most && blocks !== BigInt(lu.blocks)) {
    return { kind: 'field', byte: at }
  }
  return blockBytes === lu.blockBytes ? undefined : { kind: 'field', byte: lengthAt }
}

function parsePages(list: Buffer, from: number, lu: LogicalUnit): Selection {
  const state = { ...lu.mode }
  for (let at = from; at < list.length; ) {
    // PS is reserved in MODE SELECT.
    const first = list.readUInt8(at)
    const ofCode = modePagesOf(lu).filter(({ code }) => code === (first & PAGE_CODE))
    if (ofCode.length === 0) return { kind: 'field', byte: at, bit: 5 }
    const isSubpage = (first & SUBPAGE_FORMAT) !== 0
    const page = ofCode.find(
      ({ subpage }) => subpage === (isSubpage ? (list[at + 1] ?? 0) : undefined),
    )
    if (!page) return { kind: 'field', byte: at, bit: 6 }
    const headerBytes = headerBytesOf(page)
    if (at + headerBytes > list.length) return LENGTH_ERROR
    const current = page.values(state, lu)
    const lengthAt = headerBytes / 2
    const length = list.readUIntBE(at + lengthAt, headerBytes - lengthAt)
    if (length !== current.length - headerBytes) return { kind: 'field', byte: at + lengthAt }
    if (at + current.length > list.length) return LENGTH_ERROR
    const wanted = list.subarray(at, at + current.length)
    const fault = findFixedBit(wanted, current, page.changeable(lu), headerBytes)
    if (fault) return { kind: 'field', byte: at + fault.byte, bit: fault.bit }
    page.read?.(wanted, state, lu)
    at += current.length
  }
  return { kind: 'state', state }
}

/** The first bit of a page behind its header that MODE SELECT wants to change and cannot. */
function findFixedBit(
  wanted: Buffer,
  current: Buffer,
  changeable: Buffer,
  headerBytes: number,
): { byte: number; bit: number } | undefined {
  for (let byte = headerBytes; byte < current.length; byte++) {
    const wrong =
      (wanted.readUInt8(byte) ^ current.readUInt8(byte)) & ~changeable.readUInt8(byte) & 0xff
    if (wrong !== 0) return { byte, bit: 31 - Math.clz32(wrong) }
  }
  return undefined
}

function differs(a: ModeState, b: ModeState): boolean {
  return (
    a.writeCacheEnabled !== b.writeCacheEnabled ||
    a.descriptorSense !== b.descriptorSense ||
    a.softwareWriteProtect !== b.softwareWriteProtect ||
    a.thresholdNotification !== b.thresholdNotification
  )
}

async function modeSelect(task: Task, lu: LogicalUnit, format: ModeFormat): Promise<void> {
  const listBytes = format.length(task.cdb)
  if ((task.cdb.readUInt8(1) & PAGE_FORMAT) === 0) return failCdbField(task, 1, 4)
  if (listBytes === 0) return task.good()
  const list = defined(task.dataOut, 'parameter list').bytes.subarray(0, listBytes)
  const selection = list.length < listBytes ? LENGTH_ERROR : parseList(list, format, lu)
  if (selection.kind === 'length') {
    return failWith(task, SENSE_KEY.ILLEGAL_REQUEST, ASC.PARAMETER_LIST_LENGTH_ERROR)
  }
  if (selection.kind === 'field') return failParameterField(task, selection.byte, selection.bit)
  if (!differs(selection.state, lu.mode)) return task.good()
  // Writes that were acknowledged from the cache become durable before the cache counts as off. The row is
  // serialized on the whole unit, so that no write slips in between.
  const turnsCacheOff = lu.mode.writeCacheEnabled && !selection.state.writeCacheEnabled
  if (turnsCacheOff && !(await makeDurable(task, lu))) return
  // A reset that came meanwhile has set the defaults and ended this command: it must not act after it.
  if (!task.aborted) {
    Object.assign(lu.mode, selection.state)
    lu.establishUnitAttention(ASC.MODE_PARAMETERS_CHANGED, task.nexus)
  }
  task.good()
}

export const rows: readonly ScsiCommand[] = [
  {
    name: 'MODE SENSE(6)',
    opcode: 0x1a,
    cdbUsage: [0x1a, DBD, 0xff, 0xff, 0xff, 0],
    data: 'in',
    serialize: 'none',
    allow: { notReady: true },
    execute: (task, lu) => modeSense(task, lu, FORMAT_6),
  },
  {
    name: 'MODE SENSE(10)',
    opcode: 0x5a,
    cdbUsage: [0x5a, LLBAA | DBD, 0xff, 0xff, 0, 0, 0, 0xff, 0xff, 0],
    data: 'in',
    serialize: 'none',
    allow: { notReady: true },
    execute: (task, lu) => modeSense(task, lu, FORMAT_10),
  },
  {
    name: 'MODE SELECT(6)',
    opcode: 0x15,
    // SP is not in the mask: pages cannot be saved.
    cdbUsage: [0x15, PAGE_FORMAT, 0, 0, 0xff, 0],
    data: 'out',
    serialize: 'unit',
    allow: { notReady: true },
    changesUnit: () => true,
    dataOutBytes: (cdb) => FORMAT_6.length(cdb),
    execute: (task, lu) => modeSelect(task, lu, FORMAT_6),
  },
  {
    name: 'MODE SELECT(10)',
    opcode: 0x55,
    cdbUsage: [0x55, PAGE_FORMAT, 0, 0, 0, 0, 0, 0xff, 0xff, 0],
    data: 'out',
    serialize: 'unit',
    allow: { notReady: true },
    changesUnit: () => true,
    dataOutBytes: (cdb) => FORMAT_10.length(cdb),
    execute: (task, lu) => modeSelect(task, lu, FORMAT_10),
  },
]
