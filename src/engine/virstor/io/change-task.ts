/**
 * A write, discard or write-zeroes of a virstor device, which holds its range meanwhile. Recycled by device-io.ts.
 *
 * A write to valid granules goes straight down. Another one holds its range up to the borders of granules, and takes all
 * places that it needs, or none. They are in the map at once, with nothing valid in them: so another first write to the
 * same chunk, which runs beside it in other granules, finds the place and takes no second one. Bits are set when all
 * pieces have been written; until then reads see zeroes, and so they do after a crash. When all fail who fill the chunk,
 * and nothing of it is valid, it is released.
 */
import { defined } from '../../../base/assert.ts'
import { alignDown, alignUp } from '../../../base/bytes.ts'
import type { PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_DISCARD_CHUNKS } from '../../../base/limits.ts'
import type { AlignedBuffer, IoCause, IoOp, IoRequest } from '../../../hal/block-device.ts'
import { LockEntry } from '../../geom/range-lock.ts'
import type { Place } from '../runtime.ts'
import type { VirstorIo } from './device-io.ts'
import type { FillWrite, GranuleFill } from './granule-fill.ts'
import type { SpaceWaiter } from './space-queue.ts'

export class ChangeTask extends LockEntry implements IoRequest, SpaceWaiter, FillWrite {
  // What the clones of the pieces are made from.
  op: IoOp = 'write'
  readonly offset = 0
  readonly length = 0
  data: AlignedBuffer | undefined = undefined
  readonly dataOffset = 0
  fua = false
  cause: IoCause = 'initiator'
  heldBytes = 0
  readonly #io: VirstorIo
  #request: IoRequest | undefined = undefined
  #epoch = 0
  #end = 0
  /** It is acknowledged after a commit. */
  #commits = false
  /** It makes granules valid. */
  #fills = false
  /** With which others, where it is a part of a granule. */
  #fill: GranuleFill | undefined = undefined
  /** Chunks that it needs. */
  #need = 0
  /** Components to which a discard wrote zeroes. */
  readonly #zeroed: number[] = []
  /** Where a discard is. */
  #clearedTo = 0
  #pending = 0
  #error: PlexusError | undefined = undefined
  readonly #cut = (): void => this.complete(undefined)
  readonly #clearMore = (): void => this.#clear()

  constructor(io: VirstorIo) {
    super()
    this.#io = io
  }

  begin(request: IoRequest): void {
    this.#request = request
    this.#end = request.offset + request.length
    this.data = request.data
    this.cause = request.cause
    this.heldBytes = request.length
    this.#fill = this.#io.fillFor(request)
    if (this.#fill) this.#joinFill(this.#fill)
    else this.#io.locks.add(this, request.offset, request.length, 'write')
  }

  /** Of a write: where it begins and ends on the device. */
  get start(): number {
    return this.#current.offset
  }

  get end(): number {
    return this.#end
  }

  #joinFill(fill: GranuleFill): void {
    this.#epoch = this.#io.enter()
    this.#fills = true
    this.fua = false
    this.#commits = this.#current.fua
    this.#pending = 1
    fill.join(this)
  }

  granted(): void {
    this.#io.admit(this)
  }

  /** It holds its range. */
  run(): void {
    const io = this.#io
    const { op, offset, fua } = this.#current
    this.#epoch = io.enter()
    this.#fills = op === 'write' && !io.runs.isValid(offset, this.#end)
    if (this.#fills && !this.#isPrepared()) return
    io.queue.served(this)
    // What is written where the map is durable needs no commit to be found.
    this.fua = fua && op === 'write' && !this.#fills && io.committer.isClean
    this.#commits = fua && !this.fua
    this.#pending = 1
    this.#fill = this.#fills ? io.beginFill(this) : undefined
    if (!this.#fill) this.send()
  }

  /** FillWrite, and for all others. */
  send(): void {
    if (this.#current.op === 'write') this.#sendWrite()
    else this.#sendRest()
    if (this.#pending > 1) this.#pending--
    else queueMicrotask(this.#cut)
  }

  addZeroes(from: number, to: number): void {
    this.#sendZeroes(from, to)
  }

  filled(error: PlexusError | undefined): void {
    this.#error = error
    this.#written()
  }

  complete(error: PlexusError | undefined): void {
    if (error) this.#error ??= error
    if (--this.#pending > 0) return
    if (this.#fill) this.#fill.ended(this.#error)
    else this.#written()
  }

  /** All pieces have ended. */
  #written(): void {
    const { offset, op } = this.#current
    // What has failed is owed to nobody; what has FUA needs no flush.
    if (!this.#error && !this.fua) this.#touch()
    if (op === 'write') {
      // Who has joined another one leaves that to it.
      if (this.#fills && this.rankBit !== 0) this.#validate()
      this.#finish()
    } else if (this.#error) this.#finish()
    else {
      this.#clearedTo = alignUp(offset, this.#io.runs.granuleBytes)
      this.#clear()
    }
  }

  /** SpaceWaiter: there may be space now. */
  retry(): void {
    this.#lockGranules()
  }

  giveUp(): void {
    this.#answer(this.#io.full(this.#need))
  }

  get #current(): IoRequest {
    return defined(this.#request, 'the request')
  }

  /** Has it whole granules, and all the places it needs? Else it is out of its range, and waits or has ended. */
  #isPrepared(): boolean {
    const io = this.#io
    const { granuleBytes } = io.runs
    if (this.lockStart % granuleBytes !== 0 || this.lockEnd % granuleBytes !== 0) {
      this.#leave()
      this.#lockGranules()
      return false
    }
    const first = io.runs.chunkOf(this.#current.offset)
    const last = io.runs.chunkOf(this.#end - 1)
    const torn = this.#tornAt()
    if (torn !== undefined) return this.#refuse(io.lostPart('write', torn))
    this.#need = 0
    for (let chunk = first; chunk <= last; chunk++) {
      const component = io.map.componentOf(chunk)
      if (component === 0) this.#need++
      else if (!io.isPresent(component)) {
        return this.#refuse(io.away('write', component))
      }
    }
    const places = io.places(this, this.#need)
    if (!places) {
      this.#leave()
      const answer = io.waitForSpace(this)
      if (answer === 'full') queueMicrotask(() => this.giveUp())
      else if (answer === 'busy') queueMicrotask(() => this.#answer(io.crowded()))
      // What was discarded may be all that is missing.
      if (io.map.isChanged) io.committer.commitSoon()
      return false
    }
    this.#assign(first, last, places)
    return true
  }

  /** Where it would write a part of a granule that is lost: what the rest of it was nobody knows. */
  #tornAt(): number | undefined {
    const { runs } = this.#io
    const ends = [this.#current.offset, this.#end]
    return ends.find((at) => at % runs.granuleBytes !== 0 && runs.isLostAt(at))
  }

  /** Before anything is taken. */
  #refuse(error: PlexusError): false {
    this.#io.queue.served(this)
    this.#error = error
    this.#fills = false
    this.#pending = 1
    queueMicrotask(this.#cut)
    return false
  }

  #assign(first: number, last: number, places: readonly Place[]): void {
    const { map, filling } = this.#io
    let next = 0
    for (let chunk = first; chunk <= last; chunk++) {
      if (map.componentOf(chunk) === 0) map.assign(chunk, places[next++] as Place)
      filling.set(chunk, (filling.get(chunk) ?? 0) + 1)
    }
  }

  #lockGranules(): void {
    const { locks, runs } = this.#io
    const start = alignDown(this.#current.offset, runs.granuleBytes)
    locks.add(this, start, alignUp(this.#end, runs.granuleBytes) - start, 'write')
  }

  /** The data, and zeroes up to the borders of granules that become valid. */
  #sendWrite(): void {
    const { offset, dataOffset, data } = this.#current
    const { runs } = this.#io
    const { granuleBytes } = runs
    this.op = 'write'
    this.data = data
    for (let at = offset; at < this.#end; at += runs.length) {
      runs.placed(at, this.#end)
      this.#send(runs.component, runs.address, runs.length, dataOffset + at - offset)
    }
    if (!this.#fills || this.#fill) return
    const start = alignDown(offset, granuleBytes)
    const end = alignUp(this.#end, granuleBytes)
    if (start < offset && !runs.isValid(start, offset)) this.#sendZeroes(start, offset)
    if (this.#end < end && !runs.isValid(this.#end, end)) this.#sendZeroes(this.#end, end)
  }

  /** Zeroes for what a discard covers of a granule without covering all of it. */
  #sendRest(): void {
    const { offset } = this.#current
    const { granuleBytes } = this.#io.runs
    const first = alignUp(offset, granuleBytes)
    const last = alignDown(this.#end, granuleBytes)
    if (first > last) this.#clearPart(offset, this.#end)
    else {
      this.#clearPart(offset, first)
      this.#clearPart(last, this.#end)
    }
  }

  #clearPart(from: number, to: number): void {
    const { runs } = this.#io
    if (from === to) return
    if (!runs.isValid(from, to)) {
      if (runs.isLostAt(from)) this.#error ??= this.#io.lostPart(this.#current.op, from)
      return
    }
    this.#sendZeroes(from, to)
    this.#zeroed.push(runs.component)
  }

  /** Within one granule. Small ones as a write, which disks do many of at once; long ones move no data. */
  #sendZeroes(from: number, to: number): void {
    const { runs, zeroes } = this.#io
    const length = to - from
    const isSmall = length <= zeroes.bytes.length
    this.op = isSmall ? 'write' : 'write-zeroes'
    this.data = isSmall ? zeroes : undefined
    runs.placed(from, to)
    this.#send(runs.component, runs.address, length, 0)
  }

  #send(component: number, address: number, length: number, dataOffset: number): void {
    const error = this.#io.send(this, component, address, length, dataOffset)
    if (error) this.#error ??= error
    else this.#pending++
  }

  /** Components have it in their caches. Before anything becomes valid. */
  #touch(): void {
    const { map, runs, committer } = this.#io
    if (this.#current.op === 'write') {
      const last = runs.chunkOf(this.#end - 1)
      for (let chunk = runs.chunkOf(this.#current.offset); chunk <= last; chunk++) {
        committer.touched(map.componentOf(chunk))
      }
    } else {
      for (const component of this.#zeroed) committer.touched(component)
    }
  }

  #validate(): void {
    const { map, runs, filling, committer } = this.#io
    const { offset } = this.#current
    const last = runs.chunkOf(this.#end - 1)
    let chunk = runs.chunkOf(offset)
    committer.changed(last - chunk + 1)
    for (; chunk <= last; chunk++) {
      if (!this.#error) map.markValid(chunk, runs.first(chunk, offset), runs.last(chunk, this.#end))
      const others = (filling.get(chunk) ?? 1) - 1
      if (others > 0) filling.set(chunk, others)
      else {
        filling.delete(chunk)
        if (this.#error) this.#releaseEmpty(chunk)
      }
    }
  }

  #releaseEmpty(chunk: number): void {
    const { map } = this.#io
    const isEmpty = !map.isValid(chunk, 0, 0) && map.runEnd(chunk, 0) === map.granules
    if (!isEmpty) return
    this.#io.release(chunk)
    this.#io.commitWhenShort()
  }

  /** Takes whole granules out of the map: so many chunks in a turn of the event loop. */
  #clear(): void {
    const { map, runs, committer, filling } = this.#io
    const end = alignDown(this.#end, runs.granuleBytes)
    let cleared = 0
    let released = 0
    for (let looks = 0; this.#clearedTo < end; looks++) {
      if (looks === VIRSTOR_DISCARD_CHUNKS) {
        if (cleared > 0) committer.changed(cleared)
        if (released > 0) this.#io.commitWhenShort()
        if (committer.isBehind) void this.#clearBehind()
        else setImmediate(this.#clearMore)
        return
      }
      const from = this.#clearedTo
      const chunk = runs.chunkOf(from)
      const to = Math.min((chunk + 1) * runs.chunkBytes, end)
      this.#clearedTo = to
      const component = map.componentOf(chunk)
      const isLost = map.isLost(chunk)
      if (component === 0 && !isLost) continue
      // clear-lost.ts sees to it, unless it is lost since.
      if (isLost && to - from < runs.chunkBytes) {
        this.#error ??= this.#io.lostPart(this.#current.op, from)
        continue
      }
      // What is withdrawn from a lost component must not read as zeroes before its loss is told.
      if (component !== 0 && !this.#io.isPresent(component)) {
        this.#error ??= this.#io.away('discard', component)
        continue
      }
      cleared++
      const isEmpty = map.markInvalid(chunk, runs.first(chunk, from), runs.last(chunk, to))
      if (!isEmpty || filling.has(chunk) || component === 0) continue
      this.#io.release(chunk)
      released++
    }
    if (cleared > 0) committer.changed(cleared)
    if (released > 0) this.#io.commitWhenShort()
    this.#finish()
  }

  /** What has changed so far is durable before more does; where it cannot be, the discard fails. */
  async #clearBehind(): Promise<void> {
    this.#error ??= await this.#io.committer.pass()
    if (this.#error) this.#finish()
    else this.#clear()
  }

  #finish(): void {
    const error = this.#error
    this.#leave()
    this.#answer(error)
  }

  #leave(): void {
    this.#io.leave(this.#epoch)
    if (this.rankBit !== 0) this.#io.locks.leave(this)
  }

  #answer(error: PlexusError | undefined): void {
    const request = this.#current
    this.#request = undefined
    this.#error = undefined
    this.#fill = undefined
    this.data = undefined
    if (this.#zeroed.length > 0) this.#zeroed.length = 0
    this.#io.endChange(this, request, error, this.#commits)
  }
}
