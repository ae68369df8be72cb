/**
 * What a volume may return: the model that every read in the simulator is held to. For each block it keeps
 * the writes that a read may still show. The order of two writes is known only when one ended before the
 * other began; a write that has ended well hides those before it; a write that is durable (FUA, or ended
 * before a flush began that ended well) hides them after a power cut, too. What is found where several
 * answers are right is the answer from then on. Used by workload.ts and world.ts.
 *
 * Neighbours that were written together share their list: what is found out about it is found out once.
 *
 *   now       = writes that no acknowledged write hides
 *   after cut = writes that no durable write hides; also those that were under way
 */
import { assert, defined } from '../../src/base/assert.ts'
import type { ByteRange } from '../../src/base/bytes.ts'
import {
  describe,
  isOpen,
  LOST,
  memo,
  NEVER,
  PINNED,
  prune,
  settled,
  shared,
  UNKNOWN,
  UNSTABLE,
  visible,
  type Write,
  ZERO,
} from './answers.ts'
import { fillPattern, isZero, matchesPattern } from './pattern.ts'

/** A change that is under way, by one request. */
export interface OracleWrite {
  readonly write: Write
  readonly firstBlock: number
  readonly blocks: number
}

/** A read that is under way. */
export interface OracleRead {
  readonly begin: number
  readonly firstBlock: number
  readonly lists: readonly (readonly Write[])[]
  /** Writes that came while it was under way. */
  readonly late: OracleWrite[]
  /** What it returns is not judged: the volume lost something meanwhile. */
  exempt: boolean
}

export interface OracleFlush {
  readonly begin: number
}

/** By block, the writes that it may show. */
export type Contents = readonly (readonly Write[])[]

/** A read that returned what it must not. */
export interface Mismatch {
  readonly block: number
  readonly found: string
  readonly allowed: readonly string[]
}

/** What a read has made certain; blocks with the same list and the same answer share it. */
interface Pinned {
  readonly match: Write | undefined
  readonly list: readonly Write[]
}

/** Counts what happens in a run, and numbers the writes of all its volumes. */
export class OracleClock {
  #sequence = 0
  #value = 0

  tick(): number {
    return ++this.#sequence
  }

  newValue(): number {
    return ++this.#value
  }
}

export class Oracle {
  readonly blockBytes: number
  /** Acknowledged and not flushed is as good as lost: a read may show it, or what was there before. */
  isDoubtful = false
  /** Something was given up. */
  #hasLoss = false
  readonly #clock: OracleClock
  readonly #initial: number
  /** By block. Lists are never changed, only replaced: reads under way hold on to them. */
  #lists: (readonly Write[])[]
  readonly #pinned = new Map<number, Buffer>()
  readonly #damaged = new Set<number>()
  /** Acknowledged and not durable. */
  #volatile = new Set<Write>()
  readonly #writing = new Set<OracleWrite>()
  readonly #reading = new Set<OracleRead>()

  /** `initial`: what blocks hold that nobody has written, {@link UNKNOWN} or {@link ZERO}. */
  constructor(sizeBytes: number, blockBytes: number, clock: OracleClock, initial = UNKNOWN) {
    this.blockBytes = blockBytes
    this.#clock = clock
    this.#initial = initial
    this.#lists = []
    this.grow(sizeBytes)
  }

  get sizeBytes(): number {
    return this.#lists.length * this.blockBytes
  }

  grow(sizeBytes: number): void {
    const blocks = sizeBytes / this.blockBytes
    assert(blocks >= this.#lists.length, 'a volume does not shrink')
    const fresh = [settled(this.#initial)]
    while (this.#lists.length < blocks) this.#lists.push(fresh)
  }

  /** A write begins: fills `into` with its content. */
  beginWrite(offset: number, into: Buffer): OracleWrite {
    const value = this.#clock.newValue()
    fillPattern(into, value, offset / this.blockBytes, this.blockBytes)
    return this.#begin(value, offset, into.length)
  }

  /** Zeroes are written, or blocks are discarded; `certain`: they read as zeroes afterwards. */
  beginZeroes(offset: number, length: number, certain: boolean): OracleWrite {
    return this.#begin(certain ? ZERO : UNSTABLE, offset, length)
  }

  /** What is there is given up: reads may fail from now on, until it is written again. */
  beginLoss(offset: number, length: number): OracleWrite {
    this.#hasLoss = true
    return this.#begin(LOST, offset, length)
  }

  /** May some of it be lost? */
  mayBeLost(offset: number, length: number): boolean {
    if (!this.#hasLoss) return false
    const first = offset / this.blockBytes
    const lists = this.#lists.slice(first, first + length / this.blockBytes)
    const hasLoss = shared((list) => list.some(({ value }) => value === LOST))
    return lists.some(hasLoss)
  }

  #begin(value: number, offset: number, length: number): OracleWrite {
    const write: Write = {
      value,
      begin: this.#clock.tick(),
      end: NEVER,
      ok: false,
      durable: false,
    }
    const change = {
      write,
      firstBlock: offset / this.blockBytes,
      blocks: length / this.blockBytes,
    }
    this.#replace(change.firstBlock, change.blocks, (list) => [...list, write])
    this.#writing.add(change)
    for (const read of this.#reading) if (overlap(read, change)) read.late.push(change)
    return change
  }

  endWrite(change: OracleWrite, ok: boolean, fua: boolean): void {
    const { write, firstBlock, blocks } = change
    this.#writing.delete(change)
    write.end = this.#clock.tick()
    write.ok = ok
    write.durable = ok && fua
    if (!ok) return
    if (!fua) this.#volatile.add(write)
    this.#replace(firstBlock, blocks, prune)
  }

  #replace(
    first: number,
    blocks: number,
    change: (list: readonly Write[]) => readonly Write[],
  ): void {
    const changed = shared(change)
    for (let block = first; block < first + blocks; block++) {
      this.#lists[block] = changed(this.#list(block))
    }
  }

  beginFlush(): OracleFlush {
    return { begin: this.#clock.tick() }
  }

  endFlush({ begin }: OracleFlush, ok: boolean): void {
    if (!ok) return
    for (const write of this.#volatile) {
      if (write.end > begin) continue
      write.durable = true
      this.#volatile.delete(write)
    }
  }

  beginRead(offset: number, length: number): OracleRead {
    const firstBlock = offset / this.blockBytes
    const lists = this.#lists.slice(firstBlock, firstBlock + length / this.blockBytes)
    const read: OracleRead = {
      begin: this.#clock.tick(),
      firstBlock,
      lists,
      late: [],
      exempt: false,
    }
    for (const change of this.#writing) if (overlap(read, change)) read.late.push(change)
    this.#reading.add(read)
    return read
  }

  /** The read has ended with these bytes, or failed. Returns the first block that must not be so. */
  endRead(read: OracleRead, bytes: Buffer | undefined): Mismatch | undefined {
    this.#reading.delete(read)
    if (!bytes || read.exempt) return undefined
    const hides = this.isDoubtful ? 'durable' : 'ok'
    const allowedBy = shared((list: readonly Write[]) => visible(list, hides, read.begin))
    const pinnedBy = new Map<readonly Write[], Pinned>()
    for (let i = 0; i < read.lists.length; i++) {
      const block = read.firstBlock + i
      if (this.#damaged.has(block)) continue
      const list = defined(read.lists[i], 'a list')
      const late = lateFor(read, block)
      const stable = allowedBy(list)
      const allowed = late.length === 0 ? stable : [...stable, ...late]
      const at = i * this.blockBytes
      const match = allowed.find(({ value }) => this.#matches(value, block, bytes, at))
      if (!match) return this.#mismatch(block, bytes.subarray(at, at + this.blockBytes), allowed)
      if (late.length > 0 || this.#lists[block] !== list) continue
      if (!isOpen(allowed, match)) continue
      const known = pinnedBy.get(list)
      if (known?.match === match) this.#lists[block] = known.list
      else pinnedBy.set(list, this.#pin(block, allowed, match, bytes, at))
    }
    return undefined
  }

  /**
   * What is not durable may be lost from now on. A power cut (`all`): requests under way have ended, and what is there
   * is there for good. A disk without a copy has lost its cache: what others still have in theirs may be lost later.
   */
  cut(all: boolean): void {
    const now = this.#interrupt(all)
    const clones = new Map<Write, Write>()
    this.#volatile = new Set()
    this.#replace(0, this.#lists.length, (list) => {
      if (list.length === 1 && list[0]?.durable) return list
      return visible(list, 'durable', now).map((write) => {
        if (!all && write.end === NEVER) return write
        // Begun before everything: which of them came last is open.
        const { value, end, ok } = write
        const durable = all || write.durable
        const clone = { value, begin: 0, end: now, ok: ok || end === NEVER, durable }
        return memo(clones, write, clone)
      })
    })
    for (const clone of clones.values()) if (!clone.durable) this.#volatile.add(clone)
  }

  /** The process ended with the disks alive: what was acknowledged is there, what was under way may be. */
  killed(): void {
    const now = this.#interrupt(true)
    const clones = new Map<Write, Write>()
    this.#replace(0, this.#lists.length, (list) => {
      if (!list.some(({ end }) => end === NEVER)) return list
      return list.map((write) => {
        if (write.end !== NEVER) return write
        const clone = { value: write.value, begin: 0, end: now, ok: true, durable: false }
        return memo(clones, write, clone)
      })
    })
    for (const clone of clones.values()) this.#volatile.add(clone)
  }

  #interrupt(all: boolean): number {
    for (const read of this.#reading) read.exempt = true
    if (all) {
      this.#reading.clear()
      this.#writing.clear()
    }
    return this.#clock.tick()
  }

  /** What may be there now; disks that leave now may keep it. */
  contents(): Contents {
    return [...this.#lists]
  }

  /** Blocks that had one right content then, and have another one now: after all has been read. */
  lost(contents: Contents): readonly number[] {
    const lost: number[] = []
    for (const [block, list] of contents.entries()) {
      const [before, ...others] = visible(list, 'ok', NEVER)
      if (!before || before.value < ZERO || others.length > 0) continue
      const isThere = this.#list(block).some(({ value }) => {
        const found = this.#pinned.get(value)
        return found ? this.#matches(before.value, block, found, 0) : value === before.value
      })
      if (!isThere) lost.push(block)
    }
    return lost
  }

  /**
   * Disks that were used apart from each other are together: each block has what it had in one of them, and the same
   * for ever after; a write that is under way may still change it. Returns the blocks that may have changed.
   */
  join(all: readonly Contents[]): readonly ByteRange[] {
    const now = this.#interrupt(false)
    const changed: ByteRange[] = []
    const clones = new Map<Write, Write>()
    const underWay = new Set([...this.#writing].map(({ write }) => write))
    for (const [block, list] of this.#lists.entries()) {
      const others = all.flatMap((lists) => lists[block] ?? [])
      if (list.length === 1 && others.every((write) => write === list[0])) continue
      changed.push({ offset: block * this.blockBytes, length: this.blockBytes })
      // Of settled writes the content is all that counts; one that is under way ends when it ends, whatever equals it.
      const keyOf = (write: Write): Write | number => (underWay.has(write) ? write : write.value)
      const distinct = new Map([...others, ...list].map((write) => [keyOf(write), write]))
      this.#lists[block] = [...distinct.values()].map((write) => {
        if (underWay.has(write)) return write
        const clone = { value: write.value, begin: 0, end: now, ok: true, durable: true }
        return memo(clones, write, clone)
      })
    }
    return changed
  }

  /** What these blocks read as is not judged until {@link mend}. */
  damage({ offset, length }: ByteRange): void {
    const end = Math.min(offset + length, this.sizeBytes)
    for (let at = offset; at < end; at += this.blockBytes) {
      this.#damaged.add(Math.floor(at / this.blockBytes))
    }
  }

  /** Damaged blocks have one content again, whatever it is; a power cut may still take it back. */
  mend(): void {
    if (this.#damaged.size === 0) return
    for (const read of this.#reading) read.exempt = true
    const now = this.#clock.tick()
    const found: Write = { value: UNKNOWN, begin: now, end: now, ok: true, durable: false }
    this.#volatile.add(found)
    for (const block of this.#damaged) this.#replace(block, 1, (list) => [...list, found])
    this.#damaged.clear()
  }

  /** Ranges with writes that a power cut could take back, or that are under way. */
  *unsettledRanges(): Generator<ByteRange> {
    const isUnsettled = shared((list: readonly Write[]) =>
      visible(list, 'durable', NEVER).some((write) => !write.durable),
    )
    for (const [block, list] of this.#lists.entries()) {
      if (isUnsettled(list)) {
        yield { offset: block * this.blockBytes, length: this.blockBytes }
      }
    }
  }

  #mismatch(block: number, content: Buffer, allowed: readonly Write[]): Mismatch {
    return {
      block,
      found: this.#describe(block, content),
      allowed: allowed.map(
        ({ value, end }) => `${describe(value)}${end === NEVER ? ' (under way)' : ''}`,
      ),
    }
  }

  /** Several answers were right, and this one was given: it is the only one from now on. */
  #pin(block: number, allowed: readonly Write[], match: Write, bytes: Buffer, at: number): Pinned {
    const durable = allowed.every((write) => write.durable)
    const now = this.#clock.tick()
    let value = match.value
    if (value === UNKNOWN) {
      value = PINNED - this.#clock.newValue()
      this.#pinned.set(value, Buffer.from(bytes.subarray(at, at + this.blockBytes)))
    }
    const pin: Write = { value, begin: now, end: now, ok: true, durable }
    if (!durable) this.#volatile.add(pin)
    const list = prune([...this.#list(block), pin])
    this.#lists[block] = list
    // What was unknown is not the same in two blocks.
    return { match: match.value === UNKNOWN ? undefined : match, list }
  }

  #matches(value: number, block: number, bytes: Buffer, at: number): boolean {
    const size = this.blockBytes
    if (value === LOST) return false
    if (value === UNKNOWN || value === UNSTABLE) return true
    if (value === ZERO) return isZero(bytes, at, size)
    if (value > PINNED) return matchesPattern(bytes, at, size, value, block)
    return defined(this.#pinned.get(value), 'pinned bytes').compare(bytes, at, at + size) === 0
  }

  #list(block: number): readonly Write[] {
    return defined(this.#lists[block], `block ${block} of the volume`)
  }

  #describe(block: number, content: Buffer): string {
    const size = this.blockBytes
    if (isZero(content, 0, size)) return 'zeroes'
    const value = content.readInt32LE(0)
    const at = content.readInt32LE(4)
    if (value > 0 && at >= 0 && matchesPattern(content, 0, size, value, at)) {
      return `write #${value}${at === block ? '' : ` of block ${at}`}`
    }
    for (const [pin, bytes] of this.#pinned) if (bytes.equals(content)) return describe(pin)
    return `noise ${content.toString('hex', 0, 16)}…`
  }
}

/** Writes to the block that were under way while it was read. */
function lateFor({ late }: OracleRead, block: number): readonly Write[] {
  if (late.length === 0) return []
  const over = late.filter(
    ({ firstBlock, blocks }) => block >= firstBlock && block < firstBlock + blocks,
  )
  return over.map(({ write }) => write)
}

function overlap(
  a: { firstBlock: number; lists: readonly unknown[] },
  b: { firstBlock: number; blocks: number },
): boolean {
  return a.firstBlock < b.firstBlock + b.blocks && b.firstBlock < a.firstBlock + a.lists.length
}
