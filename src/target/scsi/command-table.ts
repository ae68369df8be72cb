/**
 * The command table: every SCSI command of Plexus is one row of one family file. REPORT SUPPORTED OPERATION
 * CODES prints it, the device server looks commands up in it. To add a command, add a row to its family,
 * or a family to the list below.
 */
import { assert } from '../../base/assert.ts'
import { cdbBytes, serviceActionOf } from './cdb.ts'
import * as cache from './commands/cache.ts'
import * as capacity from './commands/capacity.ts'
import * as compareAndWrite from './commands/compare-and-write.ts'
import * as defectData from './commands/defect-data.ts'
import * as inquiry from './commands/inquiry.ts'
import * as lbaStatus from './commands/lba-status.ts'
import * as logSense from './commands/log-sense.ts'
import * as mode from './commands/mode.ts'
import * as preventAllow from './commands/prevent-allow.ts'
import * as readWrite from './commands/read-write.ts'
import * as reportLuns from './commands/report-luns.ts'
import * as requestSense from './commands/request-sense.ts'
import * as reserve from './commands/reserve.ts'
import * as sendDiagnostic from './commands/send-diagnostic.ts'
import * as startStop from './commands/start-stop.ts'
import { supportedRows } from './commands/supported.ts'
import * as testUnitReady from './commands/test-unit-ready.ts'
import * as unmap from './commands/unmap.ts'
import * as verify from './commands/verify.ts'
import * as writeSame from './commands/write-same.ts'
import type { ScsiCommand } from './types.ts'

export const COMMANDS: readonly ScsiCommand[] = [
  ...readWrite.rows,
  ...verify.rows,
  ...compareAndWrite.rows,
  ...writeSame.rows,
  ...unmap.rows,
  ...cache.rows,
  ...testUnitReady.rows,
  ...requestSense.rows,
  ...inquiry.rows,
  ...reportLuns.rows,
  ...capacity.rows,
  ...lbaStatus.rows,
  ...mode.rows,
  ...logSense.rows,
  ...defectData.rows,
  ...sendDiagnostic.rows,
  ...preventAllow.rows,
  ...startStop.rows,
  ...reserve.rows,
  ...supportedRows(() => COMMANDS),
]

type Slot = ScsiCommand | ReadonlyMap<number, ScsiCommand> | undefined

const SLOTS: readonly Slot[] = indexByOpcode(COMMANDS)

/** The row for a CDB, or undefined for an operation code or service action that is not there. */
export function findCommand(cdb: Buffer): ScsiCommand | undefined {
  const slot = SLOTS[cdb[0] as number]
  return slot instanceof Map ? slot.get(serviceActionOf(cdb)) : (slot as ScsiCommand | undefined)
}

/** The operation code exists and its commands differ by service action. */
export function hasServiceActions(opcode: number): boolean {
  return SLOTS[opcode] instanceof Map
}

/** Operation codes as an array of 256 slots. Asserts that rows are unique and their usage masks fit. */
export function indexByOpcode(rows: readonly ScsiCommand[]): readonly Slot[] {
  const slots: (ScsiCommand | Map<number, ScsiCommand> | undefined)[] = new Array(256).fill(
    undefined,
  )
  for (const row of rows) {
    const { name, opcode, serviceAction, cdbUsage } = row
    assert(
      cdbUsage.length === cdbBytes(opcode) && cdbUsage[0] === opcode,
      `${name}: usage mask has the length of its CDB and begins with the operation code`,
    )
    const slot = slots[opcode]
    if (serviceAction === undefined) {
      assert(slot === undefined, `${name}: operation code is used once`)
      slots[opcode] = row
      continue
    }
    const actions = slot ?? new Map<number, ScsiCommand>()
    assert(
      actions instanceof Map && !actions.has(serviceAction),
      `${name}: service action is used once, and not beside a command without one`,
    )
    actions.set(serviceAction, row)
    slots[opcode] = actions
  }
  return slots
}
