/**
 * Writes whole rows of striped and raid5 columns, parity included, straight to the subdisks: for jobs that bring a
 * row's content themselves: the new layout of a growth (jobs/grow.ts). The caller keeps everybody off the rows. A
 * row's units may be larger than a buffer: they are done in slices of all columns.
 */
import { alignDown } from '../../../base/bytes.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import type { XorSource } from '../../../base/kernels.ts'
import { JOB_STEP_BYTES, PAGE_BYTES } from '../../../base/limits.ts'
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import { settled, slice, withLease } from '../../jobs/slices.ts'
import { transfer } from '../io/transfers.ts'
import type { PlexLog } from '../log/plex-log.ts'
import type { PlexRecord } from '../model/model.ts'
import { dataColumns, hasParity, kindOf } from '../model/plex-kinds.ts'
import type { Subdisk, VinumHost } from '../runtime.ts'
import { createLayout, dataColumn, parityColumn } from './layout.ts'

/** The columns of one layout of a plex: all of them, or the first ones: those before a growth. */
export interface Columns {
  readonly record: PlexRecord
  readonly subdisks: readonly Subdisk[]
  /** Of the plex, which knows nothing of these writes. */
  readonly log?: PlexLog | undefined
}

type RowHost = Pick<VinumHost, 'pool' | 'kernels' | 'demote' | 'noteError'>

/** Data of one row. */
export function rowBytesOf({ record, subdisks }: Columns): number {
  return dataColumns(record, subdisks.length) * record.stripeBytes
}

/**
 * Writes the rows of plex range [offset, offset + length), both whole rows of this layout; `read` gives their data.
 * Columns that are out of service are left out as long as parity makes up for them. One that fails a write is taken
 * out of service durably; rejects when that may not be, or when more are missing than parity makes up for.
 */
export async function fillRows(
  host: RowHost,
  columns: Columns,
  offset: number,
  length: number,
  read: (offset: number, into: AlignedBuffer) => Promise<void>,
): Promise<void> {
  const rowBytes = rowBytesOf(columns)
  const { record, subdisks } = columns
  const { stripeBytes } = record
  const share = Math.floor(JOB_STEP_BYTES / subdisks.length)
  const width = Math.min(stripeBytes, Math.max(PAGE_BYTES, alignDown(share, PAGE_BYTES)))
  // What lay there in the other layout must not be written again over it.
  await columns.log?.retire(offset / rowBytes, length / rowBytes)
  for (let at = offset; at < offset + length; at += rowBytes) {
    for (let within = 0; within < stripeBytes; within += width) {
      const bytes = Math.min(width, stripeBytes - within)
      await fillSlice(host, columns, at, within, bytes, read)
    }
  }
}

/** Bytes `within` to `within + bytes` of every unit of the row at `rowOffset` of plex space. */
async function fillSlice(
  host: RowHost,
  columns: Columns,
  rowOffset: number,
  within: number,
  bytes: number,
  read: (offset: number, into: AlignedBuffer) => Promise<void>,
): Promise<void> {
  const { record, subdisks } = columns
  const { stripeBytes } = record
  const count = dataColumns(record, subdisks.length)
  const row = rowOffset / rowBytesOf(columns)
  await withLease(host.pool, subdisks.length * bytes, async (lease) => {
    const part = (index: number): AlignedBuffer => slice(lease, index * bytes, bytes)
    if (bytes === stripeBytes) await read(rowOffset, slice(lease, 0, count * bytes))
    else {
      const reads = Array.from({ length: count }, (_, index) =>
        read(rowOffset + index * stripeBytes + within, part(index)),
      )
      await settled(reads)
    }
    if (hasParity(record)) {
      const sources: XorSource[] = Array.from({ length: count }, (_, index) => ({
        bytes: lease.bytes,
        offset: index * bytes,
      }))
      host.kernels.xor(lease.bytes, count * bytes, sources, bytes)
    }
    const columnOf = placing(columns, row)
    const parts = new Map(subdisks.map((_, index) => [subdisks[columnOf(index)], part(index)]))
    await onColumns(host, columns, (subdisk) =>
      transfer('write', subdisk, row * stripeBytes + within, parts.get(subdisk)),
    )
  })
}

/** Column of part `index` of a row's buffer: the data units in order, then parity. */
function placing({ record, subdisks }: Columns, row: number): (index: number) => number {
  const { stripeBytes, parityLayout } = record
  if (!parityLayout) return (index) => index
  const layout = createLayout(subdisks.length, stripeBytes, parityLayout)
  const last = subdisks.length - 1
  return (index) => (index === last ? parityColumn(layout, row) : dataColumn(layout, row, index))
}

/** Makes rows durable. A column whose drive fails the flush may have lost them: it has missed them. */
export function flushRows(host: RowHost, columns: Columns): Promise<void> {
  return onColumns(host, columns, (subdisk) => transfer('flush', subdisk))
}

/** Does something on all columns in service. One that fails is taken out where parity makes up for it. */
async function onColumns(
  host: RowHost,
  columns: Columns,
  work: (subdisk: Subdisk) => Promise<void>,
): Promise<void> {
  const missed: { readonly subdisk: Subdisk; readonly error: PlexusError }[] = []
  const serving = columns.subdisks.filter(({ writable }) => writable)
  await Promise.all(
    serving.map((subdisk) =>
      work(subdisk).catch((failure: unknown) => {
        const error = operatingError(failure)
        host.noteError(subdisk, 'write', error)
        missed.push({ subdisk, error })
      }),
    ),
  )
  const lacking = columns.subdisks.length - serving.length + missed.length
  const [first] = missed
  if (lacking > kindOf(columns.record).parityColumns) throw first?.error ?? tooFew(columns)
  if (first) await host.demote([first.subdisk], first.error)
}

function tooFew({ record: plex, subdisks }: Columns): PlexusError {
  const { name } = plex
  const out = subdisks.filter(({ writable }) => !writable).map(({ record }) => record.name)
  return new PlexusError('io', {
    op: 'write',
    subject: name,
    message: `plex ${name} cannot go on without ${out.join(' and ')}${
      hasParity(plex) ? ': it bears the loss of one column' : ''
    }; bring them back, then start ${name} again`,
  })
}
