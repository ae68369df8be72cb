/**
 * What the target does with each opcode in the full feature phase: 64 slots, every one filled, so that
 * dispatch is one array access and an unknown opcode has a handler, too (Reject). A handler looks at the
 * header first, when it decides where the data segment goes, and acts when the PDU is complete.
 */
import { OPCODE, REJECT_REASON } from '../../iscsi/pdu.ts'
import { dataOut, scsiCommand } from './command-transfer.ts'
import type { Connection } from './connection.ts'
import { logout, nopOut, taskManagement, text } from './requests.ts'

export interface OpcodeHandler {
  readonly name: string
  header(connection: Connection, bhs: Buffer, ahs: Buffer): void
  complete(connection: Connection, bhs: Buffer, dataDigestOk: boolean): void
}

function rejecting(name: string, reason: number): OpcodeHandler {
  return {
    name,
    header() {},
    complete(connection, bhs) {
      connection.reject(reason, bhs)
    },
  }
}

const ROWS: ReadonlyArray<readonly [number, OpcodeHandler]> = [
  [OPCODE.NOP_OUT, nopOut],
  [OPCODE.SCSI_COMMAND, scsiCommand],
  [OPCODE.TASK_MANAGEMENT, taskManagement],
  [OPCODE.LOGIN, rejecting('Login', REJECT_REASON.PROTOCOL)],
  [OPCODE.TEXT, text],
  [OPCODE.DATA_OUT, dataOut],
  [OPCODE.LOGOUT, logout],
  [OPCODE.SNACK, rejecting('SNACK', REJECT_REASON.SNACK)],
]

export const OPCODE_TABLE: readonly OpcodeHandler[] = Array.from(
  { length: 64 },
  (_, opcode) =>
    ROWS.find(([code]) => code === opcode)?.[1] ??
    rejecting('unknown opcode', REJECT_REASON.NOT_SUPPORTED),
)
