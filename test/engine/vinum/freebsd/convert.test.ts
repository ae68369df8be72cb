/** Power cuts at every write of a conversion: the data is there either way, and it can be done again. */
import t from 'tap'
import { MIB } from '../../../../src/base/limits.ts'
import { flush, get, type Machine, pattern, put } from '../../../support/engine.ts'
import { failureOf } from '../../../support/failure.ts'
import { CONTENT, freebsdMachine, TIGHT_BYTES } from '../../../support/freebsd-machine.ts'

const NAMES = ['d1', 'd2', 'd3', 'd4']
const READ = { read: 1, write: 0, exclusive: 0 }

interface Step {
  readonly device: string
  readonly op: 'write' | 'flush'
  readonly offset: number
  readonly bytes: Buffer
}

/** Runs the conversion and tells what the devices were asked to do, in order. */
async function recordConversion(machine: Machine): Promise<readonly Step[]> {
  const steps: Step[] = []
  for (const name of NAMES) {
    const device = machine.device(name)
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      const { op, offset, length, data, dataOffset } = request
      if (op !== 'read') {
        const bytes = Buffer.alloc(op === 'flush' ? 0 : length)
        if (op === 'write') data?.bytes.copy(bytes, 0, dataOffset, dataOffset + length)
        steps.push({ device: name, op: op === 'flush' ? 'flush' : 'write', offset, bytes })
      }
      submit(request)
    }
  }
  // Only the conversion: what the native set does afterwards is held by other tests.
  const { topology } = machine
  topology.tastePending = async () => {}
  await machine.run('vinum.convert')
  return steps
}

type Lost = (step: Step, isDurable: boolean, isLast: boolean) => 'stored' | 'half' | 'lost'

/** What of the writes before a cut is on the media. */
const LOSSES: Readonly<Record<string, Lost>> = {
  'all stored': () => 'stored',
  'only what was flushed': (_step, isDurable) => (isDurable ? 'stored' : 'lost'),
  'd1 and d3 lose what was not flushed': ({ device }, isDurable) =>
    isDurable || device === 'd2' || device === 'd4' ? 'stored' : 'lost',
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
  for (const [index, step] of done.entries()) {
    const { device, op, offset, bytes } = step
    if (op === 'flush') continue
    const later = done.slice(index + 1)
    const isDurable = later.some((one) => one.device === device && one.op === 'flush')
    const fate = lost(step, isDurable, index === count - 1)
    if (fate === 'lost') continue
    // Sectors are whole.
    const length = fate === 'half' ? Math.floor(bytes.length / 1024) * 512 : bytes.length
    bytes.copy(media.get(device) as Buffer, offset, 0, length)
  }
  return media
}

async function wrongVolumes(machine: Machine): Promise<readonly string[]> {
  const wrong: string[] = []
  for (const [name, expected] of Object.entries(CONTENT)) {
    const consumer = machine.topology.attach(machine.topology.find(name), undefined, 'test', READ)
    const content = await get(consumer, 0, expected.length)
    await consumer.close()
    if (!content.equals(expected)) wrong.push(name)
  }
  return wrong
}

function isNative(machine: Machine): boolean {
  return !machine.topology.find('safe').features.readOnly
}

for (const [what, sizeBytes] of [
  ['metadata in the tail', 6 * MIB],
  ['slots over the old texts', TIGHT_BYTES],
] as const) {
  t.test(`a cut at every write: ${what}`, async (t) => {
    const options = { sizeBytes }
    const machine = freebsdMachine(options)
    const before = new Map(NAMES.map((name) => [name, Buffer.from(machine.device(name).media)]))
    await machine.start()
    const steps = await recordConversion(machine)
    const seen = { freebsd: 0, native: 0 }
    for (let count = 0; count <= steps.length; count++) {
      if (count > 0 && steps[count - 1]?.op === 'flush' && count < steps.length) continue
      // Each cut loses in its own way, and the last ones, which decide, in every way.
      const kinds = Object.entries(LOSSES)
      const losses = count > steps.length - 12 ? kinds : [kinds[count % kinds.length]]
      for (const [loss, lost] of losses.flatMap((one) => (one ? [one] : []))) {
        const where = `after ${count} of ${steps.length} steps, ${loss}`
        const again = freebsdMachine(options)
        for (const [name, bytes] of cutAt(before, steps, count, lost)) {
          bytes.copy(again.device(name).media)
        }
        await again.start()
        const form = isNative(again) ? 'native' : 'freebsd'
        seen[form]++
        t.strictSame(await wrongVolumes(again), [], `${where}: ${form}`)
        if (form === 'freebsd' && count % 4 === 0) {
          await again.run('vinum.convert')
          t.ok(isNative(again))
          t.strictSame(await wrongVolumes(again), [], `${where}, and converted`)
        }
        again.cut()
      }
    }
    t.ok(seen.freebsd > 12 && seen.native > 3, JSON.stringify(seen))
  })
}

t.test('whoever carries the mark decides for all, whenever it comes', async (t) => {
  const machine = await freebsdMachine({ sizeBytes: TIGHT_BYTES }).start()
  // Only d1 can be marked: the others fail their last write.
  for (const name of NAMES.slice(1)) {
    const device = machine.device(name)
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      if (request.op === 'write' && request.offset === 4096 && request.length === 512) {
        device.fail('write', 'io')
      }
      submit(request)
    }
  }
  const { warnings } = await machine.run('vinum.convert')
  t.match(warnings.join(), "a2 still has FreeBSD's header")
  t.equal(machine.topology.providers.has('safe'), false, 'd1 alone is no majority')
  machine.cut()
  await machine.start(['d2', 'd3', 'd4'])
  t.equal(isNative(machine), false, "without d1 they are FreeBSD's")
  await machine.plug('d1')
  t.equal(isNative(machine), true)
  t.strictSame(await wrongVolumes(machine), [])
  const volume = machine.open('safe')
  const more = pattern(7, MIB)
  await put(volume, 0, more)
  await flush(volume)
  await volume.close()
  await machine.jobsDone()
  machine.cut()
  // Now all are marked: d1 is not needed any more to know it.
  await machine.start(['d2', 'd3', 'd4'])
  t.equal(isNative(machine), true)
  const again = machine.open('safe')
  t.ok((await get(again, 0, MIB)).equals(more))
})

t.test('a conversion that no drive takes to the end leaves what there was', async (t) => {
  const machine = await freebsdMachine().start()
  for (const at of ['first', 'commit', 'mark']) {
    const device = machine.device('d3')
    const submit = device.submit.bind(device)
    let writes = 0
    const failing = { first: 0, commit: 4, mark: 6 }[at]
    for (const name of at === 'mark' ? NAMES : ['d3']) {
      const one = machine.device(name)
      const original = name === 'd3' ? submit : one.submit.bind(one)
      one.submit = (request) => {
        const isMark = request.op === 'write' && request.offset === 4096
        if (at === 'mark' ? isMark : request.op !== 'read' && request.op !== 'flush') {
          if (at === 'mark' || writes++ === failing) one.fail(request.op, 'io')
        }
        original(request)
      }
    }
    const error = await failureOf(machine.run('vinum.convert'))
    t.equal(error.kind, 'io', at)
    t.equal(isNative(machine), false)
    t.strictSame(await wrongVolumes(machine), [], at)
    t.equal(machine.topology.find('d3').access.write, 0)
    machine.cut()
    await machine.start()
    t.equal(isNative(machine), false)
    t.strictSame(await wrongVolumes(machine), [], `${at}, restarted`)
  }
  await machine.run('vinum.convert')
  t.strictSame(await wrongVolumes(machine), [])
})
