/** The device that all other tests stand on: its faults, its hold and its write cache. */
import t from 'tap'
import { allocateAligned } from '../../src/hal/aligned-pool.ts'
import { discard, flush, readAt, writeAt, writeZeroes } from '../../src/hal/io.ts'
import { failureOf } from '../support/failure.ts'
import { ManualClock } from '../support/manual-clock.ts'
import { MemoryDevice, type MemoryDeviceOptions } from '../support/memory-device.ts'

const SIZE_BYTES = 64 * 1024

function filled(byte: number, length = 4096) {
  const buffer = allocateAligned(length)
  buffer.bytes.fill(byte)
  return buffer
}

function device(options: Partial<MemoryDeviceOptions> = {}): MemoryDevice {
  return new MemoryDevice({ sizeBytes: SIZE_BYTES, ...options })
}

t.test('reads what was written, zeroes what was discarded or zeroed', async (t) => {
  const disk = device()
  const into = allocateAligned(4096)
  await writeAt(disk, filled(7), 8192)
  await readAt(disk, into, 8192)
  t.ok(into.bytes.equals(filled(7).bytes))
  t.equal(disk.media[8191], 0)
  await discard(disk, { offset: 8192, length: 512 })
  await writeZeroes(disk, { offset: 8192 + 1024, length: 512 })
  t.same(
    [8192, 8192 + 512, 8192 + 1024, 8192 + 1536].map((at) => disk.media[at]),
    [0, 7, 0, 7],
  )
  t.same(disk.counts, { read: 1, write: 1, flush: 0, discard: 1, 'write-zeroes': 1 })
  t.equal(disk.inFlight, 0)
})

t.test('refuses what a real device refuses', async (t) => {
  const disk = device({ blockBytes: 4096 })
  t.equal((await failureOf(writeAt(disk, filled(1), SIZE_BYTES))).kind, 'invalid')
  t.equal((await failureOf(writeAt(disk, filled(1), 512))).kind, 'invalid')
  t.equal((await failureOf(readAt(disk, allocateAligned(512), 0))).kind, 'invalid')
  const noDiscard = device({ features: { discardGranularityBytes: 0 } })
  t.equal((await failureOf(discard(noDiscard, { offset: 0, length: 512 }))).kind, 'unsupported')
  const readOnly = device({ features: { readOnly: true } })
  t.equal((await failureOf(writeAt(readOnly, filled(1), 0))).kind, 'permission')
  await t.resolves(readAt(readOnly, filled(1), 0))
})

t.test('a fault strikes the kind and the number asked for, and changes nothing', async (t) => {
  const disk = device()
  disk.fail('write', 'io', 2)
  disk.fail('flush', 'timeout')
  await readAt(disk, filled(0), 0)
  t.equal((await failureOf(writeAt(disk, filled(9), 0))).kind, 'io')
  t.equal((await failureOf(writeAt(disk, filled(9), 0))).kind, 'io')
  t.equal(disk.media[0], 0)
  await writeAt(disk, filled(9), 0)
  t.equal(disk.media[0], 9)
  t.equal((await failureOf(flush(disk))).kind, 'timeout')
  await t.resolves(flush(disk))
})

t.test('hold freezes completions, release lets them go in order', async (t) => {
  const disk = device()
  const seen: number[] = []
  const early = writeAt(disk, filled(1), 0).then(() => seen.push(0))
  disk.hold()
  const later = [1, 2].map((n) => writeAt(disk, filled(n), 0).then(() => seen.push(n)))
  await new Promise((resolve) => setTimeout(resolve, 5))
  t.same(seen, [], 'a hold stops those under way, too')
  t.equal(disk.inFlight, 3)
  disk.release()
  await Promise.all([early, ...later])
  t.same([...seen].sort(), [0, 1, 2])
  t.equal(disk.inFlight, 0)
})

t.test('delayMs goes by the clock', async (t) => {
  const clock = new ManualClock()
  const disk = device({ clock })
  disk.delayMs = 50
  let done = false
  const write = writeAt(disk, filled(1), 0).then(() => {
    done = true
  })
  clock.advance(49)
  await new Promise((resolve) => setImmediate(resolve))
  t.notOk(done)
  clock.advance(1)
  await write
  t.ok(done)
})

t.test('a power cut loses what was not flushed, and only that', async (t) => {
  const disk = device()
  await writeAt(disk, filled(1), 0)
  await flush(disk)
  await writeAt(disk, filled(2), 0)
  await writeAt(disk, filled(3), 4096)
  await writeAt(disk, filled(4, 1024), 512, { fua: true })
  t.ok(disk.unflushed > 0)
  disk.powerCut()
  t.equal(disk.media[0], 1, 'the older, flushed bytes are back')
  t.equal(disk.media[512], 4, 'a durable write in the middle of a lost one stays')
  t.equal(disk.media[1536], 1)
  t.equal(disk.media[4096], 0)
  t.equal(disk.unflushed, 0)

  const durable = device({ features: { volatileWriteCache: false } })
  await writeAt(durable, filled(5), 0)
  durable.powerCut()
  t.equal(durable.media[0], 5, 'no cache, no loss')
})

t.test('a flush covers what was acknowledged before it, not what came meanwhile', async (t) => {
  const disk = device()
  await writeAt(disk, filled(1), 0)
  disk.hold()
  const flushing = flush(disk)
  const written = writeAt(disk, filled(2), 0)
  disk.release()
  await Promise.all([flushing, written])
  disk.powerCut()
  t.equal(disk.media[0], 1)
})

t.test('what is in flight at a power cut is lost', async (t) => {
  const disk = device()
  disk.hold()
  const write = writeAt(disk, filled(1), 0)
  disk.powerCut()
  disk.release()
  t.equal((await failureOf(write)).kind, 'gone')
  t.equal(disk.media[0], 0)
})

t.test('removal, change of size and close are told and kept', async (t) => {
  const disk = device()
  const events: string[] = []
  const stop = disk.onEvent((event) => events.push(event))
  disk.resize(SIZE_BYTES * 2)
  t.equal(disk.geometry.sizeBytes, SIZE_BYTES * 2)
  disk.remove()
  disk.remove()
  t.equal((await failureOf(readAt(disk, filled(0), 0))).kind, 'gone')
  stop()
  t.same(events, ['resized', 'gone'])

  const closing = device()
  const write = writeAt(closing, filled(1), 0)
  const closed = closing.close()
  t.equal((await failureOf(writeAt(closing, filled(2), 0))).kind, 'gone')
  await Promise.all([write, closed])
  t.equal(closing.media[0], 1)
})
