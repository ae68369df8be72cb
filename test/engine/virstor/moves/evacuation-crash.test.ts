/**
 * A power cut at each write of an evacuation, from the verb to the label of what has left: what was flushed is there,
 * what was never written is zero though the disks are full of it, and the job goes on to its end.
 */
import t from 'tap'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { CHUNK, fill } from '../../../support/thin.ts'
import { cutAtEachWrite } from '../../../support/write-cuts.ts'

const DISKS = ['d1', 'd2', 'd3']
const CHUNKS = 3
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

/** As {@link filled} has left it, started. */
async function restored(images: ReadonlyMap<string, Buffer>): Promise<Machine> {
  const machine = new Machine({ devices: 3, sizeBytes: 5 * 2 ** 20 })
  for (const [disk, image] of images) image.copy(machine.device(disk).media)
  return machine.start()
}

/** Removes a component, up to its label. */
async function leave(machine: Machine, name: string): Promise<void> {
  const { topology } = machine
  const { jobs } = await machine.run('virstor.remove', { name: 'thin', devices: [name] })
  await topology.jobs.get(jobs[0]?.id ?? '').ended
  await topology.quiet()
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

/** The first carries the map, the last does not. */
const LEAVING = ['d1', 'd3']

for (const name of LEAVING) {
  t.test(`a cut at each write while ${name} leaves`, async (t) => {
    // The clock's timers do not keep a process alive.
    const alive = setInterval(() => {}, 1000)
    t.teardown(() => clearInterval(alive))
    const base = await filled()
    const images = new Map([...base.devices].map(([disk, { media }]) => [disk, media]))
    let cuts = 0
    const played = cutAtEachWrite(
      () => restored(images),
      (machine) => leave(machine, name),
    )
    for await (const { machine, cutAt } of played) {
      cuts++
      t.strictSame(await wrong(machine), [], `after a cut at write ${cutAt}`)
      const states = (await machine.jobsDone()).map(({ state }) => state)
      t.ok(
        states.every((state) => state === 'done'),
        'the job goes on to its end',
      )
      t.strictSame(await wrong(machine), [], 'and then')
      const names = machine.volume('thin').components.map((one) => one.name)
      // It was cut off before it had begun, or has ended.
      t.ok(names.length === 3 || (names.length === 2 && !names.includes(name)), names.join())
    }
    t.ok(cuts > 15, `${cuts} writes`)
  })
}
