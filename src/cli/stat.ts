/** `plexus stat`: rates between two snapshots of the daemon's counters, as gstat and iostat show them. */
import { formatSize } from '../base/bytes.ts'
import type { OpCounters, ProviderCounters, StatReport } from '../control/daemon-reports.ts'
import { type Column, renderTable, type TableOptions } from './render.ts'

/** What one line says: rates per second and latencies of one interval. */
export interface StatRow {
  readonly name: string
  readonly className: string
  readonly queue: number
  readonly readOps: number
  readonly writeOps: number
  readonly readBytes: number
  readonly writeBytes: number
  readonly readMs: number | undefined
  readonly writeMs: number | undefined
  readonly readP99Ms: number | undefined
  readonly writeP99Ms: number | undefined
  readonly otherOps: number
  readonly errors: number
}

const NOTHING: OpCounters = { operations: 0, bytes: 0, errors: 0, totalMs: 0, buckets: [] }

function difference(before: OpCounters, after: OpCounters): OpCounters {
  return {
    operations: after.operations - before.operations,
    bytes: after.bytes - before.bytes,
    errors: after.errors - before.errors,
    totalMs: after.totalMs - before.totalMs,
    buckets: after.buckets.map((value, at) => value - (before.buckets[at] ?? 0)),
  }
}

/** The upper bound of the bucket that holds the given part of the operations, in milliseconds. */
export function quantileMs(
  counters: OpCounters,
  bucketsUs: readonly number[],
  part: number,
): number | undefined {
  const total = counters.buckets.reduce((sum, value) => sum + value, 0)
  if (total === 0) return undefined
  let seen = 0
  const at = counters.buckets.findIndex((value) => {
    seen += value
    return seen >= total * part
  })
  const boundUs = bucketsUs[at] ?? bucketsUs.at(-1)
  return boundUs === undefined ? undefined : boundUs / 1000
}

const mean = ({ operations, totalMs }: OpCounters): number | undefined =>
  operations > 0 ? totalMs / operations : undefined

/** The rows between two snapshots. A provider that came in between counts from zero. */
export function statRows(before: StatReport, after: StatReport): StatRow[] {
  const seconds = Math.max(0.001, (after.atMs - before.atMs) / 1000)
  const old = new Map(before.providers.map((one) => [one.name, one]))
  return after.providers.map((now) => {
    const was = old.get(now.name)
    const of = (op: string): OpCounters => {
      const newer = now.operations[op] ?? NOTHING
      const older = was?.operations[op] ?? NOTHING
      // Fewer than before: another provider has the name now.
      return newer.operations < older.operations ? newer : difference(older, newer)
    }
    const [read, write] = [of('read'), of('write')]
    const others = Object.keys(now.operations)
      .filter((op) => op !== 'read' && op !== 'write')
      .map(of)
    return {
      name: now.name,
      className: now.className,
      queue: now.inFlight,
      readOps: read.operations / seconds,
      writeOps: write.operations / seconds,
      readBytes: read.bytes / seconds,
      writeBytes: write.bytes / seconds,
      readMs: mean(read),
      writeMs: mean(write),
      readP99Ms: quantileMs(read, after.bucketsUs, 0.99),
      writeP99Ms: quantileMs(write, after.bucketsUs, 0.99),
      otherOps: others.reduce((sum, one) => sum + one.operations, 0) / seconds,
      errors: [read, write, ...others].reduce((sum, one) => sum + one.errors, 0),
    }
  })
}

const round = (value: number | undefined, digits: number): number | undefined =>
  value === undefined ? undefined : Number(value.toFixed(digits))

/** Those that are always shown fit a line of 80 characters. */
export const STAT_COLUMNS: readonly Column<StatRow>[] = [
  { name: 'name', value: (row) => row.name },
  { name: 'class', value: (row) => row.className, extra: true },
  { name: 'queue', value: (row) => row.queue, kind: 'number' },
  { name: 'r/s', value: (row) => round(row.readOps, 0), kind: 'number' },
  { name: 'w/s', value: (row) => round(row.writeOps, 0), kind: 'number' },
  { name: 'read/s', value: (row) => round(row.readBytes, 0), kind: 'size' },
  { name: 'write/s', value: (row) => round(row.writeBytes, 0), kind: 'size' },
  { name: 'r-ms', value: (row) => round(row.readMs, 2), kind: 'number' },
  { name: 'w-ms', value: (row) => round(row.writeMs, 2), kind: 'number' },
  { name: 'r99-ms', value: (row) => round(row.readP99Ms, 2), kind: 'number', extra: true },
  { name: 'w99-ms', value: (row) => round(row.writeP99Ms, 2), kind: 'number', extra: true },
  { name: 'errors', value: (row) => row.errors, kind: 'number' },
  { name: 'other/s', value: (row) => round(row.otherOps, 0), kind: 'number', extra: true },
]

/** What initiators hold of the target: one line under the table. */
export function renderLoad({ target }: StatReport): string {
  const { pool, connections, sessions, sendQueueBytes } = target
  const held = pool.totalBytes - pool.freeBytes
  const buffers = `${formatSize(held)} of ${formatSize(pool.totalBytes)} in ${pool.leased} leases`
  const queues = formatSize(sendQueueBytes)
  const kept =
    pool.keptBytes === 0 ? '' : `, ${formatSize(pool.keptBytes)} kept by disks that do not answer`
  return `sessions: ${sessions} on ${connections} connections, buffers: ${buffers}${kept}, answers waiting: ${queues}\n`
}

interface ConsumerRow {
  readonly provider: string
  readonly holder: string
  readonly inFlight: number
}

const CONSUMER_COLUMNS: readonly Column<ConsumerRow>[] = [
  { name: 'provider', value: (row) => row.provider },
  { name: 'consumer', value: (row) => row.holder },
  { name: 'queue', value: (row) => row.inFlight, kind: 'number' },
]

/** Who uses each provider, and how much of that is under way. */
export function renderConsumers(
  providers: readonly ProviderCounters[],
  options: TableOptions,
): string {
  const rows = providers.flatMap(({ name, consumers }) =>
    consumers.map(({ holder, inFlight }) => ({ provider: name, holder, inFlight })),
  )
  return renderTable(CONSUMER_COLUMNS, rows, { ...options, output: undefined, sort: undefined })
}
