/** Waiting for jobs: `plexus wait`, and --wait of every verb that starts some. */
import { PlexusError } from '../base/errors.ts'
import type { Answer, WaitReport } from '../control/daemon-reports.ts'
import { EXIT } from '../control/protocol.ts'
import type { JobReport } from '../control/reports.ts'
import type { Invocation } from './invocation.ts'
import { endText, ProgressLine, progressLine } from './progress.ts'
import { printableAnswer } from './render.ts'
import type { Terminal } from './terminal.ts'

/** The progress line is drawn this often. */
const REFRESH_MS = 1_000

export interface WaitOptions {
  /** Volume, plex, subdisk or job. */
  readonly name: string
  readonly for?: string
  /** undefined: for ever. */
  readonly timeoutMs?: number | undefined
  /** Of jobs that ended before, these count, too: those that a verb has just started. */
  readonly ids?: readonly string[]
}

const isAtWork = ({ state }: JobReport): boolean => state === 'running' || state === 'paused'

function timedOut(name: string, timeoutMs: number): PlexusError {
  return new PlexusError('timeout', {
    op: 'wait',
    subject: name,
    message: `the jobs of ${name} still run after ${timeoutMs / 1000} s; they go on: plexus status shows them`,
  })
}

/** The daemon lists jobs that have ended until it ends itself. */
function endUnknown(name: string): PlexusError {
  return new PlexusError('gone', {
    op: 'wait',
    subject: name,
    message: `the jobs of ${name} have ended while plexusd was started again, and how is not known; plexus status and plexus events show it`,
  })
}

/**
 * Resolves to the last answer, with the jobs that were seen at work as they ended. Goes on when the daemon is started
 * again. Rejects with `timeout`, and with `gone` where a restart has hidden how a job ended. Progress goes to stderr
 * when that is a terminal.
 */
export async function waitForJobs(
  invocation: Invocation,
  options: WaitOptions,
): Promise<Answer & { readonly jobs: readonly JobReport[] }> {
  const { terminal } = invocation
  const { name, timeoutMs } = options
  const parameters = { name, ...(options.for === undefined ? {} : { for: options.for }) }
  const seen = new Set(options.ids ?? [])
  const line = new ProgressLine(terminal)
  const startMs = terminal.nowMs()
  let held: Promise<unknown> | undefined
  try {
    for (;;) {
      const answer = await invocation.overRestarts(async () =>
        (await invocation.client()).call('wait', { ...parameters, now: true }),
      )
      const { outputVersion, done, jobs } = printableAnswer(answer) as WaitReport & Answer
      for (const job of jobs.filter(isAtWork)) seen.add(job.id)
      if (done) {
        const ended = jobs.filter(({ id }) => seen.has(id))
        if (ended.length < seen.size) throw endUnknown(name)
        return { outputVersion, jobs: ended }
      }
      line.show(jobs.filter(isAtWork).map(progressLine).join('; '))
      const leftMs =
        timeoutMs === undefined
          ? Number.POSITIVE_INFINITY
          : timeoutMs - (terminal.nowMs() - startMs)
      if (leftMs <= 0) throw timedOut(name, timeoutMs ?? 0)
      // One long call tells of the end at once; the refresh of the line does not wait for it.
      const call = async (): Promise<unknown> =>
        (await invocation.client()).call('wait', parameters)
      held ??= call().then(
        () => (held = undefined),
        () => (held = undefined),
      )
      await Promise.race([held, terminal.sleep(Math.min(REFRESH_MS, leftMs))])
    }
  } finally {
    line.clear()
  }
}

/** Says on stderr how each job ended; the exit code is 1 when one did not end well. */
export function sayEnds(jobs: readonly JobReport[], terminal: Terminal): number {
  for (const job of jobs) terminal.err(`${endText(job)}\n`)
  return jobs.some(({ state }) => state === 'failed' || state === 'cancelled')
    ? EXIT.FAILED
    : EXIT.DONE
}
