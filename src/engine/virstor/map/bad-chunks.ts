/** Chunks of a map whose entries cannot be right (chunk-map.ts), with the bytes of these on disk, and why for people. */
import { VIRSTOR_MAP_FAULTS } from '../../../base/limits.ts'
import type { MapRecord } from '../runtime.ts'
import { MAP, type Owners } from './owners.ts'

/** An entry that cannot be right. */
export interface MapFault {
  readonly chunk: number
  /** As it is on disk. */
  readonly entry: MapRecord
  /** For people: what is wrong with it. */
  readonly reason: string
}

export class BadChunks {
  /** The first {@link VIRSTOR_MAP_FAULTS}. */
  readonly faults: MapFault[] = []
  readonly #bytes = new Map<number, Buffer>()

  get size(): number {
    return this.#bytes.size
  }

  get chunks(): Iterable<number> {
    return this.#bytes.keys()
  }

  has(chunk: number): boolean {
    return this.#bytes.has(chunk)
  }

  /** The entry on disk. */
  bytesOf(chunk: number): Buffer | undefined {
    return this.#bytes.get(chunk)
  }

  /** The first reason counts. */
  add(entry: MapRecord, bytes: Buffer, reason: string): void {
    const { chunk } = entry
    if (this.#bytes.has(chunk)) return
    this.#bytes.set(chunk, bytes)
    if (this.faults.length < VIRSTOR_MAP_FAULTS) this.faults.push({ chunk, entry, reason })
  }
}

/** Why an entry cannot have its place, of which `owners` are those of its component: it does not exist, or is given. */
export function placeFault({ component, number }: MapRecord, owners: Owners | undefined): string {
  const place = `place ${number} of component ${component}`
  if (!owners) return `there is no component ${component}`
  if (number >= owners.chunks) return `there is no ${place}`
  const owner = owners.get(number)
  return owner === MAP ? `the map itself lies at ${place}` : `chunk ${owner} has ${place} too`
}
