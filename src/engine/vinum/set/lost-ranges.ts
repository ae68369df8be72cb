/**
 * What a set does for raid5 plexes whose parity is in doubt (raid5/row-state.ts): a column that goes out of
 * service takes its data in such rows with it. That is written down in the commit that takes it out, so that no restart and
 * no rebuild makes data of what parity says by chance (docs/adr/0014). Part of a set (vinum-set.ts).
 */
import { type ByteRange, formatSize } from '../../../base/bytes.ts'
import { RangeSet } from '../../../base/range-set.ts'
import {
  byUuid,
  type PlexRecord,
  putRecord,
  type SubdiskState,
  sizeOfPlex,
  subdisksOf,
  type VinumModel,
} from '../model/model.ts'
import { hasParity } from '../model/plex-kinds.ts'
import { createLayout, rowOf } from '../raid5/layout.ts'
import {
  dataOf,
  keptNowhere,
  type Lost,
  lostBytes,
  type Move,
  withLost,
  withoutMoved,
} from '../raid5/lost.ts'
import type { Plex } from '../runtime.ts'
import { keepDoubt } from './plex-log.ts'
import type { VinumSet } from './vinum-set.ts'

const COMPLETE: readonly (SubdiskState | undefined)[] = ['up', 'down']

export class LostRanges {
  readonly #set: VinumSet
  /** By plex: what a crash has left in doubt, until the plex runs. */
  readonly #remembered = new Map<string, readonly ByteRange[]>()
  /** By plex: what the commit under way makes of doubt, and the list that it has then. */
  readonly #taken = new Map<string, { readonly over: readonly ByteRange[]; readonly lost: Lost }>()
  /** Subdisks on disks that came back as they were at an earlier time, until they are filled. */
  readonly #older = new Set<string>()
  /** By plex: bytes that were told of. */
  readonly #told = new Map<string, number>()

  constructor(set: VinumSet) {
    this.#set = set
  }

  /**
   * A crash, or the loss of more columns than one with their caches, has left these ranges of a volume in doubt. Where its
   * raid5 plex lacked a column already, they say what that one has missed; what was being written then cannot be told from
   * it (the write hole of a degraded plex).
   */
  doubt(model: VinumModel, volumeUuid: string, ranges: readonly ByteRange[]): void {
    for (const plex of model.plexes) {
      if (plex.volumeUuid !== volumeUuid || !hasParity(plex)) continue
      const columns = subdisksOf(model, plex.uuid)
      const isComplete = (count: number): boolean =>
        columns.slice(0, count).every(({ state }) => COMPLETE.includes(state))
      const { growth } = plex
      const doubt = new RangeSet(isComplete(growth?.columnsBefore ?? columns.length) ? ranges : [])
      if (growth && !isComplete(columns.length)) doubt.remove(0, growth.cursorBytes)
      const running = this.#set.objects.plexes.get(plex.uuid)?.doubt
      if (!running) this.#remembered.set(plex.uuid, doubt.ranges)
      for (const { offset, length } of doubt.ranges) running?.add(offset, length)
    }
  }

  /** A late replay has settled all that the map of a plex said, unless that says more. */
  undoubt({ uuid, mapDoubts }: PlexRecord): void {
    const plex = this.#set.objects.plexes.get(uuid)
    if (plex && !mapDoubts) plex.doubt = new RangeSet()
  }

  /** What is in doubt of a plex, in plex space. */
  doubtOf(plexUuid: string): readonly ByteRange[] {
    const running = this.#set.objects.plexes.get(plexUuid)?.doubt
    return [...(running?.ranges ?? this.#remembered.get(plexUuid) ?? [])]
  }

  /** What these subdisks have is older than what was lost with them: it does not count as found again. */
  distrust(subdisks: readonly string[]): void {
    for (const uuid of subdisks) this.#older.add(uuid)
  }

  /**
   * The configuration after a change, with what columns that leave in it take with them, and without what a growth has
   * moved in it.
   */
  taken(before: VinumModel, after: VinumModel): VinumModel {
    let next = after
    for (const plex of after.plexes) {
      if (!hasParity(plex)) continue
      const doubt = withoutBackup(plex, this.doubtOf(plex.uuid))
      let lost = keptNowhere(plex.lost, this.#older)
      /** The doubt is over below it. */
      let overBytes = 0
      for (const [column, { uuid, state }] of subdisksOf(after, plex.uuid).entries()) {
        const was = byUuid(before.subdisks, uuid)?.state
        if (!COMPLETE.includes(was) || (state !== 'stale' && state !== 'reviving')) continue
        const { growth } = plex
        // In the old layout of a growth the new columns have no part.
        const isNew = growth && column >= growth.columnsBefore
        overBytes = Math.max(overBytes, isNew ? growth.cursorBytes : Number.POSITIVE_INFINITY)
        const keptBy = this.#older.has(uuid) ? undefined : uuid
        lost = withLost(lost, column, columnsDoubt(after, plex, column, doubt), keptBy)
      }
      const over = doubt.map(({ offset, length }) => ({
        offset,
        length: Math.max(0, Math.min(length, overBytes - offset)),
      }))
      const move = moveOf(byUuid(before.plexes, plex.uuid), plex, after)
      if (move) {
        lost = withoutMoved(lost, move)
        over.push({ offset: move.fromBytes, length: move.toBytes - move.fromBytes })
      }
      const known = this.#taken.get(plex.uuid)
      // Of a change that goes into the same commit.
      if (known && known.lost === byUuid(before.plexes, plex.uuid)?.lost) over.push(...known.over)
      if (over.some(({ length }) => length > 0)) this.#taken.set(plex.uuid, { over, lost })
      if (lost !== plex.lost) next = putRecord(next, 'plexes', { ...plex, lost })
    }
    return next
  }

  /** VinumHost.isLosing. */
  isLosing({ record: { uuid } }: Plex): boolean {
    return this.#taken.has(uuid)
  }

  /** The configuration is durable. */
  committed(model: VinumModel): void {
    for (const [uuid, { over, lost }] of this.#taken) {
      // Not that of a commit which was refused.
      if (byUuid(model.plexes, uuid)?.lost !== lost) continue
      const plex = this.#set.objects.plexes.get(uuid)
      const left = plex?.doubt ?? new RangeSet(this.#remembered.get(uuid))
      for (const { offset, length } of over) left.remove(offset, length)
      if (!plex) this.#remembered.set(uuid, left.ranges)
    }
    this.#taken.clear()
    for (const uuid of this.#older) {
      if (byUuid(model.subdisks, uuid)?.state === 'up') this.#older.delete(uuid)
    }
    for (const plex of model.plexes) {
      const bytes = lostBytes(plex.lost)
      if (bytes > (this.#told.get(plex.uuid) ?? 0)) this.#tell(model, plex, bytes)
      this.#told.set(plex.uuid, bytes)
    }
  }

  #tell(model: VinumModel, { name, lost, volumeUuid, uuid }: PlexRecord, bytes: number): void {
    const volume = byUuid(model.volumes, volumeUuid)?.name ?? name
    const subdisks = subdisksOf(model, uuid)
    const places = (lost ?? []).map(
      ({ column, offsetBytes, lengthBytes }) =>
        `${lengthBytes} at ${offsetBytes} of ${subdisks[column]?.name ?? '?'}`,
    )
    const shown = places.slice(0, PLACES_SHOWN).join(', ')
    const more = places.length > PLACES_SHOWN ? ` and ${places.length - PLACES_SHOWN} more` : ''
    this.#set.topology.events.emit(
      'critical',
      'data-lost',
      volume,
      `${formatSize(bytes)} of volume ${volume} cannot be read (bytes ${shown}${more}): its parity was in doubt when a disk ` +
        'went, or two disks fail in one row. Bring the disk back, write these parts again, or take what the other disks ' +
        `say: plexus vinum setstate --force up ${name}`,
    )
  }

  /** VinumHost.putInDoubt. */
  async putInDoubt(plex: Plex, offset: number, length: number, why: string): Promise<void> {
    const { objects, topology } = this.#set
    const volume = this.#set.volumeOf(plex.record.volumeUuid)
    const { name } = volume?.record ?? plex.record
    topology.events.emit('critical', 'data-unreadable', name, `volume ${name}: ${why}`)
    if (!volume?.map) return
    // Else a start would take the word of the log that nothing is in doubt.
    await keepDoubt(this.#set, plex.record.uuid)
    await volume.map.markUnsynced(offset, Math.min(length, volume.map.sizeBytes - offset))
    objects.jobs.resyncLater(volume)
  }

  /** VinumHost.changeLost. */
  async change({ record: { uuid } }: Plex, change: (lost: Lost) => Lost): Promise<void> {
    await this.#set.commit((model) => {
      const plex = byUuid(model.plexes, uuid)
      const lost = plex && change(plex.lost)
      return !plex || lost === plex.lost ? model : putRecord(model, 'plexes', { ...plex, lost })
    })
  }
}

const PLACES_SHOWN = 3

/** What is in doubt, but for a window that a growth writes anew from its backup, whatever becomes of its old place. */
function withoutBackup({ growth }: PlexRecord, doubt: readonly ByteRange[]): readonly ByteRange[] {
  if (!growth?.backup) return doubt
  const left = new RangeSet(doubt)
  left.remove(growth.backup.offsetBytes, growth.backup.lengthBytes)
  return left.ranges
}

/** Where the growth of a plex is after a change; undefined: it does not grow. */
function moveOf(was: PlexRecord | undefined, now: PlexRecord, model: VinumModel): Move | undefined {
  const growth = was?.growth
  if (!growth) return undefined
  const subdisks = subdisksOf(model, now.uuid)
  const { stripeBytes, parityLayout = 'left-symmetric' } = now
  return {
    before: createLayout(growth.columnsBefore, stripeBytes, parityLayout),
    after: createLayout(subdisks.length, stripeBytes, parityLayout),
    fromBytes: growth.cursorBytes,
    toBytes: now.growth?.cursorBytes ?? sizeOfPlex(now, subdisks),
  }
}

/** Data of a column in the rows of ranges of plex space. In column space. */
function columnsDoubt(
  model: VinumModel,
  plex: PlexRecord,
  column: number,
  doubt: readonly ByteRange[],
): readonly ByteRange[] {
  const subdisks = subdisksOf(model, plex.uuid)
  const { growth, stripeBytes, parityLayout = 'left-symmetric' } = plex
  const sizeBytes = sizeOfPlex(plex, subdisks)
  const cursor = growth?.cursorBytes ?? sizeBytes
  const now = createLayout(subdisks.length, stripeBytes, parityLayout)
  const before = createLayout(growth?.columnsBefore ?? subdisks.length, stripeBytes, parityLayout)
  return doubt.flatMap(({ offset, length }) => {
    const end = Math.min(offset + length, sizeBytes)
    return [
      { layout: now, from: offset, to: Math.min(end, cursor) },
      { layout: before, from: Math.max(offset, cursor), to: end },
    ].flatMap(({ layout, from, to }) => {
      if (from >= to || column >= layout.columns) return []
      const first = rowOf(layout, from)
      return dataOf(layout, column, first, rowOf(layout, to - 1) + 1 - first)
    })
  })
}
