/**
 * `vinum attach`: a detached plex becomes a copy of a volume, a detached subdisk a part of a plex. Everything is
 * checked before anything becomes stale (docs/vinum.md, 8.20); the sync starts at once.
 */
import { alignDown, formatSize, parseSize } from '../../../base/bytes.ts'
import { VINUM_SPECS } from '../../../control/vinum-verbs.ts'
import type { PlexRecord, SubdiskRecord, VolumeRecord } from '../model/model.ts'
import { hasParity, isStriped, kindOf } from '../model/plex-kinds.ts'
import { checkOneMore, checkStripe, checkSubdiskCount, childName } from './build.ts'
import { type Draft, isPlaceholder, planning } from './draft.ts'
import { usableDrive } from './drives.ts'
import {
  beginGrowth,
  checkFits,
  checkGrowable,
  checkNotCarrying,
  checkOnlyCopy,
  growVolume,
  trimPlex,
} from './growth.ts'
import { findObject, findTyped } from './lookup.ts'

interface Details {
  readonly rename: boolean
  readonly offsetBytes: number | undefined
}

function detailsOf(draft: Draft, words: readonly string[]): Details {
  const offsets = words.filter((one) => one !== 'rename')
  if (offsets.length > 1)
    throw draft.invalid`attach: "${offsets[1]}" is too much; after the parent stand "rename" and an offset at most`
  const [offset] = offsets
  return {
    rename: offsets.length < words.length,
    offsetBytes: offset === undefined ? undefined : parseSize(offset),
  }
}

export const ATTACH = planning(VINUM_SPECS.attach, [], (draft) => {
  const found = findObject(draft.model, draft.text('object'))
  const parent = draft.text('parent')
  const details = detailsOf(draft, draft.list('details'))
  if (found.type === 'plex') {
    attachPlex(draft, found.record, findTyped(draft.model, 'volume', parent), details)
  } else if (found.type === 'subdisk') {
    attachSubdisk(draft, found.record, findTyped(draft.model, 'plex', parent), details)
  } else {
    const { name } = found.record
    throw draft.invalid`${name} is a ${found.type}; a plex is attached to a volume, and a subdisk to a plex`
  }
})

function attachPlex(
  draft: Draft,
  plex: PlexRecord,
  volume: VolumeRecord,
  { rename, offsetBytes }: Details,
): void {
  const holder = draft.volumeOf(plex)
  if (holder)
    throw draft.inUse`plex ${plex.name} is attached to ${holder.name}; detach it first: plexus vinum detach ${plex.name}`
  if (offsetBytes !== undefined) {
    draft.fail('invalid', plex.name, 'attach: an offset is for subdisks; a plex begins at 0')
  }
  const subdisks = draft.subdisksOf(plex)
  if (subdisks.length === 0)
    throw draft.invalid`plex ${plex.name} has no subdisks; attach some to it first`
  draft.checkIdle(plex, 'attach')
  checkOneMore(draft, volume, plex.organization)
  if (plex.growth && draft.plexesOf(volume).length > 0)
    throw draft.inUse`plex ${plex.name} is growing; let that end before it becomes a copy: plexus vinum start ${plex.name}`
  for (const { driveUuid } of subdisks) {
    const drive = draft.drive(driveUuid)
    if (drive && !isPlaceholder(drive)) checkFits(draft, volume, drive)
  }
  const first = draft.plexesOf(volume).length === 0
  const sizeBytes = draft.plexBytes(plex)
  if (!first && sizeBytes < volume.sizeBytes)
    throw draft.invalid`plex ${plex.name} has ${formatSize(sizeBytes)}, and volume ${volume.name} ${formatSize(volume.sizeBytes)}; a copy must be as large as the volume: grow it first`
  const named = {
    ...plex,
    volumeUuid: volume.uuid,
    name: rename
      ? childName(draft, 'plex', `${volume.name}.p`, draft.plexesOf(volume).length)
      : plex.name,
  }
  // The volume's newest copy comes last in its order.
  draft.model = {
    ...draft.model,
    plexes: [...draft.model.plexes.filter((one) => one.uuid !== plex.uuid), named],
  }
  const as = rename ? ` as ${named.name}` : ''
  draft.stepOn(named.name, `attach plex ${plex.name} to volume ${volume.name}${as}`)
  if (rename) renameSubdisks(draft, named)
  if (first) {
    // Nothing has been written since it was detached, so its content is the volume's.
    draft.put('volumes', { ...volume, sizeBytes })
    draft.startJobs(named)
    return
  }
  trimPlex(draft, named, volume.sizeBytes)
  for (const one of draft.subdisksOf(named)) draft.put('subdisks', { ...one, state: 'stale' })
  draft.put('plexes', { ...named, parityValidBytes: 0 })
  draft.startJobs(named)
}

function renameSubdisks(draft: Draft, plex: PlexRecord): void {
  draft.subdisksOf(plex).forEach((one, index) => {
    const name = `${plex.name}.s${index}`
    if (one.name === name) return
    const free = childName(draft, 'subdisk', `${plex.name}.s`, index)
    draft.put('subdisks', { ...one, name: free })
    draft.stepOn(free, `rename subdisk ${one.name} to ${free}`)
  })
}

function attachSubdisk(
  draft: Draft,
  subdisk: SubdiskRecord,
  plex: PlexRecord,
  { rename, offsetBytes }: Details,
): void {
  const holder = draft.plexOf(subdisk)
  if (holder)
    throw draft.inUse`subdisk ${subdisk.name} is attached to ${holder.name}; detach it first: plexus vinum detach ${subdisk.name}`
  const drive = draft.drive(subdisk.driveUuid)
  const volume = draft.volumeOf(plex)
  draft.checkIdle(plex, 'attach')
  if (drive) usableDrive(draft, drive)
  if (volume && drive) checkFits(draft, volume, drive)
  const hole = findHole(draft, plex, offsetBytes)
  const index = hole
    ? draft.subdisksOf(plex).findIndex((one) => one.uuid === hole.uuid)
    : draft.subdisksOf(plex).length
  const place = hole
    ? intoHole(draft, subdisk, hole)
    : isStriped(plex)
      ? asColumn(draft, subdisk, plex, offsetBytes)
      : atEnd(draft, subdisk, plex, offsetBytes)
  const name = rename ? renamed(draft, subdisk, plex, index) : subdisk.name
  const columnsBefore = draft.subdisksOf(plex).length
  if (hole) draft.drop(new Set([hole.uuid]))
  draft.put('subdisks', { ...subdisk, ...place, name, plexUuid: plex.uuid })
  const at = formatSize(place.plexOffsetBytes)
  const as = rename ? ` as ${name}` : ''
  draft.stepOn(name, `attach subdisk ${subdisk.name} to plex ${plex.name} at ${at}${as}`)
  if (!hole && isStriped(plex) && columnsBefore > 0) {
    if (!buildsUp(plex, columnsBefore)) beginGrowth(draft, plex, columnsBefore)
    return
  }
  if (volume) growVolume(draft, volume)
  if (volume || hasParity(plex)) draft.startJobs(plex)
}

type Place = Pick<SubdiskRecord, 'plexOffsetBytes' | 'sizeBytes' | 'state'>

/** A plex with fewer columns than its organisation needs holds no data yet: columns are only added. */
function buildsUp(plex: PlexRecord, columns: number): boolean {
  return columns < kindOf(plex).columnsMin
}

/** The place that a detached subdisk has left: the one at the offset, or the first one. */
function findHole(
  draft: Draft,
  plex: PlexRecord,
  offsetBytes: number | undefined,
): SubdiskRecord | undefined {
  return draft.subdisksOf(plex).find((one) => {
    return draft.isHole(one) && (offsetBytes === undefined || one.plexOffsetBytes === offsetBytes)
  })
}

function intoHole(draft: Draft, subdisk: SubdiskRecord, hole: SubdiskRecord): Place {
  checkSize(draft, subdisk, hole.sizeBytes)
  const { plexOffsetBytes, sizeBytes } = hole
  return { plexOffsetBytes, sizeBytes, state: 'stale' }
}

function atEnd(
  draft: Draft,
  subdisk: SubdiskRecord,
  plex: PlexRecord,
  offsetBytes: number | undefined,
): Place {
  checkOnlyCopy(draft, plex)
  const end = draft.plexBytes(plex)
  if (offsetBytes !== undefined && offsetBytes !== end) {
    const why = `offset ${offsetBytes} of ${plex.name} is ${offsetBytes < end ? 'taken' : 'behind a gap'}; the next free one is ${end}`
    draft.fail('invalid', subdisk.name, why)
  }
  checkSubdiskCount(draft, draft.subdisksOf(plex).length + 1)
  return {
    plexOffsetBytes: end,
    sizeBytes: subdisk.sizeBytes,
    // The first content that this part of the volume has.
    state: 'up',
  }
}

/** One more column: of a whole plex, which is restriped then, or of one that still lacks columns. */
function asColumn(
  draft: Draft,
  subdisk: SubdiskRecord,
  plex: PlexRecord,
  offsetBytes: number | undefined,
): Place {
  const { stripeBytes } = plex
  const columns = draft.subdisksOf(plex)
  const end = columns.length * stripeBytes
  if (offsetBytes !== undefined && offsetBytes !== end) {
    const fact =
      offsetBytes % stripeBytes === 0
        ? `column ${offsetBytes / stripeBytes} is ${offsetBytes < end ? 'taken' : 'behind a gap'}`
        : `${offsetBytes} is not a multiple of the stripe, ${stripeBytes}`
    const why = `offset in ${plex.name}: ${fact}; the next free one is ${end}`
    draft.fail('invalid', subdisk.name, why)
  }
  checkSubdiskCount(draft, columns.length + 1)
  const drive = draft.drive(subdisk.driveUuid)
  if (drive) checkStripe(draft, stripeBytes, [drive])
  if (!buildsUp(plex, columns.length)) checkGrowable(draft, plex)
  const volume = draft.volumeOf(plex)
  if (volume && drive) checkNotCarrying(draft, volume, drive)
  const sizeBytes = columns[0]?.sizeBytes ?? alignDown(subdisk.sizeBytes, stripeBytes)
  checkSize(draft, subdisk, Math.max(stripeBytes, sizeBytes))
  return { plexOffsetBytes: end, sizeBytes, state: 'up' }
}

function checkSize(draft: Draft, subdisk: SubdiskRecord, needed: number): void {
  if (subdisk.sizeBytes >= needed) return
  throw draft.invalid`subdisk ${subdisk.name} has ${formatSize(subdisk.sizeBytes)}, and ${formatSize(needed)} are needed there; use a larger one`
}

function renamed(draft: Draft, subdisk: SubdiskRecord, plex: PlexRecord, index: number): string {
  const wanted = `${plex.name}.s${index}`
  return subdisk.name === wanted ? wanted : childName(draft, 'subdisk', `${plex.name}.s`, index)
}
