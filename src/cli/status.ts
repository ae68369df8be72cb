/**
 * `plexus status` in words after zpool status: for each object with a health its state, what is the
 * matter, what to do, how far a job is, and the table of its parts with their errors.
 */
import { formatSize } from '../base/bytes.ts'
import type { StatusReport } from '../control/daemon-reports.ts'
import { partsIn } from '../control/objects.ts'
import { EXIT } from '../control/protocol.ts'
import type { ErrorCounts, Health, ObjectReport } from '../control/reports.ts'
import { progressLine } from './progress.ts'
import { type Column, printable, renderTable, stateText } from './render.ts'

export interface StatusOptions {
  readonly exact: boolean
  readonly colour: boolean
  readonly headings: boolean
  /** Only what is not healthy. */
  readonly badOnly: boolean
}

/** Where there are several sets, each object says on which it is. */
function isAmongSets({ objects }: StatusReport): boolean {
  return new Set(objects.flatMap(({ set }) => set ?? [])).size > 1
}

type PartsOf = (one: ObjectReport) => readonly ObjectReport[]

/** A line of the table: an object that stands by itself, or a part of it. */
interface PartRow {
  readonly name: string
  readonly state: string
  readonly errors: ErrorCounts | undefined
  readonly paths: string
  readonly note: string
}

/** With the drive that it lies on, and the device that carries that. */
function partName({ name, drive, device }: ObjectReport): string {
  if (drive === undefined) return name
  const where = device === undefined || device === drive ? drive : `${drive} (${device})`
  return name === drive ? where : `${name}  ${where}`
}

function partRows(part: ObjectReport, partsOf: PartsOf, depth = 0): PartRow[] {
  const { state, errors, drive, device } = part
  // A device has one path until it is assembled of several.
  const paths = drive === undefined ? '' : `${device === undefined ? 0 : 1}/1`
  const name = `${'  '.repeat(depth)}${partName(part)}`
  // The note of the uppermost one stands in the title.
  const row = { name, state, errors, paths, note: depth === 0 ? '' : part.note }
  return [row, ...partsOf(part).flatMap((child) => partRows(child, partsOf, depth + 1))]
}

const ERRORS: readonly Column<PartRow>[] = [
  { name: 'read', value: (row) => row.errors?.read, kind: 'number' },
  { name: 'write', value: (row) => row.errors?.write, kind: 'number' },
  { name: 'parity', value: (row) => row.errors?.parity, kind: 'number' },
]

/** A class that counts no errors has no columns for them. */
function columnsOf(rows: readonly PartRow[]): readonly Column<PartRow>[] {
  return [
    { name: 'name', value: (row) => row.name },
    { name: 'state', value: (row) => row.state, kind: 'state' },
    ...(rows.some(({ errors }) => errors) ? ERRORS : []),
    { name: 'paths', value: (row) => row.paths || ' ' },
    { name: 'note', value: (row) => row.note || ' ' },
  ]
}

/** Each sentence of a report on its own line, the later ones below the first. */
function labelled(label: string, text: string): string {
  if (text === '') return ''
  const lead = `  ${label}: `
  return `${lead}${printable(text).replaceAll('\n', `\n${' '.repeat(lead.length)}`)}\n`
}

function renderObject(
  object: ObjectReport,
  partsOf: PartsOf,
  options: StatusOptions,
  withSet: boolean,
): string {
  const { type, name, state, sizeBytes, note, status = '', action = '', set, process } = object
  const { exact, colour, headings } = options
  const size = exact ? String(sizeBytes) : formatSize(sizeBytes)
  const title = `  ${type}: ${name.padEnd(8)}  state: ${stateText(state, colour)}   ${size} ${note}`
  const rows = partRows(object, partsOf)
  const table = { headings, exact, verbose: false, colour, indent: '  ' }
  const exports = (object.exported ?? []).map(({ target, lun, sessions }) => {
    const number = `${sessions.length} ${sessions.length === 1 ? 'session' : 'sessions'}`
    const who = sessions.length > 0 ? ` (${sessions.join(', ')})` : ''
    return labelled('exported', `${target} lun ${lun}, ${number}${who}`)
  })
  return [
    `${title.trimEnd()}\n`,
    withSet && set !== undefined && set !== name ? labelled('set', set) : '',
    labelled('status', status),
    labelled('action', action),
    process ? `  ${progressLine(process)}\n` : '',
    renderTable(columnsOf(rows), rows, table),
    ...exports,
  ].join('')
}

/** The whole answer in words. */
export function renderStatus(report: StatusReport, options: StatusOptions): string {
  const { objects, problems, jobs, drift } = report
  const withSet = isAmongSets(report)
  const partsOf = partsIn(objects)
  const told = objects.filter(({ health }) => health !== undefined)
  const parts = told
    .filter(({ health }) => !options.badOnly || health !== 'HEALTHY')
    .map((one) => renderObject(one, partsOf, options, withSet))
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
  if (options.badOnly || told.length > 0) return '  all is healthy\n'
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
