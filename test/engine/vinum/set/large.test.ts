/** A mirror of 100 TiB: what a crash leaves in doubt, and what it costs to find that out. */
import t from 'tap'
import { realClock } from '../../../../src/base/clock.ts'
import { MIB } from '../../../../src/base/limits.ts'
import { silentLogger } from '../../../../src/base/log.ts'
import { systemRandom } from '../../../../src/base/random.ts'
import { createEngine } from '../../../../src/engine/engine.ts'
import { createAlignedPool } from '../../../../src/hal/aligned-pool.ts'
import { pattern, put } from '../../../support/engine.ts'
import { volumesIn } from '../../../support/objects.ts'
import { SparseDisk } from '../../../support/sparse-disk.ts'

const TIB = 2 ** 40
const REGION = 64 * MIB
const WRITES = 300
const NAMES = ['d1', 'd2']

t.test('a crash in a volume of 100 TiB leaves the regions of its writes in doubt', async (t) => {
  const disks = new Map(NAMES.map((name) => [name, new SparseDisk(101 * TIB)]))
  const pool = createAlignedPool(8 * MIB)
  const start = async () => {
    const topology = createEngine({
      pool,
      clock: realClock,
      random: systemRandom,
      log: silentLogger(),
      now: () => new Date(),
    })
    // The first copy of so much is none of this test's business.
    topology.jobs.limitBytesPerSecond = 1
    const devices = NAMES.map((name) => disks.get(name)?.device(name))
    for (const device of devices) if (device) await topology.addDevice(device.path, device)
    await topology.settle()
    return { topology, devices }
  }
  const volumeOf = (topology: ReturnType<typeof createEngine>) => {
    return volumesIn(topology).find(({ name }) => name === 'v')
  }

  const first = await start()
  const create = first.topology.classes
    .flatMap((one) => one.verbs)
    .find(({ spec }) => `${spec.noun}.${spec.name}` === 'volume.create')
  await create?.run({ name: 'v', mirror: NAMES, size: '100TiB' }, first.topology)
  const access = { read: 1, write: 1, exclusive: 0 }
  const volume = first.topology.attach(first.topology.find('v'), undefined, 'test', access)
  const places = Array.from(
    { length: WRITES },
    (_, index) => ((index * 7919) % 25_000) * 4096 * MIB,
  )
  for (const offset of places) await put(volume, offset, pattern(1, 4096))
  const written = [...disks.values()].map(({ blocks }) => blocks.size)
  for (const device of first.devices) device?.cut()

  const second = await start()
  const doubt = volumeOf(second.topology)?.doubt?.bytes ?? 0
  t.ok(doubt >= REGION && doubt <= WRITES * REGION, `${doubt / MIB} MiB are in doubt`)
  for (const count of written) t.ok(count < 2000, `${count} blocks were ever written to a disk`)
  await second.topology.stop()
})
