/** Tables of objects, by the columns that their types bring with them: `plexus list`, and the lists of each class. */
import { PlexusError } from '../base/errors.ts'
import type { JobReport, ObjectList, ObjectReport, ObjectType } from '../control/reports.ts'
import { type CellValue, type Column, renderTable, type TableOptions } from './render.ts'

/** `rebuild 33% paused` */
function processText({ kind, state, doneBytes, totalBytes }: JobReport): string {
  const percent = totalBytes > 0 ? Math.floor((doneBytes / totalBytes) * 100) : 100
  return `${kind} ${percent}%${state === 'paused' ? ' paused' : ''}`
}

function cellOf(object: ObjectReport, key: string): CellValue {
  if (key === 'process') return object.process && processText(object.process)
  const common = (object as unknown as Readonly<Record<string, CellValue>>)[key]
  return common ?? object.facts[key]
}

function columnsOf({ columns }: ObjectType): readonly Column<ObjectReport>[] {
  return columns.map(({ label, key, ...how }) => ({
    ...how,
    name: label,
    value: (object) => cellOf(object, key),
  }))
}

export function isObjectList(answer: object): answer is ObjectList {
  return 'types' in answer && 'objects' in answer
}

/** A table for each type, each with its own columns: -o and --sort are for one. Throws `invalid`. */
export function renderObjects({ types, objects }: ObjectList, options: TableOptions): string {
  if (types.length > 1 && (options.output !== undefined || options.sort !== undefined)) {
    throw new PlexusError('invalid', {
      op: 'list',
      subject: '-o',
      message: '-o and --sort are for one table; use them with one type, without -r',
    })
  }
  const tables = types.map((type) => {
    const rows = objects.filter((one) => one.type === type.name)
    const table = renderTable(columnsOf(type), rows, options)
    return rows.length === 0 && options.headings ? `  there are no ${type.plural}\n` : table
  })
  return tables.length > 0 ? tables.join('\n') : '  there are no objects\n'
}
