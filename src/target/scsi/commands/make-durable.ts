/**
 * What MODE SELECT (write cache off) and START STOP UNIT (stop) do first: everything that was acknowledged
 * goes to stable storage.
 */
import { PlexusError } from '../../../base/errors.ts'
import { flush } from '../../../hal/io.ts'
import { failTask } from '../sense.ts'
import type { Task } from '../task.ts'
import type { LogicalUnit } from '../types.ts'

/** Flushes the medium, if there is one. False: that failed, and the task has ended with the error. */
export async function makeDurable(task: Task, lu: LogicalUnit): Promise<boolean> {
  if (!lu.device) return true
  try {
    await flush(lu.device)
    return true
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    failTask(task, error, 'flush')
    return false
  }
}
