/**
 * A RAID5 plex on memory devices, with a layout of its own: rows are laid out here one by one as the tables in
 * spec and manual show them, not by the arithmetic under test.
 */
import t from 'tap'
import { defined } from '../../src/base/assert.ts'
import type { PlacedSubdisk } from '../../src/engine/vinum/io/subdisk.ts'
import type { ParityLayout, PlexRecord } from '../../src/engine/vinum/model/model.ts'
import { Raid5Plex } from '../../src/engine/vinum/raid5/plex-raid5.ts'
import type { IoOp, IoRequest } from '../../src/hal/block-device.ts'
import type { MemoryDeviceOptions } from './memory-device.ts'
import { FakeHost, type TestDrive, testDrive, testPlexRecord, testSubdisk } from './vinum-host.ts'

export interface RigOptions {
  readonly columns?: number
  readonly stripeBytes?: number
  readonly rows?: number
  readonly parityLayout?: ParityLayout
  readonly blockBytes?: number
  readonly record?: Partial<PlexRecord>
  readonly device?: Partial<MemoryDeviceOptions>
}

/** A row as a picture: for each column the number of its data unit in the plex, or -1 for parity. */
export function pictureRow(columns: number, parityLayout: ParityLayout, row: number): number[] {
  const picture = new Array<number>(columns).fill(-1)
  let parity = columns - 1
  for (let i = 0; i < row; i++) parity = parity === 0 ? columns - 1 : parity - 1
  let unit = row * (columns - 1)
  if (parityLayout === 'left-asymmetric') {
    for (let column = 0; column < columns; column++) if (column !== parity) picture[column] = unit++
  } else {
    for (let column = parity + 1; column < columns; column++) picture[column] = unit++
    for (let column = 0; column < parity; column++) picture[column] = unit++
  }
  return picture
}

export class Raid5Rig {
  readonly host = new FakeHost()
  readonly drives: readonly TestDrive[]
  readonly subdisks: readonly PlacedSubdisk[]
  readonly plex: Raid5Plex
  readonly columns: number
  readonly stripeBytes: number
  readonly rows: number
  readonly parityLayout: ParityLayout
  /** What the plex should hold. */
  readonly content: Buffer

  constructor(options: RigOptions = {}) {
    this.columns = options.columns ?? 4
    this.stripeBytes = options.stripeBytes ?? 8192
    this.rows = options.rows ?? 8
    this.parityLayout = options.parityLayout ?? 'left-asymmetric'
    const sizeBytes = this.stripeBytes * this.rows
    this.drives = Array.from({ length: this.columns }, (_, index) =>
      testDrive(this.host, index, {
        sizeBytes: sizeBytes + 8192,
        blockBytes: options.blockBytes ?? 512,
        ...options.device,
      }),
    )
    this.subdisks = this.drives.map((drive, index) =>
      testSubdisk(drive, `p.s${index}`, sizeBytes, {
        driveOffsetBytes: 4096,
        plexOffsetBytes: index * this.stripeBytes,
      }),
    )
    const record = testPlexRecord('p', 'raid5', this.stripeBytes, {
      parityLayout: this.parityLayout,
      ...options.record,
    })
    this.plex = new Raid5Plex({ host: this.host, record, subdisks: this.subdisks })
    this.content = Buffer.alloc(this.stripeBytes * this.rows * (this.columns - 1))
  }

  drive(column: number): TestDrive {
    return defined(this.drives[column], 'drive')
  }

  subdisk(column: number): PlacedSubdisk {
    return defined(this.subdisks[column], 'subdisk')
  }

  unit(column: number, row: number): Buffer {
    const at = 4096 + row * this.stripeBytes
    return this.drive(column).device.media.subarray(at, at + this.stripeBytes)
  }

  /** What a row must look like on the columns. */
  expectedRow(row: number): readonly Buffer[] {
    const { stripeBytes } = this
    const parity = Buffer.alloc(stripeBytes)
    const units = pictureRow(this.columns, this.parityLayout, row).map((unit) => {
      if (unit < 0) return parity
      const data = this.content.subarray(unit * stripeBytes, (unit + 1) * stripeBytes)
      for (let i = 0; i < stripeBytes; i++) parity[i] = (parity[i] ?? 0) ^ (data[i] ?? 0)
      return data
    })
    return units
  }

  /** Puts the content on the media, parity and all. */
  fill(seed = 1): void {
    let state = seed
    for (let at = 0; at < this.content.length; at += 4) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      this.content.writeUInt32LE(state, at)
    }
    for (let row = 0; row < this.rows; row++) {
      for (const [column, unit] of this.expectedRow(row).entries())
        unit.copy(this.unit(column, row))
    }
  }

  /** Rows and columns whose media differ from what they must hold; columns in `except` are not looked at. */
  differences(except: readonly number[] = []): readonly string[] {
    const wrong: string[] = []
    for (let row = 0; row < this.rows; row++) {
      for (const [column, unit] of this.expectedRow(row).entries()) {
        if (except.includes(column) || unit.equals(this.unit(column, row))) continue
        wrong.push(`row ${row} column ${column}`)
      }
    }
    return wrong
  }

  /** Writes at both places: to the plex, and to the content that is expected. */
  async write(offset: number, data: Buffer, fua = false): Promise<void> {
    data.copy(this.content, offset)
    const { result } = this.send({ op: 'write', offset, data, fua })
    const error = await result
    if (error) throw error
  }

  async read(offset: number, length: number): Promise<Buffer> {
    const data = Buffer.alloc(length)
    const error = await this.send({ op: 'read', offset, data }).result
    if (error) throw error
    return data
  }

  /** Any request. `missed` fills until the result is there. */
  send(request: { op: IoOp; offset?: number; length?: number; data?: Buffer; fua?: boolean }): {
    result: Promise<Error | undefined>
    missed: string[]
  } {
    const missed: string[] = []
    const { data } = request
    const result = new Promise<Error | undefined>((resolve) => {
      let within = true
      const sent: IoRequest = {
        op: request.op,
        offset: request.offset ?? 0,
        length: request.length ?? data?.length ?? 0,
        data: data && { bytes: data, address: 0 },
        dataOffset: 0,
        fua: request.fua ?? false,
        cause: 'initiator',
        complete(error) {
          if (within) t.fail('completed from within start')
          resolve(error)
        },
      }
      this.plex.start(sent, (subdisk) => missed.push(subdisk.record.name))
      within = false
    })
    return { result, missed }
  }

  /** Operations of all devices so far. */
  count(op: IoOp): number {
    return this.drives.reduce((sum, { device }) => sum + device.counts[op], 0)
  }

  /** Starts the submissions of every device after 0 to `turns` turns of the event loop, by `next`: reordered. */
  shuffle(next: (below: number) => number, turns = 3): void {
    for (const { device } of this.drives) {
      const submit = device.submit.bind(device)
      device.submit = (request) => {
        let left = next(turns + 1)
        const go = (): void => {
          if (left-- === 0) submit(request)
          else setImmediate(go)
        }
        go()
      }
    }
  }

  /** Nothing is held when nothing is under way. */
  assertAtRest(): void {
    t.equal(this.host.pool.leased, 0, 'all scratch is given back')
    t.equal(this.plex.locks.held, 0, 'no row is locked')
  }
}

export function pattern(length: number, seed: number): Buffer {
  const data = Buffer.alloc(length)
  for (let i = 0; i < length; i++) data[i] = (i * 7 + (i >> 8) + seed * 31 + 1) & 0xff
  return data
}
