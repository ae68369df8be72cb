/** `vinum resetconfig`, `saveconfig`, `printconfig` and `stop`: the set of drives as a whole. docs/vinum.md, 6. */
import type { TextReport } from '../../../control/daemon-reports.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { ShowingVerb } from '../plan.ts'
import { printConfigText } from '../text/print.ts'
import { type Draft, isPlaceholder, planning } from './draft.ts'
import { retireDrive } from './remove.ts'

/** Throws when there is no configuration at all, or when a volume is in use. */
function checkThere(draft: Draft): void {
  if (draft.model.drives.length > 0) return
  const why = `${draft.op}: there are no drives; plexus volume create NAME --mirror DEVICE DEVICE makes the first ones`
  draft.fail('not-found', 'vinum', why)
}

function checkClosed(draft: Draft): void {
  const open = draft.model.volumes.filter((one) => draft.context.isOpen(one.uuid))
  if (open.length === 0) return
  const names = open.map((one) => one.name).join(', ')
  draft.fail('in-use', names, `${draft.op}: in use: ${names}; take their LUNs away first`)
}

export const RESETCONFIG = planning(VINUM_SPECS.resetconfig, [], (draft) => {
  checkThere(draft)
  checkClosed(draft)
  const [job] = draft.model.jobs
  if (job && !draft.flag('force'))
    throw draft.inUse`vinum resetconfig: job ${job.id} (${job.kind}) runs; cancel it, or repeat with -f`
  const { volumes, plexes, subdisks, drives } = draft.model
  const all = `${volumes.length} volumes, ${plexes.length} plexes, ${subdisks.length} subdisks`
  draft.stepOn('vinum', `remove all objects: ${all}`)
  for (const { name } of volumes) draft.warn`all data of volume ${name} is lost`
  draft.model = { ...draft.model, volumes: [], plexes: [], subdisks: [], jobs: [] }
  draft.model = { ...draft.model, spares: undefined, pools: undefined }
  for (const drive of drives) {
    if (!isPlaceholder(drive)) retireDrive(draft, drive)
  }
  draft.dropEmptyPlaceholders()
})

export const SAVECONFIG = planning(VINUM_SPECS.saveconfig, [], (draft) => {
  checkThere(draft)
  const up = draft.model.drives.filter((one) => one.state === 'up')
  draft.stepOn('vinum', `write the configuration to ${up.map((one) => one.name).join(', ')}`)
  // Equal, but not the same object: the set commits it as the next generation.
  draft.model = { ...draft.model }
})

/** Changes no record: the set closes its drives and serves no more, until the next start. */
export const PRINTCONFIG: ShowingVerb = {
  spec: VINUM_SPECS.printconfig,
  show: ({ model }): TextReport => ({ text: printConfigText(model) }),
}

export const STOP = planning(VINUM_SPECS.stop, [], (draft) => {
  checkThere(draft)
  checkClosed(draft)
  if (draft.model.jobs.length > 0) {
    draft.warn`${draft.model.jobs.length} jobs stop here, and go on at the next start`
  }
  draft.stepOn('vinum', `close ${draft.model.drives.length} drives`)
})
