/**
 * REPORT SUPPORTED OPERATION CODES and REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS (SPC-5, 6.35 and 6.36):
 * MAINTENANCE IN, service actions 0Ch and 0Dh. The answers come from the command table itself, which
 * therefore hands itself in when it makes these rows (command-table.ts).
 *
 *   all commands  byte 0  COMMAND DATA LENGTH, then descriptors of 8 bytes: opcode, -, service action (2), -,
 *                 CTDP and SERVACTV, CDB LENGTH (2); each with a timeouts descriptor where RCTD asks
 *   one command   byte 1  CTDP, SUPPORT   byte 2  CDB SIZE (2)   byte 4  CDB USAGE DATA, timeouts descriptor
 *   timeouts      byte 0  length 000Ah (2)  byte 4  nominal time (4)  byte 8  recommended timeout (4)
 */
import { failCdbField } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit, ScsiCommand } from '../types.ts'

const RCTD = 0x80
const REPORTING_OPTIONS = 0x07

const CTDP_ALL = 0x02
const SERVACTV = 0x01
const CTDP_ONE = 0x80
const NOT_SUPPORTED = 0x01
const SUPPORTED_BY_STANDARD = 0x03

/** Times of 0: none is indicated, since what a command takes depends on the disks below. */
const TIMEOUTS = Buffer.from([0, 0x0a, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0])

/** ATS, ATSS, CTSS, LURS, TRS: see manage() of the device server. No ACA, no queries, no wakeup. */
const TASK_MANAGEMENT_SUPPORTED = 0x80 | 0x40 | 0x10 | 0x08 | 0x02
const REPD = 0x80
const TASK_MANAGEMENT_EXTENDED_BYTES = 16
const TASK_MANAGEMENT_BASIC_BYTES = 4

function byCode(a: ScsiCommand, b: ScsiCommand): number {
  return a.opcode - b.opcode || (a.serviceAction ?? 0) - (b.serviceAction ?? 0)
}

function allCommands(commands: readonly ScsiCommand[], timeouts: boolean): Buffer {
  const descriptors = commands.toSorted(byCode).map((command) => {
    const descriptor = Buffer.alloc(8)
    descriptor.writeUInt8(command.opcode, 0)
    descriptor.writeUInt16BE(command.serviceAction ?? 0, 2)
    descriptor.writeUInt8(
      (timeouts ? CTDP_ALL : 0) | (command.serviceAction === undefined ? 0 : SERVACTV),
      5,
    )
    descriptor.writeUInt16BE(command.cdbUsage.length, 6)
    return timeouts ? Buffer.concat([descriptor, TIMEOUTS]) : descriptor
  })
  const list = Buffer.concat(descriptors)
  const header = Buffer.alloc(4)
  header.writeUInt32BE(list.length, 0)
  return Buffer.concat([header, list])
}

function oneCommand(command: ScsiCommand | undefined, timeouts: boolean): Buffer {
  if (!command) return Buffer.from([0, NOT_SUPPORTED, 0, 0])
  const header = Buffer.from([0, (timeouts ? CTDP_ONE : 0) | SUPPORTED_BY_STANDARD, 0, 0])
  header.writeUInt16BE(command.cdbUsage.length, 2)
  const usage = Buffer.from(command.cdbUsage)
  return Buffer.concat(timeouts ? [header, usage, TIMEOUTS] : [header, usage])
}

/** What the CDB asks about, and the commands that have that operation code. */
interface Question {
  readonly all: readonly ScsiCommand[]
  readonly sameOpcode: readonly ScsiCommand[]
  readonly serviceAction: number
  readonly timeouts: boolean
}

/** REPORTING OPTIONS (SPC-5, table 300): data, or the CDB byte that does not fit. */
const REPORTS: ReadonlyArray<(question: Question) => Buffer | { byte: number }> = [
  ({ all, timeouts }) => allCommands(all, timeouts),
  // By operation code: refused where that has service actions.
  ({ sameOpcode, timeouts }) =>
    sameOpcode.some((command) => command.serviceAction !== undefined)
      ? { byte: 3 }
      : oneCommand(sameOpcode[0], timeouts),
  // By operation code and service action: refused where it has none.
  ({ sameOpcode, serviceAction, timeouts }) =>
    sameOpcode.some((command) => command.serviceAction === undefined)
      ? { byte: 3 }
      : oneCommand(
          sameOpcode.find((command) => command.serviceAction === serviceAction),
          timeouts,
        ),
  // By both, where no service action is 0: nothing is refused.
  ({ sameOpcode, serviceAction, timeouts }) =>
    oneCommand(
      sameOpcode.find((command) => (command.serviceAction ?? 0) === serviceAction),
      timeouts,
    ),
]

function reportOperationCodes(task: Task, lu: LogicalUnit, table: readonly ScsiCommand[]): void {
  const { cdb } = task
  const options = cdb.readUInt8(2)
  const report = REPORTS[options & REPORTING_OPTIONS]
  const opcode = cdb.readUInt8(3)
  const all = table.filter((command) => command.available?.(lu) ?? true)
  const data = report?.({
    all,
    sameOpcode: all.filter((command) => command.opcode === opcode),
    serviceAction: cdb.readUInt16BE(4),
    timeouts: (options & RCTD) !== 0,
  })
  if (!data) failCdbField(task, 2, 2)
  else if (!Buffer.isBuffer(data)) failCdbField(task, data.byte)
  else task.goodWithData(data, cdb.readUInt32BE(6))
}

function reportTaskManagement(task: Task): void {
  const { cdb } = task
  const extended = (cdb.readUInt8(2) & REPD) !== 0
  const allocationBytes = cdb.readUInt32BE(6)
  const data = Buffer.alloc(extended ? TASK_MANAGEMENT_EXTENDED_BYTES : TASK_MANAGEMENT_BASIC_BYTES)
  data[0] = TASK_MANAGEMENT_SUPPORTED
  // The extended part holds timeouts; TMFTMOV = 0 says that none of them is given.
  if (extended) data[3] = TASK_MANAGEMENT_EXTENDED_BYTES - TASK_MANAGEMENT_BASIC_BYTES
  // SPC-5, 6.36.1: an allocation length below the shorter format is an error.
  if (allocationBytes < TASK_MANAGEMENT_BASIC_BYTES) failCdbField(task, 6)
  else task.goodWithData(data, allocationBytes)
}

/** The two rows. `table` returns the whole command table, these rows included, when a command runs. */
export function supportedRows(table: () => readonly ScsiCommand[]): readonly ScsiCommand[] {
  return [
    {
      name: 'REPORT SUPPORTED OPERATION CODES',
      opcode: 0xa3,
      serviceAction: 0x0c,
      cdbUsage: [0xa3, 0x0c, RCTD | REPORTING_OPTIONS, ...new Array<number>(7).fill(0xff), 0, 0],
      data: 'in',
      serialize: 'none',
      allow: { notReady: true, reserved: true },
      execute: (task, lu) => reportOperationCodes(task, lu, table()),
    },
    {
      name: 'REPORT SUPPORTED TASK MANAGEMENT FUNCTIONS',
      opcode: 0xa3,
      serviceAction: 0x0d,
      cdbUsage: [0xa3, 0x0d, REPD, 0, 0, 0, 0xff, 0xff, 0xff, 0xff, 0, 0],
      data: 'in',
      serialize: 'none',
      allow: { notReady: true, reserved: true },
      execute: (task) => reportTaskManagement(task),
    },
  ]
}
