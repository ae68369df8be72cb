/** The answers of `plexus virstor` that have a form of their own. */
import type { VirstorDump } from '../control/daemon-reports.ts'
import { EXIT } from '../control/protocol.ts'
import type { FsckReport } from '../control/virstor-verbs.ts'
import type { SpecialCommand } from './commands.ts'
import { renderRecord, stateText } from './render.ts'

/** Ends with {@link EXIT.DEGRADED} where anything was found, repaired or not. */
export const FSCK: SpecialCommand = {
  options: [],
  async run(invocation) {
    const { flags, terminal } = invocation
    const report = await invocation.call<FsckReport>()
    if (flags.json) invocation.json(report)
    else invocation.out(renderFsck(report, terminal.colour))
    return report.found > 0 ? EXIT.DEGRADED : EXIT.DONE
  },
}

function renderFsck({ name, checked, found, findings }: FsckReport, colour: boolean): string {
  const { pages, journalBlocks, chunks, components } = checked
  const lines = findings.flatMap(({ severity, object, message, repaired, action }) => [
    `  ${stateText(repaired ? 'REPAIRED' : severity.toUpperCase(), colour)}  ${object}: ${message}`,
    ...(action === '' ? [] : [`    ${action}`]),
  ])
  const what =
    `${name}: ${pages} pages and ${journalBlocks} blocks of the journal on each copy of the map, ${chunks} chunks, ` +
    `${components} components checked`
  const sum = found === 0 ? 'nothing is wrong' : `${found} findings`
  const more = found > findings.length ? [`  and ${found - findings.length} more`] : []
  return `${[...lines, ...more, `  ${what}: ${sum}`].join('\n')}\n`
}

/** The fields of each label, those that it has. */
export const DUMP: SpecialCommand = {
  options: [],
  async run(invocation) {
    const { flags } = invocation
    const dump = await invocation.call<VirstorDump>()
    if (flags.json) invocation.json(dump)
    else invocation.out(dump.devices.map((one) => renderLabel(one, flags.exact)).join('\n'))
    return EXIT.DONE
  },
}

function renderLabel(label: VirstorDump['devices'][number], isExact: boolean): string {
  const lines = Object.entries(label).map(([key, value]) => {
    return [key, value, key.endsWith('Bytes') ? 'size' : 'text'] as const
  })
  return renderRecord(lines, isExact)
}
