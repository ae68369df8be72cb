/**
 * What the map of a large thin device costs a start: the shipped code reads one of 100 TiB in chunks of 4 MiB, all of them
 * in use, from a file. Called by engine.ts.
 */
import { type FileHandle, open, unlink } from 'node:fs/promises'
import { join } from 'node:path'
import { performance } from 'node:perf_hooks'
import { formatSize } from '../src/base/bytes.ts'
import { GIB, MIB } from '../src/base/limits.ts'
import { SEALED_BYTES } from '../src/engine/metadata/sealed-block.ts'
import { blocksIn, type Carrier, PIECE_PAGES } from '../src/engine/virstor/map/carrier.ts'
import { MapTable } from '../src/engine/virstor/map/chunk-map.ts'
import { MapStore } from '../src/engine/virstor/map/map-store.ts'
import {
  MAP_PAGE_BYTES,
  PAGE_ENTRIES,
  pagesFor,
  sealPage,
  writeEntry,
} from '../src/engine/virstor/map/page.ts'
import { allocateAligned } from '../src/hal/aligned-pool.ts'
import type { AlignedBuffer } from '../src/hal/block-device.ts'

const SIZE_BYTES = 100 * 1024 * GIB
const CHUNK_BYTES = 4 * MIB
const CHUNKS = SIZE_BYTES / CHUNK_BYTES
const GRANULES = 64
/** As on a large disk. */
const JOURNAL_BLOCKS = 16384
const PAGES = pagesFor(CHUNKS)
const ORIGIN = { uuid: Buffer.alloc(16, 7), epoch: 1 }

export interface MapResult {
  readonly chunks: number
  readonly startMs: number
  /** Of it, CPU time of this process. */
  readonly cpuMs: number
  readonly readBytes: number
  /** That stays. */
  readonly memoryBytes: number
}

/** Slot A, slot B and the journal one after the other in a file. */
class FileCarrier implements Carrier {
  readonly id = 1
  readonly epoch = ORIGIN.epoch
  readonly journalBlocks = JOURNAL_BLOCKS
  readonly #file: FileHandle

  constructor(file: FileHandle) {
    this.#file = file
  }

  async readPages(slot: 0 | 1, first: number, { bytes }: AlignedBuffer): Promise<void> {
    await this.#file.read(bytes, 0, bytes.length, (slot * PAGES + first) * MAP_PAGE_BYTES)
  }

  async writePages(slot: 0 | 1, first: number, { bytes }: AlignedBuffer): Promise<void> {
    await this.#file.write(bytes, 0, bytes.length, (slot * PAGES + first) * MAP_PAGE_BYTES)
  }

  async readJournal(first: number, { bytes }: AlignedBuffer): Promise<void> {
    await this.#file.read(bytes, 0, bytes.length, (2 * PAGES + first) * SEALED_BYTES)
  }

  async writeJournal(first: number, { bytes }: AlignedBuffer): Promise<void> {
    await this.#file.write(bytes, 0, bytes.length, (2 * PAGES + first) * SEALED_BYTES)
  }

  async flush(): Promise<void> {}
}

/** `directory` needs 900 MiB for a while. */
export async function measureMap(directory: string): Promise<MapResult> {
  const path = join(directory, `plexus-bench-map-${process.pid}`)
  const file = await open(path, 'wx+')
  try {
    // Whatever becomes of this process, nothing is left behind.
    await unlink(path)
    const carrier = new FileCarrier(file)
    await storeOn(carrier, emptyTable()).format()
    await useAll(carrier)
    const before = memory()
    const startedMs = performance.now()
    const cpu = process.cpuUsage()
    const table = emptyTable()
    await storeOn(carrier, table).load()
    const startMs = performance.now() - startedMs
    const { user, system } = process.cpuUsage(cpu)
    const readBytes = (2 * PAGES + JOURNAL_BLOCKS) * MAP_PAGE_BYTES
    const memoryBytes = memory() - before
    if (table.usedOf(1) !== CHUNKS) throw new Error('the map has all of its chunks')
    return { chunks: CHUNKS, startMs, cpuMs: (user + system) / 1000, readBytes, memoryBytes }
  } finally {
    await file.close()
  }
}

function emptyTable(): MapTable {
  const table = new MapTable({ chunks: CHUNKS, granules: GRANULES })
  table.addComponent(1, CHUNKS)
  return table
}

function storeOn(carrier: Carrier, table: MapTable): MapStore {
  return new MapStore({
    subject: 'thin',
    uuid: ORIGIN.uuid,
    table,
    carriers: [carrier],
    onCarrierFailed: (_id, error) => Promise.reject(error),
    onBroken: () => {},
  })
}

/** Chunk n lies at place n. */
async function useAll(carrier: Carrier): Promise<void> {
  const pages = allocateAligned(PIECE_PAGES * MAP_PAGE_BYTES)
  const entry = { component: 1, validLow: 0xffffffff, validHigh: 0xffffffff, lost: false }
  for (let first = 0; first < PAGES; first += PIECE_PAGES) {
    const count = Math.min(PIECE_PAGES, PAGES - first)
    for (let index = 0; index < count; index++) {
      const { bytes } = blocksIn(pages, index, 1)
      bytes.fill(0)
      const chunk = (first + index) * PAGE_ENTRIES
      for (let at = 0; at < Math.min(PAGE_ENTRIES, CHUNKS - chunk); at++) {
        writeEntry(bytes, at, { ...entry, number: chunk + at })
      }
      sealPage(bytes, ORIGIN, first + index, 1)
    }
    for (const slot of [0, 1] as const) {
      await carrier.writePages(slot, first, blocksIn(pages, 0, count))
    }
  }
}

/** Of what holds data: the heap, and buffers beside it. */
function memory(): number {
  const { heapUsed, external } = process.memoryUsage()
  return heapUsed + external
}

export function renderMap({ chunks, startMs, cpuMs, readBytes, memoryBytes }: MapResult): string {
  const what = `${formatSize(SIZE_BYTES)} in chunks of ${formatSize(CHUNK_BYTES)}, all of them in use`
  return (
    `map: ${what} (${chunks} chunks): a start takes ${(startMs / 1000).toFixed(1)} s ` +
    `(${(cpuMs / 1000).toFixed(1)} s of CPU time), reads ` +
    `${formatSize(readBytes)}, and keeps ${formatSize(memoryBytes)} of memory\n`
  )
}
