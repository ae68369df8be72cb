/** The answers of verbs that change something: what would be done, what was done, what goes on. */
import type { JobReport, PlanReport } from '../control/reports.ts'
import { printable } from './render.ts'

export function isPlan(answer: object): answer is PlanReport {
  return 'steps' in answer && 'warnings' in answer && 'jobs' in answer
}

function jobText(job: JobReport): string {
  const waitFor = job.parent ?? job.object
  return `job ${job.id}: ${job.kind} of ${job.object} has started; plexus wait ${waitFor} follows it`
}

/** A line for each step; a plan that does nothing says so. */
export function renderPlan(plan: PlanReport): string {
  const { dryRun, steps, jobs } = plan
  if (steps.length === 0 && jobs.length === 0) return '  nothing to do\n'
  const lines = steps.map(({ text }) => `  ${dryRun ? `would ${text}` : text}`)
  return [...lines, ...jobs.map((job) => `  ${jobText(job)}`)]
    .map((one) => `${printable(one)}\n`)
    .join('')
}

/** For stderr. */
export function renderWarnings(plan: PlanReport): string {
  return plan.warnings.map((one) => `  warning: ${printable(one)}\n`).join('')
}
