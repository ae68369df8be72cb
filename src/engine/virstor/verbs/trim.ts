/** `virstor trim`: starts the job of trim.ts. */
import type { PlanReport } from '../../../control/reports.ts'
import type { VirstorSet } from '../virstor-set.ts'

/** Throws `gone` where the device is not served, `in-use` where it is trimmed already. */
export function startTrim(set: VirstorSet, dryRun: boolean): PlanReport {
  const { name } = set.model
  set.served('trim')
  const text = `read all chunks of ${name} that have space, and give back those that are zero`
  const jobs = dryRun ? [] : [set.startTrim().report()]
  return { dryRun, steps: [{ text, object: name }], warnings: [], jobs }
}
