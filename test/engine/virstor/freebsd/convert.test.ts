/**
 * A device of FreeBSD's virstor becomes ours in place: power cuts at every write, components that fail or are missing, and
 * the shapes that are refused. What was there is there, as FreeBSD's or as ours, and never both.
 */
import t from 'tap'
import { crc32c } from '../../../../src/base/crc32c.ts'
import { KIB, MIB } from '../../../../src/base/limits.ts'
import { VIRSTOR_CODEC } from '../../../../src/engine/virstor/codec.ts'
import {
  type ConversionRecord,
  decodeRecord,
  encodeRecord,
} from '../../../../src/engine/virstor/freebsd/record.ts'
import type { VirstorModel } from '../../../../src/engine/virstor/model.ts'
import type { IoRequest } from '../../../../src/hal/block-device.ts'
import { flush, get, type Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import {
  CHUNK,
  type FreebsdVirstor,
  type FreebsdVirstorOptions,
  freebsdVirstor,
  readAsFreebsd,
  readWhole,
  SECTOR,
  sequential,
} from '../../../support/freebsd-virstor.ts'
import type { MemoryDevice } from '../../../support/memory-device.ts'
import { absentIn } from '../../../support/objects.ts'

const SIZE = 3 * MIB
const SMALL = { sizeBytes: SIZE, virtualBytes: 16 * MIB }
const RECORD = SIZE - SECTOR

interface Step {
  readonly device: string
  readonly op: 'write' | 'flush'
  readonly offset: number
  readonly bytes: Buffer
}

/** Hears of every request of a machine before it is carried out. */
function onRequest(machine: Machine, hear: (device: string, request: IoRequest) => void): void {
  for (const [name, device] of machine.devices) {
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      hear(name, request)
      submit(request)
    }
  }
}

/** What the devices are asked to do by a conversion, in order, until the device is served again. */
async function stepsOf(machine: Machine): Promise<readonly Step[]> {
  const steps: Step[] = []
  let isRecording = true
  onRequest(machine, (device, { op, offset, length, data, dataOffset }) => {
    if (op === 'read' || !isRecording) return
    const bytes = Buffer.alloc(op === 'flush' ? 0 : length)
    if (op === 'write') data?.bytes.copy(bytes, 0, dataOffset, dataOffset + length)
    steps.push({ device, op: op === 'flush' ? 'flush' : 'write', offset, bytes })
  })
  await machine.run('virstor.convert', { name: 'big' })
  isRecording = false
  return steps
}

type Lost = (step: Step, isDurable: boolean, isLast: boolean) => 'stored' | 'half' | 'lost'

/** What of the writes before a cut is on the media. */
const LOSSES: Readonly<Record<string, Lost>> = {
  'all stored': () => 'stored',
  'only what was flushed': (_step, isDurable) => (isDurable ? 'stored' : 'lost'),
  'd1 loses what was not flushed': ({ device }, isDurable) =>
    isDurable || device !== 'd1' ? 'stored' : 'lost',
  'the last one torn': (_step, _isDurable, isLast) => (isLast ? 'half' : 'stored'),
}

function cutAt(
  before: ReadonlyMap<string, Buffer>,
  steps: readonly Step[],
  count: number,
  lost: Lost,
): ReadonlyMap<string, Buffer> {
  const media = new Map([...before].map(([name, bytes]) => [name, Buffer.from(bytes)]))
  const done = steps.slice(0, count)
  const flushed = new Map<string, number>()
  for (const [index, { device, op }] of done.entries())
    if (op === 'flush') flushed.set(device, index)
  for (const [index, step] of done.entries()) {
    const { device, op, offset, bytes } = step
    if (op === 'flush') continue
    const fate = lost(step, index < (flushed.get(device) ?? -1), index === count - 1)
    if (fate === 'lost') continue
    // Sectors are whole.
    const length = fate === 'half' ? Math.floor(bytes.length / 1024) * 512 : bytes.length
    bytes.copy(media.get(device) as Buffer, offset, 0, length)
  }
  return media
}

function mediaOf(machine: Machine): Map<string, Buffer> {
  return new Map([...machine.devices].map(([name, { media }]) => [name, Buffer.from(media)]))
}

async function reads(machine: Machine, { content }: FreebsdVirstor): Promise<boolean> {
  return (await readWhole(machine, 'big')).equals(content)
}

function isOurs(machine: Machine): boolean {
  return !machine.topology.find('big').features.readOnly
}

/** It takes writes to old and new chunks, and has them after a restart. */
async function takesWrites(machine: Machine, { content }: FreebsdVirstor): Promise<boolean> {
  const data = pattern(99, 4 * CHUNK)
  const big = machine.open('big')
  await put(big, 10 * CHUNK, data)
  await flush(big)
  await big.close()
  await machine.shutDown()
  await machine.start()
  const expected = Buffer.from(content)
  data.copy(expected, 10 * CHUNK)
  return (await readWhole(machine, 'big')).equals(expected)
}

/** Chunks are in the way of the labels on each. */
const SHAPES: Readonly<Record<string, FreebsdVirstorOptions>> = {
  'two full components and one with room': {
    ...SMALL,
    places: sequential([...Array(44).keys()].map((at) => (at * 7) % 128).concat(127), 23, 2),
  },
  'one component': {
    ...SMALL,
    devices: 1,
    places: new Map([7, 2, 100, 3].map((chunk, at) => [chunk, [0, [2, 22, 20, 19][at] ?? 0]])),
  },
}

for (const [what, options] of Object.entries(SHAPES)) {
  t.test(`${what}: a cut at every write`, async (t) => {
    const image = freebsdVirstor(options)
    const before = mediaOf(image.machine)
    await image.machine.start()
    const steps = await stepsOf(image.machine)
    t.ok(isOurs(image.machine))
    t.ok(await reads(image.machine, image))
    image.machine.cut()
    const decided = steps.findIndex(
      ({ device, offset, bytes }) => device === 'd1' && offset === RECORD && bytes.length > 0,
    )
    t.ok(decided > 0)
    const seen = { freebsd: 0, ours: 0 }
    for (let count = 0; count <= steps.length; count++) {
      if (count > 0 && steps[count - 1]?.op === 'flush' && count < steps.length) continue
      const kinds = Object.entries(LOSSES)
      const isNear = Math.abs(count - decided) < 4 || count > steps.length - 4
      const losses = isNear ? kinds : [kinds[count % kinds.length] as (typeof kinds)[number]]
      for (const [loss, lost] of losses) {
        const where = `after ${count} of ${steps.length} steps, ${loss}`
        const again = freebsdVirstor(options)
        const cut = cutAt(before, steps, count, lost)
        for (const [name, bytes] of cut) bytes.copy(again.machine.device(name).media)
        const asFreebsd = readAsFreebsd([...cut.values()])
        await again.machine.start()
        const form = isOurs(again.machine) ? 'ours' : 'freebsd'
        seen[form]++
        if (!(await reads(again.machine, image))) t.fail(`${where}: ${form}`)
        // Until it is decided FreeBSD has all that it had; afterwards it starts nothing.
        if (form === 'freebsd') {
          if (!asFreebsd?.equals(image.content)) t.fail(`${where}: FreeBSD reads something else`)
        } else if (asFreebsd) t.fail(`${where}: FreeBSD starts it, too`)
        if (count % 4 === 0) {
          if (form === 'freebsd') await again.machine.run('virstor.convert', { name: 'big' })
          if (!(await takesWrites(again.machine, image))) t.fail(`${where}: written to`)
        }
        again.machine.cut()
      }
    }
    t.ok(seen.freebsd > 5 && seen.ours > 5, JSON.stringify(seen))
  })
}

t.test('a dry run says what would be done, and writes nothing', async (t) => {
  const image = freebsdVirstor(SMALL)
  const before = mediaOf(image.machine)
  await image.machine.start()
  const parameters = { name: 'big', dryRun: true }
  const { steps, warnings } = await image.machine.run('virstor.convert', parameters)
  const texts = steps.map(({ text }) => text)
  // Four behind the new end on each of the two that are full, and chunk 0 of the second.
  t.match(texts[0], 'copy 9 chunks (1.13 MiB) out of the way of the labels')
  t.equal(texts[1], 'write the map on d3', 'the others are full')
  t.match(warnings[0], 'room for one copy of the map only')
  t.match(texts[4], "write label on d3 (d3), in place of FreeBSD's")
  await image.machine.shutDown()
  for (const [name, bytes] of mediaOf(image.machine)) t.ok(bytes.equals(before.get(name) as Buffer))
})

t.test(
  'what cannot be converted in place is refused, with the reason and the way out',
  async (t) => {
    const convert = async (options: FreebsdVirstorOptions) => {
      const { machine } = freebsdVirstor(options)
      await machine.start()
      const error = await failureOf(machine.run('virstor.convert', { name: 'big' }))
      await machine.shutDown()
      return error
    }
    const all = Array.from({ length: 2 * 23 - 2 }, (_, at) => at)
    const full = await convert({ ...SMALL, devices: 2, places: sequential(all, 23, 2) })
    t.equal(full.kind, 'no-space')
    t.match(
      full.message,
      /needs free chunks of 128 KiB: 1 on one component for the map, .* 9 on any/,
    )
    t.match(full.message, /its components have 1, 0; .*gvirstor add/)
    const small = await convert({ sizeBytes: 768 * KIB, virtualBytes: 16 * MIB, devices: 1 })
    t.match(small.message, /768 KiB is too small for a disk with metadata and data/)
    const odd = await convert({
      sizeBytes: 3 * MIB,
      virtualBytes: 192 * 1024 * 64,
      chunkBytes: 192 * KIB,
      places: new Map(),
    })
    t.equal(odd.kind, 'unsupported')
    t.match(odd.message, /chunks of 196608 bytes, and Plexus has multiples of 128 KiB up to 64 MiB/)
  },
)

t.test('a device that is in use, waits, or is ours is not converted', async (t) => {
  const image = freebsdVirstor(SMALL)
  const { machine } = image
  const convert = () => failureOf(machine.run('virstor.convert', { name: 'big' }))
  await machine.start(['d1', 'd3'])
  t.match(await convert(), { kind: 'invalid', message: /component 1 of 3 is missing/ })
  await machine.plug('d2')
  const access = { read: 1, write: 0, exclusive: 0 }
  const lun = machine.topology.attach(machine.topology.find('big'), undefined, 'lun', access)
  t.equal((await convert()).kind, 'in-use')
  await lun.close()
  await machine.run('virstor.convert', { name: 'big' })
  t.match(await convert(), { kind: 'not-found', message: /virstor list/ })
  t.ok(await takesWrites(machine, image))
  await machine.shutDown()
})

t.test('a component that fails before it is decided leaves what there was', async (t) => {
  const image = freebsdVirstor(SMALL)
  const { machine } = image
  const before = mediaOf(machine)
  await machine.start()
  let left = 3
  onRequest(machine, (name, { op }) => {
    if (name === 'd3' && op === 'write' && left-- === 0) machine.device('d3').fail('write', 'io')
  })
  t.equal((await failureOf(machine.run('virstor.convert', { name: 'big' }))).kind, 'io')
  t.equal(isOurs(machine), false)
  t.ok(await reads(machine, image))
  t.equal(machine.topology.find('d3').access.write, 0)
  t.ok(readAsFreebsd([...mediaOf(machine).values()])?.equals(image.content))
  t.ok([...before].every(([name, bytes]) => bytes.length === machine.device(name).media.length))
  await machine.run('virstor.convert', { name: 'big' })
  t.ok(await reads(machine, image))
  await machine.shutDown()
})

t.test('a component that fails afterwards gets its label at the next start', async (t) => {
  const image = freebsdVirstor(SMALL)
  const { machine } = image
  await machine.start()
  onRequest(machine, (name, { op }) => {
    if (name === 'd2' && op === 'write-zeroes') machine.device('d2').fail('write-zeroes', 'io')
  })
  const { warnings } = await machine.run('virstor.convert', { name: 'big' })
  t.match(warnings.join(), 'big is not served yet')
  t.match(absentIn(machine.topology)[0]?.status, 'its conversion could not go on')
  machine.cut()
  await machine.start()
  t.ok(isOurs(machine))
  t.ok(await reads(machine, image))
  t.ok(await takesWrites(machine, image))
})

/** A conversion has been decided on, and cut off before any label was written. */
async function decided(): Promise<FreebsdVirstor> {
  const image = freebsdVirstor(SMALL)
  const { machine } = image
  await machine.start()
  onRequest(machine, (name, { op, offset }) => {
    if (op === 'write-zeroes' && offset === 0) machine.device(name).fail('write-zeroes', 'io')
  })
  await machine.run('virstor.convert', { name: 'big' })
  machine.cut()
  return image
}

/** The same, where component 0 has what `change` makes of the record. */
async function recorded(
  change: (record: ConversionRecord, device: MemoryDevice, at: FreebsdVirstor) => void,
): Promise<FreebsdVirstor> {
  const image = await decided()
  const { machine } = image
  const device = machine.device('d1')
  const block = device.media.subarray(RECORD)
  const record = decodeRecord(Buffer.from(block))
  if (!record) throw new Error('there is a record')
  change(record, device, image)
  return image
}

function keptIn({ media }: MemoryDevice, { offset, length }: ConversionRecord): VirstorModel {
  return VIRSTOR_CODEC.decode(media.subarray(offset, offset + length))
}

/** Records that only an enemy writes: none may end the engine, or be acted upon. */
const RECORDS: Readonly<Record<string, (record: ConversionRecord, device: MemoryDevice) => void>> =
  {
    'a configuration of other components': (record, device) => {
      const model = keptIn(device, record)
      keep(device, record, { ...model, drives: [], components: [], copies: [] })
    },
    'a configuration of other media': (record, device) => {
      const model = keptIn(device, record)
      const drives = model.drives.map((one) => ({ ...one, mediaBytes: one.mediaBytes + 512 }))
      keep(device, record, { ...model, drives })
    },
    'a configuration of another set': (record, device) => {
      const setUuid = '6c7005eb-356e-4b87-b301-624d74cb657a'
      keep(device, record, { ...keptIn(device, record), setUuid })
    },
    'a configuration without end': (record, { media }) => {
      const payload = media.subarray(0, 2 * MIB)
      const length = payload.length
      encodeRecord(
        { ...record, offset: 0, length, payloadCrc: crc32c(payload) },
        media.subarray(RECORD),
      )
    },
  }

function keep({ media }: MemoryDevice, record: ConversionRecord, model: VirstorModel): void {
  const payload = VIRSTOR_CODEC.encode(model)
  payload.copy(media, record.offset)
  const changed = { ...record, length: payload.length, payloadCrc: crc32c(payload) }
  encodeRecord(changed, media.subarray(RECORD))
}

for (const [what, change] of Object.entries(RECORDS)) {
  t.test(`a record with ${what} is refused, and nothing is written`, async (t) => {
    const { machine } = await recorded(change)
    const before = mediaOf(machine)
    await machine.start()
    t.match(absentIn(machine.topology)[0]?.status, /configuration that its conversion keeps/)
    await machine.shutDown()
    for (const [name, media] of mediaOf(machine)) {
      t.ok(media.equals(before.get(name) as Buffer), name)
    }
  })
}

t.test('a record on a component other than 0 is none', async (t) => {
  const { machine } = await recorded((record, { media }, { machine }) => {
    const other = machine.device('d2').media.subarray(RECORD)
    const label = Buffer.from(other.subarray(0, 92))
    encodeRecord({ ...record, label }, other)
    // As FreeBSD had it.
    record.label.copy(media.fill(0, RECORD), RECORD)
  })
  const before = mediaOf(machine)
  await machine.start()
  t.match(absentIn(machine.topology)[0]?.status, 'component 1 of 3 is missing')
  await machine.shutDown()
  for (const [name, media] of mediaOf(machine)) t.ok(media.equals(before.get(name) as Buffer), name)
})

for (const missing of ['d1', 'd2', 'd3']) {
  t.test(`cut off, and ${missing} comes later than the others`, async (t) => {
    const image = await decided()
    const { machine } = image
    const others = [...machine.devices.keys()].filter((name) => name !== missing)
    await machine.start(others)
    t.equal(readAsFreebsd([...mediaOf(machine).values()]), undefined)
    await machine.plug(missing)
    t.ok(isOurs(machine))
    t.ok(await reads(machine, image))
    const { components } = machine.volume('big')
    t.ok(components.every(({ state }) => state === 'UP'))
    t.ok(await takesWrites(machine, image))
    await machine.shutDown()
  })
}

t.test('a majority that has its labels is served until component 0 is there', async (t) => {
  const first = freebsdVirstor(SMALL)
  const before = mediaOf(first.machine)
  await first.machine.start()
  const steps = await stepsOf(first.machine)
  first.machine.cut()
  const last = steps.findIndex(
    ({ device, op, offset }) => device === 'd1' && op === 'write' && offset === 0,
  )
  const image = freebsdVirstor(SMALL)
  const { machine } = image
  for (const [name, bytes] of cutAt(before, steps, last, () => 'stored')) {
    bytes.copy(machine.device(name).media)
  }
  await machine.start(['d2', 'd3'])
  t.match(machine.volume('big'), { state: 'DEGRADED' })
  const big = machine.open('big')
  const [chunk = 0] = [...image.places].find(([, [index]]) => index === 0) ?? []
  t.equal((await failureOf(get(big, chunk * CHUNK, CHUNK))).kind, 'gone')
  await big.close()
  await machine.plug('d1')
  t.match(machine.volume('big'), { state: 'UP' })
  t.ok(await reads(machine, image))
  // As after any start without a component.
  const again = machine.open('big')
  t.match(await failureOf(flush(again)), { message: /drive d1 is missing/ })
  await again.close()
  t.ok(await takesWrites(machine, image))
  await machine.shutDown()
})

t.test(
  'a chunk that FreeBSD has counted over its label is read as it is there, and moved',
  async (t) => {
    const places = new Map([[5, [1, 23]]] as const)
    const label = (index: number) => (index === 1 ? { chunks: 24 } : {})
    const image = freebsdVirstor({ ...SMALL, places, label })
    const { machine } = image
    const end = machine.device('d2').media.subarray(SIZE - SECTOR)
    end.copy(image.content, 6 * CHUNK - SECTOR)
    await machine.start()
    t.ok(await reads(machine, image))
    await machine.run('virstor.convert', { name: 'big' })
    t.ok(isOurs(machine))
    t.ok(await reads(machine, image))
    t.ok(await takesWrites(machine, image))
    await machine.shutDown()
  },
)
