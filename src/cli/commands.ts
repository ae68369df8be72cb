/**
 * Commands that do more than call and render: status, tree, stat, wait, events. Each has the options that only the
 * command line knows. program.ts looks here by method before it takes the common course.
 */

import { PlexusError } from '../base/errors.ts'
import type { EventList, StatReport, StatusReport, TreeReport } from '../control/daemon-reports.ts'
import { parseDuration } from '../control/duration.ts'
import { EXIT } from '../control/protocol.ts'
import type { EventReport } from '../control/reports.ts'
import type { Invocation } from './invocation.ts'
import { EVENT_COLUMNS } from './lists.ts'
import { printableAnswer, renderTable } from './render.ts'
import { renderConsumers, renderLoad, STAT_COLUMNS, statRows } from './stat.ts'
import { checkExit, renderStatus } from './status.ts'
import { renderTree } from './tree.ts'
import { DUMP, FSCK } from './virstor.ts'
import { sayEnds, waitForJobs } from './wait.ts'

/** An option of the command line alone, in commander's words. */
export interface ExtraOption {
  readonly flags: string
  readonly summary: string
  readonly default?: string
}

export interface SpecialCommand {
  readonly options: readonly ExtraOption[]
  run(invocation: Invocation): Promise<number>
}

const WATCH_MS = 2_000
/** Home, and clear to the end. */
const CLEAR = '\u001b[H\u001b[2J'

const status: SpecialCommand = {
  options: [
    { flags: '-x, --bad', summary: 'only what is not healthy' },
    {
      flags: '--check',
      summary: 'end with 0 healthy, 10 degraded, 11 faulted, 12 configuration differs',
    },
    { flags: '--watch', summary: 'again every two seconds, until interrupted' },
  ],
  async run(invocation) {
    const { flags, extra, terminal } = invocation
    for (;;) {
      const look = (): Promise<StatusReport> => invocation.call<StatusReport>()
      const report = await (extra['watch'] ? invocation.overRestarts(look) : look())
      if (flags.json) invocation.json(report)
      else {
        const text = renderStatus(report, {
          exact: flags.exact,
          colour: terminal.colour,
          headings: flags.headings,
          badOnly: extra['bad'] === true,
        })
        invocation.out(`${extra['watch'] && terminal.outIsTty ? CLEAR : ''}${text}`)
      }
      if (!extra['watch']) return extra['check'] ? checkExit(report) : EXIT.DONE
      await terminal.sleep(WATCH_MS)
    }
  },
}

const tree: SpecialCommand = {
  options: [],
  async run(invocation) {
    const report = await invocation.call<TreeReport>()
    if (invocation.flags.json) invocation.json(report)
    else invocation.out(renderTree(report))
    return EXIT.DONE
  },
}

/** How often: from --count, else for ever on a terminal and once elsewhere. */
function countOf(invocation: Invocation): number {
  const given = invocation.extra['count']
  if (given === undefined) return invocation.terminal.outIsTty ? Number.POSITIVE_INFINITY : 1
  const count = Number(given)
  if (Number.isInteger(count) && count > 0) return count
  throw new PlexusError('invalid', {
    op: 'stat',
    subject: String(given),
    message: `--count ${given}: write a number from 1`,
  })
}

const stat: SpecialCommand = {
  options: [
    { flags: '-I, --interval <time>', summary: 'between two lines', default: '2s' },
    {
      flags: '-c, --count <number>',
      summary: 'end after so many; default: once, and without end on a terminal',
    },
    { flags: '--consumers', summary: 'who uses each provider, too' },
  ],
  async run(invocation) {
    const { extra, flags, terminal, tableOptions } = invocation
    if (flags.json) {
      invocation.json(await invocation.call<StatReport>())
      return EXIT.DONE
    }
    const intervalMs = parseDuration(String(extra['interval']))
    const count = countOf(invocation)
    let before = await invocation.call<StatReport>()
    for (let round = 0; round < count; round++) {
      await terminal.sleep(intervalMs)
      const after = await invocation.overRestarts(() => invocation.call<StatReport>())
      const table = renderTable(STAT_COLUMNS, statRows(before, after), tableOptions)
      const consumers = extra['consumers']
        ? `\n${renderConsumers(after.providers, tableOptions)}`
        : ''
      const load = flags.headings ? `\n${renderLoad(after)}` : ''
      const clear = terminal.outIsTty ? CLEAR : round > 0 ? '\n' : ''
      invocation.out(`${clear}${table}${consumers}${load}`)
      before = after
    }
    return EXIT.DONE
  },
}

const wait: SpecialCommand = {
  options: [{ flags: '--timeout <time>', summary: 'end with 7 after this time: 30m, 1h' }],
  async run(invocation) {
    const { parameters, extra, terminal, flags } = invocation
    const { name, for: kind, now } = parameters
    const { timeout } = extra
    const timeoutMs = now ? 0 : timeout === undefined ? undefined : parseDuration(String(timeout))
    const answer = await waitForJobs(invocation, {
      name: String(name),
      timeoutMs,
      ...(kind === undefined ? {} : { for: String(kind) }),
    })
    if (flags.json) invocation.json(answer)
    return sayEnds(answer.jobs, terminal)
  },
}

const events: SpecialCommand = {
  options: [{ flags: '--follow', summary: 'and what happens from now on, until interrupted' }],
  async run(invocation) {
    const { flags, extra, tableOptions } = invocation
    const say = (list: readonly EventReport[], headings: boolean): void => {
      if (flags.json) for (const event of list) invocation.json(event, 0)
      else invocation.out(renderTable(EVENT_COLUMNS, list, { ...tableOptions, headings }))
    }
    if (extra['follow']) return followEvents(invocation, say)
    const answer = await invocation.call<EventList>()
    if (flags.json) invocation.json(answer)
    else {
      const table = renderTable(EVENT_COLUMNS, answer.events, tableOptions)
      const isEmpty = answer.events.length === 0 && flags.headings
      invocation.out(isEmpty ? '  nothing has happened\n' : table)
    }
    return EXIT.DONE
  },
}

/**
 * Shows what happens from now on, or since `--since`. What happens while the daemon cannot be reached is shown when it
 * is there again: events have numbers that go on over its restarts.
 */
async function followEvents(
  invocation: Invocation,
  say: (list: readonly EventReport[], headings: boolean) => void,
): Promise<number> {
  const { flags, tableOptions } = invocation
  renderTable(EVENT_COLUMNS, [], tableOptions)
  let headings = flags.headings
  /** The number of the last event that was shown or is not wanted. */
  let shown = invocation.parameters['since'] === undefined ? undefined : -1
  const show = (list: readonly EventReport[]): void => {
    const fresh = list.filter(({ sequence }) => sequence > (shown ?? -1))
    if (fresh.length === 0) return
    say(fresh, headings)
    headings = false
    shown = fresh.at(-1)?.sequence
  }
  return invocation.overRestarts(async () => {
    const client = await invocation.client()
    // What comes while the past is being read is kept until that has been shown.
    let waiting: EventReport[] | undefined = []
    client.onNotification((method, params) => {
      if (method !== 'event') return
      const event = printableAnswer(params) as EventReport
      if (waiting) waiting.push(event)
      else show([event])
    })
    const following = client.call('events.follow', {}, { timeoutMs: Number.POSITIVE_INFINITY })
    const { events: past } = await invocation.call<EventList>()
    shown ??= past.at(-1)?.sequence ?? -1
    show(past)
    show(waiting)
    waiting = undefined
    await following
    return EXIT.DONE
  })
}

export const SPECIAL_COMMANDS: Readonly<Record<string, SpecialCommand>> = {
  status,
  tree,
  stat,
  wait,
  'events.list': events,
  'virstor.dump': DUMP,
  'virstor.fsck': FSCK,
}
