/**
 * Requests of a volume that change something, on all of its plexes: write, discard, write-zeroes, and flush,
 * which changes what a power cut may take (docs/vinum.md, 7, 8.7, 8.26 and 9). A change waits for its range and for
 * the intent map, goes to every plex that has subdisks for it, and is acknowledged when each byte is stored in a
 * plex and whoever missed it is out of service durably. The good way is recycled objects: the task and one leg for
 * each plex.
 */
import { assert, defined } from '../../../base/assert.ts'
import { type PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { IoOp, IoRequest } from '../../../hal/block-device.ts'
import { LockEntry } from '../../geom/range-lock.ts'
import type { IntentWaiter } from '../../intent/write-intent-bitmap.ts'
import type { Plex, Subdisk } from '../runtime.ts'
import { type CopyRange, callPlex, eachPiece, noCopyError, type PlexAnswer } from './first-copy.ts'
import { RequestPart } from './request-part.ts'
import type { PlexSlot, VolumeIo } from './volume-io.ts'

type Storable = ReturnType<Plex['storable']>

/** The subdisks that missed a change, and why; the first reason counts. */
type Missed = Map<Subdisk, PlexusError>

/** The part of a task that one plex does. */
class Leg extends RequestPart {
  slot: PlexSlot | undefined = undefined
  storable: Storable = 'none'
  /** It has nothing to do. */
  idle = false
  error: PlexusError | undefined = undefined
  readonly missed: Subdisk[] = []
  /** Stale when the change came: a job that starts meanwhile copies the change, too, since it waits for it. */
  readonly stale: Subdisk[] = []
  /** Made once for the life of this object, so that a write makes no function. */
  readonly onMissed = (subdisk: Subdisk): void => {
    this.missed.push(subdisk)
  }
  readonly #task: ChangeTask

  constructor(task: ChangeTask) {
    super()
    this.#task = task
  }

  take(request: IoRequest, op: IoOp, slot: PlexSlot, storable: Storable): void {
    this.copy(request)
    this.op = op
    this.slot = slot
    this.storable = storable
    if (storable !== 'full' || op === 'flush') addStale(slot.plex, this.stale)
  }

  start(): void {
    if (this.idle) return
    const slot = defined(this.slot, 'the plex')
    slot.inFlight++
    slot.plex.start(this, this.onMissed)
  }

  complete(error: PlexusError | undefined): void {
    if (this.slot) this.slot.inFlight--
    this.error = error
    this.#task.legDone()
  }

  clear(): void {
    this.slot = undefined
    this.data = undefined
    this.error = undefined
    // To set a length costs more than to look at it.
    if (this.missed.length > 0) this.missed.length = 0
    if (this.stale.length > 0) this.stale.length = 0
  }
}

export class ChangeTask extends LockEntry implements IntentWaiter {
  readonly #volume: VolumeIo
  readonly #legs: Leg[] = []
  #used = 0
  #pending = 0
  #request: IoRequest | undefined = undefined
  /** For a flush: what it covers. */
  #covered = 0
  /** Has entered the map. */
  #intends = false

  constructor(volume: VolumeIo) {
    super()
    this.#volume = volume
  }

  take(request: IoRequest): void {
    this.#request = request
    this.#covered = this.#volume.changes
  }

  granted(): void {
    this.#volume.admit(this)
  }

  run(): void {
    const request = this.#current
    const map = request.op === 'flush' ? undefined : this.#volume.map
    this.#intends = map !== undefined
    if (map) map.enter(request.offset, request.length, this)
    else this.#dispatch(request)
  }

  /** The map is durable for the range. */
  intended(error: PlexusError | undefined): void {
    // Nothing has been written, so nothing differs.
    if (error) this.#end(error, true)
    else this.#dispatch(this.#current)
  }

  legDone(): void {
    if (--this.#pending === 0) this.#settle(this.#current)
  }

  get #current(): IoRequest {
    return defined(this.#request, 'the request')
  }

  #dispatch(request: IoRequest): void {
    const { slots } = this.#volume
    const op = opFor(request, slots)
    let full = false
    let pending = 0
    this.#used = slots.length
    for (let index = 0; index < slots.length; index++) {
      const slot = slots[index] as PlexSlot
      const leg = this.#leg(index)
      const storable = op === 'flush' ? 'full' : slot.plex.storable(request.offset, request.length)
      leg.take(request, op, slot, storable)
      if (storable === 'full') full = true
      // Nothing can be stored there, and everybody knows: the usual case while a mirror is degraded.
      leg.idle = storable === 'none' && this.#allKnownOut(slot.plex)
      if (!leg.idle) pending++
    }
    if (!full) {
      void this.#inPieces(request, op)
      return
    }
    // All counted before the first starts; none completes from within.
    this.#pending = pending
    for (let index = 0; index < slots.length; index++) this.#leg(index).start()
  }

  #leg(index: number): Leg {
    const leg = this.#legs[index]
    if (leg) return leg
    const fresh = new Leg(this)
    this.#legs[index] = fresh
    return fresh
  }

  #allKnownOut(plex: Plex): boolean {
    for (const subdisk of plex.subdisks) {
      if (!subdisk.writable && !this.#volume.isOut(subdisk)) return false
    }
    return true
  }

  /** Every leg has ended. */
  #settle(request: IoRequest): void {
    let stored = false
    let missed: Missed | undefined
    let first: PlexusError | undefined
    for (let index = 0; index < this.#used; index++) {
      const leg = this.#leg(index)
      const { plex } = defined(leg.slot, 'the plex')
      if (leg.error) first ??= leg.error
      else if (leg.storable === 'full') stored = true
      missed = this.#collect(plex, leg, leg.storable, leg.stale, missed)
    }
    if (request.op === 'flush') this.#settleFlush(missed, first)
    else if (stored) this.#conclude(missed)
    else if (this.#used > 1) void this.#inPieces(request, opFor(request, this.#volume.slots))
    else this.#end(first, false)
  }

  /** A flush has to reach every drive whose subdisks stay in service. */
  #settleFlush(missed: Missed | undefined, first: PlexusError | undefined): void {
    const only = this.#volume.slots.length === 1 ? this.#volume.slots[0] : undefined
    if (only && !only.plex.doubt) this.#end(first, true)
    else if (missed) this.#conclude(missed)
    else {
      // Whatever failed was out of service before; the rest has been flushed, unless there is no rest.
      const serves = this.#volume.slots.some(({ plex }) => plex.subdisks.some(isWritable))
      this.#end(serves ? undefined : first, true)
    }
  }

  /**
   * Adds who missed the change in one plex and is not out of service for certain. `stale` were so when the change
   * came, and durably where they are reviving now.
   */
  #collect(
    plex: Plex,
    { error, missed: named }: PlexAnswer,
    storable: Storable | undefined,
    stale: readonly Subdisk[],
    before: Missed | undefined,
  ): Missed | undefined {
    const { doubt, subdisks } = plex
    if (!error && (!doubt || subdisks.every(isWritable))) return before
    const suspects = new Set(named)
    // A column that is not in service misses every row of raid5, also when the plex has stored the rest.
    // Where raid5 stores nothing because more are missing, the columns that are there miss it, too.
    for (const subdisk of doubt ? subdisks : []) {
      if (!subdisk.writable || storable === 'none') suspects.add(subdisk)
    }
    // If a plex fails without naming subdisks, all of its subdisks missed the change.
    if (error && suspects.size === 0) for (const subdisk of subdisks) suspects.add(subdisk)
    let missed = before
    for (const subdisk of suspects) {
      if (this.#volume.isOut(subdisk)) continue
      if (missed?.has(subdisk) || (subdisk.writable && stale.includes(subdisk))) continue
      const { op, offset, length } = this.#current
      missed ??= new Map()
      missed.set(subdisk, error ?? noCopyError(this.#volume.name, op, offset, length))
    }
    return missed
  }

  /**
   * No plex takes all of the range, or none did: each part of it that lies in one piece of every plex may still
   * be stored in one of them. The range stays entered, so that writing a part again disturbs nobody.
   */
  async #inPieces(request: IoRequest, op: IoOp): Promise<void> {
    const { name, plexes } = this.#volume
    let missed: Missed | undefined
    const writePiece = async (piece: CopyRange): Promise<void> => {
      const { offset, length } = piece
      const able = plexes.map((plex) => plex.storable(offset, length))
      const stale: Subdisk[] = []
      for (const plex of plexes) addStale(plex, stale)
      const answers = await Promise.all(plexes.map((plex) => callPlex(plex, op, piece)))
      let stored = false
      answers.forEach((answer, index) => {
        if (!answer.error && able[index] === 'full') stored = true
        missed = this.#collect(plexes[index] as Plex, answer, able[index], stale, missed)
      })
      if (stored) return
      throw answers.find(({ error }) => error)?.error ?? noCopyError(name, op, offset, length)
    }
    try {
      await eachPiece(plexes, request, writePiece)
    } catch (error) {
      this.#end(toPlexusError(error, op, name), false)
      return
    }
    this.#conclude(missed)
  }

  /** It is stored. Whoever missed it goes out of service before it is acknowledged. */
  #conclude(missed: Missed | undefined): void {
    if (!missed) this.#end(undefined, true)
    else void this.#demote(missed)
  }

  async #demote(missed: Missed): Promise<void> {
    let failure: PlexusError | undefined
    try {
      const [error] = missed.values()
      await this.#volume.demote(missed.keys(), defined(error, 'why they missed it'))
    } catch (refused) {
      failure = toPlexusError(refused, this.#current.op, this.#volume.name)
    }
    this.#end(failure, failure === undefined)
  }

  /** `agree`: all copies in service are the same in the range, as far as this change goes. */
  #end(error: PlexusError | undefined, agree: boolean): void {
    const request = this.#current
    const { map } = this.#volume
    if (this.#intends) {
      assert(map, 'a map stays while somebody is inside')
      if (agree) map.leave(request.offset, request.length)
      else map.leaveUnsynced(request.offset, request.length)
    }
    for (let index = 0; index < this.#used; index++) this.#leg(index).clear()
    this.#used = 0
    this.#request = undefined
    const answer = this.#volume.answer(request, this.#covered, error)
    this.#volume.endChange(this)
    request.complete(answer)
  }
}

function addStale(plex: Plex, to: Subdisk[]): void {
  for (const subdisk of plex.subdisks) if (subdisk.record.state === 'stale') to.push(subdisk)
}

function isWritable({ writable }: Subdisk): boolean {
  return writable
}

/**
 * Copies must read the same after a discard: where a drive may leave anything, or knows no discard, zeroes are
 * written instead. A single plex has nothing to agree with; raid5 sees to its parity by itself.
 */
function opFor({ op }: IoRequest, slots: readonly PlexSlot[]): IoOp {
  if (op !== 'discard' || slots.length < 2) return op
  const agree = slots.every(({ plex }) =>
    plex.subdisks.every(({ drive }) => !drive.consumer || drive.consumer.features.discardZeroes),
  )
  return agree ? op : 'write-zeroes'
}
