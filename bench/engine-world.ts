/**
 * The devices of one medium with the engine on them: five drives that carry a volume of each layout, one under a thin device,
 * and four bare devices of the same make to compare with. Everything is made by the verbs that a user has. Called by engine.ts.
 */
import { performance } from 'node:perf_hooks'
import { assert, defined } from '../src/base/assert.ts'
import { alignUp, formatSize } from '../src/base/bytes.ts'
import { realClock } from '../src/base/clock.ts'
import { PlexusError } from '../src/base/errors.ts'
import { MIB } from '../src/base/limits.ts'
import { silentLogger } from '../src/base/log.ts'
import { systemRandom } from '../src/base/random.ts'
import { nextTurn } from '../src/base/turns.ts'
import { createEngine } from '../src/engine/engine.ts'
import type { Consumer } from '../src/engine/geom/consumer.ts'
import type { Topology } from '../src/engine/geom/topology.ts'
import type { VerbParameters } from '../src/engine/geom/types.ts'
import { type AlignedPool, createAlignedPool } from '../src/hal/aligned-pool.ts'
import type { BlockDevice } from '../src/hal/block-device.ts'
import { discard, flush, type Submitter, writeAt } from '../src/hal/io.ts'
import { createIoQueue, type IoQueue } from '../src/hal/io-queue.ts'
import { openDevice } from '../src/hal/open-device.ts'
import { type ContestantName, DATA_COLUMNS, type Medium, STRIPE_BYTES } from './engine-cases.ts'
import { type DiskModel, ModelDevice, NULL_DISK, PACED_DISK, Turns } from './engine-devices.ts'
import { attachLoopDevice, type Teardown } from './environment.ts'

const POOL_BYTES = 256 * MIB
/** For labels, maps and rounding at the ends of a drive. */
const METADATA_BYTES = 32 * MIB
/** Models keep nothing: they are as large as disks are, which have journals of a size that small ones have not. */
const MODEL_BYTES = 64 * 1024 * MIB
const DRIVES = DATA_COLUMNS + 1

export interface World {
  readonly medium: Medium
  readonly text: string
  readonly pool: AlignedPool
  readonly spanBytes: number
  /** The work that made the volumes ready, each kind alone: data of the volume by time. */
  readonly jobs: readonly JobRate[]
  /** Nothing of the thin device has space any more. */
  emptyThin(): Promise<void>
  /** The devices or the provider behind a name. */
  targets(name: ContestantName): readonly Submitter[]
}

export interface JobRate {
  readonly kind: string
  readonly megabytesPerSecond: number
}

export interface WorldOptions {
  readonly medium: Medium
  /** Bytes of each volume, all of which are used. */
  readonly spanBytes: number
  /** Where the images of loop devices are made. */
  readonly directory: string
  readonly teardown: Teardown
}

type OpenDevice = (name: string, sizeBytes: number) => Promise<BlockDevice>

export async function makeWorld(options: WorldOptions): Promise<World> {
  const { medium, spanBytes, teardown } = options
  const pool = createAlignedPool(POOL_BYTES)
  const opener = medium === 'loop' ? loopOpener(pool, options) : modelOpener(MODELS[medium])
  const open: OpenDevice = async (name, sizeBytes) => {
    const device = await opener.open(name, sizeBytes)
    teardown.add(`closing ${name}`, () => device.close())
    return device
  }

  // Room for one column of the stripe and of each raid5 and for a whole copy or the concat.
  const column = spanBytes / DATA_COLUMNS
  const neededBytes = alignUp(spanBytes + 3 * column + METADATA_BYTES, MIB)
  const driveBytes = medium === 'loop' ? neededBytes : Math.max(neededBytes, MODEL_BYTES)
  const drives: BlockDevice[] = []
  const bare: BlockDevice[] = []
  for (let n = 1; n <= DRIVES; n++) drives.push(await open(`d${n}`, driveBytes))
  for (let n = 1; n <= DATA_COLUMNS; n++) bare.push(await open(`r${n}`, spanBytes))
  const thinDrive = await open('t1', alignUp(spanBytes + METADATA_BYTES, MIB))
  if (medium === 'loop') {
    for (const device of [...drives, ...bare, thinDrive]) await fill(device, pool)
  }

  const topology = createEngine({
    pool,
    clock: realClock,
    random: systemRandom,
    log: silentLogger(),
    now: () => new Date(),
  })
  for (const [index, device] of drives.entries()) await topology.addDevice(`d${index + 1}`, device)
  await topology.addDevice('r1', defined(bare[0], 'a bare device'))
  await topology.addDevice('t1', thinDrive)
  await topology.settle()
  teardown.add('stopping the engine', () => topology.stop())

  const names = drives.map((_, index) => `d${index + 1}`)
  const stripeSize = String(STRIPE_BYTES)
  const size = String(spanBytes)
  await create(topology, { name: 'concat', concat: names.slice(-1), size })
  await create(topology, { name: 'stripe', stripe: names.slice(0, DATA_COLUMNS), stripeSize, size })
  await create(topology, { name: 'mirror', mirror: names.slice(0, 2), size })
  const jobs = [...(await jobsDone(topology))]
  await create(topology, { name: 'raid5', raid5: names, stripeSize, size, policy: 'intent' })
  jobs.push(...(await jobsDone(topology)))
  await run(topology, 'vinum', 'setstate', { state: 'stale', object: 'raid5.p0.s2', force: true })
  await run(topology, 'vinum', 'start', { objects: ['raid5.p0'] })
  jobs.push(...(await jobsDone(topology)))
  await create(topology, { name: 'raid5log', raid5: names, stripeSize, size, policy: 'log' })
  await jobsDone(topology)

  await run(topology, 'virstor', 'create', { name: 'thin', devices: ['t1'], size })

  const providers = new Map<string, Consumer>()
  for (const name of ['concat', 'stripe', 'mirror', 'raid5', 'raid5log', 'thin', 'disk']) {
    const provider = topology.find(name === 'disk' ? 'r1' : name)
    const access = { read: 1, write: 1, exclusive: 0 }
    const consumer = topology.attach(provider, undefined, 'bench', access)
    assert(provider.sizeBytes >= spanBytes, `${name} has ${spanBytes} bytes`)
    teardown.add(`closing ${name}`, () => consumer.close())
    providers.set(name, consumer)
  }
  const thin = defined(providers.get('thin'), 'the thin device')
  const { geom } = thin.provider
  const before = geom.provisioning?.freePieces ?? 0
  await fill(thin, pool, spanBytes)
  await flush(thin)
  for (const device of [...drives, thinDrive]) if (device instanceof ModelDevice) device.madeReady()
  const sums: Readonly<Partial<Record<ContestantName, number>>> = { raw: 1, raw2: 2, raw4: 4 }
  return {
    medium,
    text: `${opener.text}; volumes of ${formatSize(spanBytes)}, stripe ${formatSize(STRIPE_BYTES)}`,
    pool,
    spanBytes,
    jobs,
    async emptyThin() {
      await discard(thin, { offset: 0, length: spanBytes })
      await flush(thin)
      // What is discarded on the device below is given again when that has ended.
      while ((geom.provisioning?.freePieces ?? 0) < before) await nextTurn()
    },
    targets(name) {
      const count = sums[name]
      const provider = name === 'first' ? 'thin' : name
      return count === undefined
        ? [defined(providers.get(provider), `the provider ${provider}`)]
        : bare.slice(0, count)
    },
  }
}

interface Opener {
  readonly text: string
  readonly open: OpenDevice
}

const MODELS: Readonly<Record<'null' | 'paced', { readonly model: DiskModel; text: string }>> = {
  null: { model: NULL_DISK, text: 'devices that do nothing, at once' },
  paced: {
    model: PACED_DISK,
    text: `disks of ${PACED_DISK.bytesPerSecond / 1e6} MB/s and ${PACED_DISK.requestUs} us for each request, by the clock`,
  },
}

function modelOpener({ model, text }: { model: DiskModel; text: string }): Opener {
  const turns = new Turns()
  return { text, open: async (name, sizeBytes) => new ModelDevice(name, sizeBytes, model, turns) }
}

function loopOpener(pool: AlignedPool, { directory, teardown }: WorldOptions): Opener {
  const log = silentLogger()
  const queue: IoQueue = createIoQueue({ engine: 'auto', pool, log })
  teardown.add('closing the I/O queue', () => queue.close())
  return {
    text: `loop devices with direct I/O over files in ${directory}, engine ${queue.engine}`,
    async open(_name, sizeBytes) {
      const path = await attachLoopDevice(directory, sizeBytes, teardown)
      return openDevice(path, { queue, clock: realClock, log })
    },
  }
}

/** Unwritten blocks cost less than written ones: all of it is written once before anything counts. */
async function fill(
  device: BlockDevice,
  pool: AlignedPool,
  sizeBytes = device.geometry.sizeBytes,
): Promise<void> {
  const lease = defined(pool.lease(MIB), 'a buffer of the pool')
  lease.bytes.fill(0)
  try {
    for (let offset = 0; offset < sizeBytes; offset += MIB) {
      await writeAt(device, lease, offset, { cause: 'initiator' })
    }
  } finally {
    lease.release()
  }
}

function create(topology: Topology, parameters: VerbParameters): Promise<void> {
  return run(topology, 'volume', 'create', parameters)
}

async function run(
  topology: Topology,
  noun: string,
  name: string,
  parameters: VerbParameters,
): Promise<void> {
  const verb = topology.classes
    .flatMap((one) => one.verbs)
    .find(({ spec }) => spec.noun === noun && spec.name === name)
  await defined(verb, `the verb ${noun} ${name}`).run(parameters, topology)
}

/** Parity and copies are made before anything is measured. Resolves to how fast that was. */
async function jobsDone(topology: Topology): Promise<readonly JobRate[]> {
  const startMs = performance.now()
  const rates: JobRate[] = []
  // The clock's timers do not keep a process alive.
  const alive = setInterval(() => {}, 1000)
  try {
    for (;;) {
      const jobs = topology.jobs.list()
      const failed = jobs.find((job) => job.report().state === 'failed')
      if (failed) {
        throw new PlexusError('io', {
          op: 'prepare',
          subject: failed.report().id,
          message: `the job ${failed.report().id} has failed; the volumes are not ready`,
        })
      }
      const running = jobs.filter((job) => job.report().state === 'running')
      if (running.length === 0) return rates
      await Promise.all(running.map((job) => job.ended))
      const ms = performance.now() - startMs
      for (const { plan } of running) {
        rates.push({ kind: plan.kind, megabytesPerSecond: plan.totalBytes / ms / 1000 })
      }
      await topology.quiet()
    }
  } finally {
    clearInterval(alive)
  }
}
