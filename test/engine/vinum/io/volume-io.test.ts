/**
 * The I/O path of volumes on memory devices: order of overlapping requests, retries and repairs, what is
 * acknowledged when a copy fails, ragged mirrors, flush, discard, the intent map, locks and pauses.
 */

import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { MIB } from '../../../../src/base/limits.ts'
import { RangeSet } from '../../../../src/base/range-set.ts'
import { WriteIntentBitmap } from '../../../../src/engine/intent/write-intent-bitmap.ts'
import { LinearPlex } from '../../../../src/engine/vinum/io/plex-linear.ts'
import { VolumeIo } from '../../../../src/engine/vinum/io/volume-io.ts'
import type { ReadPolicy } from '../../../../src/engine/vinum/model/model.ts'
import type { Subdisk } from '../../../../src/engine/vinum/runtime.ts'
import type { DeviceFeatures } from '../../../../src/hal/block-device.ts'
import { ManualClock } from '../../../support/manual-clock.ts'
import {
  FakeHost,
  lastCopy,
  send,
  setState,
  settle,
  type TestDrive,
  testDrive,
  testPlexRecord,
  testSubdisk,
  testUuid,
} from '../../../support/vinum-host.ts'

interface BuildOptions {
  readonly plexes?: number
  /** Drives of each plex. */
  readonly columns?: number
  readonly stripe?: number
  readonly bytesPerDrive?: number
  readonly policy?: ReadPolicy
  readonly preferred?: number
  readonly map?: (clock: ManualClock) => WriteIntentBitmap
  readonly features?: readonly Partial<DeviceFeatures>[]
}

/** A volume of plexes; drive number = plex * columns + column. */
function build(options: BuildOptions = {}) {
  const { plexes: count = 2, columns = 1, stripe = 0, bytesPerDrive = 16384 } = options
  const clock = new ManualClock()
  const host = new FakeHost(clock)
  const drives: TestDrive[] = []
  const plexes: LinearPlex[] = []
  for (let p = 0; p < count; p++) {
    const subdisks = Array.from({ length: columns }, (_, column) => {
      const number = p * columns + column
      const drive = testDrive(host, number, {
        sizeBytes: bytesPerDrive,
        clock,
        features: options.features?.[number] ?? {},
      })
      drives.push(drive)
      const plexOffsetBytes = column * (stripe || bytesPerDrive)
      return testSubdisk(drive, `v.p${p}.s${column}`, bytesPerDrive, { plexOffsetBytes })
    })
    const record = testPlexRecord(`v.p${p}`, stripe ? 'striped' : 'concat', stripe)
    plexes.push(new LinearPlex({ host, record, subdisks }))
  }
  const map = options.map?.(clock)
  const volume = new VolumeIo({
    name: 'v',
    host,
    plexes,
    readPolicy: options.policy ?? 'round-robin',
    preferredPlexUuid: plexes[options.preferred ?? 0]?.record.uuid,
    map,
  })
  host.volume = volume
  const subdisk = (plex: number, column = 0) => plexes[plex]?.subdisks[column] as Subdisk
  const drive = (number: number) => drives[number] as TestDrive
  const reads = () => drives.map(({ device }) => device.counts.read)
  const writes = () => drives.map(({ device }) => device.counts.write)
  return { clock, host, drives, drive, plexes, subdisk, volume, map, reads, writes }
}

/** Whether a promise has ended by now. */
function watch<T>(promise: Promise<T>) {
  const state = { ended: false, promise }
  void promise.finally(() => {
    state.ended = true
  })
  return state
}

/** A gate that a test opens. */
function gate() {
  let open = (): void => {}
  const closed = new Promise<void>((resolve) => {
    open = resolve
  })
  return { open, closed }
}

function mapFor(store: () => Promise<void>) {
  return (clock: ManualClock): WriteIntentBitmap =>
    new WriteIntentBitmap({
      sizeBytes: 16384,
      blocks: 1,
      volumeUuid: testUuid(1),
      clock,
      needsAll: () => false,
      store,
      flushDrives: async () => {},
      mayClear: () => true,
    })
}

t.test('one linear plex: requests go down, errors come up, nothing is demoted', async (t) => {
  const { host, volume, drive } = build({ plexes: 1 })
  t.equal(await send(volume, { op: 'write', data: Buffer.alloc(4096, 5) }), undefined)
  const back = Buffer.alloc(4096)
  t.equal(await send(volume, { op: 'read', data: back }), undefined)
  t.equal(back[4095], 5)
  for (const op of ['write', 'read', 'flush', 'discard', 'write-zeroes'] as const) {
    drive(0).device.fail(op, 'io')
    const data = op === 'write' || op === 'read' ? { data: back } : { length: 4096 }
    t.match(await send(volume, { op, ...data }), { kind: 'io' }, op)
  }
  t.strictSame(host.demoted, [])
  t.equal(host.errors.length, 5)
  t.equal(volume.active, 0)
})

t.test('overlapping writes reach both legs of a mirror in the same order', async (t) => {
  const { volume, drive } = build()
  drive(0).device.hold()
  const first = send(volume, { op: 'write', data: Buffer.alloc(4096, 1) })
  const second = send(volume, { op: 'write', offset: 512, data: Buffer.alloc(512, 2) })
  const beside = send(volume, { op: 'write', offset: 4096, data: Buffer.alloc(512, 3) })
  await settle(3)
  t.strictSame([drive(0).device.inFlight, drive(1).device.counts.write], [2, 2], 'the second waits')
  t.equal(drive(1).device.media[512], 1)
  drive(0).device.release()
  t.strictSame(await Promise.all([first, second, beside]), [undefined, undefined, undefined])
  t.equal(drive(1).device.media[512], 2)
  t.ok(drive(0).device.media.equals(drive(1).device.media))
})

t.test('whatever overlaps, and however late the drives are, the copies end the same', async () => {
  const operation = fc.record({
    kind: fc.constantFrom('write', 'write', 'write', 'write-zeroes', 'discard', 'read' as const),
    block: fc.nat(15),
    blocks: fc.integer({ min: 1, max: 10 }),
    delays: fc.tuple(fc.integer({ min: 1, max: 9 }), fc.integer({ min: 1, max: 9 })),
    wait: fc.nat(4),
  })
  await fc.assert(
    fc.asyncProperty(fc.array(operation, { minLength: 2, maxLength: 25 }), async (operations) => {
      const { clock, volume, drives, drive } = build({ bytesPerDrive: 8192 })
      const running: Promise<unknown>[] = []
      let fill = 1
      for (const { kind, block, blocks, delays, wait } of operations) {
        drives.forEach(({ device }, index) => {
          device.delayMs = delays[index] ?? 1
        })
        const offset = block * 512
        const length = Math.min(blocks * 512, 8192 - offset)
        const data =
          kind === 'write'
            ? Buffer.alloc(length, fill++)
            : kind === 'read'
              ? Buffer.alloc(length)
              : undefined
        running.push(
          send(volume, { op: kind as 'write', offset, length, ...(data && { data }) }).then(
            (error) => {
              if (error) throw error
            },
          ),
        )
        clock.advance(wait)
        await Promise.resolve()
      }
      for (let turn = 0; turn < 400 && volume.active + volume.locks.size > 0; turn++) {
        clock.advance(1)
        await Promise.resolve()
      }
      await Promise.all(running)
      if (!drive(0).device.media.equals(drive(1).device.media)) throw new Error('the copies differ')
    }),
    { numRuns: 60 },
  )
})

t.test(
  'vinum.md 8.7: a failed read comes from another plex, and the bad place is written again',
  async (t) => {
    const { host, volume, drive, subdisk, drives, writes } = build({ policy: 'prefer' })
    for (const { device } of drives) device.media.fill(7)
    drive(0).device.fail('read', 'io')
    const back = Buffer.alloc(4096)
    t.equal(await send(volume, { op: 'read', offset: 512, data: back }), undefined)
    t.ok(back.every((byte) => byte === 7))
    t.strictSame(writes(), [1, 0])
    t.match(host.repairs, [{ offset: 512, length: 4096 }])
    t.equal(host.repairs[0]?.subdisk.record.name, 'v.p0.s0')
    t.equal(subdisk(0).errors.read, 1)
    t.strictSame(host.demoted, [])

    t.test(
      'a drive that refuses the repair keeps its bad sector, and the read is served',
      async (t) => {
        drive(0).device.fail('read', 'io')
        drive(0).device.fail('write', 'io')
        t.equal(await send(volume, { op: 'read', data: back }), undefined)
        t.strictSame(host.demoted, [], 'a sector is lost, not the copy')
        t.equal(host.repairs.length, 1)
        t.equal(volume.active, 0)
        t.equal(volume.locks.size, 0)
      },
    )
  },
)

t.test('only the pieces that cannot be read are repaired', async (t) => {
  const { host, volume, drive, writes } = build({ columns: 2, stripe: 1024 })
  drive(1).device.fail('read', 'io', 2)
  t.equal(await send(volume, { op: 'read', data: Buffer.alloc(2048) }), undefined)
  t.strictSame(writes(), [0, 1, 0, 0])
  t.match(host.repairs, [{ offset: 0, length: 1024 }], 'in the space of the subdisk')
})

t.test(
  'a read that no plex can serve fails with the first error; a drive that is gone is not written',
  async (t) => {
    const { host, volume, drive, writes } = build({ policy: 'prefer' })
    drive(0).device.fail('read', 'io')
    drive(1).device.fail('read', 'timeout')
    t.match(await send(volume, { op: 'read', data: Buffer.alloc(512) }), { kind: 'io' })
    drive(0).device.fail('read', 'gone')
    t.equal(await send(volume, { op: 'read', offset: 512, data: Buffer.alloc(512) }), undefined)
    t.strictSame(writes(), [0, 0])
    t.strictSame(host.repairs, [])
    t.strictSame(host.demoted, [])
  },
)

t.test(
  'what a copy gives that went out of service meanwhile is read again elsewhere',
  async (t) => {
    const { host, volume, drive, subdisk } = build({ policy: 'prefer' })
    drive(0).device.media.fill(1)
    drive(1).device.media.fill(2)
    drive(0).device.hold()
    const back = Buffer.alloc(1024)
    const read = watch(send(volume, { op: 'read', data: back }))
    await settle()
    t.equal(drive(0).device.inFlight, 1)
    // Its cache is lost: it gives old content, without an error.
    setState(subdisk(0), 'stale')
    drive(0).device.release()
    t.equal(await read.promise, undefined)
    t.ok(back.every((byte) => byte === 2))
    t.strictSame(host.repairs, [], 'there is nothing to mend')
    t.equal(volume.active, 0)
    t.equal(volume.locks.size, 0)
  },
)

t.test('so is what came from it where copies may differ, and nobody else gets it', async (t) => {
  const { map, volume, drive, subdisk } = build({ map: mapFor(async () => {}) })
  drive(0).device.media.fill(1)
  drive(1).device.media.fill(2)
  await map?.markUnsynced(0, 4096)
  drive(0).device.hold()
  const back = Buffer.alloc(1024)
  const read = watch(send(volume, { op: 'read', data: back }))
  await settle(3)
  t.equal(drive(0).device.inFlight, 1)
  setState(subdisk(0), 'stale')
  drive(0).device.release()
  t.equal(await read.promise, undefined)
  t.ok(back.every((byte) => byte === 2))
  t.ok(drive(1).device.media.every((byte) => byte === 2))
})

t.test(
  'what is in doubt is given to nobody before a copy that is away is out durably',
  async (t) => {
    const { host, map, volume, drive } = build({ map: mapFor(async () => {}) })
    drive(1).device.media.fill(2)
    await map?.markUnsynced(0, 4096)
    const { open, closed } = gate()
    host.gate = closed
    drive(0).pull()
    const back = Buffer.alloc(1024)
    const read = watch(send(volume, { op: 'read', data: back }))
    await settle()
    t.strictSame(host.demoted, [['v.p0.s0']])
    t.notOk(read.ended)
    open()
    t.equal(await read.promise, undefined)
    t.ok(back.every((byte) => byte === 2))
    t.notOk(map?.isUnpropagated(0, 1024))
  },
)

t.test('nor where it would come back as it is', async (t) => {
  const away = 'a copy that was away before'
  const since = 'one that left, with its cache, in the middle of the read'
  for (const when of [away, since]) {
    const { host, map, volume, drive, subdisk } = build({ map: mapFor(async () => {}) })
    host.refuse = lastCopy
    const leave = async (): Promise<void> => {
      setState(subdisk(0), 'down')
      await map?.markUnsynced(0, 4096)
    }
    if (when === away) await leave()
    drive(0).device.hold()
    const read = watch(send(volume, { op: 'read', data: Buffer.alloc(1024) }))
    await settle()
    if (when === since) await leave()
    drive(0).device.release()
    t.match(await read.promise, { kind: 'gone', message: /may differ.* the last good copy/ }, when)
    t.ok(map?.isUnpropagated(0, 1024), when)
    t.equal(await send(volume, { op: 'read', offset: 8192, data: Buffer.alloc(512) }), undefined)
    t.strictSame([volume.active, volume.locks.size], [0, 0])
  }
})

t.test('a repair never undoes a write', async (t) => {
  const { volume, drive, drives } = build()
  for (const { device } of drives) device.media.fill(1)
  drive(0).device.fail('read', 'io')
  drive(1).device.hold()
  const read = watch(send(volume, { op: 'read', data: Buffer.alloc(1024) }))
  await settle(3)
  t.equal(drive(1).device.inFlight, 1, 'it is read elsewhere')
  const write = watch(send(volume, { op: 'write', data: Buffer.alloc(512, 9) }))
  await settle(3)
  t.equal(drive(0).device.counts.write, 0, 'the write waits for the repair')
  t.notOk(read.ended)
  drive(1).device.release()
  await Promise.all([read.promise, write.promise])
  t.strictSame([drive(0).device.media[0], drive(1).device.media[0]], [9, 9])
})

t.test(
  'vinum.md 8.7: a write that a copy missed is acknowledged when that is known durably',
  async (t) => {
    const { host, volume, drive } = build()
    const { open, closed } = gate()
    host.gate = closed
    drive(1).device.fail('write', 'io')
    const write = watch(send(volume, { op: 'write', data: Buffer.alloc(512, 1) }))
    await settle()
    t.strictSame(host.demoted, [['v.p1.s0']])
    t.notOk(write.ended, 'not acknowledged before it is durable')

    const next = watch(send(volume, { op: 'write', offset: 4096, data: Buffer.alloc(512, 1) }))
    await settle()
    t.notOk(next.ended, 'nor is one that skips the copy meanwhile')
    open()
    t.equal(await write.promise, undefined)
    t.equal(await next.promise, undefined)
    const calls = host.demotions.length
    t.equal(await send(volume, { op: 'write', data: Buffer.alloc(512, 2) }), undefined)
    t.equal(host.demotions.length, calls, 'from now on nothing has to be asked')
    t.equal(drive(1).device.counts.write, 1)
    t.equal(await send(volume, { op: 'read', data: Buffer.alloc(512) }), undefined)
    t.equal(await send(volume, { op: 'read', data: Buffer.alloc(512) }), undefined)
    t.equal(drive(1).device.counts.read, 0, 'what is stale is not read')
  },
)

t.test('a drive that has vanished is out of service before a write skips it', async (t) => {
  const { host, volume, drive } = build()
  const { open, closed } = gate()
  host.gate = closed
  drive(0).pull()
  const write = watch(send(volume, { op: 'write', data: Buffer.alloc(512, 1) }))
  await settle()
  t.strictSame(host.demoted, [['v.p0.s0']])
  t.notOk(write.ended)
  open()
  t.equal(await write.promise, undefined)
})

t.test('the last good copy stays: the error goes up', async (t) => {
  t.test('every copy failed: nobody is demoted, and the place is read from one copy', async (t) => {
    const { host, volume, drive, map, reads } = build({ map: mapFor(async () => {}) })
    drive(0).device.fail('write', 'io')
    drive(1).device.fail('write', 'timeout')
    // Each is tried once: one piece is not split.
    drive(0).device.fail('write', 'io')
    drive(1).device.fail('write', 'timeout')
    t.match(await send(volume, { op: 'write', data: Buffer.alloc(512) }), { kind: 'io' })
    t.strictSame(host.demoted, [])
    t.ok(map?.unsynced.touches(0, 512))
    for (let i = 0; i < 4; i++) await send(volume, { op: 'read', data: Buffer.alloc(512) })
    t.strictSame(reads(), [4, 0])
    for (let i = 0; i < 4; i++)
      await send(volume, { op: 'read', offset: 1024, data: Buffer.alloc(512) })
    t.strictSame(reads(), [6, 2])
    t.equal(volume.locks.size, 0)
  })
  t.test('the host refuses: the write is not acknowledged', async (t) => {
    const { host, volume, drive, map, subdisk } = build({ map: mapFor(async () => {}) })
    host.refuse = lastCopy
    drive(0).device.fail('write', 'io')
    t.match(await send(volume, { op: 'write', data: Buffer.alloc(512) }), {
      message: 'the last good copy stays',
    })
    t.equal(subdisk(0).record.state, 'up')
    t.ok(map?.unsynced.touches(0, 512))
  })
})

t.test('two drives fail one part each: every part is stored somewhere', async (t) => {
  const { host, volume, drive } = build({ columns: 2, stripe: 1024 })
  drive(0).device.fail('write', 'io', 2)
  drive(3).device.fail('write', 'io', 2)
  t.equal(await send(volume, { op: 'write', data: Buffer.alloc(2048, 4) }), undefined)
  t.strictSame(host.demoted.flat().sort(), ['v.p0.s0', 'v.p1.s1'])
  t.equal(drive(1).device.media[0], 4)
  t.equal(drive(2).device.media[0], 4)
  const back = Buffer.alloc(2048)
  t.equal(await send(volume, { op: 'read', data: back }), undefined)
  t.ok(back.every((byte) => byte === 4))
})

t.test('ragged mirror: each part is read and written where it is in service', async (t) => {
  const { host, volume, drive, subdisk } = build({ columns: 2, stripe: 1024 })
  setState(subdisk(0, 0), 'stale')
  setState(subdisk(1, 1), 'stale')
  const data = Buffer.alloc(8192)
  for (let i = 0; i < data.length; i++) data[i] = i % 251
  t.equal(await send(volume, { op: 'write', offset: 512, data }), undefined)
  const back = Buffer.alloc(8192)
  t.equal(await send(volume, { op: 'read', offset: 512, data: back }), undefined)
  t.ok(back.equals(data))
  t.strictSame([drive(0).device.counts.write, drive(3).device.counts.write], [0, 0])
  t.strictSame(host.demoted.flat().sort(), ['v.p0.s0', 'v.p1.s1'])
  t.equal(await send(volume, { op: 'flush' }), undefined)

  t.test('a part that nobody has fails, the others serve', async (t) => {
    setState(subdisk(1, 0), 'stale')
    host.refuse = lastCopy
    t.match(await send(volume, { op: 'read', data: back }), { kind: 'gone' })
    t.match(await send(volume, { op: 'write', data }), { kind: 'io' })
    t.equal(await send(volume, { op: 'read', offset: 1024, data: Buffer.alloc(1024) }), undefined)
    t.equal(volume.locks.size, 0)
    t.equal(volume.active, 0)
  })
})

t.test('a reviving copy gets every write and serves what is valid', async (t) => {
  const { volume, drive, subdisk, reads } = build()
  setState(subdisk(1), 'reviving')
  subdisk(1).missing = new RangeSet([{ offset: 4096, length: MIB }])
  t.equal(await send(volume, { op: 'write', offset: 8192, data: Buffer.alloc(512, 3) }), undefined)
  t.equal(drive(1).device.media[8192], 3)
  for (let i = 0; i < 4; i++)
    await send(volume, { op: 'read', offset: 8192, data: Buffer.alloc(512) })
  t.strictSame(reads(), [4, 0])
  for (let i = 0; i < 4; i++) await send(volume, { op: 'read', data: Buffer.alloc(512) })
  t.strictSame(reads(), [6, 2])
})

t.test(
  'vinum.md 8.26: flush and FUA reach every copy; one that fails a flush goes out of service first',
  async (t) => {
    const { host, volume, drives, drive } = build()
    const unflushed = () => drives.map(({ device }) => device.unflushed)
    await send(volume, { op: 'write', data: Buffer.alloc(512, 1) })
    t.strictSame(unflushed(), [1, 1])
    t.equal(await send(volume, { op: 'flush' }), undefined)
    t.strictSame(unflushed(), [0, 0])
    await send(volume, { op: 'write', data: Buffer.alloc(512, 1), fua: true })
    t.strictSame(unflushed(), [0, 0])

    await send(volume, { op: 'write', data: Buffer.alloc(512, 2) })
    const { open, closed } = gate()
    host.gate = closed
    drive(0).device.fail('flush', 'io')
    const flush = watch(send(volume, { op: 'flush' }))
    await settle()
    t.strictSame(host.demoted, [['v.p0.s0']])
    t.notOk(flush.ended)
    open()
    t.equal(await flush.promise, undefined)
    t.equal(await send(volume, { op: 'flush' }), undefined, 'the rest goes on')
    host.refuse = lastCopy
    drive(1).device.fail('flush', 'io')
    t.match(await send(volume, { op: 'flush' }), { kind: 'io' }, 'the last copy was not flushed')
  },
)

t.test(
  'discard passes down where all copies read zeroes afterwards, else zeroes are written',
  async (t) => {
    const both = build()
    for (const { device } of both.drives) device.media.fill(1)
    t.equal(await send(both.volume, { op: 'discard', length: 4096 }), undefined)
    t.strictSame(
      both.drives.map(({ device }) => device.counts.discard),
      [1, 1],
    )
    const mixed = build({ features: [{}, { discardZeroes: false, discardGranularityBytes: 0 }] })
    for (const { device } of mixed.drives) device.media.fill(1)
    t.equal(await send(mixed.volume, { op: 'discard', length: 4096 }), undefined)
    t.strictSame(
      mixed.drives.map(({ device }) => device.counts['write-zeroes']),
      [1, 1],
    )
    t.ok(mixed.drive(0).device.media.equals(mixed.drive(1).device.media))
    t.equal(await send(mixed.volume, { op: 'write-zeroes', offset: 8192, length: 512 }), undefined)
    t.equal(mixed.drive(1).device.media[8192], 0)
  },
)

t.test('the mark is durable before the data is written; without it nothing is', async (t) => {
  const { open, closed } = gate()
  let answer = closed
  const { volume, map, writes } = build({ map: mapFor(() => answer) })
  const write = watch(send(volume, { op: 'write', data: Buffer.alloc(512, 1) }))
  await settle()
  t.strictSame(writes(), [0, 0])
  open()
  t.equal(await write.promise, undefined)
  t.strictSame(writes(), [1, 1])
  t.strictSame(map?.marked, [{ offset: 0, length: 16384 }])

  const broken = build({
    map: mapFor(async () => {
      throw new PlexusError('io', { op: 'store', subject: 'v', message: 'no map' })
    }),
  })
  t.match(await send(broken.volume, { op: 'write', data: Buffer.alloc(512) }), {
    message: 'no map',
  })
  t.strictSame(broken.writes(), [0, 0])
  t.notOk(broken.map?.unsynced.touches(0, 512), 'nothing was written, so nothing differs')
  t.equal(broken.volume.active, 0)
  answer = Promise.resolve()
})

t.test(
  'whatever fails, an acknowledged write is read back, and errors are never silent',
  async () => {
    const BLOCKS = 16
    const step = fc.record({
      op: fc.constantFrom('write', 'write', 'read', 'flush', 'write-zeroes', 'discard'),
      block: fc.nat(BLOCKS - 1),
      blocks: fc.integer({ min: 1, max: 6 }),
      faults: fc.array(
        fc.record({
          drive: fc.nat(3),
          op: fc.constantFrom('read', 'write', 'flush', 'write-zeroes', 'discard'),
          times: fc.integer({ min: 1, max: 2 }),
        }),
        { maxLength: 2 },
      ),
    })
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.array(step, { minLength: 1, maxLength: 3 }), { minLength: 1, maxLength: 12 }),
        fc.boolean(),
        async (rounds, mapped) => {
          const { host, volume, drive, subdisk } = build({
            columns: 2,
            stripe: 1024,
            bytesPerDrive: (BLOCKS * 512) / 2,
            ...(mapped && { map: mapFor(async () => {}) }),
          })
          host.refuse = (leaving) => {
            const stays = (p: number, c: number) =>
              subdisk(p, c).record.state === 'up' && !leaving.includes(subdisk(p, c))
            return [0, 1].every((c) => stays(0, c) || stays(1, c)) ? undefined : lastCopy()
          }
          // What each block may hold.
          const allowed = Array.from({ length: BLOCKS }, () => new Set([0]))
          let value = 0
          for (const round of rounds) {
            const taken = new Set<number>()
            await Promise.all(
              round.map(async ({ op, block, blocks, faults }) => {
                const range: number[] = []
                for (let b = block; b < Math.min(block + blocks, BLOCKS) && !taken.has(b); b++) {
                  range.push(b)
                  taken.add(b)
                }
                if (range.length === 0) return
                for (const fault of faults) {
                  drive(fault.drive).device.fail(fault.op as 'write', 'io', fault.times)
                }
                const offset = block * 512
                const length = range.length * 512
                if (op === 'flush') {
                  await send(volume, { op })
                  return
                }
                if (op === 'read') {
                  const back = Buffer.alloc(length, 0xff)
                  if (await send(volume, { op, offset, data: back })) return
                  range.forEach((b, index) => {
                    if (allowed[b]?.has(back[index * 512] ?? -1)) return
                    throw new Error(`block ${b} reads ${back[index * 512]}`)
                  })
                  return
                }
                const next = op === 'write' ? 1 + (value++ % 250) : 0
                const data = op === 'write' ? { data: Buffer.alloc(length, next) } : {}
                const error = await send(volume, { op: op as 'write', offset, length, ...data })
                for (const b of range) {
                  if (error) allowed[b]?.add(next)
                  else allowed[b] = new Set([next])
                }
              }),
            )
          }
          if (volume.active > 0 || volume.locks.size > 0)
            throw new Error('something is left behind')
          // What both have in service must be the same, unless the map says otherwise.
          for (let b = 0; b < BLOCKS; b++) {
            const column = Math.floor(b / 2) % 2
            const at = Math.floor(b / 4) * 1024 + (b % 2) * 512
            const values = [0, 1]
              .filter((p) => subdisk(p, column).record.state === 'up')
              .map((p) => drive(p * 2 + column).device.media[at] ?? -1)
            if (values.length === 0) throw new Error(`the last copy of block ${b} was given up`)
            if (values.some((one) => !allowed[b]?.has(one)))
              throw new Error(`block ${b}: ${values}`)
            const held = volume.map?.unsynced.touches(b * 512, 512) ?? true
            if (!held && new Set(values).size > 1) throw new Error(`block ${b} differs: ${values}`)
          }
        },
      ),
      { numRuns: 250 },
    )
  },
)

t.test('read policies', async (t) => {
  const read = (volume: VolumeIo) => send(volume, { op: 'read', data: Buffer.alloc(512) })
  const robin = build({ plexes: 3 })
  for (let i = 0; i < 6; i++) await read(robin.volume)
  t.strictSame(robin.reads(), [2, 2, 2])
  const prefer = build({ plexes: 3, policy: 'prefer', preferred: 1 })
  for (let i = 0; i < 3; i++) await read(prefer.volume)
  t.strictSame(prefer.reads(), [0, 3, 0])
  setState(prefer.subdisk(1), 'stale')
  for (let i = 0; i < 4; i++) await read(prefer.volume)
  t.strictSame(prefer.reads(), [2, 3, 2])
  const least = build({ plexes: 2, policy: 'least-queue' })
  least.drive(0).device.hold()
  const slow: Promise<unknown>[] = []
  for (let i = 0; i < 9; i++) {
    slow.push(read(least.volume))
    await settle(2)
  }
  t.equal(least.reads()[1], 8, 'all go where nothing waits')
  least.drive(0).device.release()
  await Promise.all(slow)
})

t.test(
  'where copies may differ each block comes from the same plex, whatever it is read with',
  async (t) => {
    const { volume, map, drive, subdisk } = build({
      columns: 2,
      stripe: 4096,
      bytesPerDrive: 8192,
      map: mapFor(async () => {}),
    })
    for (let i = 0; i < 4; i++) drive(i).device.media.fill(i + 1)
    await map?.markUnsynced(0, 16384)
    const read = async (offset: number, length: number): Promise<readonly number[]> => {
      const data = Buffer.alloc(length)
      t.equal(await send(volume, { op: 'read', offset, data }), undefined)
      return Array.from({ length: length / 512 }, (_, i) => data[i * 512] ?? 0)
    }
    const of = (value: number, blocks: number): readonly number[] => Array(blocks).fill(value)
    t.strictSame(await read(0, 8192), [...of(1, 8), ...of(2, 8)])
    setState(subdisk(0, 1), 'stale')
    t.strictSame(await read(0, 512), of(1, 1))
    t.strictSame(await read(0, 8192), [...of(1, 8), ...of(2, 8)], 'what was told stays')
    const rest = await read(8192, 8192)
    t.strictSame(rest, [...of(1, 8), ...of(4, 8)], 'not all from the second one')
    // One read of the whole, one of the piece, and then only halves of it.
    drive(0).device.fail('read', 'io', 3)
    t.strictSame(await read(0, 4096), [...of(1, 4), ...of(1, 4)], 'nor when a part is unreadable')
  },
)

t.test('job locks', async (t) => {
  t.test(
    '`writes` waits for changes in flight, keeps others off its range, and lets reads through',
    async (t) => {
      const { volume, drive } = build({ plexes: 1 })
      drive(0).device.hold()
      const before = send(volume, { op: 'write', data: Buffer.alloc(512, 1) })
      const lock = watch(volume.lock(0, 4096, 'writes'))
      await settle()
      t.notOk(lock.ended, 'the fast path drains first')
      drive(0).device.release()
      await before
      const release = await lock.promise
      const inside = watch(send(volume, { op: 'write', data: Buffer.alloc(512, 2) }))
      t.equal(await send(volume, { op: 'write', offset: 4096, data: Buffer.alloc(512) }), undefined)
      t.equal(await send(volume, { op: 'read', data: Buffer.alloc(512) }), undefined)
      t.equal(await send(volume, { op: 'flush' }), undefined)
      t.notOk(inside.ended)
      t.equal(drive(0).device.media[0], 1)
      release()
      t.equal(await inside.promise, undefined)
      t.equal(drive(0).device.media[0], 2)
      t.throws(release, /once/)
    },
  )

  t.test('`all` waits for reads too, also for those that began before any lock', async (t) => {
    for (const plexes of [1, 2]) {
      const { volume, drives } = build({ plexes })
      for (const { device } of drives) device.hold()
      const before = send(volume, { op: 'read', data: Buffer.alloc(512) })
      const lock = watch(volume.lock(0, 4096, 'all'))
      await settle()
      t.notOk(lock.ended)
      for (const { device } of drives) device.release()
      await before
      const release = await lock.promise
      const inside = watch(send(volume, { op: 'read', data: Buffer.alloc(512) }))
      t.equal(await send(volume, { op: 'read', offset: 4096, data: Buffer.alloc(512) }), undefined)
      t.notOk(inside.ended)
      release()
      t.equal(await inside.promise, undefined)
      t.equal(volume.active, 0)
    }
  })

  t.test('a read that recovers beside a lock `all` ends', async (t) => {
    const { volume, drive } = build()
    const release = await volume.lock(8192, 512, 'all')
    drive(0).device.fail('read', 'io')
    const read = watch(send(volume, { op: 'read', data: Buffer.alloc(512) }))
    const lock = watch(volume.lock(0, 4096, 'all'))
    // The lock came after the read, and before its second attempt: nobody waits for himself.
    const releaseSecond = await lock.promise
    t.notOk(read.ended)
    releaseSecond()
    t.equal(await read.promise, undefined)
    release()
    t.equal(volume.locks.size, 0)
  })

  t.test('a job reads from the other plexes, and what they cannot read is repaired', async (t) => {
    const { volume, plexes, drive, reads, writes } = build({ plexes: 3 })
    for (let i = 0; i < 3; i++) drive(i).device.media.fill(i === 0 ? 0 : 6)
    const release = await volume.lock(0, 4096, 'writes')
    drive(1).device.fail('read', 'io')
    const into = { bytes: Buffer.alloc(4096), address: 0 }
    await volume.readExcept(plexes[0], 0, into)
    t.ok(into.bytes.every((byte) => byte === 6))
    t.strictSame(reads(), [0, 1, 1])
    t.strictSame(writes(), [0, 1, 0])
    drive(1).device.fail('read', 'io', 100)
    drive(2).device.fail('read', 'io', 100)
    const failure = await volume.readExcept(plexes[0], 0, into).catch((error: unknown) => error)
    t.match(failure, { kind: 'io' })
    release()
  })
})

t.test('pause holds new requests, waits for those below, and lets the form change', async (t) => {
  const { volume, plexes, drive, reads } = build()
  drive(0).device.hold()
  const before = send(volume, { op: 'write', data: Buffer.alloc(512, 1) })
  const pause = watch(volume.pause())
  const during = watch(send(volume, { op: 'read', data: Buffer.alloc(512) }))
  await settle()
  t.notOk(pause.ended)
  t.throws(() =>
    volume.setForm({ plexes, readPolicy: 'prefer', preferredPlexUuid: undefined, map: undefined }),
  )
  drive(0).device.release()
  await before
  await pause.promise
  await settle()
  t.notOk(during.ended)
  const [first] = plexes as [LinearPlex]
  volume.setForm({
    plexes: [first],
    readPolicy: 'round-robin',
    preferredPlexUuid: undefined,
    map: undefined,
  })
  volume.resume()
  t.equal(await during.promise, undefined)
  t.strictSame(reads(), [1, 0])
  t.equal(volume.slots.length, 1)

  t.test('a job that holds a lock may pause: who waits for its range does not work', async (t) => {
    const release = await volume.lock(0, 4096, 'all')
    const waiting = watch(send(volume, { op: 'write', data: Buffer.alloc(512, 8) }))
    await volume.pause()
    release()
    await settle()
    t.notOk(waiting.ended, 'its turn has come, but the volume pauses')
    volume.resume()
    t.equal(await waiting.promise, undefined)
    t.equal(drive(0).device.media[0], 8)
    t.equal(volume.locks.size, 0)
  })
})

t.test('a mirror without plexes, or with a hole, fails cleanly', async (t) => {
  const { volume } = build({ plexes: 0 })
  t.match(await send(volume, { op: 'read', data: Buffer.alloc(512) }), { kind: 'gone' })
  t.match(await send(volume, { op: 'write', data: Buffer.alloc(512) }), {
    kind: 'gone',
    message: /no plex can write 512 bytes at offset 0/,
  })
  t.equal(volume.active, 0)
})
