/** Disks of a thin device that have become larger: their space is the device's, in use or at the next start. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { FreeBits } from '../../../src/engine/virstor/io/free-bits.ts'
import { flush, type Machine } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { CHUNK, fill, row, thin, wrong } from '../../support/thin.ts'
import { cutAtEachWrite } from '../../support/write-cuts.ts'

const GROWN = 12 * MIB

/** The medium of a disk on a larger one. */
function enlarge(machine: Machine, name: string): void {
  const device = new MemoryDevice({ path: `/dev/${name}`, sizeBytes: GROWN })
  machine.device(name).media.copy(device.media)
  machine.devices.set(name, device)
}

/** A device on d1 that is full. */
async function full(): Promise<{ readonly machine: Machine; readonly chunks: number }> {
  const machine = await thin(['d1'])
  const device = machine.open('thin')
  const chunks = ((await row(machine))?.freeBytes ?? 0) / CHUNK
  await fill(device, 0, chunks)
  t.match(await failureOf(fill(device, chunks, 1)), { kind: 'no-space' })
  await flush(device)
  await device.close()
  await machine.shutDown()
  return { machine, chunks }
}

t.test('a disk that has grown while it was off gives its space', async (t) => {
  const { machine, chunks } = await full()
  enlarge(machine, 'd1')
  await machine.start()
  const device = machine.open('thin')
  t.equal(
    (await row(machine))?.physicalBytes,
    (chunks + 1) * CHUNK + Number((await row(machine))?.freeBytes),
  )
  const more = ((await row(machine))?.freeBytes ?? 0) / CHUNK
  t.ok(more > 30, `${more} chunks more`)
  await fill(device, chunks, more)
  t.match(await failureOf(fill(device, chunks + more, 1)), { kind: 'no-space' })
  await flush(device)
  await device.close()
  t.strictSame(await wrong(machine, chunks + more), [])
  const report = (await machine.run('virstor.fsck', { name: 'thin' })) as unknown
  t.match(report, { found: 0 })
  machine.cut()
  await machine.start()
  t.strictSame(await wrong(machine, chunks + more), [], 'and after a crash')
})

t.test('a disk that grows while the device is full serves the writes that wait', async (t) => {
  const machine = await thin(['d1'], { fullWait: '10m' })
  const device = machine.open('thin')
  const chunks = ((await row(machine))?.freeBytes ?? 0) / CHUNK
  await fill(device, 0, chunks)
  const waits = fill(device, chunks, 2)
  machine.device('d1').resize(GROWN)
  await waits
  await flush(device)
  await device.close()
  t.strictSame(await wrong(machine, chunks + 2), [])
  const [part] = machine.volume('thin').components
  t.ok((part?.sizeBytes ?? 0) > (chunks + 30) * CHUNK, 'and the status has its size')
})

t.test('a cut at each write while a disk is found to have grown', async (t) => {
  const alive = setInterval(() => {}, 1000)
  t.teardown(() => clearInterval(alive))
  const { machine: base, chunks } = await full()
  const { media } = base.device('d1')
  let cuts = 0
  const restored = async (): Promise<Machine> => {
    const machine = await thin(['d2'])
    await machine.shutDown()
    const device = new MemoryDevice({ path: '/dev/d1', sizeBytes: GROWN })
    media.copy(device.media)
    machine.devices.set('d1', device)
    machine.devices.delete('d2')
    return machine
  }
  for await (const { machine, cutAt } of cutAtEachWrite(restored, (one) => one.start())) {
    cuts++
    t.strictSame(await wrong(machine, chunks), [], `after a cut at write ${cutAt}`)
    t.ok(((await row(machine))?.freeBytes ?? 0) > 30 * CHUNK, 'it has grown')
  }
  t.ok(cuts > 10, `${cuts} writes`)
})

t.test('the bitmap of what is free grows over the borders of its pieces', async (t) => {
  for (const [before, after] of [
    [0, 5],
    [5, 5],
    [5, 70],
    [32_768, 32_769],
    [32_767, 100_000],
  ] as const) {
    for (const used of [0, 3, before].filter((one) => one <= before)) {
      const bits = new FreeBits(before)
      for (let at = 0; at < used; at++) bits.take()
      bits.grow(after)
      t.strictSame([bits.free, bits.count()], [after - used, after - used])
      t.equal(bits.isFree(after - 1), used < after)
      for (let at = used; at < after; at++) bits.take()
      t.strictSame([bits.free, bits.count()], [0, 0], `${used} of ${before}, then ${after}`)
    }
  }
})
