/**
 * What may be changed of a thin device at any time, and the verb that does: `virstor set`. `create` takes the same options.
 */
import {
  VIRSTOR_CHUNK_WATERMARK,
  VIRSTOR_COMPONENT_WATERMARK,
  VIRSTOR_FULL_WAIT_MS,
  VIRSTOR_FULL_WAIT_MS_MAX,
  VIRSTOR_PERCENT_WATERMARK,
} from '../../../base/limits.ts'
import { formatDuration, parseDuration } from '../../../control/duration.ts'
import type { PlanStep } from '../../../control/reports.ts'
import { ON_OFF, VIRSTOR_SPECS } from '../../../control/virstor-verbs.ts'
import type { VerbParameters } from '../../geom/types.ts'
import {
  type ComponentRecord,
  driveOf,
  isUp,
  ON_MISSING,
  POLICIES,
  type VirstorModel,
} from '../model.ts'
import { type Fail, failing, type VirstorContext, type VirstorVerb } from './context.ts'

export type Settings = Pick<
  VirstorModel,
  | 'policy'
  | 'fullWaitMs'
  | 'chunkWatermark'
  | 'percentWatermark'
  | 'componentWatermark'
  | 'discards'
  | 'onMissing'
>

function chunksOf(components: readonly ComponentRecord[]): number {
  return components.reduce((sum, { chunks }) => sum + chunks, 0)
}

/** Of a new device: a small one does not warn from its start. */
export function usualSettings({ components }: VirstorModel): Settings {
  return {
    policy: 'sequential',
    fullWaitMs: VIRSTOR_FULL_WAIT_MS,
    chunkWatermark: Math.min(VIRSTOR_CHUNK_WATERMARK, Math.floor(chunksOf(components) / 10)),
    percentWatermark: VIRSTOR_PERCENT_WATERMARK,
    componentWatermark: VIRSTOR_COMPONENT_WATERMARK,
    discards: true,
    onMissing: 'chunks',
  }
}

interface Setting {
  readonly key: keyof Settings
  /** As in the options of the verbs. */
  readonly option: string
  readonly typed: string
  /** Undefined: it is refused. */
  readonly parse: (text: string, model: VirstorModel) => number | boolean | string | undefined
  /** What is accepted, in words. */
  readonly accepted: string
  readonly text: (value: number | boolean | string) => string
}

/** A whole number up to `most`, with or without a percent sign. */
function whole(text: string, most: number): number | undefined {
  const value = /^\d+%?$/.test(text) ? Number.parseInt(text, 10) : Number.NaN
  return value <= most ? value : undefined
}

const SETTINGS: readonly Setting[] = [
  {
    key: 'policy',
    option: 'policy',
    typed: '--policy',
    parse: (text) => POLICIES.find((policy) => policy === text),
    accepted: POLICIES.join(' or '),
    text: (value) => `new chunks go to the components by the policy ${value}`,
  },
  {
    key: 'fullWaitMs',
    option: 'fullWait',
    typed: '--full-wait',
    parse(text) {
      const ms = parseDuration(text)
      return ms <= VIRSTOR_FULL_WAIT_MS_MAX ? ms : undefined
    },
    accepted: 'at most 10m',
    text: (value) => `writes wait ${formatDuration(Number(value) / 1000)} for space`,
  },
  {
    key: 'chunkWatermark',
    option: 'warnChunks',
    typed: '--warn-chunks',
    parse: (text, { components }) => whole(text, chunksOf(components) - 1),
    accepted: 'a number below that of all chunks',
    text: (value) => `warn when ${value} chunks are free`,
  },
  {
    key: 'percentWatermark',
    option: 'warnPercent',
    typed: '--warn-percent',
    parse: (text) => whole(text, 99),
    accepted: '0 to 99',
    text: (value) => `warn when ${value} % of the space are free`,
  },
  {
    key: 'componentWatermark',
    option: 'warnComponents',
    typed: '--warn-components',
    parse: (text) => whole(text, Number.MAX_SAFE_INTEGER),
    accepted: 'a number of components',
    text: (value) => `warn when ${value} components are empty`,
  },
  {
    key: 'discards',
    option: 'discard',
    typed: '--discard',
    parse: (text) => text === 'on',
    accepted: ON_OFF.join(' or '),
    text: (value) => `${value ? 'discard' : 'do not discard'} on components what is free again`,
  },
  {
    key: 'onMissing',
    option: 'onMissing',
    typed: '--on-missing',
    parse: (text) => ON_MISSING.find((one) => one === text),
    accepted: ON_MISSING.join(' or '),
    text: (value) =>
      value === 'device'
        ? 'a component that is missing takes the device out of service'
        : 'a component that is missing takes only what lies there',
  },
]

/** The model with what the parameters say, and what that means. */
export function withSettings(
  before: VirstorModel,
  parameters: VerbParameters,
  fail: Fail,
): { readonly model: VirstorModel; readonly steps: readonly PlanStep[] } {
  const steps: PlanStep[] = []
  let model = before
  for (const { key, option, typed, parse, accepted, text } of SETTINGS) {
    const given = parameters[option]
    if (typeof given !== 'string') continue
    const value = parse(given, model) ?? fail('invalid', `${typed} ${given}: ${accepted}`)
    model = { ...model, [key]: value }
    steps.push({ text: `${model.name}: ${text(value)}`, object: model.name })
  }
  return { model, steps }
}

export const SET: VirstorVerb = {
  spec: VIRSTOR_SPECS.set,
  plan(context, parameters) {
    const fail = failing(VIRSTOR_SPECS.set, context.model.name)
    const { model, steps } = withSettings(context.model, parameters, fail)
    if (steps.length === 0) fail('invalid', 'nothing is to be changed; plexus virstor set --help')
    const warnings = endOf(context, model, parameters['force'] === true, fail)
    return { model, steps, warnings, newDrives: [], retired: [] }
  },
}

/** What takes a device out of service at once is refused, or with `force` a warning. */
function endOf(
  { model: before, isPresent }: VirstorContext,
  { name, components, onMissing }: VirstorModel,
  force: boolean,
  fail: Fail,
): readonly string[] {
  if (onMissing !== 'device' || before.onMissing === 'device') return []
  const missing = components.filter((one) => !isUp(before, one) || !isPresent(one.driveUuid))
  if (missing.length === 0) return []
  const names = missing.map((one) => driveOf(before, one)?.name).join(', ')
  const fact = `component ${names} is missing, so ${name} is out of service at once, until it is back`
  if (force) return [fact]
  return fail('in-use', `${name}: ${fact}; connect it first, or repeat with --force`)
}
