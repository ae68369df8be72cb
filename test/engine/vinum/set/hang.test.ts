/** Volumes over a disk that hangs: they go on within its timeout, and so do verbs, jobs, and disks that come and go. */
import t, { type Test } from 'tap'
import type { PlexusError } from '../../../../src/base/errors.ts'
import { MIB } from '../../../../src/base/limits.ts'
import type { Consumer } from '../../../../src/engine/geom/consumer.ts'
import { get, Machine, pattern, put } from '../../../support/engine.ts'
import { ManualClock } from '../../../support/manual-clock.ts'

const TIMEOUT_MS = 5_000
const SIZE_BYTES = 16 * MIB

async function turns(count = 20): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setImmediate(resolve))
}

/** As a logical unit reads: again, into other memory, where a disk that hangs may still write to the first one. */
async function read(volume: Consumer, offset: number, length: number): Promise<Buffer> {
  try {
    return await get(volume, offset, length)
  } catch (error) {
    if ((error as PlexusError).kind !== 'aborted') throw error
    return await get(volume, offset, length)
  }
}

async function machineOf(t: Test, devices: number) {
  const clock = new ManualClock()
  const machine = await new Machine({
    devices,
    sizeBytes: SIZE_BYTES,
    clock,
    timeoutMs: TIMEOUT_MS,
  }).start()
  /** Lets time pass until all of `work` has ended, but no more than the timeout and two seconds. */
  const within = async <T>(work: readonly Promise<T>[]): Promise<T[]> => {
    let ended = 0
    for (const one of work)
      one.then(
        () => ended++,
        () => ended++,
      )
    for (let ms = 0; ms <= TIMEOUT_MS + 2000 && ended < work.length; ms += 100) {
      await turns()
      if (ended < work.length) clock.advance(100)
    }
    t.equal(ended, work.length, 'everything has ended in time')
    return Promise.all(work)
  }
  return { machine, clock, within }
}

for (const [kind, layout] of [
  ['a mirror', { mirror: ['d1', 'd2', 'd3'] }],
  ['a raid5', { raid5: ['d1', 'd2', 'd3'] }],
] as const) {
  t.test(`${kind} goes on when a disk hangs`, async (t) => {
    const { machine, within } = await machineOf(t, 6)
    await machine.run('volume.create', { name: 'v', ...layout })
    await machine.run('volume.create', { name: 'w', mirror: ['d4', 'd5'] })
    await within([machine.jobsDone()])
    const v = machine.open('v')
    const w = machine.open('w')
    const before = pattern(1, MIB)
    await put(v, 0, before)
    machine.device('d1').hold()

    // Small ones, which read before they write, and one at a place that no write has marked yet.
    const written = [0, 20480, 69632, 131072, 524288].map((offset, index) => ({
      offset,
      bytes: pattern(100 + index, 4096),
    }))
    const writes = written.map(({ offset, bytes }) => put(v, offset, bytes, true))
    const far = put(v, 4 * MIB, pattern(7, 65536))
    const reads = [8192, 262144, 786432].map(async (offset) => {
      t.ok((await read(v, offset, 4096)).equals(before.subarray(offset, offset + 4096)))
    })
    await put(w, 0, pattern(2, 65536), true)
    t.ok((await get(w, 0, 65536)).equals(pattern(2, 65536)), 'another volume does not wait')
    await within([...writes, ...reads, far])

    const expected = Buffer.from(before)
    for (const { offset, bytes } of written) bytes.copy(expected, offset)
    t.ok((await get(v, 0, MIB)).equals(expected))
    t.ok((await get(v, 4 * MIB, 65536)).equals(pattern(7, 65536)))
    await machine.topology.quiet()
    t.equal(machine.volume('v').state, 'DEGRADED')
    machine.device('d1').release()
    await turns()
    t.ok((await get(v, 0, MIB)).equals(expected), 'what comes late changes nothing')
    t.equal(machine.pool.keptBytes, 0)
    t.equal(machine.pool.leased, 0)
  })
}

t.test('verbs, and disks that come and go, do not wait for one that hangs', async (t) => {
  const { machine, within } = await machineOf(t, 5)
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2'] })
  await machine.run('volume.create', { name: 'w', concat: ['d4'] })
  await within([machine.jobsDone()])
  const v = machine.open('v')
  await put(v, 0, pattern(1, MIB))
  machine.device('d1').hold()
  const write = put(v, 4096, pattern(3, 4096), true)
  await turns()
  const replace = machine.run('volume.replace', { name: 'v', oldDrive: 'd1', newDevice: 'd3' })
  const pull = machine.pull('d5')
  await within<unknown>([write, replace, pull])
  // It was to move the data of a drive that was up; now that this is down, they come from the other one.
  await within([machine.jobsDone()])
  await machine.run('volume.replace', { name: 'v', oldDrive: 'd1', newDevice: 'd3' })
  await within([machine.jobsDone()])
  t.equal(machine.volume('v').state, 'UP')
  const expected = pattern(1, MIB)
  pattern(3, 4096).copy(expected, 4096)
  t.ok((await get(v, 0, MIB)).equals(expected))
})

t.test('a commit that hangs holds the next one no longer than the timeout', async (t) => {
  const { machine, within } = await machineOf(t, 3)
  await machine.run('volume.create', { name: 'v', mirror: ['d1', 'd2', 'd3'] })
  machine.device('d1').hold()
  const verbs = [
    machine.run('volume.rename', { name: 'v', to: 'x' }),
    machine.run('vinum.setstate', { state: 'down', object: 'd2', force: true }),
  ]
  await within(verbs)
  t.equal(machine.volume('x').name, 'x')
})
