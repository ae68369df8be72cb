/** `virstor clear` and `dump` (gvirstor(8)): labels of thin devices on devices of the configuration, served or not. */
import { PlexusError } from '../../base/errors.ts'
import type { VirstorDump, VirstorLabel } from '../../control/daemon-reports.ts'
import { VIRSTOR_CLEAR, VIRSTOR_DUMP } from '../../control/daemon-verbs.ts'
import type { PlanReport } from '../../control/reports.ts'
import { findLabel } from '../../engine/anchor/anchor-find.ts'
import { AnchoredDevice } from '../../engine/anchor/anchored-device.ts'
import type { Consumer } from '../../engine/geom/consumer.ts'
import { listOf, Parameters } from '../../engine/verbs/parameters.ts'
import { VIRSTOR_CODEC } from '../../engine/virstor/codec.ts'
import { findFreebsdLabel } from '../../engine/virstor/freebsd/label.ts'
import type { Method } from './context.ts'
import { findReady } from './devices.ts'
import { changeLabel, type LabelChange, type LabelPlan, planClear, refusal } from './labels.ts'

const READ_ONLY = { read: 1, write: 0, exclusive: 0 } as const

async function planClearVirstor(change: LabelChange): Promise<LabelPlan> {
  const { provider, found } = change
  const { className } = found.anchor
  if (className === 'virstor') return planClear(change)
  const why = `carries a label of ${className}, not of virstor: plexus device clear-label ${provider.name}`
  throw refusal('foreign', VIRSTOR_CLEAR.name, provider.name, why)
}

/** Of all or of none: what is refused for one is refused before anything is written. */
const clear: Method = {
  spec: VIRSTOR_CLEAR,
  run: (parameters, { context }): Promise<PlanReport> =>
    context.topology.change(async () => {
      const names = new Parameters('virstor clear', parameters).names('devices', 'device')
      const clearAll = async (dryRun: boolean): Promise<readonly PlanReport[]> => {
        const reports: PlanReport[] = []
        for (const name of names) {
          const one = { name, ...(dryRun ? { dryRun } : {}) }
          reports.push(await changeLabel(VIRSTOR_CLEAR.name, one, context, planClearVirstor))
        }
        return reports
      }
      const planned = await clearAll(true)
      const dryRun = parameters['dryRun'] === true
      const reports = dryRun ? planned : await clearAll(false)
      return {
        dryRun,
        steps: reports.flatMap(({ steps }) => steps),
        warnings: reports.flatMap(({ warnings }) => warnings),
        jobs: [],
      }
    }),
}

const dump: Method = {
  spec: VIRSTOR_DUMP,
  async run(parameters, { context }): Promise<VirstorDump> {
    const devices: VirstorLabel[] = []
    for (const name of listOf(parameters, 'devices')) {
      const provider = findReady(context, name)
      const consumer = context.topology.attach(provider, undefined, 'dump', READ_ONLY)
      try {
        devices.push({ device: name, ...(await labelOf(consumer, name)) })
      } finally {
        await consumer.close()
      }
    }
    return { devices }
  },
}

/** Throws `unsupported` where there is none. */
async function labelOf(consumer: Consumer, name: string): Promise<Omit<VirstorLabel, 'device'>> {
  const found = await findLabel(consumer)
  if (found?.anchor.className === 'virstor') {
    const { anchor, problem } = found
    const slot = await AnchoredDevice.open(consumer, anchor).read()
    const model = slot && VIRSTOR_CODEC.decode(slot.payload)
    const drive = model?.drives.find(({ uuid }) => uuid === anchor.deviceUuid)
    const component = model?.components.find(({ driveUuid }) => driveUuid === anchor.deviceUuid)
    const copy = model?.copies.find((one) => one.component === component?.id)
    return {
      format: 'native',
      problem: problem?.text,
      setUuid: anchor.setUuid,
      driveUuid: anchor.deviceUuid,
      drive: drive?.name,
      generation: slot?.generation ?? 0,
      mediaBytes: anchor.mediaBytes,
      blockBytes: anchor.blockBytes,
      name: model?.name,
      uuid: model?.uuid,
      virtualBytes: model?.virtualBytes,
      chunkBytes: model?.chunkBytes,
      components: model?.components.length,
      component: component?.id,
      startBytes: component?.startBytes,
      chunks: component?.chunks,
      mapEpoch: copy?.epoch,
    }
  }
  const foreign = found ? undefined : await findFreebsdLabel(consumer)
  if (foreign && 'label' in foreign) {
    const { label } = foreign
    return {
      format: 'freebsd',
      name: label.name,
      id: label.id,
      virtualBytes: label.virtualBytes,
      chunkBytes: label.chunkBytes,
      components: label.count,
      component: label.index,
      mediaBytes: label.mediaBytes,
      chunks: label.chunks,
      reserved: label.reserved,
    }
  }
  throw new PlexusError('unsupported', {
    op: VIRSTOR_DUMP.name,
    subject: name,
    message: `device ${name} carries no label of virstor; plexus device probe ${name} shows what it carries`,
  })
}

export const VIRSTOR_METHODS: readonly Method[] = [clear, dump]
