/** A carrier of the chunk map on a component: its pages in physical chunks, its journal in the area of the label. */

import { PlexusError } from '../../base/errors.ts'
import type { AlignedBuffer } from '../../hal/block-device.ts'
import { flush, readAt, writeAt } from '../../hal/io.ts'
import type { AnchoredDevice } from '../anchor/anchored-device.ts'
import type { Consumer } from '../geom/consumer.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import type { Carrier } from './map/carrier.ts'
import { JOURNAL_BLOCK_BYTES } from './map/journal.ts'
import { type PagePlaces, pagePlaces, type Slot } from './map/layout.ts'
import type { ComponentRecord, CopyRecord, VirstorModel } from './model.ts'

export class DiskCarrier implements Carrier {
  readonly id: number
  readonly epoch: number
  readonly journalBlocks: number
  readonly #drive: SetDrive
  readonly #startBytes: number
  readonly #places: PagePlaces

  constructor(
    { journalBlocks, chunkBytes }: VirstorModel,
    { component, epoch, runs }: CopyRecord,
    { startBytes }: ComponentRecord,
    drive: SetDrive,
  ) {
    this.id = component
    this.epoch = epoch
    this.journalBlocks = journalBlocks
    this.#drive = drive
    this.#startBytes = startBytes
    this.#places = pagePlaces(runs, chunkBytes)
  }

  /** One that is here, and is not called up, has an older state of the map. */
  get isPresent(): boolean {
    return this.#drive.present && this.#drive.record.state === 'up'
  }

  async readPages(slot: Slot, first: number, into: AlignedBuffer): Promise<void> {
    await this.#eachPiece(slot, first, into, (part, at) => readAt(this.#device.consumer, part, at))
  }

  async writePages(slot: Slot, first: number, from: AlignedBuffer): Promise<void> {
    await this.#eachPiece(slot, first, from, (part, at) => writeAt(this.#device.consumer, part, at))
  }

  async #eachPiece(
    slot: Slot,
    first: number,
    { bytes, address }: AlignedBuffer,
    work: (part: AlignedBuffer, at: number) => Promise<void>,
  ): Promise<void> {
    let done = 0
    for (const { offset, length } of this.#places(
      slot,
      first,
      bytes.length / JOURNAL_BLOCK_BYTES,
    )) {
      const part = { bytes: bytes.subarray(done, done + length), address: address + done }
      await work(part, this.#startBytes + offset)
      done += length
    }
  }

  async readJournal(first: number, into: AlignedBuffer): Promise<void> {
    const { label } = this.#device
    const { bytes } = await label.readJournal(first * JOURNAL_BLOCK_BYTES, into.bytes.length)
    bytes.copy(into.bytes)
  }

  async writeJournal(first: number, from: AlignedBuffer): Promise<void> {
    const { label } = this.#device
    await label.writeJournal(first * JOURNAL_BLOCK_BYTES, from, { fua: true })
  }

  async flush(): Promise<void> {
    await flush(this.#device.consumer)
  }

  get #device(): { readonly consumer: Consumer; readonly label: AnchoredDevice } {
    const { consumer, label, record } = this.#drive
    if (consumer && label && record.state === 'up') {
      if (label.journalBytes >= this.journalBlocks * JOURNAL_BLOCK_BYTES) return { consumer, label }
      const message = `drive ${record.name}: the journal of its label is smaller than the configuration says`
      throw new PlexusError('corrupt', { op: 'read', subject: record.name, message })
    }
    const message = `drive ${record.name}, which carries a copy of the map, is missing`
    throw new PlexusError('gone', { op: 'write', subject: record.name, message })
  }
}
