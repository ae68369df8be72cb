/** What an operator may do with Plexus' label on a device: take it off, restore it, take a disk that has grown into use. */
import { statSync } from 'node:fs'
import { type ErrorKind, PlexusError } from '../../base/errors.ts'
import type { PlanReport } from '../../control/daemon-reports.ts'
import { DEVICE_SPECS } from '../../control/daemon-verbs.ts'
import { restoreLabel, wipeLabel } from '../../engine/anchor/anchor-ends.ts'
import { type FoundLabel, findLabel } from '../../engine/anchor/anchor-find.ts'
import type { Consumer } from '../../engine/geom/consumer.ts'
import { readLabel } from '../../engine/geom/label.ts'
import { isSameMedium, type Provider } from '../../engine/geom/provider.ts'
import type { VerbParameters } from '../../engine/geom/types.ts'
import type { ControlContext, Method } from './context.ts'
import { findReady, findSlot, labelText, openConsumers } from './devices.ts'

const READ_ONLY = { read: 1, write: 0, exclusive: 0 } as const
const EXCLUSIVE = { read: 1, write: 1, exclusive: 1 } as const

type Verb = (typeof DEVICE_SPECS)['clear-label' | 'restore-label']

export interface LabelChange {
  readonly context: ControlContext
  readonly provider: Provider
  readonly consumer: Consumer
  readonly found: FoundLabel
  /** Of the device, in words. */
  readonly where: string
}

export interface LabelPlan {
  readonly text: string
  readonly warnings: readonly string[]
  write(): Promise<void>
}

/** A change of the label on a device that takes part in nothing; the classes look at it again afterwards. */
function labelMethod(spec: Verb, plan: (change: LabelChange) => Promise<LabelPlan>): Method {
  return {
    spec,
    run: (parameters, { context }): Promise<PlanReport> =>
      context.topology.change(() => changeLabel(spec.name, parameters, context, plan)),
  }
}

export async function changeLabel(
  op: string,
  parameters: VerbParameters,
  context: ControlContext,
  plan: (change: LabelChange) => Promise<LabelPlan>,
): Promise<PlanReport> {
  const name = String(parameters['name'])
  const dryRun = parameters['dryRun'] === true
  const { topology } = context
  const provider = findReady(context, name)
  for (const held of openConsumers(provider)) {
    if (await held.owner?.release?.(held, dryRun)) continue
    throw refusal('in-use', op, name, `is in use by ${held.holder}; take it out of there first`)
  }
  const access = dryRun ? READ_ONLY : EXCLUSIVE
  const consumer = topology.attach(provider, undefined, op, access)
  try {
    const found = await findLabel(consumer)
    if (!found) {
      const advice = `plexus device probe ${name} shows what it carries`
      throw refusal('not-found', op, name, `carries no label of Plexus; ${advice}`)
    }
    checkOtherPaths(context, provider, found, op)
    const where = `${name} (${findSlot(context, name).path}: ${labelText(provider, found)})`
    const { text, warnings, write } = await plan({ context, provider, consumer, found, where })
    if (!dryRun) await write()
    return { dryRun, steps: [{ text, object: name }], warnings, jobs: [] }
  } finally {
    await consumer.close()
    topology.tasteAgain(provider)
    if (!dryRun) await topology.tastePending()
  }
}

/**
 * What is written through one path is read through the other one. Two files are two media; two disks that say nothing of
 * themselves may be one.
 */
function checkOtherPaths(
  context: ControlContext,
  provider: Provider,
  { anchor }: FoundLabel,
  op: string,
): void {
  const isFile = ({ name }: Provider): boolean =>
    statSync(findSlot(context, name).path, { throwIfNoEntry: false })?.isFile() ?? false
  for (const other of context.topology.providers.values()) {
    if (other === provider || other.label?.driveUuid !== anchor.deviceUuid) continue
    const isSame = isSameMedium(provider, other) ?? !(isFile(provider) || isFile(other))
    if (!isSame) continue
    throw refusal(
      'in-use',
      op,
      provider.name,
      `carries the label of the same drive as ${other.name}, and may be another path to the same disk: nothing is ` +
        'written. Take one of the two out of the configuration; if they are two disks, disconnect the other one first',
    )
  }
}

export function refusal(kind: ErrorKind, op: string, name: string, text: string): PlexusError {
  return new PlexusError(kind, { op, subject: name, message: `device ${name} ${text}` })
}

/** The label comes off, and what it has of volumes is given up. */
export async function planClear({
  context,
  consumer,
  found,
  where,
}: LabelChange): Promise<LabelPlan> {
  const label = await readLabel(consumer, context.topology.classes)
  const volumes = label?.volumes ?? []
  return {
    text: `remove the label from ${where}`,
    warnings:
      volumes.length === 0
        ? []
        : [`${label?.text}: what it has of volume ${volumes.join(', ')} is given up`],
    write: () => wipeLabel(consumer, found.anchor),
  }
}

const clearLabel = labelMethod(DEVICE_SPECS['clear-label'], planClear)

const restore = labelMethod(
  DEVICE_SPECS['restore-label'],
  async ({ provider, consumer, found, where }) => {
    if (!found.problem?.restorable) {
      const why = found.problem
        ? `cannot get its label back: it ${found.problem.text}`
        : 'has a whole label; nothing is to be restored'
      throw refusal('invalid', 'restore-label', provider.name, why)
    }
    return {
      text: `write the label again on ${where}`,
      warnings: [
        'what was written over the disk may have damaged data, too: scrub its volumes afterwards',
      ],
      write: () => restoreLabel(consumer, found.anchor),
    }
  },
)

const resize: Method = {
  spec: DEVICE_SPECS.resize,
  run(parameters, { context }): Promise<PlanReport> {
    const name = String(parameters['name'])
    const dryRun = parameters['dryRun'] === true
    const { topology } = context
    return topology.change(async () => {
      const provider = findReady(context, name)
      for (const one of topology.classes) {
        const text = await one.resize?.(provider, dryRun)
        if (text === undefined) continue
        return { dryRun, steps: [{ text, object: name }], warnings: [], jobs: [] }
      }
      const text = `is no drive of a set that is in operation; plexus device show ${name} tells what it is`
      throw refusal('invalid', 'resize', name, text)
    })
  },
}

export const LABEL_METHODS: readonly Method[] = [clearLabel, restore, resize]
