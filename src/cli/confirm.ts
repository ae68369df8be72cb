/**
 * The one question that is ever asked: before a destructive verb, the name of what it destroys. Off a terminal
 * nothing is asked and --yes must stand.
 */
import { PlexusError } from '../base/errors.ts'
import { commandName } from '../control/daemon-verbs.ts'
import type { PlanReport } from '../control/reports.ts'
import type { VerbSpec } from '../control/verb-spec.ts'
import type { Invocation } from './invocation.ts'
import { isPlan, renderPlan, renderWarnings } from './plan.ts'

/** What must be typed: the objects that the verb is about, or the verb where it is about everything. */
export function confirmationOf(
  spec: VerbSpec,
  parameters: Readonly<Record<string, unknown>>,
): string {
  // The last one that names something: `remove-mirror VOLUME PLEX` is about the plex.
  const about = spec.arguments.filter(({ choices, optional }) => !choices && !optional).at(-1)
  const value = about ? parameters[about.name] : undefined
  if (Array.isArray(value)) return value.join(' ')
  return typeof value === 'string' ? value : spec.name
}

/** The words of a command, to be typed again. */
export function commandLine(spec: VerbSpec, parameters: Readonly<Record<string, unknown>>): string {
  const words = spec.arguments.flatMap(({ name }) => {
    const value = parameters[name]
    if (value === undefined) return []
    return Array.isArray(value) ? value.map(String) : [String(value)]
  })
  return ['plexus', commandName(spec), ...words].join(' ')
}

/**
 * Resolves when the verb may run. Rejects with `invalid` off a terminal, and `aborted` when something else than the
 * name was typed. Shows the plan first, where the verb can make one.
 */
export async function confirm(invocation: Invocation): Promise<void> {
  const { spec, parameters, terminal, flags } = invocation
  const mayWipe = parameters['wipeSignatures'] === true
  if ((!spec.destructive && !mayWipe) || flags.yes || flags.dryRun) return
  const isPlanned = spec.dryRun === true && (terminal.canAsk || mayWipe)
  const answer = isPlanned ? await invocation.call<PlanReport>({ dryRun: true }) : undefined
  const plan = answer && isPlan(answer) ? answer : undefined
  const wipes = plan?.wipes ?? []
  if (!spec.destructive && wipes.length === 0) return
  const expected =
    wipes.length > 0
      ? wipes.map(({ object }) => object).join(' ')
      : confirmationOf(spec, parameters)
  if (!terminal.canAsk) {
    const what = wipes.map(({ text }) => text).join(', ')
    const line = `${commandLine(spec, parameters)} --yes`
    const seen = spec.dryRun ? '; to see what it would do: --dry-run' : ''
    throw new PlexusError('invalid', {
      op: spec.name,
      subject: expected,
      message:
        wipes.length > 0
          ? `this overwrites ${what}, and nobody can be asked; to do it, repeat with --yes${seen}`
          : `this is destructive and nobody can be asked; to do it: ${line}${seen}`,
    })
  }
  if (plan) terminal.err(renderPlan(plan) + renderWarnings(plan))
  const typed = await terminal.ask(`  To go on, type ${expected}: `)
  if (typed.trim() === expected) return
  throw new PlexusError('aborted', {
    op: spec.name,
    subject: expected,
    message: `that is not "${expected}"; nothing was changed`,
  })
}
