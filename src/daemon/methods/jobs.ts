/** Jobs, events, and waiting for them. */
import { parseSize } from '../../base/bytes.ts'
import { PlexusError } from '../../base/errors.ts'
import { CONTROL_WAIT_MS } from '../../base/limits.ts'
import { didYouMean } from '../../base/suggest.ts'
import type { EventList, JobList, WaitReport } from '../../control/daemon-reports.ts'
import { EVENT_SPECS, JOB_SPECS, WAIT, type WaitFor } from '../../control/daemon-verbs.ts'
import { parseDuration } from '../../control/duration.ts'
import { type EventReport, JOB_KINDS, type JobKind, type JobReport } from '../../control/reports.ts'
import { objectsOf } from '../../engine/geom/listing.ts'
import type { Call, ControlContext, Method } from './context.ts'

/** A text that the spec demands. */
function text(parameters: Readonly<Record<string, unknown>>, name: string): string {
  return String(parameters[name])
}

const list: Method = {
  spec: JOB_SPECS.list,
  async run(_parameters, { context }): Promise<JobList> {
    const { jobs } = context.topology
    const { limitBytesPerSecond } = jobs
    return { jobs: jobs.list().map((job) => job.report()), limitBytesPerSecond }
  },
}

const pause: Method = {
  spec: JOB_SPECS.pause,
  async run(parameters, { context }): Promise<JobList> {
    const job = context.topology.jobs.get(text(parameters, 'job'))
    await job.pause()
    return { jobs: [job.report()] }
  },
}

const resume: Method = {
  spec: JOB_SPECS.resume,
  async run(parameters, { context }): Promise<JobList> {
    const job = context.topology.jobs.get(text(parameters, 'job'))
    job.resume()
    return { jobs: [job.report()] }
  },
}

const cancel: Method = {
  spec: JOB_SPECS.cancel,
  async run(parameters, { context }): Promise<JobList> {
    const job = context.topology.jobs.get(text(parameters, 'job'))
    await job.cancel()
    return { jobs: [job.report()] }
  },
}

/** `200MiB`, `200MiB/s`, or undefined for `none`. */
function parseRate(given: string): number | undefined {
  if (given === 'none') return undefined
  const bytes = parseSize(given.replace(/\/s$/, ''))
  if (bytes > 0) return bytes
  throw new PlexusError('invalid', {
    op: 'limit',
    subject: given,
    message: 'a limit of 0 would never end; pause the job, or say "none" for no limit',
  })
}

const limit: Method = {
  spec: JOB_SPECS.limit,
  async run(parameters, { context }): Promise<JobList> {
    const { jobs } = context.topology
    const rate = parseRate(text(parameters, 'rate'))
    const id = text(parameters, 'job')
    if (id === 'all') await context.limitJobs(rate)
    else jobs.get(id).setLimit(rate)
    const shown = id === 'all' ? jobs.list() : [jobs.get(id)]
    const { limitBytesPerSecond } = jobs
    return { jobs: shown.map((job) => job.report()), limitBytesPerSecond }
  },
}

/** The time that `--since` means, in milliseconds of the calendar. */
function sinceMs(given: string, now: Date): number {
  const atMs = Date.parse(given)
  return /^\d{4}-/.test(given) && !Number.isNaN(atMs) ? atMs : now.getTime() - parseDuration(given)
}

/** Events that name initiators. */
const OF_PEERS: ReadonlySet<string> = new Set(['login', 'logout', 'login-refused'])

function isFor({ namesPeers }: ControlContext, { event }: EventReport): boolean {
  return namesPeers || !OF_PEERS.has(event)
}

const eventList: Method = {
  spec: EVENT_SPECS.list,
  async run(parameters, { context }): Promise<EventList> {
    const history = context.topology.events.history.filter((event) => isFor(context, event))
    const { since } = parameters
    if (typeof since !== 'string') return { events: history }
    const fromMs = sinceMs(since, context.now())
    return { events: history.filter(({ time }) => Date.parse(time) >= fromMs) }
  },
}

/** Streams `event` notifications until the client leaves. */
const eventFollow: Method = {
  spec: EVENT_SPECS.follow,
  async run(_parameters, { context, signal, notify }): Promise<object> {
    const stop = context.topology.events.onEvent((event) => {
      if (isFor(context, event)) notify('event', event)
    })
    await aborted(signal)
    stop()
    return {}
  },
}

function aborted(signal: AbortSignal): Promise<void> {
  return new Promise((resolve) => {
    if (signal.aborted) resolve()
    else signal.addEventListener('abort', () => resolve(), { once: true })
  })
}

const KINDS: Readonly<Record<WaitFor, readonly JobKind[]>> = {
  any: JOB_KINDS,
  scrub: ['check', 'repair'],
  sync: ['sync'],
  resync: ['sync', 'resync'],
  rebuild: ['rebuild', 'sync'],
  initialise: ['initialise'],
  check: ['check'],
  repair: ['repair'],
  grow: ['grow'],
  move: ['move'],
  evacuate: ['evacuate'],
  rebalance: ['rebalance'],
  trim: ['trim'],
}

const isAtWork = ({ state }: JobReport): boolean => state === 'running' || state === 'paused'

/** The jobs of these kinds on an object or on what is below it, or the one with that id. */
function jobsOf(context: ControlContext, name: string, kinds: readonly JobKind[]): JobReport[] {
  return context.topology.jobs
    .list()
    .map((job) => job.report())
    .filter((job) => job.id === name || job.parent === name || job.object === name)
    .filter((job) => kinds.includes(job.kind))
}

/** Throws `not-found` when nothing has that name: a typing error must not pass for a finished job. */
function checkName({ topology }: ControlContext, name: string): void {
  const jobs = topology.jobs.list().map((job) => job.report())
  const known = new Set([
    ...topology.providers.keys(),
    ...objectsOf(topology.classes).map((one) => one.name),
    ...jobs.flatMap(({ id, object }) => [id, object]),
  ])
  if (known.has(name)) return
  throw new PlexusError('not-found', {
    op: 'wait',
    subject: name,
    message: `there is no object or job "${name}"${didYouMean(name, known)}; plexus status shows what there is`,
  })
}

/** Answers when no such job is at work any more, or after {@link CONTROL_WAIT_MS}: the client asks again. */
const wait: Method = {
  spec: WAIT,
  async run(parameters, { context, signal }: Call): Promise<WaitReport> {
    const name = text(parameters, 'name')
    const kinds = KINDS[(parameters['for'] ?? 'any') as WaitFor]
    checkName(context, name)
    const done = (): boolean => !jobsOf(context, name, kinds).some(isAtWork)
    if (!done() && parameters['now'] !== true) {
      await new Promise<void>((resolve) => {
        const finish = (): void => {
          stop()
          timer.cancel()
          signal.removeEventListener('abort', finish)
          resolve()
        }
        const stop = context.topology.jobs.onChange(() => {
          if (done()) finish()
        })
        const timer = context.clock.after(CONTROL_WAIT_MS, finish)
        signal.addEventListener('abort', finish)
      })
    }
    const jobs = jobsOf(context, name, kinds)
    return { done: !jobs.some(isAtWork), jobs }
  },
}

export const JOB_METHODS: readonly Method[] = [
  list,
  pause,
  resume,
  cancel,
  limit,
  eventList,
  eventFollow,
  wait,
]
