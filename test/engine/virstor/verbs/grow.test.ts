/** `virstor grow`: a larger virtual size under load, with its map, and through power cuts at each write. */
import t from 'tap'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { flush, get, Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { cutAtEachWrite } from '../../../support/write-cuts.ts'

const CHUNK = 128 * KIB
/** What one physical chunk of the map has the entries of. */
const MAP_CHUNK = 16 * 252 * CHUNK

async function thin(devices: readonly string[], more: object = {}): Promise<Machine> {
  const machine = await new Machine({ devices: 4, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', {
    name: 'thin',
    devices,
    size: `${64 * MIB}`,
    chunk: `${CHUNK}`,
    fullWait: '0',
    ...more,
  })
  return machine
}

const grow = (machine: Machine, sizeBytes: number, more: object = {}) =>
  machine.run('virstor.grow', { name: 'thin', size: `${sizeBytes}`, ...more })

function carriers(machine: Machine): readonly string[] {
  const parts = machine.volume('thin').components
  return parts.filter(({ note }) => /carries the map/.test(note)).map(({ name }) => name)
}

t.test('a device grows under load, and initiators hear of it', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'])
  const device = machine.open('thin')
  const heard: number[] = []
  device.onEvent((event) => {
    if (event === 'resized') heard.push(device.geometry.sizeBytes)
  })
  let isGrown = false
  const load = async (): Promise<number> => {
    let writes = 0
    for (; !isGrown; writes++) {
      await put(device, (writes % 20) * CHUNK, pattern(writes % 20, CHUNK))
      await flush(device)
    }
    return writes
  }
  const loaded = load()
  const dry = await grow(machine, 3 * MAP_CHUNK, { dryRun: true })
  t.match(dry.steps[0]?.text, /^grow thin from 64 MiB to 1.48 GiB; its map takes 256 KiB more/)
  t.strictSame(heard, [], 'a dry run changes nothing')
  await grow(machine, MAP_CHUNK)
  await grow(machine, 3 * MAP_CHUNK)
  isGrown = true
  const writes = await loaded
  t.strictSame(heard, [MAP_CHUNK, 3 * MAP_CHUNK])
  const end = 3 * MAP_CHUNK - CHUNK
  t.ok((await get(device, end - 3 * CHUNK, 4 * CHUNK)).equals(Buffer.alloc(4 * CHUNK)))
  await put(device, end, pattern(40, CHUNK))
  await device.close()
  await machine.shutDown()
  await machine.start()
  const again = machine.open('thin')
  t.equal(again.geometry.sizeBytes, 3 * MAP_CHUNK)
  t.ok((await get(again, end, CHUNK)).equals(pattern(40, CHUNK)))
  for (let chunk = 0; chunk < Math.min(writes, 20); chunk++) {
    t.ok((await get(again, chunk * CHUNK, CHUNK)).equals(pattern(chunk, CHUNK)), `${chunk}`)
  }
  await again.close()
})

t.test('a carrier that is full gives its map to a component with room', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3', 'd4'])
  const device = machine.open('thin')
  // Sequential: d1 and d2, which carry the map, are full first.
  const [d1] = machine.volume('thin').components
  const chunks = 2 * ((d1?.sizeBytes ?? 0) / CHUNK)
  for (let chunk = 0; chunk < chunks; chunk++) {
    await put(device, chunk * CHUNK, pattern(chunk, CHUNK))
  }
  await flush(device)
  t.strictSame(carriers(machine), ['d1', 'd2'])
  await grow(machine, 2 * MAP_CHUNK)
  t.strictSame(carriers(machine), ['d3', 'd4'])
  await put(device, 2 * MAP_CHUNK - CHUNK, pattern(90, CHUNK))
  await flush(device)
  await device.close()
  machine.cut()
  await machine.start()
  const again = machine.open('thin')
  t.ok((await get(again, 2 * MAP_CHUNK - CHUNK, CHUNK)).equals(pattern(90, CHUNK)))
  for (let chunk = 0; chunk < chunks; chunk++) {
    t.ok((await get(again, chunk * CHUNK, CHUNK)).equals(pattern(chunk, CHUNK)), `${chunk}`)
  }
  await again.close()
})

t.test('what is refused leaves the device as it was', async (t) => {
  const machine = await thin(['d1', 'd2'])
  const refused = (sizeBytes: number) => failureOf(grow(machine, sizeBytes))
  t.match(await refused(32 * MIB), { kind: 'invalid', message: /cannot shrink to 32 MiB/ })
  t.match(await refused(64 * MIB + 1), { kind: 'invalid', message: /has 64 MiB already/ })
  t.match(await refused(2 ** 50), { kind: 'invalid', message: /8 TiB at most/ })
  t.match(await refused(200 * MAP_CHUNK), {
    kind: 'no-space',
    message: /each copy of its map takes 25 MiB.*virstor add thin DEVICE/,
  })
  t.equal(machine.volume('thin').sizeBytes, 64 * MIB)
})

t.test(
  'whatever write the power goes at, the device has the old size or the new one',
  async (t) => {
    const kept = pattern(2, 3 * CHUNK)
    const make = async (): Promise<Machine> => {
      const machine = await thin(['d1', 'd2', 'd3'])
      for (const { media } of machine.devices.values()) media.fill(0xee, 3 * MIB, 4 * MIB)
      const device = machine.open('thin')
      await put(device, 5 * CHUNK, kept)
      await flush(device)
      await device.close()
      return machine
    }
    const sizes = new Set<number>()
    let cuts = 0
    for await (const { machine, cutAt } of cutAtEachWrite(make, (on) => grow(on, 2 * MAP_CHUNK))) {
      cuts++
      const device = machine.open('thin')
      const { sizeBytes } = device.geometry
      sizes.add(sizeBytes)
      t.ok((await get(device, 5 * CHUNK, 3 * CHUNK)).equals(kept), `cut ${cutAt}`)
      const rest = await get(device, sizeBytes - CHUNK, CHUNK)
      t.ok(rest.equals(Buffer.alloc(CHUNK)), `cut ${cutAt}: nothing of the disks shows`)
      if (sizeBytes < 2 * MAP_CHUNK) await grow(machine, 2 * MAP_CHUNK)
      await put(device, 2 * MAP_CHUNK - CHUNK, kept.subarray(0, CHUNK), true)
      await device.close()
      machine.cut()
      await machine.start()
      const again = machine.open('thin')
      const end = await get(again, 2 * MAP_CHUNK - CHUNK, CHUNK)
      t.ok(end.equals(kept.subarray(0, CHUNK)), `cut ${cutAt}: it grows after all`)
      await again.close()
    }
    t.ok(cuts > 10, `${cuts} writes`)
    t.strictSame(
      [...sizes].sort((a, b) => a - b),
      [64 * MIB, 2 * MAP_CHUNK],
    )
  },
)
