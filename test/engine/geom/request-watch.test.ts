/** Disks that do not answer: geom/request-watch.ts, and what consumer.ts, bio.ts and topology.ts do with it. */
import t from 'tap'
import type { PlexusError } from '../../../src/base/errors.ts'
import { createKernels } from '../../../src/base/kernels.ts'
import { MIB } from '../../../src/base/limits.ts'
import { silentLogger } from '../../../src/base/log.ts'
import { systemRandom } from '../../../src/base/random.ts'
import { EventLog } from '../../../src/engine/geom/events.ts'
import { Topology } from '../../../src/engine/geom/topology.ts'
import type { GeomClass } from '../../../src/engine/geom/types.ts'
import { JobManager } from '../../../src/engine/jobs/job.ts'
import { createAlignedPool } from '../../../src/hal/aligned-pool.ts'
import type { IoOp, IoRequest, Lease } from '../../../src/hal/block-device.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { MemoryDevice } from '../../support/memory-device.ts'

const TIMEOUT_MS = 5_000

async function rig(classes: readonly GeomClass[] = []) {
  const pool = createAlignedPool(32 * MIB, { poison: true })
  const clock = new ManualClock()
  const log = silentLogger()
  const events = new EventLog(() => new Date(0))
  const jobs = new JobManager({ clock, log, events })
  const kernels = createKernels()
  const random = systemRandom
  const topology = new Topology({ classes, pool, kernels, clock, random, log, events, jobs })
  const device = new MemoryDevice({ sizeBytes: MIB, path: '/dev/disk' })
  const provider = await topology.addDevice('disk', device, { timeoutMs: TIMEOUT_MS })
  const unit = topology.attach(provider, undefined, 'lun', { read: 1, write: 1, exclusive: 0 })
  const lease = (): Lease => pool.lease(4096) as Lease
  /** Sends a request, and keeps its result when it has one. */
  const send = (op: IoOp, part: Partial<IoRequest> = {}) => {
    const sent: { error: PlexusError | undefined; ended: number } = { error: undefined, ended: 0 }
    const complete = (error: PlexusError | undefined): void => {
      sent.error = error
      sent.ended++
    }
    const length = op === 'flush' ? 0 : 4096
    const whole = { op, offset: 0, length, data: undefined, dataOffset: 0, fua: false, ...part }
    unit.submit({ ...whole, cause: 'initiator', complete })
    return sent
  }
  return { pool, clock, topology, device, provider, unit, lease, send }
}

/** What is under way in memory has its turn. */
async function turns(): Promise<void> {
  for (let i = 0; i < 4; i++) await new Promise((resolve) => setImmediate(resolve))
}

t.test('a disk that does not answer in time is called down; its memory is kept', async (t) => {
  const { pool, clock, topology, device, provider, unit, lease, send } = await rig()
  device.hold()
  const data = [lease(), lease()] as const
  const write = send('write', { data: data[0] })
  clock.advance(TIMEOUT_MS - 1000)
  const read = send('read', { data: data[1] })
  const flush = send('flush')
  t.equal(write.ended, 0)
  clock.advance(2000)
  t.match(write.error, { kind: 'gone', message: /^disk: no answer for 5 s; check the disk/ })
  t.same([write.ended, read.ended, flush.ended], [1, 1, 1], 'all that the disk has')
  t.equal(provider.error, write.error, 'what comes from now on fails at once')
  await topology.quiet()
  t.equal(topology.providers.size, 0)
  await unit.close()

  for (const one of data) one.release()
  t.equal(pool.keptBytes, 8192)
  t.equal(pool.leased, 2)
  for (;;) {
    const other = pool.lease(4096)
    if (!other) break
    t.notOk(data.some(({ address }) => address === other.address) || undefined)
  }
  device.release()
  await turns()
  t.equal(pool.keptBytes, 0, 'the disk has given it back')
  t.same([write.ended, read.ended, flush.ended], [1, 1, 1])
})

t.test('a disk that is slow, with many requests in line, is not called down', async (t) => {
  const { clock, device, provider, lease, send } = await rig()
  const data = lease()
  device.hold()
  const sent = Array.from({ length: 20 }, () => send('write', { data }))
  // One answer in 4 s, so that the last one comes after 80 s.
  for (const one of sent) {
    clock.advance(TIMEOUT_MS - 1000)
    device.releaseOne()
    await turns()
    t.same([one.ended, one.error], [1, undefined])
  }
  t.equal(provider.error, undefined)
  // Nor is one that answers after the process was stopped for an hour.
  const late = send('read', { data })
  clock.skip(3_600_000)
  clock.advance(1000)
  t.equal(late.ended, 0)
  data.release()
})

t.test('a flush has twice as long, a discard four times', async (t) => {
  for (const [op, times] of [['flush', 2] as const, ['discard', 4] as const]) {
    const { clock, device, send } = await rig()
    device.hold()
    const sent = send(op)
    clock.advance(times * TIMEOUT_MS)
    t.equal(sent.ended, 0, op)
    clock.advance(1000)
    t.match(sent.error, { kind: 'gone', message: `no answer for ${times * 5} s` })
  }
})

t.test('nothing is read into memory that a disk keeps, nor computed there', async (t) => {
  const { pool, clock, topology, device, lease, send } = await rig()
  const data = lease()
  const other = new MemoryDevice({ sizeBytes: MIB, path: '/dev/other' })
  const provider = await topology.addDevice('other', other, { timeoutMs: TIMEOUT_MS })
  const free = await topology.addDevice(
    'free',
    new MemoryDevice({ sizeBytes: MIB, path: '/dev/f' }),
  )
  device.hold()
  send('read', { data })
  clock.advance(TIMEOUT_MS + 1000)
  const readFrom = (from: typeof provider, into: Lease) =>
    new Promise<PlexusError | undefined>((complete) => {
      const access = { read: 1, write: 0, exclusive: 0 }
      const consumer = topology.attach(from, undefined, 'lun', access)
      const place = { offset: 0, length: 4096, data: into, dataOffset: 0 }
      consumer.submit({ op: 'read', ...place, fua: false, cause: 'initiator', complete })
    })
  t.match(await readFrom(provider, data), { kind: 'aborted', message: /is to be repeated/ })
  t.match(await readFrom(free, data), { kind: 'aborted' }, 'what a class gives at the top')
  device.release()
  await turns()
  t.match(await readFrom(provider, data), { kind: 'aborted' }, 'until it is leased anew')
  data.release()
  const fresh = lease()
  t.equal(await readFrom(provider, fresh), undefined)
  fresh.release()
  t.equal(pool.leased, 0)
})

t.test('a disk that hangs while it is tasted does not keep the others', async (t) => {
  const tasted: string[] = []
  const taste: GeomClass['taste'] = async ({ name }) => {
    tasted.push(name)
    return false
  }
  const { clock, topology } = await rig([{ name: 'taster', verbs: [], taste }])
  const hangs = new MemoryDevice({ sizeBytes: MIB, path: '/dev/hangs' })
  hangs.hold()
  const added = topology.addDevice('hangs', hangs, { timeoutMs: TIMEOUT_MS })
  const next = topology.addDevice('next', new MemoryDevice({ sizeBytes: MIB, path: '/dev/next' }))
  await turns()
  t.strictSame(tasted, ['disk'])
  clock.advance(TIMEOUT_MS + 1000)
  await added
  await next
  await topology.quiet()
  t.strictSame(tasted, ['disk', 'next'])
  t.strictSame([...topology.providers.keys()], ['disk', 'next'])
})
