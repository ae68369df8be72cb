/** `virstor rebalance NAME`: a job moves chunks until all components are filled in proportion to their size. */
import { formatSize } from '../../../base/bytes.ts'
import { VIRSTOR_SPECS } from '../../../control/virstor-verbs.ts'
import { driveOf } from '../model.ts'
import { movesOf, surplusOf } from '../moves/rebalancing.ts'
import { checkNoJob, checkServed, type Fail, failing, type VirstorVerb } from './context.ts'

export const REBALANCE: VirstorVerb = {
  spec: VIRSTOR_SPECS.rebalance,
  plan({ model, space }) {
    const { name, chunkBytes } = model
    const fail: Fail = failing(VIRSTOR_SPECS.rebalance, name)
    checkNoJob(model, fail)
    const surplus = surplusOf(checkServed(name, space, fail))
    const none = { warnings: [], newDrives: [], retired: [] }
    if (movesOf(surplus) === 0) {
      const text = `${name} is filled evenly: there is nothing to move`
      return { model, steps: [{ text, object: name }], ...none }
    }
    const steps = surplus.flatMap(({ id, chunks }) => {
      const component = model.components.find((one) => one.id === id)
      const drive = (component && driveOf(model, component)?.name) ?? ''
      const size = formatSize(Math.abs(chunks) * chunkBytes)
      if (chunks === 0) return []
      const text = chunks > 0 ? `move ${size} away from ${drive}` : `move ${size} to ${drive}`
      return [{ text, object: name }]
    })
    const job = { kind: 'rebalance', paused: false, limitBytesPerSecond: undefined } as const
    return { model: { ...model, job }, steps, ...none }
  },
}
