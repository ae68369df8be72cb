/**
 * A device with an anchor: formatting, committing and reading the configuration of its class, and the areas
 * beside it (docs/on-disk-format.md). A commit is atomic: a slot is written and flushed, then the anchor names it,
 * and that is flushed too; whatever is cut off in between, the device has a whole configuration. Which slot, rule K of
 * anchor-quorum.ts says. A commit that counts gets a second copy in the other slot, which says so: a slot that cannot
 * be read later costs nothing. Used by the sets of the classes; anchor-quorum.ts chooses among the devices of a set.
 */
import { assert, defined } from '../../base/assert.ts'
import { alignUp, type ByteRange } from '../../base/bytes.ts'
import { crc32c } from '../../base/crc32c.ts'
import { PlexusError } from '../../base/errors.ts'
import { allocateAligned } from '../../hal/aligned-pool.ts'
import { flush, readAt, writeAt, writeZeroes } from '../../hal/io.ts'
import { AnchorAreas } from './anchor-areas.ts'
import {
  ANCHOR_VERSION,
  decodeSlotHeader,
  encodeSlotHeader,
  NO_COMMIT,
  type SlotHeader,
} from './anchor-codec.ts'
import { type AnchorTarget, wipeEnds, wipeLabel, writeAnchor, writeFront } from './anchor-ends.ts'
import {
  type Anchor,
  type AnchorLayout,
  endOf,
  payloadRoom,
  planAnchor,
  SLOT_HEADER_ROOM_BYTES,
} from './anchor-layout.ts'
import { type CommitId, isSameCommit, keptOf, placeOf } from './anchor-quorum.ts'

export interface Slot extends CommitId {
  readonly payload: Buffer
  /** What this commit is built on. */
  readonly follows: CommitId | undefined
  /** The last commit that was relied upon for certain when this was written. */
  readonly relied: CommitId | undefined
}

type SlotCommit = Omit<Slot, 'payload'>

/** What a device carries. */
export interface CommittedSlot extends Slot {
  /** What the other slot has, if that is older. */
  readonly older: Slot | undefined
  /**
   * The slot that the anchor names does not hold, and this is the other one: older than what was committed
   * here. `anchor.generation` says what that was.
   */
  readonly damaged: boolean
}

export interface CommitOptions {
  /** Default: the UUID of the set, which is that of its first line. */
  readonly line?: string | undefined
  /** What the commit is built on: it stays in its slot. */
  readonly follows?: CommitId | undefined
  readonly relied?: CommitId | undefined
  /** Of a drive that comes back: the last commit that it had. What shows it stays in its slot. */
  readonly last?: CommitId | undefined
}

export interface FormatOptions {
  readonly setUuid: string
  readonly className: string
  readonly deviceUuid: string
  /** Default: {@link planAnchor}. */
  readonly layout?: AnchorLayout
  /**
   * Leaves what is in the places of the slots: the first commit goes to slot B, the second to slot A. For a drive
   * of FreeBSD's, whose own configuration lies there and must stay readable as long as it can.
   */
  readonly keepSlots?: boolean
}

export interface ReplaceOptions {
  readonly setUuid: string
  readonly className: string
  readonly deviceUuid: string
  readonly layout: AnchorLayout
  /** Of the first commit: generation 1, which counts. */
  readonly payload: Buffer
  /** What the journal begins with; the rest of it is zero. */
  readonly journal: Buffer
}

export class AnchoredDevice extends AnchorAreas {
  /** What the slots A and B have; undefined: that is not known, and they are read before the next commit. */
  #slots: [SlotCommit | undefined, SlotCommit | undefined] | undefined
  #busy = false

  /**
   * Makes a device ours: an anchor of generation 0, empty slots, map and journal. What was on it before is the
   * caller's business; until the last step it has no anchor. Throws what {@link planAnchor} throws, and `io`
   * and its kin when the device fails.
   */
  static async format(device: AnchorTarget, options: FormatOptions): Promise<AnchoredDevice> {
    const { sizeBytes, logicalBlockBytes } = device.geometry
    const layout = options.layout ?? planAnchor(sizeBytes, logicalBlockBytes)
    assert(
      layout.mediaBytes === sizeBytes && layout.blockBytes === logicalBlockBytes,
      'the layout is one of this device',
    )
    const { setUuid, className, deviceUuid } = options
    const identity = { version: ANCHOR_VERSION, deviceUuid, setUuid, className }
    const anchor: Anchor = { ...layout, ...identity, newestSlot: 0, ...NO_COMMIT }
    const made = new AnchoredDevice(device, anchor)
    made.#slots = [undefined, undefined]
    await wipeEnds(device, layout)
    const slots = options.keepSlots ? [] : layout.slots
    for (const range of [...slots, layout.map, layout.journal]) {
      if (range.length > 0) await writeZeroes(device, range)
    }
    await flush(device)
    await writeAnchor(device, anchor)
    await writeFront(device, anchor)
    return made
  }

  /**
   * Makes a device ours whose last block says until then what it was: all that belongs to the label, with the first commit,
   * is durable before the anchor takes that block, and may be done again wherever it is cut off. What lies in front of
   * the data and behind it goes: found there, it would speak for the disk. Throws as the device does.
   */
  static async replace(device: AnchorTarget, options: ReplaceOptions): Promise<void> {
    const { setUuid, className, deviceUuid, layout, payload, journal } = options
    const id = { line: setUuid, generation: 1, payloadCrc: crc32c(payload) }
    const identity = { version: ANCHOR_VERSION, deviceUuid, setUuid, className }
    const anchor: Anchor = { ...layout, ...identity, newestSlot: 0, ...id }
    const made = new AnchoredDevice(device, anchor)
    const { dataStartBytes, dataEndBytes } = layout
    await writeZeroes(device, { offset: 0, length: dataStartBytes })
    const tail = endOf(layout).offset - dataEndBytes
    await writeZeroes(device, { offset: dataEndBytes, length: tail })
    if (journal.length > 0) {
      const buffer = allocateAligned(journal.length)
      journal.copy(buffer.bytes)
      await made.writeJournal(0, buffer)
    }
    await made.#writeSlot(anchor, { ...id, follows: undefined, relied: id }, payload)
    await flush(device)
    await writeAnchor(device, anchor)
    await writeFront(device, anchor)
  }

  /** A device whose anchor was read (findLabel). Does no I/O. */
  static open(device: AnchorTarget, anchor: Anchor): AnchoredDevice {
    return new AnchoredDevice(device, anchor)
  }

  /** Bytes of configuration that fit. */
  get payloadRoom(): number {
    return Math.min(...this.current.slots.map(payloadRoom))
  }

  /**
   * The committed configuration: that of the slot which the anchor names. A slot with a higher generation than
   * the anchor's was never committed and is ignored. Where the named slot does not hold or cannot be read, the
   * other one, marked as damaged unless it has the same. Undefined when nothing was ever committed. Throws `corrupt`
   * when something was, and neither slot holds.
   */
  async read(): Promise<CommittedSlot | undefined> {
    const { generation, newestSlot } = this.current
    const slots = await this.#readSlots()
    const other = slots[this.#otherSlot]
    const newest = [slots[newestSlot], other].find((slot) => slot && this.#isNewest(slot))
    const older = other && other.generation < generation ? other : undefined
    // The second copy of a commit says that it counts.
    if (newest && other && isSameCommit(newest, other)) {
      return { ...newest, relied: other.relied, older: undefined, damaged: false }
    }
    if (newest) return { ...newest, older, damaged: false }
    if (generation === 0) return undefined
    if (older) return { ...older, older: undefined, damaged: true }
    const message =
      `${this.device.path}: both copies of its configuration are damaged (the last one was ` +
      `generation ${generation}); the other disks of the set have it: replace this one`
    throw new PlexusError('corrupt', { op: 'read', subject: this.device.path, message })
  }

  async #readSlots(): Promise<[Slot | undefined, Slot | undefined]> {
    const slots: [Slot | undefined, Slot | undefined] = [
      await this.#readSlot(0),
      await this.#readSlot(1),
    ]
    this.#slots = [...slots]
    return slots
  }

  #isNewest(slot: SlotCommit): boolean {
    return isSameCommit(slot, this.current)
  }

  /**
   * Makes `payload` the configuration, durably: when it resolves, `read` after any crash gives it; when it
   * rejects, `read` gives it or the one before. One at a time. `generation` is higher than the present one.
   * Throws `no-space` when the payload does not fit, with nothing written.
   */
  async commit(generation: number, payload: Buffer, options: CommitOptions = {}): Promise<void> {
    assert(!this.#busy, `${this.device.path}: one commit at a time`)
    assert(
      Number.isSafeInteger(generation) && generation > this.current.generation,
      `${this.device.path}: generation ${generation} follows ${this.current.generation}`,
    )
    this.#busy = true
    try {
      await this.inPlace(async () => {
        const slots = this.#slots ?? (await this.#readSlots())
        const named = slots[this.current.newestSlot]
        const other = slots[this.#otherSlot]
        // A higher number was never committed.
        const isCommitted =
          other && (this.#isNewest(other) || other.generation < this.current.generation)
        const own = named && this.#isNewest(named) ? named : undefined
        const older = isCommitted ? other : undefined
        const place = placeOf(own, older, keptOf([own, older], options.follows, options.last))
        if (place === 'retreat') await this.#retreat(defined(other, 'what the other slot has'))
        const index = place === 'named' ? this.current.newestSlot : this.#otherSlot
        await this.#commit(index, generation, payload, options)
      })
    } finally {
      this.#busy = false
    }
  }

  /** The older configuration is the committed one again, so that the newest may be written over. */
  async #retreat({ line, generation, payloadCrc }: CommitId): Promise<void> {
    const newestSlot = this.#otherSlot
    const anchor: Anchor = { ...this.current, newestSlot, line, generation, payloadCrc }
    try {
      await writeAnchor(this.device, anchor)
    } catch (error) {
      this.#slots = undefined
      throw this.#commitError(error)
    }
    this.current = anchor
  }

  get #otherSlot(): 0 | 1 {
    return this.current.newestSlot === 0 ? 1 : 0
  }

  async #commit(
    index: 0 | 1,
    generation: number,
    payload: Buffer,
    { line = this.current.setUuid, follows, relied }: CommitOptions,
  ): Promise<void> {
    const place = this.current.slots[index]
    if (payload.length > payloadRoom(place)) throw this.#tooLarge(payload.length, place)
    const id: CommitId = { line, generation, payloadCrc: crc32c(payload) }
    const anchor: Anchor = { ...this.current, newestSlot: index, ...id }
    const commit = { ...id, follows, relied }
    try {
      await this.#writeSlot(anchor, commit, payload)
      await flush(this.device)
      await writeAnchor(this.device, anchor)
    } catch (error) {
      this.#slots = undefined
      throw this.#commitError(error)
    }
    this.current = anchor
    if (this.#slots) this.#slots[index] = commit
  }

  /**
   * The commit counts: writes it to the other slot too, which says so; nothing where `payload` is not what the device
   * carries. Not flushed: whatever becomes of it, the slot that the anchor names has it. Throws as the device does.
   */
  async repeat(payload: Buffer): Promise<void> {
    assert(!this.#busy, `${this.device.path}: one commit at a time`)
    const slots = this.#slots
    const newest = slots?.[this.current.newestSlot]
    if (!slots || !newest || !this.#isNewest(newest)) return
    // A device that has come in the place of another one meanwhile may have something else.
    if (payload.length > this.payloadRoom || crc32c(payload) !== newest.payloadCrc) return
    this.#busy = true
    this.#slots = undefined
    try {
      const anchor: Anchor = { ...this.current, newestSlot: this.#otherSlot }
      const { line, generation, payloadCrc, follows } = newest
      const relied = { line, generation, payloadCrc }
      const commit = { ...relied, follows, relied }
      await this.inPlace(() => this.#writeSlot(anchor, commit, payload))
      slots[anchor.newestSlot] = commit
      this.#slots = slots
    } finally {
      this.#busy = false
    }
  }

  /** To the slot that `anchor` names as the newest. */
  async #writeSlot(anchor: Anchor, commit: SlotCommit, payload: Buffer): Promise<void> {
    const place = anchor.slots[anchor.newestSlot]
    assert(payload.length <= payloadRoom(place), 'a configuration fits its place')
    const header: SlotHeader = { ...commit, anchor, payloadBytes: payload.length }
    const length = alignUp(SLOT_HEADER_ROOM_BYTES + payload.length, anchor.blockBytes)
    // Of its own: a disk that does not answer may still have that of an earlier write.
    const buffer = allocateAligned(length)
    encodeSlotHeader(header, buffer.bytes.subarray(0, SLOT_HEADER_ROOM_BYTES))
    payload.copy(buffer.bytes, SLOT_HEADER_ROOM_BYTES)
    await writeAt(this.device, buffer, place.offset)
  }

  /** A device without room for blocks that it has (it was pulled, its pool is full) has failed: nothing is too large. */
  #commitError(error: unknown): unknown {
    if (!(error instanceof PlexusError) || error.kind !== 'no-space') return error
    const { op, subject, message } = error
    return new PlexusError('io', { op, subject, message, cause: error })
  }

  #tooLarge(length: number, place: ByteRange): PlexusError {
    const message =
      `${this.device.path}: a configuration of ${length} bytes does not fit its place of ` +
      `${payloadRoom(place)} bytes; use fewer objects, or a larger disk`
    return new PlexusError('no-space', { op: 'commit', subject: this.device.path, message })
  }

  /** Makes the device nobody's, durably: after it findLabel finds nothing. */
  async clear(): Promise<void> {
    assert(!this.#busy, `${this.device.path}: clear outside commits`)
    await wipeLabel(this.device, this.current)
  }

  async #readSlot(index: 0 | 1): Promise<Slot | undefined> {
    const place = this.current.slots[index]
    const { device } = this
    const { blockBytes } = this.current
    try {
      const room = allocateAligned(SLOT_HEADER_ROOM_BYTES)
      await readAt(device, room, place.offset)
      const header = decodeSlotHeader(room.bytes, device.path)
      if (!header || !this.#isOurs(header, index)) return undefined
      const buffer = allocateAligned(Math.max(alignUp(header.payloadBytes, blockBytes), blockBytes))
      await readAt(device, buffer, place.offset + SLOT_HEADER_ROOM_BYTES)
      const payload = buffer.bytes.subarray(0, header.payloadBytes)
      if (crc32c(payload) !== header.payloadCrc) return undefined
      const { line, generation, payloadCrc, follows, relied } = header
      return { line, generation, payloadCrc, payload, follows, relied }
    } catch (error) {
      // A bad sector: the other slot may do. Anything else is no matter of this slot.
      if (error instanceof PlexusError && (error.kind === 'io' || error.kind === 'corrupt')) {
        return undefined
      }
      throw error
    }
  }

  #isOurs(header: SlotHeader, index: 0 | 1): boolean {
    const { deviceUuid, setUuid } = this.current
    const { anchor } = header
    return (
      anchor.deviceUuid === deviceUuid && anchor.setUuid === setUuid && anchor.newestSlot === index
    )
  }
}
