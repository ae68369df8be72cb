/**
 * How a device of FreeBSD's virstor becomes one of ours in place: the writes. Called by virstor-class.ts (verb convert)
 * and, to go on with what was cut off, by imports.ts; inside a topology change. The native set assembles afterwards from
 * what was written.
 *
 * The order of writes, each step durable before the next:
 *   1. where FreeBSD has nothing: copies of the chunks that are in the way of the labels, our map, and the configuration.
 *      Until here all that FreeBSD reads is as it was, and the conversion has not happened;
 *   2. the record (record.ts) in the place of FreeBSD's label on component 0, one block: the conversion is decided on.
 *      FreeBSD finds no component 0 from then on, and starts nothing;
 *   3. our label on every other component: the anchor takes the place of FreeBSD's label, one block, when the rest of the
 *      label is durable (AnchoredDevice.replace);
 *   4. the same on component 0, over the record, when all others have it.
 * Steps 3 and 4 need nothing but the record and what it leads to, and may be done again: whoever finds the record goes on
 * with them. A component that is not here then gets its label when it comes. What the first commit says counts by the
 * record: a majority that has it may be served meanwhile, and the others come back to it as drives that have missed nothing.
 */
import { assert, defined } from '../../../base/assert.ts'
import { alignUp } from '../../../base/bytes.ts'
import { crc32c } from '../../../base/crc32c.ts'
import { PlexusError } from '../../../base/errors.ts'
import { RESIZE_COPY_BYTES } from '../../../base/limits.ts'
import { uuidBytes } from '../../../base/random.ts'
import { inTurns } from '../../../base/turns.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import { flush, readAt, writeAt } from '../../../hal/io.ts'
import { payloadRoom } from '../../anchor/anchor-layout.ts'
import { AnchoredDevice } from '../../anchor/anchored-device.ts'
import type { Consumer } from '../../geom/consumer.ts'
import { VIRSTOR_CODEC } from '../codec.ts'
import { granulesOf } from '../device.ts'
import { blocksIn, PIECE_PAGES } from '../map/carrier.ts'
import { MapTable } from '../map/chunk-map.ts'
import { encodeBlocks, JOURNAL_BLOCK_BYTES } from '../map/journal.ts'
import { pagePlaces } from '../map/layout.ts'
import { MAP_PAGE_BYTES, sealPage } from '../map/page.ts'
import type { CopyRecord, VirstorModel } from '../model.ts'
import { type ConversionPlan, HEAD_CHUNKS, layoutOf } from './convert-plan.ts'
import type { FreebsdDevice, ImportedComponent } from './import.ts'
import { chunksOf } from './label.ts'
import { type ConversionRecord, encodeRecord } from './record.ts'

/** Steps 1 and 2. Rejects as the components do: before the record is written nothing has happened. */
export async function beginConversion(
  { components }: FreebsdDevice,
  imported: MapTable,
  plan: ConversionPlan,
): Promise<void> {
  const payload = payloadOf(plan)
  const table = await tableOf(plan, imported, components)
  await openedForWriting(components, async () => {
    await copyChunks(plan, components)
    for (const copy of plan.model.copies) {
      const { consumer } = at(components, copy.component - 1)
      await writeMap(plan.model, copy, consumer, table)
    }
    const { consumer, label } = at(components, 0)
    const { blockBytes } = at(plan.layouts, 0)
    const kept = allocateAligned(alignUp(payload.length, blockBytes))
    payload.copy(kept.bytes)
    await writeAt(consumer, kept, plan.keptAt)
    await Promise.all(components.map((one) => flush(one.consumer)))
    const record: ConversionRecord = {
      setUuid: plan.model.setUuid,
      offset: plan.keptAt,
      length: payload.length,
      payloadCrc: crc32c(payload),
      label: label.bytes,
    }
    await writeRecord(consumer, record)
  })
}

async function writeRecord(consumer: Consumer, record: ConversionRecord): Promise<void> {
  const { sizeBytes, logicalBlockBytes } = consumer.geometry
  const block = allocateAligned(logicalBlockBytes)
  encodeRecord(record, block.bytes)
  await writeAt(consumer, block, sizeBytes - logicalBlockBytes)
  await flush(consumer)
}

/** The configuration, as every slot will have it. Throws `no-space` where one does not. */
function payloadOf({ model, layouts }: ConversionPlan): Buffer {
  const payload = VIRSTOR_CODEC.encode(model)
  // What could not be read again must not be written.
  VIRSTOR_CODEC.decode(payload)
  const room = Math.min(...layouts.flatMap(({ slots }) => slots.map(payloadRoom)))
  const need = payload.length + VIRSTOR_CODEC.stateRoomOf(model)
  if (need <= room && payload.length <= model.chunkBytes) return payload
  const { name } = model
  const message = `${name}: a configuration of ${need} bytes does not fit the labels, which have ${room}; copy it to a new device`
  throw new PlexusError('no-space', { op: 'convert', subject: name, message })
}

/** Our map: what is moved has its new place, everything else the old one; all granules of it are valid. */
async function tableOf(
  { model, moves }: ConversionPlan,
  imported: MapTable,
  components: readonly ImportedComponent[],
): Promise<MapTable> {
  const chunks = chunksOf(at(components, 0).label)
  const granules = granulesOf(model.chunkBytes)
  const table = new MapTable({ chunks, granules })
  for (const { id, chunks: count } of model.components) table.addComponent(id, count)
  for (const { component, runs } of model.copies) {
    for (const run of runs) table.reserve(component, run)
  }
  const validLow = granules >= 32 ? 0xffffffff : 2 ** granules - 1
  const validHigh = granules === 64 ? 0xffffffff : 2 ** Math.max(granules - 32, 0) - 1
  const moved = new Map(moves.map(({ chunk, to }) => [chunk, to]))
  await inTurns(Array(chunks).keys(), (chunk) => {
    const component = imported.componentOf(chunk)
    if (component === 0) return
    const to = moved.get(chunk)
    const number = (to?.number ?? imported.numberOf(chunk)) - HEAD_CHUNKS
    const id = to ? to.index + 1 : component
    table.loadRecord({ chunk, component: id, number, validLow, validHigh, lost: false })
  })
  await table.loaded(0)
  assert(table.badChunks === 0, 'every chunk has a place of its own')
  return table
}

async function copyChunks(
  { moves, model }: ConversionPlan,
  components: readonly ImportedComponent[],
): Promise<void> {
  const { chunkBytes } = model
  const buffer = allocateAligned(Math.min(RESIZE_COPY_BYTES, chunkBytes))
  for (const { from, to } of moves) {
    for (let done = 0; done < chunkBytes; done += buffer.bytes.length) {
      const length = Math.min(buffer.bytes.length, chunkBytes - done)
      const piece = { bytes: buffer.bytes.subarray(0, length), address: buffer.address }
      await readAt(at(components, from.index).consumer, piece, from.number * chunkBytes + done)
      await writeAt(at(components, to.index).consumer, piece, to.number * chunkBytes + done)
    }
  }
}

/** Both slots of all pages, into chunks that FreeBSD does not use. */
async function writeMap(
  { uuid, chunkBytes }: VirstorModel,
  { runs, epoch }: CopyRecord,
  consumer: Consumer,
  table: MapTable,
): Promise<void> {
  const origin = { uuid: uuidBytes(uuid), epoch }
  const places = pagePlaces(runs, chunkBytes)
  const buffer = allocateAligned(PIECE_PAGES * MAP_PAGE_BYTES)
  for (let first = 0; first < table.pages; first += PIECE_PAGES) {
    const count = Math.min(PIECE_PAGES, table.pages - first)
    for (let index = 0; index < count; index++) {
      const { bytes } = blocksIn(buffer, index, 1)
      table.pageImage(first + index, bytes)
      sealPage(bytes, origin, first + index, table.sequence)
    }
    for (const slot of [0, 1] as const) {
      let done = 0
      for (const { offset, length } of places(slot, first, count)) {
        const pages = length / MAP_PAGE_BYTES
        const start = HEAD_CHUNKS * chunkBytes
        await writeAt(consumer, blocksIn(buffer, done, pages), start + offset)
        done += pages
      }
    }
  }
}

/**
 * Steps 3 and 4, as far as components are here; `isNative`: has the drive with this UUID our label? Resolves to those
 * that are missing: component 0 keeps the record until they have come. Rejects as the components do.
 */
export async function finishConversion(
  { components }: FreebsdDevice,
  record: ConversionRecord,
  isNative: (uuid: string) => boolean,
): Promise<readonly number[]> {
  const payload = await readKept(at(components, 0), record)
  const model = VIRSTOR_CODEC.decode(payload)
  checkKept(components, record, model)
  const { consumer } = at(components, 0)
  const missing = model.components.flatMap(({ driveUuid }, index) => {
    const isHere = components.some((one) => one.label.index === index)
    return isHere || isNative(driveUuid) ? [] : [index]
  })
  const others = components.slice(1).filter(({ label }) => {
    return !isNative(at(model.drives, label.index).uuid)
  })
  await openedForWriting(components, async () => {
    // A crash may have left it in the cache of the disk only, and from now on everything depends on it.
    await writeRecord(consumer, record)
    for (const one of others) await takeOver(one, model, payload)
    if (missing.length === 0) await takeOver(at(components, 0), model, payload)
  })
  return missing
}

/** Our label on one component, which is not FreeBSD's from then on. */
async function takeOver(
  one: ImportedComponent,
  model: VirstorModel,
  payload: Buffer,
): Promise<void> {
  const { label, consumer } = one
  const { uuid } = at(model.drives, label.index)
  const copy = model.copies.find(({ component }) => component === label.index + 1)
  // Without its first block there is no map: block 1 lies at place 1.
  const journal = Buffer.alloc(copy ? 2 * JOURNAL_BLOCK_BYTES : 0)
  if (copy) {
    const origin = { uuid: uuidBytes(model.uuid), epoch: copy.epoch }
    encodeBlocks(journal.subarray(JOURNAL_BLOCK_BYTES), [], origin, { first: 1, oldest: 1 })
  }
  await AnchoredDevice.replace(consumer, {
    setUuid: model.setUuid,
    className: 'virstor',
    deviceUuid: uuid,
    layout: layoutOf(one, model.chunkBytes),
    payload,
    journal,
  })
}

/** Whatever a disk says: the configuration is one of these components, and nothing else is written. Throws `corrupt`. */
function checkKept(
  components: readonly ImportedComponent[],
  { setUuid }: ConversionRecord,
  model: VirstorModel,
): void {
  const { drives, chunkBytes } = model
  const isOfAll = (count: number): boolean =>
    model.setUuid === setUuid && model.components.length === count && drives.length === count
  for (const one of components) {
    const { label, consumer } = one
    const drive = drives[label.index]
    const component = model.components[label.index]
    const { mediaBytes, blockBytes, dataEndBytes, dataStartBytes } = layoutOf(one, chunkBytes)
    const agrees =
      isOfAll(label.count) &&
      label.chunkBytes === chunkBytes &&
      label.virtualBytes === model.virtualBytes &&
      component?.id === label.index + 1 &&
      component.driveUuid === drive?.uuid &&
      component.startBytes === dataStartBytes &&
      drive.mediaBytes === mediaBytes &&
      drive.blockBytes === blockBytes &&
      drive.dataEndBytes === dataEndBytes
    if (!agrees) throw keptError(consumer.path, 'does not agree with its components')
  }
}

async function readKept(
  one: ImportedComponent,
  { offset, length, payloadCrc }: ConversionRecord,
): Promise<Buffer> {
  const { consumer, label } = one
  const { sizeBytes, logicalBlockBytes } = consumer.geometry
  const whole = alignUp(length, logicalBlockBytes)
  const room = payloadRoom(layoutOf(one, label.chunkBytes).slots[0])
  const isOn = offset % logicalBlockBytes === 0 && offset + whole <= sizeBytes
  if (!isOn || length === 0 || length > room) throw keptError(consumer.path, 'is nowhere')
  const buffer = allocateAligned(whole)
  await readAt(consumer, buffer, offset)
  const payload = buffer.bytes.subarray(0, length)
  if (crc32c(payload) === payloadCrc) return payload
  throw keptError(consumer.path, 'is damaged')
}

function keptError(path: string, what: string): PlexusError {
  const message = `${path}: the configuration that its conversion keeps ${what}; restore it from a backup`
  return new PlexusError('corrupt', { op: 'convert', subject: path, message })
}

/** Runs `work` while the components are open for writing, too. */
async function openedForWriting(
  components: readonly ImportedComponent[],
  work: () => Promise<void>,
): Promise<void> {
  const opened: Consumer[] = []
  try {
    for (const { consumer } of components) {
      consumer.changeAccess({ read: 0, write: 1, exclusive: 0 })
      opened.push(consumer)
    }
    await work()
  } finally {
    for (const consumer of opened) consumer.changeAccess({ read: 0, write: -1, exclusive: 0 })
  }
}

function at<T>(list: readonly T[], index: number): T {
  return defined(list[index], `the ${index}th of ${list.length}`)
}
