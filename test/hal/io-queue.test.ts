/** The queue over an engine of the test's own (bounds, turns, retries), and the two real engines. */
import { closeSync, openSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { IO_RETRIES, IO_THREADS, MIB, RING_BATCH } from '../../src/base/limits.ts'
import { createLogger, silentLogger } from '../../src/base/log.ts'
import { createAlignedPool } from '../../src/hal/aligned-pool.ts'
import { ERRNO, SysError } from '../../src/hal/errno.ts'
import { IO_KIND, type IoEngine, type IoOperation, type IoSink } from '../../src/hal/io-engine.ts'
import { IO_ENDED, ioError } from '../../src/hal/io-errors.ts'
import {
  chooseEngine,
  createIoQueue,
  type EngineMakers,
  type IoChannel,
  type IoQueue,
  OperationQueue,
} from '../../src/hal/io-queue.ts'
import { BLKDISCARD, FALLOC_PUNCH_HOLE, RWF_DSYNC } from '../../src/hal/libc.ts'
import { failureOf } from '../support/failure.ts'
import { tempDirectory } from '../support/loop-device.ts'

/** Keeps what is started until the test answers it. */
class FakeEngine implements IoEngine {
  readonly engine = 'io_uring'
  readonly takesIoctl = false
  enters = 0
  closed = false
  readonly started: IoOperation[] = []
  /** Offset, address and length of each start. */
  readonly ranges: [number, number, number][] = []
  readonly sink: IoSink

  constructor(sink: IoSink) {
    this.sink = sink
  }

  start(operation: IoOperation): void {
    this.started.push(operation)
    const { offset, address, length, doneBytes } = operation
    this.ranges.push([offset + doneBytes, address + doneBytes, length - doneBytes])
    this.enters++
  }

  answer(result: number): void {
    const operation = this.started.shift()
    if (!operation) throw new Error('nothing was started')
    this.sink(operation.slot, result)
  }

  async close(): Promise<void> {
    this.closed = true
  }
}

function fakeQueue(slots: number): { queue: OperationQueue; engine: FakeEngine } {
  const engines: FakeEngine[] = []
  const make = (sink: IoSink): FakeEngine => {
    const engine = new FakeEngine(sink)
    engines.push(engine)
    return engine
  }
  const queue = new OperationQueue(slots, make, make)
  return { queue, engine: engines[0] as FakeEngine }
}

function submit(channel: IoChannel, fields: Partial<IoOperation>): IoOperation {
  const operation = Object.assign(channel.take(), { length: 4096, ...fields })
  channel.submit(operation)
  return operation
}

t.test('a channel keeps its depth and its order', async (t) => {
  const { queue, engine } = fakeQueue(16)
  const done: number[] = []
  const channel = queue.openChannel(5, (operation) => done.push(operation.offset), 4)
  for (let i = 0; i < 10; i++) submit(channel, { kind: IO_KIND.READ, offset: i })
  t.equal(engine.started.length, 4)
  t.same([queue.stats.inKernel, queue.stats.waiting], [4, 6])
  for (let i = 0; i < 10; i++) {
    t.ok(engine.started.length <= 4)
    engine.answer(4096)
  }
  t.same(done, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9])
  t.same([queue.stats.inKernel, queue.stats.waiting, queue.stats.finished], [0, 0, 10])
})

t.test(
  'devices that do not answer leave slots for the others, and for those that come',
  async (t) => {
    const slots = 1024
    const { queue, engine } = fakeQueue(slots)
    const ended: string[] = []
    const open = (name: string) => queue.openChannel(1, () => ended.push(name), 256)
    const fill = (channel: IoChannel, times: number) => {
      for (let i = 0; i < times; i++) submit(channel, { kind: IO_KIND.FLUSH, length: 0 })
    }
    for (let i = 1; i <= 4; i++) fill(open(`hangs ${i}`), 1000)
    const hanging = engine.started.splice(0)
    t.ok(hanging.length >= 4 * 32, `they have ${hanging.length} of ${slots} slots`)
    const healthy = open('healthy')
    fill(healthy, 1000)
    t.ok(engine.started.length >= 32, `${engine.started.length} at once`)
    while (engine.started.length > 0) engine.answer(0)
    t.equal(ended.length, 1000)
    for (const { slot } of hanging) engine.sink(slot, 0)
    while (engine.started.length > 0) engine.answer(0)
    t.equal(ended.length, 5000)
    t.same([queue.stats.inKernel, queue.stats.waiting], [0, 0])
    healthy.close()
  },
)

t.test('one device alone has its whole depth, also after others have closed', async (t) => {
  const { queue, engine } = fakeQueue(512)
  const first = queue.openChannel(1, () => {}, 256)
  const others = Array.from({ length: 7 }, () => queue.openChannel(1, () => {}, 256))
  for (const other of others) other.close()
  for (let i = 0; i < 300; i++) submit(first, { kind: IO_KIND.FLUSH, length: 0 })
  t.equal(engine.started.length, 256)
  t.throws(() => first.close(), /when it is idle/)
})

t.test('channels take turns when slots are short', async (t) => {
  const { queue, engine } = fakeQueue(2)
  const order: string[] = []
  const channels = ['a', 'b', 'c'].map((name) => queue.openChannel(1, () => order.push(name), 8))
  for (const channel of channels) {
    for (let i = 0; i < 4; i++) submit(channel, { kind: IO_KIND.FLUSH, length: 0 })
  }
  t.equal(engine.started.length, 2, 'no more than the engine has slots')
  for (let i = 0; i < 12; i++) engine.answer(0)
  t.same(order.slice(0, 3).sort(), ['a', 'b', 'c'])
  t.same(order.slice(3, 9).sort(), ['a', 'a', 'b', 'b', 'c', 'c'])
  t.equal(order.length, 12)
})

t.test('a completion may submit again, and operations are recycled', async (t) => {
  const { queue, engine } = fakeQueue(4)
  const seen = new Set<IoOperation>()
  let left = 20
  const channel: IoChannel = queue.openChannel(1, () => {
    if (--left > 0) seen.add(submit(channel, { kind: IO_KIND.READ }))
  })
  submit(channel, { kind: IO_KIND.READ })
  while (engine.started.length > 0) engine.answer(4096)
  t.equal(left, 0)
  t.ok(seen.size <= 2, `${seen.size} objects for 20 operations`)
})

t.test('short transfers go on from where they stopped', async (t) => {
  const { queue, engine } = fakeQueue(4)
  const results: number[] = []
  const channel = queue.openChannel(1, (_, result) => results.push(result))
  submit(channel, { kind: IO_KIND.WRITE, offset: 8192, address: 65536, length: 4096 })
  engine.answer(512)
  engine.answer(1024)
  engine.answer(2560)
  t.same(engine.ranges, [
    [8192, 65536, 4096],
    [8704, 66048, 3584],
    [9728, 67072, 2560],
  ])
  submit(channel, { kind: IO_KIND.READ, length: 1024 })
  engine.answer(512)
  engine.answer(0)
  t.same(results, [0, IO_ENDED])
  t.equal(queue.stats.resumed, 3)
  t.equal(ioError(IO_ENDED, 'read', '/dev/x', 0, 512).kind, 'io')
})

t.test('EINTR and EAGAIN are tried again, with a bound; other errors are final', async (t) => {
  const { queue, engine } = fakeQueue(4)
  const results: number[] = []
  const channel = queue.openChannel(1, (_, result) => results.push(result))
  submit(channel, { kind: IO_KIND.READ })
  engine.answer(-ERRNO.EINTR)
  engine.answer(-ERRNO.EAGAIN)
  engine.answer(4096)
  t.same(results, [0])
  submit(channel, { kind: IO_KIND.READ })
  for (let i = 0; i <= IO_RETRIES; i++) engine.answer(-ERRNO.EAGAIN)
  t.same(results, [0, -ERRNO.EAGAIN])
  t.equal(engine.started.length, 0)
  submit(channel, { kind: IO_KIND.READ })
  engine.answer(-ERRNO.EIO)
  t.same(results, [0, -ERRNO.EAGAIN, -ERRNO.EIO])
})

t.test('close waits for what is in flight', async (t) => {
  const { queue, engine } = fakeQueue(2)
  const channel = queue.openChannel(1, () => {}, 1)
  submit(channel, { kind: IO_KIND.FLUSH, length: 0 })
  submit(channel, { kind: IO_KIND.FLUSH, length: 0 })
  let closed = false
  const closing = queue.close().then(() => {
    closed = true
  })
  engine.answer(0)
  await new Promise((resolve) => setImmediate(resolve))
  t.notOk(closed || engine.closed)
  t.throws(() => submit(channel, { kind: IO_KIND.READ }), /closed before/)
  engine.answer(0)
  await closing
  t.ok(engine.closed)
})

t.test('auto falls back and says why; a forced engine that is refused is an error', async (t) => {
  const lines: string[] = []
  const log = createLogger('info', 'json', (line) => lines.push(line))
  const counts: number[] = []
  const makers = (failure: Error | undefined): EngineMakers => ({
    ioUring: (sink) => {
      if (failure) throw failure
      return new FakeEngine(sink)
    },
    threads: (count) => {
      counts.push(count)
      return (sink) => new FakeEngine(sink)
    },
  })
  const refused = makers(new SysError('io_uring_setup', ERRNO.EPERM))
  await chooseEngine({ engine: 'auto', log, threads: 3 }, refused).close()
  t.same(
    counts,
    [IO_THREADS, 3],
    'threads for ioctls, made when the first one comes, and three for I/O',
  )
  t.match(lines.join(''), /io_uring is refused \(io_uring_setup: EPERM\).*sandbox/)
  lines.length = 0
  const small = makers(new SysError('io_uring_setup', ERRNO.ENOMEM))
  await chooseEngine({ engine: 'auto', log, threads: 3 }, small).close()
  t.match(lines.join(''), /io_uring_setup: ENOMEM\).*raise LimitMEMLOCK= .*or ulimit -l/)
  const forced = (async () => chooseEngine({ engine: 'io_uring', log }, refused))()
  t.equal((await failureOf(forced)).kind, 'unsupported')
  t.throws(() => chooseEngine({ engine: 'auto', log }, makers(new TypeError('x'))), TypeError)
  await chooseEngine({ engine: 'io_uring', log }, makers(undefined)).close()
})

t.test('error numbers have kinds and sentences', async (t) => {
  const rows: [number, string][] = [
    [ERRNO.EIO, 'io'],
    [ERRNO.ENODATA, 'io'],
    [ERRNO.EREMOTEIO, 'io'],
    [ERRNO.EILSEQ, 'io'],
    [ERRNO.ENODEV, 'gone'],
    [ERRNO.ENXIO, 'gone'],
    [ERRNO.ENOSPC, 'no-space'],
    [ERRNO.EACCES, 'permission'],
    [ERRNO.EPERM, 'permission'],
    [ERRNO.EINVAL, 'invalid'],
    [ERRNO.EOPNOTSUPP, 'unsupported'],
    [ERRNO.ETIMEDOUT, 'timeout'],
  ]
  for (const [errno, kind] of rows) t.equal(ioError(-errno, 'read', 'd', 0, 1).kind, kind)
  const { message } = ioError(-ERRNO.EIO, 'write', '/dev/sdx', 4096, 512)
  t.equal(message, '/dev/sdx: write of 512 bytes at offset 4096 failed: EIO, I/O error')
})

for (const engine of ['io_uring', 'threads'] as const) {
  t.test(`engine ${engine}`, async (t) => {
    const pool = createAlignedPool(32 * MIB, { poison: true })
    let queue: IoQueue
    try {
      queue = createIoQueue({ engine, pool, log: silentLogger(), threads: 2 })
    } catch (error) {
      t.comment(`${engine} is refused here: ${error}`)
      return
    }
    t.equal(queue.engine, engine)
    const path = join(tempDirectory(t), 'file')
    const fd = openSync(path, 'w+')
    const finished = new Map<IoOperation, (result: number) => void>()
    const channel = queue.openChannel(fd, (operation, result) => {
      finished.get(operation)?.(result)
      finished.delete(operation)
    })
    const run = (fields: Partial<IoOperation>): Promise<number> =>
      new Promise((resolve) => {
        const operation = Object.assign(channel.take(), { address: 0, flags: 0, ...fields })
        finished.set(operation, resolve)
        channel.submit(operation)
      })
    const lease = pool.lease(MIB)
    if (!lease) throw new Error('no lease')

    // Far above 2^32, so that both halves of an offset count.
    const far = 3 * 2 ** 33 + 4096
    lease.bytes.fill(0x11)
    const range = { address: lease.address, offset: far, length: MIB }
    t.equal(await run({ ...range, kind: IO_KIND.WRITE, flags: RWF_DSYNC }), 0)
    t.equal(await run({ kind: IO_KIND.FLUSH, length: 0 }), 0)
    lease.bytes.fill(0)
    t.equal(await run({ ...range, kind: IO_KIND.READ }), 0)
    t.ok(lease.bytes.every((byte) => byte === 0x11))
    const hole = { kind: IO_KIND.ALLOCATE, flags: FALLOC_PUNCH_HOLE, offset: far, length: 65536 }
    t.equal(await run(hole), 0)
    t.equal(await run({ ...range, kind: IO_KIND.READ, length: 65536 }), 0)
    t.equal(lease.bytes[65535], 0)
    t.equal(lease.bytes[65536], 0x11)

    t.equal(
      await run({ ...range, kind: IO_KIND.READ, offset: far + MIB }),
      IO_ENDED,
      'a read at the end of the file',
    )
    const past = { ...range, kind: IO_KIND.READ, offset: far + MIB - 4096, length: 8192 }
    t.equal(await run(past), IO_ENDED, 'a read across the end')
    t.equal(
      await run({ kind: IO_KIND.RANGE_IOCTL, flags: BLKDISCARD, offset: 0, length: 512 }),
      -ERRNO.ENOTTY,
      'ioctls go through a thread',
    )

    // One turn of the loop: one call into the kernel for each batch.
    const before = queue.stats.enters
    const many = Array.from({ length: 200 }, (_, i) =>
      run({ kind: IO_KIND.READ, address: lease.address + i * 512, offset: far, length: 512 }),
    )
    t.ok((await Promise.all(many)).every((result) => result === 0))
    if (engine === 'io_uring') {
      const enters = queue.stats.enters - before
      t.ok(enters <= Math.ceil(200 / RING_BATCH) + 1, `${enters} enters for 200 operations`)
    }
    lease.release()

    // Memory outside the pool, here none at all: EFAULT comes back, nothing breaks.
    t.ok((await run({ kind: IO_KIND.READ, address: 4096, offset: far, length: 512 })) < 0)
    const stuck = run({ kind: IO_KIND.FLUSH, length: 0 })
    await queue.close()
    t.equal(await stuck, 0, 'close waited for it')
    closeSync(fd)
    t.equal(pool.leased, 0)
  })
}

t.test('auto takes one of the engines', async (t) => {
  const pool = createAlignedPool(32 * MIB)
  const queue = createIoQueue({ engine: 'auto', pool, log: silentLogger(), threads: 1 })
  t.match(queue.engine, /^(io_uring|threads)$/)
  await queue.close()
})
