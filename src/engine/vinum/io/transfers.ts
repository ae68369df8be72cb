/** Requests of jobs to subdisks and plexes, as promises: a job is no hot path. */
import type { AlignedBuffer } from '../../../hal/block-device.ts'
import { requested } from '../../../hal/io.ts'
import { settled } from '../../jobs/slices.ts'
import type { Plex, Subdisk } from '../runtime.ts'
import { type CopyRange, callPlex } from './first-copy.ts'

/** Reads or writes all of `data` at `offset` of a subdisk, or flushes its drive. */
export function transfer(
  op: 'read' | 'write' | 'flush',
  to: Pick<Subdisk, 'forward'>,
  offset = 0,
  data?: AlignedBuffer,
): Promise<void> {
  const length = data?.bytes.length ?? 0
  return requested(op, { offset, length }, data, { cause: 'sync' }, (request) =>
    to.forward(request, offset, length, 0),
  )
}

/** All of `data` as a range of plex space, for a job. */
export function rangeOf(offset: number, data: AlignedBuffer): CopyRange {
  return { offset, length: data.bytes.length, data, dataOffset: 0, cause: 'sync' }
}

/** Reads or writes all of `data` at `offset` of a plex. */
export async function transferPlex(
  op: 'read' | 'write',
  plex: Plex,
  offset: number,
  data: AlignedBuffer,
): Promise<void> {
  const { error } = await callPlex(plex, op, rangeOf(offset, data))
  if (error) throw error
}

/**
 * Everything acknowledged on the drives of those subdisks that are in service is durable when it resolves. Each
 * drive once.
 */
export async function flushDrives(subdisks: readonly Subdisk[]): Promise<void> {
  const drives = new Set<unknown>()
  const flushed: Promise<void>[] = []
  for (const subdisk of subdisks) {
    if (drives.has(subdisk.drive) || !subdisk.writable) continue
    drives.add(subdisk.drive)
    flushed.push(transfer('flush', subdisk))
  }
  await settled(flushed)
}
