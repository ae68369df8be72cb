/**
 * The common course of a command: ask where it destroys, call, render, wait. What an answer looks like on a
 * terminal is found by the method (lists.ts) or by its form.
 */
import { methodName } from '../control/daemon-verbs.ts'
import { EXIT } from '../control/protocol.ts'
import { confirm } from './confirm.ts'
import { renderDevice } from './device.ts'
import type { Invocation } from './invocation.ts'
import { LIST_VIEWS } from './lists.ts'
import { isObjectList, renderObjects } from './objects.ts'
import { isPlan, renderPlan, renderWarnings } from './plan.ts'
import { type CellValue, type Column, renderRecord, renderTable } from './render.ts'
import { sayEnds, waitForJobs } from './wait.ts'

type Renderer = (answer: never, invocation: Invocation) => string

/** Answers that have a form of their own. */
const RENDERERS: Readonly<Record<string, Renderer>> = {
  'device.show': renderDevice,
  'config.diff': (answer: { steps: readonly string[]; file: string }) =>
    answer.steps.length === 0
      ? `  ${answer.file} is what runs\n`
      : answer.steps.map((one) => `  would ${one}\n`).join(''),
}

function renderList(answer: object, invocation: Invocation): string | undefined {
  const view = LIST_VIEWS[methodName(invocation.spec)]
  if (!view) return undefined
  const rows = (answer as Readonly<Record<string, readonly never[]>>)[view.key] ?? []
  // Made even where it is not shown: a column that does not exist is an error in any case.
  const table = renderTable(view.columns, rows, invocation.tableOptions)
  if (!invocation.flags.headings) return table
  return (rows.length === 0 ? `  ${view.empty}\n` : table) + (view.footer?.(answer as never) ?? '')
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function cellOf(value: unknown): CellValue {
  if (value === undefined || value === null) return undefined
  if (typeof value === 'string' || typeof value === 'number' || typeof value === 'boolean') {
    return value
  }
  return Array.isArray(value) ? value.map(String).join(', ') : JSON.stringify(value)
}

/** An answer of a class that has no view of its own: lists as tables of all their keys, the rest line by line. */
function renderAnything(answer: object, invocation: Invocation): string {
  const entries = Object.entries(answer).filter(([key]) => key !== 'outputVersion')
  const parts = entries.flatMap(([, value]) => {
    if (!Array.isArray(value) || !value.every(isRecord) || value.length === 0) return []
    const keys = [...new Set(value.flatMap((row) => Object.keys(row)))]
    const columns = keys.map(
      (name): Column<Readonly<Record<string, unknown>>> => ({
        name: name.toLowerCase(),
        value: (row) => cellOf(row[name]),
      }),
    )
    return [renderTable(columns, value, invocation.tableOptions)]
  })
  const plain = entries.filter(([, value]) => !Array.isArray(value) || !value.every(isRecord))
  if (plain.length > 0) {
    const fields = plain.map(([key, value]) => [key, cellOf(value)] as const)
    parts.unshift(renderRecord(fields, invocation.flags.exact))
  }
  const nothing = invocation.spec.readOnly ? '  nothing to show\n' : '  done\n'
  return parts.length > 0 ? parts.join('\n') : nothing
}

function renderAnswer(answer: object, invocation: Invocation): string {
  const special = RENDERERS[methodName(invocation.spec)]
  if (special) return special(answer as never, invocation)
  if (isPlan(answer)) return renderPlan(answer)
  if (isObjectList(answer)) return renderObjects(answer, invocation.tableOptions)
  if ('text' in answer && typeof answer.text === 'string') return answer.text
  return renderList(answer, invocation) ?? renderAnything(answer, invocation)
}

/** Runs a verb from its spec alone. Resolves to the exit code; rejects with PlexusError. */
export async function runCommon(invocation: Invocation): Promise<number> {
  const { spec, flags, terminal } = invocation
  await confirm(invocation)
  const answer = await invocation.call<object>(flags.dryRun && spec.dryRun ? { dryRun: true } : {})
  if (flags.json) invocation.json(answer)
  else invocation.out(renderAnswer(answer, invocation))
  if (!isPlan(answer)) return EXIT.DONE
  if (!flags.json) terminal.err(renderWarnings(answer))
  if (!flags.wait || flags.dryRun) return EXIT.DONE
  let exit: number = EXIT.DONE
  for (const { id } of answer.jobs) {
    const ended = await waitForJobs(invocation, { name: id, ids: [id] })
    exit = Math.max(exit, sayEnds(ended.jobs, terminal))
  }
  return exit
}
