/**
 * `plexus status` in words after zpool status: for each volume its state, what is the
 * matter, what to do, how far a job is, and the table of its parts with their errors.
 */
import { formatSize } from '../base/bytes.ts'
import type { StatusReport } from '../control/daemon-reports.ts'
import { EXIT } from '../control/protocol.ts'
import type { ComponentReport, ErrorCounts, Health, VolumeReport } from '../control/reports.ts'
import { progressLine } from './progress.ts'
import { type Column, printable, renderTable, stateText } from './render.ts'

export interface StatusOptions {
  readonly exact: boolean
  readonly colour: boolean
  readonly headings: boolean
  /** Only what is not healthy. */
  readonly badOnly: boolean
}

/** Where there are several sets, each volume says on which it is. */
function isAmongSets(report: StatusReport): boolean {
  return new Set(report.volumes.map((one) => one.set)).size > 1
}

/** A line of the table: the volume itself or a part of it. */
interface PartRow {
  readonly name: string
  readonly state: string
  readonly errors: ErrorCounts
  readonly paths: string
  readonly note: string
}

function partName(part: ComponentReport): string {
  if (part.type === 'plex' || part.drive === undefined) return part.name
  const { drive, device } = part
  const where = device === undefined || device === drive ? drive : `${drive} (${device})`
  return part.name === drive ? where : `${part.name}  ${where}`
}

function partRows(part: ComponentReport, depth: number): PartRow[] {
  const isOnDevice = part.type !== 'plex'
  const row = {
    name: `${'  '.repeat(depth)}${partName(part)}`,
    state: part.state.toUpperCase(),
    errors: part.errors,
    // A device has one path until it is assembled of several.
    paths: isOnDevice ? `${part.device === undefined ? 0 : 1}/1` : '',
    note: part.note,
  }
  return [row, ...part.children.flatMap((child) => partRows(child, depth + 1))]
}

const COLUMNS: readonly Column<PartRow>[] = [
  { name: 'name', value: (row) => row.name },
  { name: 'state', value: (row) => row.state, kind: 'state' },
  { name: 'read', value: (row) => row.errors.read, kind: 'number' },
  { name: 'write', value: (row) => row.errors.write, kind: 'number' },
  { name: 'parity', value: (row) => row.errors.parity, kind: 'number' },
  { name: 'paths', value: (row) => row.paths || ' ' },
  { name: 'note', value: (row) => row.note || ' ' },
]

/** Each sentence of a report on its own line, the later ones below the first. */
function labelled(label: string, text: string): string {
  if (text === '') return ''
  const lead = `  ${label}: `
  return `${lead}${printable(text).replaceAll('\n', `\n${' '.repeat(lead.length)}`)}\n`
}

function renderVolume(volume: VolumeReport, options: StatusOptions, withSet: boolean): string {
  const { name, state, sizeBytes, layout, status, action, process, exported } = volume
  const size = options.exact ? String(sizeBytes) : formatSize(sizeBytes)
  const title = `  volume: ${name.padEnd(8)}  state: ${stateText(state.toUpperCase(), options.colour)}   ${size} ${layout}\n`
  const rows: PartRow[] = [
    { name, state: state.toUpperCase(), errors: volume.errors, paths: '', note: '' },
    ...volume.components.flatMap((part) => partRows(part, 1)),
  ]
  const table = renderTable(COLUMNS, rows, {
    headings: options.headings,
    exact: options.exact,
    verbose: false,
    colour: options.colour,
    indent: '  ',
  })
  const exports = exported.map(({ target, lun, sessions }) => {
    const number = `${sessions.length} ${sessions.length === 1 ? 'session' : 'sessions'}`
    const who = sessions.length > 0 ? ` (${sessions.join(', ')})` : ''
    return labelled('exported', `${target} lun ${lun}, ${number}${who}`)
  })
  return [
    title,
    withSet ? labelled('set', volume.set) : '',
    labelled('status', status),
    labelled('action', action),
    process ? `  ${progressLine(process)}\n` : '',
    table,
    ...exports,
  ].join('')
}

/** The whole answer in words. */
export function renderStatus(report: StatusReport, options: StatusOptions): string {
  const { problems, jobs, drift } = report
  const volumes = report.volumes.filter((one) => !options.badOnly || one.health !== 'HEALTHY')
  const withSet = isAmongSets(report)
  const parts = volumes.map((volume) => renderVolume(volume, options, withSet))
  for (const { object, health, message, action } of problems) {
    const head = `  object: ${object}   state: ${stateText(health, options.colour)}\n`
    parts.push(head + labelled('status', message) + labelled('action', action))
  }
  for (const job of jobs) parts.push(`  ${job.object}: ${progressLine(job)}\n`)
  if (drift && drift.length > 0) {
    const action = 'plexus config diff shows what differs; plexus config apply applies it'
    parts.push(drift.map((one) => labelled('config', one)).join('') + labelled('action', action))
  }
  if (parts.length > 0) return parts.join('\n')
  if (options.badOnly || report.volumes.length > 0) return '  all is healthy\n'
  return '  no volumes; plexus volume create NAME --mirror DEVICE DEVICE makes one, plexus device list shows the devices\n'
}

const EXIT_OF_HEALTH: Readonly<Record<Health, number>> = {
  HEALTHY: EXIT.DONE,
  DEGRADED: EXIT.DEGRADED,
  FAULTED: EXIT.FAULTED,
}

/** What `status --check` ends with. */
export function checkExit(report: StatusReport): number {
  const byHealth = EXIT_OF_HEALTH[report.health]
  const differs = report.drift !== undefined && report.drift.length > 0
  return byHealth === EXIT.DONE && differs ? EXIT.CONFIG_DIFFERS : byHealth
}
