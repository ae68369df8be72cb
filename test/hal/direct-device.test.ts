/** Real loop devices and files through both engines, and a queue of the test's own for what no loop device does. */
import { execFileSync } from 'node:child_process'
import { closeSync, openSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { DEVICE_POLL_MS, DEVICE_QUEUE_DEPTH, KIB, MIB } from '../../src/base/limits.ts'
import { createLogger, silentLogger } from '../../src/base/log.ts'
import { type AlignedPool, allocateAligned, createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { BlockDevice, IoRequest, Lease } from '../../src/hal/block-device.ts'
import { DirectDevice } from '../../src/hal/direct-device.ts'
import { ERRNO } from '../../src/hal/errno.ts'
import { discard, flush, readAt, writeAt, writeZeroes } from '../../src/hal/io.ts'
import { IO_KIND, IoOperation } from '../../src/hal/io-engine.ts'
import { createIoQueue, type IoQueue, type OperationDone } from '../../src/hal/io-queue.ts'
import { type OpenOptions, openDevice } from '../../src/hal/open-device.ts'
import { failureOf } from '../support/failure.ts'
import { fuseFile, noFuse } from '../support/fuse-file.ts'
import { loopDevice, noLoopDevices, tempDirectory } from '../support/loop-device.ts'
import { ManualClock } from '../support/manual-clock.ts'

const SIZE_BYTES = 32 * MIB
const skip = noLoopDevices()

interface Rig {
  readonly pool: AlignedPool
  readonly queue: IoQueue
  readonly clock: ManualClock
  readonly lines: string[]
  open(path: string, options?: Partial<OpenOptions>): Promise<BlockDevice>
  lease(length: number): Lease
}

function rig(engine: 'io_uring' | 'threads' | 'auto'): Rig {
  const pool = createAlignedPool(64 * MIB, { poison: true })
  const queue = createIoQueue({ engine, pool, log: silentLogger(), threads: 2 })
  const clock = new ManualClock()
  const lines: string[] = []
  const log = createLogger('info', 'json', (line) => lines.push(line))
  return {
    pool,
    queue,
    clock,
    lines,
    open: (path, options = {}) => openDevice(path, { queue, clock, log, ...options }),
    lease(length) {
      const lease = pool.lease(length)
      if (!lease) throw new Error('no lease')
      return lease
    },
  }
}

/** Bytes that tell their position and a seed. */
function pattern(buffer: Buffer, seed: number): Buffer {
  for (let at = 0; at < buffer.length; at += 4) {
    buffer.writeUInt32LE((Math.imul(at + seed, 2654435761) ^ seed) >>> 0, at)
  }
  return buffer
}

for (const engine of ['io_uring', 'threads'] as const) {
  t.test(`a loop device by ${engine}`, { skip }, async (t) => {
    const { pool, queue, ...the } = rig(engine)
    const loop = loopDevice(t, { sizeBytes: SIZE_BYTES })
    const device = await the.open(loop.path)
    t.equal(device.geometry.sizeBytes, SIZE_BYTES)
    t.equal(device.geometry.logicalBlockBytes, 512)

    await t.test('what is written is read, at all sizes and with FUA', async (t) => {
      const out = the.lease(4 * MIB)
      const into = the.lease(4 * MIB)
      for (const [length, offset, fua] of [
        [512, 512, false],
        [4096, 4096, true],
        [300 * KIB, 512 * 7, false],
        [4 * MIB, SIZE_BYTES - 4 * MIB, true],
      ] as const) {
        const source = { bytes: out.bytes.subarray(0, length), address: out.address }
        const target = { bytes: into.bytes.subarray(0, length), address: into.address }
        pattern(source.bytes, length)
        target.bytes.fill(0)
        await writeAt(device, source, offset, { fua })
        await readAt(device, target, offset)
        t.ok(target.bytes.equals(source.bytes), `${length} bytes at ${offset}`)
      }
      await flush(device)
      out.release()
      into.release()
    })

    await t.test('discard frees the backing store, write-zeroes reads as zeroes', async (t) => {
      const data = the.lease(4 * MIB)
      pattern(data.bytes, 3)
      await writeAt(device, data, 0)
      await writeAt(device, data, 8 * MIB)
      await flush(device)
      const before = loop.allocatedBytes()
      await discard(device, { offset: 0, length: 4 * MIB })
      t.ok(loop.allocatedBytes() <= before - 4 * MIB, 'space came back')
      await readAt(device, data, 0)
      t.ok(data.bytes.every((byte) => byte === 0))
      await writeZeroes(device, { offset: 8 * MIB + 512, length: 3 * MIB })
      await readAt(device, data, 8 * MIB)
      const expected = pattern(Buffer.alloc(4 * MIB), 3).fill(0, 512, 512 + 3 * MIB)
      t.ok(data.bytes.equals(expected), 'exactly the range')
      data.release()
    })

    await t.test('what cannot be right is refused, later and not within submit', async (t) => {
      const data = the.lease(8192)
      let within = true
      const refused = await new Promise<string | undefined>((resolve) => {
        const request: IoRequest = {
          op: 'read',
          offset: 100,
          length: 512,
          data,
          dataOffset: 0,
          fua: false,
          cause: 'metadata',
          complete: (error) => resolve(within ? 'within submit' : error?.kind),
        }
        device.submit(request)
        within = false
      })
      t.equal(refused, 'invalid')
      const kind = async (promise: Promise<void>): Promise<string> =>
        (await failureOf(promise)).kind
      const part = (from: number, length: number) => ({
        bytes: data.bytes.subarray(from, from + length),
        address: data.address + from,
      })
      t.equal(await kind(readAt(device, part(0, 1000), 0)), 'invalid', 'length')
      t.equal(await kind(writeAt(device, part(8, 512), 0)), 'invalid', 'address')
      t.equal(await kind(readAt(device, data, SIZE_BYTES - 4096)), 'invalid', 'across the end')
      t.equal(await kind(readAt(device, data, -4096)), 'invalid', 'negative')
      t.equal(await kind(readAt(device, data, Number.NaN)), 'invalid', 'not a number')
      t.equal(await kind(discard(device, { offset: SIZE_BYTES, length: 512 })), 'invalid')
      t.equal(await kind(writeZeroes(device, { offset: 1, length: 512 })), 'invalid')
      await discard(device, { offset: 0, length: 0 })
      data.release()
    })

    await t.test('far more requests than the queue is deep', async (t) => {
      const count = DEVICE_QUEUE_DEPTH * 3
      const data = the.lease(count * 512)
      pattern(data.bytes, 9)
      const part = (i: number) => ({
        bytes: data.bytes.subarray(i * 512, i * 512 + 512),
        address: data.address + i * 512,
      })
      let most = 0
      const watch = (): void => {
        most = Math.max(most, queue.stats.inKernel)
      }
      const all = (work: (i: number) => Promise<void>): Promise<unknown> =>
        Promise.all(Array.from({ length: count }, (_, i) => work(i).finally(watch)))
      const writes = all((i) => writeAt(device, part(i), i * 1024))
      watch()
      t.equal(device.inFlight, count)
      await writes
      data.bytes.fill(0)
      await all((i) => readAt(device, part(i), i * 1024))
      t.ok(data.bytes.equals(pattern(Buffer.alloc(count * 512), 9)))
      // Of the two threads one is left for discards.
      t.equal(most, engine === 'threads' ? 1 : DEVICE_QUEUE_DEPTH)
      t.equal(device.inFlight, 0)
      data.release()
    })

    await t.test('nobody else can open it, and is told why', async (t) => {
      const error = await failureOf(the.open(loop.path))
      t.equal(error.kind, 'in-use')
      t.match(error.message, loop.path)
      await (await the.open(loop.path, { exclusive: false, readOnly: true })).close()
    })

    await t.test('it grows, and it loses its store', async (t) => {
      const events: string[] = []
      const stop = device.onEvent((event) => events.push(event))
      loop.resize(2 * SIZE_BYTES)
      the.clock.advance(DEVICE_POLL_MS)
      t.equal(device.geometry.sizeBytes, 2 * SIZE_BYTES)
      t.same(events, ['resized'])
      stop()
      // The device keeps its size while the file behind it ends early: the medium fails.
      truncateSync(loop.file, SIZE_BYTES)
      const data = the.lease(4096)
      t.equal((await failureOf(readAt(device, data, SIZE_BYTES + MIB))).kind, 'io')
      await readAt(device, data, 0)
      data.release()
    })

    const data = the.lease(MIB)
    const last = Array.from({ length: 20 }, () => writeAt(device, data, 0))
    const closing = device.close()
    const late = await failureOf(readAt(device, data, 0))
    t.equal(late.kind, 'gone', 'nothing new while closing')
    await closing
    t.equal(device.inFlight, 0, 'close waits for what is in flight')
    await Promise.all(last)
    await device.close()
    data.release()
    t.equal(pool.leased, 0)
    await (await the.open(loop.path)).close()
    await queue.close()
  })
}

t.test('logical blocks of 4096 bytes', { skip }, async (t) => {
  const the = rig('auto')
  const loop = loopDevice(t, { sizeBytes: SIZE_BYTES, sectorBytes: 4096 })
  const device = await the.open(loop.path)
  t.equal(device.geometry.logicalBlockBytes, 4096)
  const data = the.lease(8192)
  pattern(data.bytes, 1)
  await writeAt(device, data, 4096)
  t.equal((await failureOf(writeAt(device, data, 512))).kind, 'invalid')
  const half = { bytes: data.bytes.subarray(0, 512), address: data.address }
  t.equal((await failureOf(readAt(device, half, 0))).kind, 'invalid')
  data.bytes.fill(0)
  await readAt(device, data, 4096)
  t.ok(data.bytes.equals(pattern(Buffer.alloc(8192), 1)))
  data.release()
  await device.close()
  await the.queue.close()
})

t.test('a loop device that is pulled out', { skip }, async (t) => {
  const the = rig('auto')
  const data = the.lease(4096)
  const attempts: readonly [string, (device: BlockDevice) => Promise<void>][] = [
    ['read', (device) => readAt(device, data, 8192)],
    ['write', (device) => writeAt(device, data, 8192)],
  ]
  for (const [name, attempt] of attempts) {
    const loop = loopDevice(t, { sizeBytes: SIZE_BYTES })
    const device = await the.open(loop.path)
    const events: string[] = []
    device.onEvent((event) => events.push(event))
    await attempt(device)
    loop.pull()
    t.equal((await failureOf(attempt(device))).kind, 'gone', `the first ${name} that fails tells`)
    t.same(events, ['gone'], 'without waiting for the next look at its size')
    await device.close()
  }
  data.release()
  await the.queue.close()
})

t.test('a mounted device is refused with its mount point', { skip }, async (t) => {
  const the = rig('auto')
  const loop = loopDevice(t, { sizeBytes: SIZE_BYTES })
  const directory = tempDirectory(t)
  try {
    execFileSync('mkfs.ext4', ['-q', loop.path], { stdio: 'pipe' })
    execFileSync('mount', [loop.path, directory], { stdio: 'pipe' })
  } catch (error) {
    t.comment(`cannot mount here: ${error}`)
    await the.queue.close()
    return
  }
  const error = await failureOf(the.open(loop.path))
  execFileSync('umount', [directory])
  t.equal(error.kind, 'in-use')
  t.match(error.message, directory)
  await (await the.open(loop.path)).close()
  await the.queue.close()
})

t.test('regular files', async (t) => {
  const the = rig('auto')
  const path = join(tempDirectory(t), 'disk.img')
  writeFileSync(path, '')
  t.equal((await failureOf(the.open(path))).kind, 'invalid', 'an empty file')
  truncateSync(path, SIZE_BYTES)
  const device = await the.open(path)
  t.equal(device.geometry.sizeBytes, SIZE_BYTES)
  const locked = await failureOf(the.open(path))
  t.equal(locked.kind, 'in-use', 'two owners would destroy it')
  const data = the.lease(MIB)
  pattern(data.bytes, 5)
  await writeAt(device, data, MIB, { fua: true })
  await flush(device)
  await writeZeroes(device, { offset: MIB, length: 4096 })
  t.ok(statSync(path).blocks * 512 >= MIB - 4096)
  await discard(device, { offset: MIB, length: MIB - 4096 })
  t.ok(statSync(path).blocks * 512 <= 64 * KIB, 'the hole is punched')
  await readAt(device, data, MIB)
  t.ok(data.bytes.subarray(0, MIB - 4096).every((byte) => byte === 0))
  const tail = pattern(Buffer.alloc(MIB), 5).subarray(MIB - 4096)
  t.ok(data.bytes.subarray(MIB - 4096).equals(tail))

  const events: string[] = []
  device.onEvent((event) => events.push(event))
  truncateSync(path, 2 * SIZE_BYTES + 100)
  the.clock.advance(DEVICE_POLL_MS)
  the.clock.advance(DEVICE_POLL_MS)
  t.same(events, ['resized'])
  t.equal(device.geometry.sizeBytes, 2 * SIZE_BYTES, 'whole blocks only')
  await device.close()

  const reader = await the.open(path, { readOnly: true })
  await readAt(reader, data, 0)
  t.equal((await failureOf(writeAt(reader, data, 0))).kind, 'permission')
  t.equal((await failureOf(discard(reader, { offset: 0, length: 512 }))).kind, 'permission')
  await reader.close()
  data.release()
  await the.queue.close()
})

t.test('a regular file knows its holes, until it is closed', async (t) => {
  const path = join(tempDirectory(t), 'image')
  writeFileSync(path, '')
  truncateSync(path, 8 * MIB)
  const { queue, ...the } = rig('auto')
  const device = await the.open(path)
  const data = the.lease(MIB)
  data.bytes.fill(1)
  await writeAt(device, data, MIB)
  await writeAt(device, data, 4 * MIB)
  await flush(device)
  const extents = async (from: number, to: number) => {
    const found: [boolean, number][] = []
    for (let at = from; at < to; ) {
      const extent = await device.extentAt?.(at, to - at)
      if (!extent) throw new Error('the device does not know')
      found.push([extent.allocated, extent.length])
      at += extent.length
    }
    return found
  }
  t.same(await extents(0, 8 * MIB), [
    [false, MIB],
    [true, MIB],
    [false, 2 * MIB],
    [true, MIB],
    [false, 3 * MIB],
  ])
  t.same(
    await extents(MIB + 64 * KIB, 2 * MIB - 512),
    [[true, MIB - 64 * KIB - 512]],
    'cut to what was asked',
  )
  await discard(device, { offset: MIB, length: MIB })
  t.same((await extents(0, 8 * MIB))[0], [false, 4 * MIB], 'what was punched is a hole')
  const late = device.extentAt?.(0, MIB)
  await Promise.resolve()
  const closed = device.close()
  t.same(await late, { allocated: false, length: MIB }, 'close waits for an answer')
  await closed
  t.equal((await failureOf(device.extentAt?.(0, MIB) ?? Promise.resolve())).kind, 'gone')
  data.release()
  await queue.close()
})

t.test('paths that are no devices', async (t) => {
  const the = rig('auto')
  const directory = tempDirectory(t)
  for (const [path, kind] of [
    [join(directory, 'missing'), 'not-found'],
    [directory, 'invalid'],
    ['/dev/null', 'invalid'],
  ] as const) {
    const error = await failureOf(the.open(path))
    t.equal(error.kind, kind, path)
    t.equal(error.op, 'open')
    t.ok(error.message.startsWith(`${path}: `))
  }
  await the.queue.close()
})

/** A device over a queue that answers as the test says. */
function scripted(
  t: Test,
  kind: 'block' | 'file',
  sysfsDir: string,
  results: number[],
  discardZeroes = false,
) {
  const operations: { kind: number; flags: number; offset: number; length: number }[] = []
  const queue: IoQueue = {
    engine: 'io_uring',
    stats: { inKernel: 0, waiting: 0, finished: 0, resumed: 0, enters: 0 },
    openChannel: (_fd: number, done: OperationDone) => ({
      take: () => new IoOperation(),
      submit(operation) {
        const { kind, flags, offset, length } = operation
        operations.push({ kind, flags, offset, length })
        setImmediate(() => done(operation, results.shift() ?? 0))
      },
      cancel() {},
      close() {},
    }),
    close: async () => {},
  }
  const file = join(tempDirectory(t), 'scripted')
  writeFileSync(file, Buffer.alloc(MIB))
  const clock = new ManualClock()
  const device = new DirectDevice({
    path: '/dev/scripted',
    fd: openSync(file, 'r+'),
    kind,
    mayStall: false,
    readOnly: false,
    geometry: {
      sizeBytes: 8 * MIB,
      logicalBlockBytes: 512,
      physicalBlockBytes: 512,
      alignmentOffsetBytes: 0,
      ioMinBytes: 0,
      ioOptBytes: 0,
      maxTransferBytes: 0,
    },
    identity: { wwid: undefined, serial: undefined, vendor: undefined, model: undefined },
    features: {
      volatileWriteCache: true,
      rotational: false,
      readOnly: false,
      discardGranularityBytes: 512,
      discardAlignmentBytes: 0,
      discardMaxBytes: 0,
      discardZeroes,
      writeZeroes: true,
    },
    sysfsDir,
    queue,
    clock,
    log: silentLogger(),
    closeFd: async (fd) => closeSync(fd),
  })
  t.teardown(() => device.close())
  return { device, operations, clock }
}

t.test('a device that disappears says so once, and from then on', async (t) => {
  const directory = tempDirectory(t)
  const data = allocateAligned(512)
  for (const [name, results] of [
    ['ENODEV', [-ERRNO.ENODEV]],
    ['ENXIO', [-ERRNO.ENXIO]],
  ] as const) {
    const { device } = scripted(t, 'block', directory, [...results])
    const events: string[] = []
    device.onEvent((event) => events.push(event))
    t.equal((await failureOf(readAt(device, data, 0))).kind, 'gone', name)
    t.equal((await failureOf(readAt(device, data, 0))).kind, 'gone')
    t.same(events, ['gone'])
  }
  const eio = scripted(t, 'block', directory, [-ERRNO.EIO, -ERRNO.EIO])
  t.equal((await failureOf(readAt(eio.device, data, 0))).kind, 'io', 'EIO with the device there')
  const idle = scripted(t, 'block', directory, [])
  const events: string[] = []
  idle.device.onEvent((event) => events.push(event))
  rmSync(directory, { recursive: true })
  t.equal((await failureOf(readAt(eio.device, data, 0))).kind, 'gone', 'EIO with the device gone')
  const full = scripted(t, 'file', directory, [-ERRNO.ENOSPC])
  t.equal((await failureOf(writeAt(full.device, data, 0))).kind, 'no-space', 'a file has no room')
  idle.clock.advance(3 * DEVICE_POLL_MS)
  t.same(events, ['gone'], 'an idle device is missed, too')
})

t.test('write-zeroes goes from fallocate to ioctl to writing', async (t) => {
  const no = -ERRNO.EOPNOTSUPP
  const { device, operations } = scripted(t, 'block', tempDirectory(t), [no, -ERRNO.ENOTTY])
  await writeZeroes(device, { offset: 512, length: 3 * MIB })
  const { ALLOCATE, RANGE_IOCTL, WRITE } = IO_KIND
  t.same(
    operations.map((operation) => operation.kind),
    [ALLOCATE, RANGE_IOCTL, WRITE, WRITE, WRITE],
  )
  t.same(operations.at(-1), { kind: WRITE, flags: 0, offset: 512 + 2 * MIB, length: MIB })
  await writeZeroes(device, { offset: 0, length: 512 })
  t.equal(operations.at(-1)?.kind, WRITE, 'what was refused is not asked again')
  t.equal(operations.length, 6)
})

t.test('discard is refused where the device refuses it, and fails as it fails', async (t) => {
  const range = { offset: 0, length: 512 }
  const first = scripted(t, 'block', tempDirectory(t), [-ERRNO.EIO, -ERRNO.EOPNOTSUPP])
  t.equal((await failureOf(discard(first.device, range))).kind, 'io')
  t.equal((await failureOf(discard(first.device, range))).kind, 'unsupported')
  t.equal((await failureOf(discard(first.device, range))).kind, 'unsupported')
  t.equal(first.operations.length, 2, 'a refusal is remembered')
})

t.test('a discard that promised zeroes writes them where the kernel goes back on it', async (t) => {
  const range = { offset: 0, length: 512 }
  const no = -ERRNO.EOPNOTSUPP
  const { device, operations } = scripted(t, 'block', tempDirectory(t), [no], true)
  await discard(device, range)
  await discard(device, range)
  const { ALLOCATE, RANGE_IOCTL } = IO_KIND
  t.same(
    operations.map((operation) => operation.kind),
    [ALLOCATE, RANGE_IOCTL, RANGE_IOCTL],
  )
})

for (const engine of ['io_uring', 'threads'] as const) {
  t.test(`by ${engine}: a file whose server stalls keeps nobody`, { skip: noFuse() }, async (t) => {
    const the = rig(engine)
    const { path, stall, go } = await fuseFile(t)
    const local = join(tempDirectory(t), 'local')
    writeFileSync(local, Buffer.alloc(MIB))
    const [slow, fast] = [await the.open(path), await the.open(local)]
    const data = the.lease(4096)
    pattern(data.bytes, 3)
    await writeAt(slow, data, 8192)
    await stall()
    let ended = false
    const write = writeAt(slow, data, 0).then(() => {
      ended = true
    })
    the.clock.advance(DEVICE_POLL_MS)
    await writeAt(fast, data, 0)
    await flush(fast)
    t.notOk(ended, 'the other file had its turn meanwhile')
    go()
    await write
    const back = the.lease(4096)
    await readAt(slow, back, 8192)
    t.ok(back.bytes.equals(data.bytes))
    for (const one of [data, back]) one.release()
    await Promise.all([slow.close(), fast.close()])
    await the.queue.close()
  })
}
