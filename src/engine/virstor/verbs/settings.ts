/**
 * What may be changed of a thin device at any time, and the verb that does: `virstor set`. `create` takes the same options.
 */
import type { ErrorKind } from '../../../base/errors.ts'
import {
  VIRSTOR_CHUNK_WATERMARK,
  VIRSTOR_COMPONENT_WATERMARK,
  VIRSTOR_FULL_WAIT_MS,
  VIRSTOR_FULL_WAIT_MS_MAX,
  VIRSTOR_PERCENT_WATERMARK,
} from '../../../base/limits.ts'
import { formatDuration, parseDuration } from '../../../control/duration.ts'
import type { PlanStep } from '../../../control/reports.ts'
import type { VerbParameters } from '../../geom/types.ts'
import type { VirstorModel } from '../model.ts'

export type Settings = Pick<
  VirstorModel,
  'fullWaitMs' | 'chunkWatermark' | 'percentWatermark' | 'componentWatermark'
>
type Fail = (kind: ErrorKind, message: string) => never

/** Of a new device: a small one does not warn from its start. */
export function usualSettings({ components }: VirstorModel): Settings {
  const chunks = components.reduce((sum, one) => sum + one.chunks, 0)
  return {
    fullWaitMs: VIRSTOR_FULL_WAIT_MS,
    chunkWatermark: Math.min(VIRSTOR_CHUNK_WATERMARK, Math.floor(chunks / 10)),
    percentWatermark: VIRSTOR_PERCENT_WATERMARK,
    componentWatermark: VIRSTOR_COMPONENT_WATERMARK,
  }
}

interface Setting {
  readonly key: keyof Settings
  /** As in the options of the verbs. */
  readonly option: string
  readonly typed: string
  readonly parse: (text: string, model: VirstorModel) => number
  /** The most that is accepted, and in words. */
  readonly max: (model: VirstorModel) => number
  readonly most: string
  readonly text: (value: number) => string
}

const count = (text: string): number => (/^\d+%?$/.test(text) ? Number.parseInt(text, 10) : -1)

const SETTINGS: readonly Setting[] = [
  {
    key: 'fullWaitMs',
    option: 'fullWait',
    typed: '--full-wait',
    parse: parseDuration,
    max: () => VIRSTOR_FULL_WAIT_MS_MAX,
    most: 'at most 10m',
    text: (value) => `writes wait ${formatDuration(value / 1000)} for space`,
  },
  {
    key: 'chunkWatermark',
    option: 'warnChunks',
    typed: '--warn-chunks',
    parse: count,
    max: ({ components }) => components.reduce((sum, { chunks }) => sum + chunks, 0) - 1,
    most: 'a number below that of all chunks',
    text: (value) => `warn when ${value} chunks are free`,
  },
  {
    key: 'percentWatermark',
    option: 'warnPercent',
    typed: '--warn-percent',
    parse: count,
    max: () => 99,
    most: '0 to 99',
    text: (value) => `warn when ${value} % of the space are free`,
  },
  {
    key: 'componentWatermark',
    option: 'warnComponents',
    typed: '--warn-components',
    parse: count,
    max: () => Number.MAX_SAFE_INTEGER,
    most: 'a number of components',
    text: (value) => `warn when ${value} components are empty`,
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
  for (const { key, option, typed, parse, max, most, text } of SETTINGS) {
    const given = parameters[option]
    if (typeof given !== 'string') continue
    const value = parse(given, model)
    if (!(value >= 0 && value <= max(model))) fail('invalid', `${typed} ${given}: ${most}`)
    model = { ...model, [key]: value }
    steps.push({ text: `${model.name}: ${text(value)}`, object: model.name })
  }
  return { model, steps }
}
