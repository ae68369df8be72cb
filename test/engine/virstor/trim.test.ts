/** `virstor trim`: chunks that are zero come back, under load, through power cuts at each write, and when the device ends. */
import t from 'tap'
import { KIB, MIB } from '../../../src/base/limits.ts'
import type { Consumer } from '../../../src/engine/geom/consumer.ts'
import { flush, get, type Machine, pattern, put } from '../../support/engine.ts'
import { failureOf } from '../../support/failure.ts'
import { CHUNK, thin } from '../../support/thin.ts'
import { cutAtEachWrite } from '../../support/write-cuts.ts'

const ALL = ['d1', 'd2', 'd3']
const ZEROES = Buffer.alloc(CHUNK)

// The clock's timers do not keep a process alive.
const alive = setInterval(() => {}, 1000)
t.teardown(() => clearInterval(alive))

async function usedChunks(machine: Machine): Promise<number> {
  const [thin] = await machine.list('virstor.list')
  return Number(thin?.facts['usedBytes']) / CHUNK
}

/** Odd ones are zero, but the last byte of every fifth. */
function contentOf(chunk: number): Buffer {
  if (chunk % 2 === 0) return pattern(chunk, CHUNK)
  const bytes = Buffer.alloc(CHUNK)
  if (chunk % 5 === 0) bytes[CHUNK - 1] = 1
  return bytes
}

async function fill(device: Consumer, chunks: number): Promise<void> {
  for (let chunk = 0; chunk < chunks; chunk++) await put(device, chunk * CHUNK, contentOf(chunk))
  await flush(device)
}

async function trimmed(machine: Machine): Promise<void> {
  const { jobs } = await machine.run('virstor.trim', { name: 'thin' })
  t.match(jobs, [{ kind: 'trim', object: 'thin', parent: 'thin' }])
  const [job] = await machine.jobsDone()
  t.match(job, { state: 'done' })
}

t.test('chunks that are zero come back, and nothing else', async (t) => {
  // A discard keeps the places that it is at for a moment.
  const machine = await thin(ALL, { discard: 'off' })
  const device = machine.open('thin')
  const before = await usedChunks(machine)
  await fill(device, 20)
  t.equal(await usedChunks(machine), before + 20)
  const dry = await machine.run('virstor.trim', { name: 'thin', dryRun: true })
  t.match(dry.steps[0]?.text, 'give back those that are zero')
  t.strictSame(machine.topology.jobs.list(), [])
  await trimmed(machine)
  t.equal(await usedChunks(machine), before + 12, 'of ten that are odd 5 and 15 are not zero')
  for (let chunk = 0; chunk < 20; chunk++) {
    t.ok((await get(device, chunk * CHUNK, CHUNK)).equals(contentOf(chunk)), `${chunk}`)
  }
  await device.close()
})

t.test('what is written while a chunk is read stays', async (t) => {
  const turns = async (): Promise<void> => {
    for (let turn = 0; turn < 10; turn++) await new Promise(setImmediate)
  }
  // After so many operations of the disk: before the first look, between the two, and behind them.
  for (let ended = 0; ended < 4; ended++) {
    const machine = await thin(ALL)
    const device = machine.open('thin')
    const disk = machine.device('d1')
    await put(device, 0, ZEROES)
    await flush(device)
    disk.hold()
    const { jobs } = await machine.run('virstor.trim', { name: 'thin' })
    await turns()
    for (let operation = 0; operation < ended; operation++) {
      disk.releaseOne()
      await turns()
    }
    const written = put(device, 64 * KIB, pattern(ended, 8 * KIB))
    await turns()
    disk.release()
    await written
    await machine.topology.jobs.get(jobs[0]?.id ?? '').ended
    t.ok((await get(device, 64 * KIB, 8 * KIB)).equals(pattern(ended, 8 * KIB)), `${ended}`)
    t.ok((await get(device, 0, 64 * KIB)).equals(Buffer.alloc(64 * KIB)))
    await flush(device)
    await device.close()
  }
})

t.test('whatever write the power goes at, the content is the same', async (t) => {
  const make = async (): Promise<Machine> => {
    const machine = await thin(ALL)
    for (const { media } of machine.devices.values()) media.fill(0xee, 2 * MIB, 4 * MIB)
    const device = machine.open('thin')
    await fill(device, 12)
    await device.close()
    return machine
  }
  const work = async (machine: Machine): Promise<void> => {
    const { jobs } = await machine.run('virstor.trim', { name: 'thin' })
    await machine.topology.jobs.get(jobs[0]?.id ?? '').ended
    // What has come back is taken again.
    const device = machine.open('thin')
    for (const chunk of [40, 41, 42, 43]) await put(device, chunk * CHUNK, pattern(chunk, CHUNK))
    await flush(device)
  }
  let cuts = 0
  for await (const { machine, cutAt } of cutAtEachWrite(make, work)) {
    cuts++
    const device = machine.open('thin')
    for (let chunk = 0; chunk < 12; chunk++) {
      const found = await get(device, chunk * CHUNK, CHUNK)
      if (!found.equals(contentOf(chunk))) t.fail(`cut ${cutAt}: chunk ${chunk}`)
    }
    for (const chunk of [40, 41, 42, 43]) {
      const found = await get(device, chunk * CHUNK, CHUNK)
      const isRight = found.equals(ZEROES) || found.equals(pattern(chunk, CHUNK))
      if (!isRight) t.fail(`cut ${cutAt}: chunk ${chunk} is neither empty nor written`)
    }
    await device.close()
  }
  t.ok(cuts > 5, `${cuts} writes`)
})

t.test('one at a time; it is cancelled, and ends with the device', async (t) => {
  const machine = await thin(ALL)
  const device = machine.open('thin')
  await fill(device, 20)
  const start = async () => {
    const { jobs } = await machine.run('virstor.trim', { name: 'thin' })
    return machine.topology.jobs.get(jobs[0]?.id ?? '')
  }
  let job = await start()
  t.equal((await failureOf(machine.run('virstor.trim', { name: 'thin' }))).kind, 'in-use')
  t.match(machine.volume('thin').process, { kind: 'trim' })
  await job.cancel()
  t.equal(job.state, 'cancelled')
  t.equal(machine.volume('thin').process, undefined)
  job = await start()
  machine.device('d1').remove()
  machine.device('d2').remove()
  await job.ended
  await machine.topology.quiet()
  await device.close()
  t.notOk(machine.topology.providers.has('thin'))
})

t.test('what a disk that does not answer may have written to memory is not believed', async (t) => {
  const machine = await thin(ALL, { discard: 'off' })
  const device = machine.open('thin')
  await put(device, 0, pattern(1, CHUNK))
  await flush(device)
  const disk = machine.device('d1')
  const submit = disk.submit.bind(disk)
  const returns: (() => void)[] = []
  disk.submit = (request) => {
    const { op, cause, data } = request
    if (op !== 'read' || cause !== 'sync' || !data || returns.length === 2) return submit(request)
    // As below a mirror: one disk has not answered, and writes zeroes when the other one has.
    returns.push(machine.pool.keep(data))
    const complete: typeof request.complete = (error) => {
      data.bytes.fill(0)
      request.complete(error)
    }
    submit({ ...request, complete })
  }
  await trimmed(machine)
  t.equal(returns.length, 2)
  t.ok((await get(device, 0, CHUNK)).equals(pattern(1, CHUNK)))
  for (const giveBack of returns) giveBack()
  await device.close()
})
