/** Thin devices that end and are served again in one life of the daemon: nothing of the first one goes on beside the second. */
import t from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import type { IoRequest } from '../../../src/hal/block-device.ts'
import { discard } from '../../../src/hal/io.ts'
import { flush, type Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { CHUNK, fill, goOn, halfWay, thin, wrong } from '../../support/thin.ts'

/** Is it served, or not, in a moment? */
async function becomes(machine: Machine, served: boolean): Promise<boolean> {
  const { providers } = machine.topology
  for (let look = 0; look < 50 && providers.has('thin') !== served; look++) {
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
  return providers.has('thin') === served
}

const settle = async (turns = 50): Promise<void> => {
  for (let turn = 0; turn < turns; turn++) await new Promise(setImmediate)
}

t.test('a discard that a device has sent does not hit what the next one writes', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'], { onMissing: 'device' })
  const device = machine.open('thin')
  await fill(device, 0, 4)
  await flush(device)
  const disk = machine.device('d1')
  const held: IoRequest[] = []
  const submit = disk.submit.bind(disk)
  disk.submit = (request) => {
    if (request.op === 'discard') held.push(request)
    else submit(request)
  }
  await discard(device, { offset: 0, length: 4 * CHUNK })
  await flush(device)
  await settle()
  t.equal(held.length, 1)
  machine.device('d3').remove()
  t.ok(await becomes(machine, false))
  await device.close()
  const back = machine.replug('d3')
  // Its place must not be given to a write before the discard has ended.
  const early = await becomes(machine, true)
  const write = async (): Promise<void> => {
    const next = machine.open('thin')
    await fill(next, 0, 4)
    await flush(next)
    await next.close()
  }
  if (early) await write()
  for (const request of held) submit(request)
  await back
  if (!early) await write()
  t.strictSame(await wrong(machine, 4), [])
  await machine.shutDown()
})

t.test('a write that waits for space when its device ends is told why', async (t) => {
  const machine = await thin(['d1', 'd2'], { onMissing: 'device', fullWait: '10m' })
  const device = machine.open('thin')
  const free = machine.topology.find('thin').geom.provisioning?.freePieces ?? 0
  await fill(device, 0, free)
  const waiting = failureOf(put(device, free * CHUNK, pattern(1, CHUNK)))
  await settle()
  await machine.pull('d2')
  t.match(await waiting, { kind: 'gone', message: /thin .*not served/ })
  await device.close()
})

t.test('the job of a device that could not be offered goes on when it can', async (t) => {
  const machine = await thin(['d1', 'd2', 'd3'], { policy: 'round-robin' })
  const device = machine.open('thin')
  await fill(device, 0, 24)
  await flush(device)
  await device.close()
  const { id } = await halfWay(machine, 'remove', { devices: ['d2'] })
  await machine.shutDown()
  machine.devices.set('thin', new MemoryDevice({ sizeBytes: MIB, path: '/dev/thin' }))
  await machine.start(['thin', 'd1', 'd2', 'd3'])
  await machine.pull('thin')
  await machine.topology.quiet()
  t.match(await goOn(machine, machine.topology.jobs.get(id)), { state: 'done' })
  t.strictSame(
    machine.volume('thin').components.map(({ name }) => name),
    ['d1', 'd3'],
  )
  t.strictSame(await wrong(machine, 24), [])
})
