/**
 * `virstor fsck`: checks a device while it serves. The map on its carriers, the places in memory, the labels; what
 * `--repair` does cannot lose anything: it writes again what memory and another copy have.
 */
import type { FsckReport } from '../../../control/virstor-verbs.ts'
import { Findings } from '../fsck/findings.ts'
import { LabelCheck } from '../fsck/label-check.ts'
import { MapCheck } from '../fsck/map-check.ts'
import { PlaceCheck } from '../fsck/place-check.ts'
import type { VirstorSet } from '../virstor-set.ts'

/** Throws `gone` where the device is not served: its next start checks the map. */
export async function checkDevice(set: VirstorSet, repairs: boolean): Promise<FsckReport> {
  const device = set.served('fsck')
  const { name } = set.model
  const names = new Map(
    set.model.components.map((one) => [one.id, set.driveOf(one).record.name] as const),
  )
  const nameOf = (id: number): string => names.get(id) ?? `component ${id}`
  const findings = new Findings(name)
  const map = new MapCheck(device.store, findings, { repairs, nameOf })
  const labels = new LabelCheck(set, findings, { repairs })
  await map.run()
  const isGivenUp = (id: number): boolean => set.assembled && set.model.lost.includes(id)
  await new PlaceCheck(device, findings, { nameOf, isGivenUp }).run()
  await labels.run()
  return {
    name,
    checked: {
      pages: map.pages,
      journalBlocks: map.blocks,
      chunks: device.table.chunks,
      components: labels.components,
    },
    found: findings.count,
    findings: findings.report(),
  }
}
