/**
 * A machine whose disks come from a FreeBSD box with virstor: labels, a map and data, laid out here by the description of
 * the format (docs/on-disk-format.md, "Components of FreeBSD's virstor"), not by the engine's code.
 */
import { KIB, MIB } from '../../src/base/limits.ts'
import type { LunNames } from '../../src/engine/geom/names.ts'
import { get, Machine, pattern } from './engine.ts'

export const SECTOR = 512
export const CHUNK = 128 * KIB
/** What the disks are full of where FreeBSD has written nothing. */
export const STALE = 0xee

/** Fields of a label; what is not given is as FreeBSD's `label` would have it. */
export interface LabelFields {
  readonly magic?: string
  readonly version?: number
  readonly name?: string
  readonly virtualBytes?: number | bigint
  readonly chunkBytes?: number
  readonly id?: number
  readonly count?: number
  readonly provider?: string
  readonly index?: number
  readonly mediaBytes?: number | bigint
  readonly chunks?: number
  readonly next?: number
  readonly reserved?: number
  readonly flags?: number
}

/** 92 bytes. */
export function freebsdLabel(fields: LabelFields): Buffer {
  const bytes = Buffer.alloc(92)
  bytes.write(fields.magic ?? 'GEOM::VIRSTOR', 0, 16, 'latin1')
  bytes.writeUInt32LE(fields.version ?? 1, 16)
  bytes.write(fields.name ?? 'big', 20, 16, 'latin1')
  bytes.writeBigUInt64LE(BigInt(fields.virtualBytes ?? 64 * MIB), 36)
  bytes.writeUInt32LE(fields.chunkBytes ?? CHUNK, 44)
  bytes.writeUInt32LE(fields.id ?? 0xfeedbeef, 48)
  bytes.writeUInt16LE(fields.count ?? 1, 52)
  bytes.write(fields.provider ?? '', 54, 16, 'latin1')
  bytes.writeUInt16LE(fields.index ?? 0, 70)
  bytes.writeBigUInt64LE(BigInt(fields.mediaBytes ?? 5 * MIB), 72)
  bytes.writeUInt32LE(fields.chunks ?? 39, 80)
  bytes.writeUInt32LE(fields.next ?? 0, 84)
  bytes.writeUInt16LE(fields.reserved ?? 0, 88)
  bytes.writeUInt16LE(fields.flags ?? 0, 90)
  return bytes
}

/** Where a virtual chunk lies: component from 0, physical chunk. */
export type Places = ReadonlyMap<number, readonly [number, number]>

export interface FreebsdVirstorOptions {
  readonly devices?: number
  readonly sizeBytes?: number
  readonly virtualBytes?: number
  readonly chunkBytes?: number
  readonly places?: Places
  /** Changes of a component's label. */
  readonly label?: (index: number) => LabelFields
  /** Changes of the map, when it has been written. */
  readonly map?: (map: Buffer) => void
  readonly lunNames?: LunNames
}

export interface FreebsdVirstor {
  /** Not started yet. */
  readonly machine: Machine
  /** What the device has: zeroes where a chunk has no place. */
  readonly content: Buffer
  readonly names: readonly string[]
  readonly places: Places
}

/** As FreeBSD counts them: those that lie before the label. */
export function chunksOn(sizeBytes: number, chunkBytes: number): number {
  const chunks = Math.floor(sizeBytes / chunkBytes)
  return chunks * chunkBytes > sizeBytes - SECTOR ? chunks - 1 : chunks
}

/** Two chunks for each one of the map, at the start of component 0. */
export function reservedFor(virtualBytes: number, chunkBytes: number): number {
  return 2 * Math.ceil((8 * virtualBytes) / chunkBytes / chunkBytes)
}

/** In the order in which FreeBSD gives them: the first component until it is full, then the next. */
export function sequential(virtual: readonly number[], chunks: number, reserved: number): Places {
  const places = new Map<number, readonly [number, number]>()
  let index = 0
  let next = reserved
  for (const chunk of virtual) {
    if (next === chunks) {
      index++
      next = 0
    }
    places.set(chunk, [index, next++])
  }
  return places
}

export function freebsdVirstor(options: FreebsdVirstorOptions = {}): FreebsdVirstor {
  const { devices = 3, sizeBytes = 5 * MIB, virtualBytes = 64 * MIB, chunkBytes = CHUNK } = options
  const { lunNames } = options
  const machine = new Machine({ devices, sizeBytes, ...(lunNames ? { lunNames } : {}) })
  const names = [...machine.devices.keys()]
  const chunks = chunksOn(sizeBytes, chunkBytes)
  const reserved = reservedFor(virtualBytes, chunkBytes)
  // All components full but for the last, in an order that has nothing to do with that of the places.
  const full = Math.max(devices - 1, 1)
  const some = Array.from(
    { length: full * chunks - reserved },
    (_, at) => (at * 7) % (virtualBytes / chunkBytes),
  )
  const places = options.places ?? sequential(some, chunks, reserved)
  const content = Buffer.alloc(virtualBytes)
  const media = names.map((name) => machine.device(name).media.fill(STALE))
  const map = Buffer.alloc((8 * virtualBytes) / chunkBytes)
  for (const [chunk, [index, number]] of places) {
    const bytes = pattern(chunk, chunkBytes)
    bytes.copy(content, chunk * chunkBytes)
    bytes.copy(media[index] as Buffer, number * chunkBytes)
    map.writeUInt16LE(1, 8 * chunk)
    map.writeUInt16LE(index, 8 * chunk + 2)
    map.writeUInt32LE(number, 8 * chunk + 4)
  }
  options.map?.(map)
  map.copy(media[0] as Buffer)
  for (const [index, medium] of media.entries()) {
    const first = index === 0 ? { reserved, next: reserved, flags: 3 } : {}
    const usual = { virtualBytes, chunkBytes, count: devices, mediaBytes: sizeBytes, chunks }
    const label = freebsdLabel({ ...usual, index, ...first, ...options.label?.(index) })
    // FreeBSD leaves whatever was in its memory behind the label.
    label.copy(medium, sizeBytes - SECTOR)
  }
  return { machine, content, names, places }
}

/** What FreeBSD would read: undefined where it would not start the device. */
export function readAsFreebsd(media: readonly Buffer[]): Buffer | undefined {
  const labels = media.map((medium) => medium.subarray(medium.length - SECTOR))
  const isWhole = labels.every(
    (label, index) =>
      label.toString('latin1', 0, 13) === 'GEOM::VIRSTOR' && label.readUInt16LE(70) === index,
  )
  const [first] = labels
  if (!isWhole || !first) return undefined
  const chunkBytes = first.readUInt32LE(44)
  const content = Buffer.alloc(Number(first.readBigUInt64LE(36)))
  for (let chunk = 0; chunk * chunkBytes < content.length; chunk++) {
    const entry = (media[0] as Buffer).subarray(8 * chunk, 8 * chunk + 8)
    if (entry.readUInt16LE(0) !== 1) continue
    const from = entry.readUInt32LE(4) * chunkBytes
    const medium = media[entry.readUInt16LE(2)] as Buffer
    medium.copy(content, chunk * chunkBytes, from, from + chunkBytes)
  }
  return content
}

/** All of a device. */
export async function readWhole(machine: Machine, name: string): Promise<Buffer> {
  const { topology } = machine
  const access = { read: 1, write: 0, exclusive: 0 }
  const consumer = topology.attach(topology.find(name), undefined, 'test', access)
  try {
    const { sizeBytes } = consumer.geometry
    const parts: Buffer[] = []
    for (let at = 0; at < sizeBytes; at += 4 * MIB) {
      parts.push(await get(consumer, at, Math.min(4 * MIB, sizeBytes - at)))
    }
    return Buffer.concat(parts)
  } finally {
    await consumer.close()
  }
}
