/**
 * A power cut at each write and flush of an evacuation, from the verb to the label of what has left: what was flushed is there,
 * what was never written is zero though the disks are full of it, and the job goes on to its end.
 */
import t from 'tap'
import type { IoRequest } from '../../../../src/hal/block-device.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { CHUNK, fill } from '../../../support/thin.ts'

const DISKS = ['d1', 'd2', 'd3']
const CHUNKS = 6
/** In the chunk behind them: half of it is valid. */
const HALF = CHUNK / 2
const STALE = 0xee

async function filled(): Promise<Machine> {
  const machine = new Machine({ devices: 3, sizeBytes: 5 * 2 ** 20 })
  for (const device of machine.devices.values()) device.media.fill(STALE)
  await machine.start()
  await machine.run('virstor.create', {
    name: 'thin',
    devices: DISKS,
    size: '8MiB',
    chunk: '128KiB',
    policy: 'round-robin',
    fullWait: '0',
    wipeSignatures: true,
  })
  const device = machine.open('thin')
  await fill(device, 0, CHUNKS)
  await put(device, CHUNKS * CHUNK + HALF, pattern(CHUNKS, HALF))
  await flush(device)
  await device.close()
  await machine.shutDown()
  return machine
}

/** Calls `cut` before the write or flush number `at` of all disks, from now on; returns the way to give that up. */
function cutAt(machine: Machine, at: number, cut: () => void): () => void {
  let count = 0
  for (const device of machine.devices.values()) {
    const submit = device.submit.bind(device)
    device.submit = (request: IoRequest) => {
      if (request.op !== 'read' && count++ === at) cut()
      submit(request)
    }
  }
  return () => {
    count = Number.POSITIVE_INFINITY
  }
}

async function wrong(machine: Machine): Promise<readonly number[]> {
  const device = machine.open('thin')
  const bytes = await get(device, 0, (CHUNKS + 2) * CHUNK)
  await device.close()
  const expected = Buffer.alloc(bytes.length)
  for (let chunk = 0; chunk < CHUNKS; chunk++) {
    pattern(chunk, CHUNK).copy(expected, chunk * CHUNK)
  }
  pattern(CHUNKS, HALF).copy(expected, CHUNKS * CHUNK + HALF)
  const chunks = Array.from({ length: CHUNKS + 2 }, (_, chunk) => chunk)
  return chunks.filter((chunk) => {
    const at = chunk * CHUNK
    return !bytes.subarray(at, at + CHUNK).equals(expected.subarray(at, at + CHUNK))
  })
}

/** Removes a component, with a cut at this write. Resolves to whether it came to that, and what was wrong. */
async function play(images: ReadonlyMap<string, Buffer>, name: string, at: number) {
  const machine = new Machine({ devices: 3, sizeBytes: 5 * 2 ** 20 })
  for (const [disk, image] of images) image.copy(machine.device(disk).media)
  await machine.start()
  const old = machine.topology
  const wasCut = await new Promise<boolean>((resolve) => {
    const giveUp = cutAt(machine, at, () => {
      machine.cut()
      resolve(true)
    })
    const remove = machine.run('virstor.remove', { name: 'thin', devices: [name] })
    void remove.then(async ({ jobs }) => {
      await old.jobs.get(jobs[0]?.id ?? '').ended
      await old.quiet()
      giveUp()
      resolve(false)
    })
  })
  if (wasCut) await machine.start()
  const faults = [...(await wrong(machine))]
  await machine.jobsDone()
  faults.push(...(await wrong(machine)))
  const names = machine.volume('thin').components.map((one) => one.name)
  // It was cut off before it had begun, or has ended.
  const isWhole = names.length === 3 || (names.length === 2 && !names.includes(name))
  const jobs = machine.topology.jobs.list().map((job) => job.report())
  if (!isWhole || jobs.some(({ state }) => state !== 'done')) faults.push(-1)
  return { wasCut, faults }
}

// The first carries the map, the last does not.
for (const name of ['d1', 'd3']) {
  t.test(`a cut at each write while ${name} leaves`, async (t) => {
    // The clock's timers do not keep a process alive.
    const alive = setInterval(() => {}, 1000)
    t.teardown(() => clearInterval(alive))
    const base = await filled()
    const images = new Map([...base.devices].map(([disk, { media }]) => [disk, media]))
    let writes = 0
    for (let isCut = true; isCut; writes++) {
      const { wasCut, faults } = await play(images, name, writes)
      t.strictSame(faults, [], `at write ${writes}`)
      isCut = wasCut
    }
    t.ok(writes > 40, `${writes} writes`)
  })
}
