/**
 * The I/O path of a virstor device: what reaches the components, first writes side by side, failures, a full device,
 * components that are away, places that come back, pauses and locks.
 */
import t from 'tap'
import { GIB, MIB, VIRSTOR_SPACE_WAITERS } from '../../../../src/base/limits.ts'
import type { IoOp, IoRequest } from '../../../../src/hal/block-device.ts'
import { send, settle } from '../../../support/vinum-host.ts'
import { buildRig, CHUNK, GRANULE, type Rig, STALE, START } from '../../../support/virstor-rig.ts'

const write = (rig: Rig, offset: number, length: number, value: number, fua = false) =>
  send(rig.io, { op: 'write', offset, data: Buffer.alloc(length, value), fua })

const change = (rig: Rig, op: IoOp, offset: number, length: number) =>
  send(rig.io, { op, offset, length })

const flush = (rig: Rig) => send(rig.io, { op: 'flush' })

/** The distinct bytes of a range, in order, with how often they come in a row. */
async function read(rig: Rig, offset: number, length: number): Promise<string> {
  const data = Buffer.alloc(length, 0xaa)
  const error = await send(rig.io, { op: 'read', offset, data })
  if (error) return error.kind
  const runs: [number, number][] = []
  for (const byte of data) {
    const last = runs.at(-1)
    if (last?.[0] === byte) last[1]++
    else runs.push([byte, 1])
  }
  return runs.map(([byte, count]) => `${byte}x${count}`).join(' ')
}

function watch<T>(promise: Promise<T>) {
  const state = { ended: false, promise }
  void promise.finally(() => {
    state.ended = true
  })
  return state
}

t.test('what was never written reads as zeroes without I/O', async (t) => {
  const rig = buildRig()
  t.equal(await read(rig, 0, 3 * CHUNK), `0x${3 * CHUNK}`)
  t.equal(rig.device(0).counts.read, 0)
})

t.test('a first write fills its granules with zeroes', async (t) => {
  const rig = buildRig()
  t.equal(await write(rig, GRANULE + 512, 512, 7), undefined)
  t.equal(await read(rig, GRANULE, GRANULE), `0x512 7x512 0x${GRANULE - 1024}`)
  t.equal(await read(rig, 0, GRANULE), `0x${GRANULE}`)
  t.equal(rig.device(0).media[START], STALE, 'the rest of the chunk was not touched')
  t.equal(rig.device(0).counts.write, 3)
  t.equal(rig.device(0).counts.read, 1)
})

t.test('a request in one piece is one request to the component', async (t) => {
  const rig = buildRig()
  const { counts } = rig.device(0)
  await write(rig, 0, 3 * CHUNK, 1)
  t.equal(counts.write, 1, 'neighbours on the component')
  await write(rig, CHUNK - 512, 1024, 2)
  t.equal(counts.write, 2)
  t.equal(await read(rig, 0, 3 * CHUNK), `1x${CHUNK - 512} 2x1024 1x${2 * CHUNK - 512}`)
  t.equal(counts.read, 1)
})

t.test('pieces of a read: valid runs on two components, holes between them', async (t) => {
  const rig = buildRig({ physical: [4, 4], policy: 'round-robin' })
  await write(rig, 0, CHUNK, 1)
  await write(rig, CHUNK, 2 * GRANULE, 2)
  await write(rig, 2 * CHUNK + GRANULE, GRANULE, 3)
  t.equal(
    await read(rig, CHUNK - 512, CHUNK + 2 * GRANULE + 1024),
    `1x512 2x${2 * GRANULE} 0x${CHUNK - GRANULE} 3x${GRANULE} 0x512`,
  )
  t.strictSame(
    rig.components.map(({ device }) => device.counts.read),
    [2, 1],
  )
})

t.test('first writes to one chunk, side by side: one place, each its own granules', async (t) => {
  const rig = buildRig()
  rig.device(0).hold()
  const one = write(rig, 0, 512, 1)
  const two = write(rig, GRANULE, 512, 2)
  const same = write(rig, 512, 512, 3)
  await settle()
  const late = write(rig, 1024, 512, 4)
  await settle()
  t.equal(rig.device(0).inFlight, 5, 'data of three, zeroes to the rest of two granules')
  t.equal(rig.space.used, 1)
  t.equal(await read(rig, 2 * GRANULE, 512), '0x512')
  rig.device(0).release()
  const none = [undefined, undefined, undefined, undefined]
  t.strictSame(await Promise.all([one, two, same, late]), none)
  t.equal(await read(rig, 0, GRANULE + 512), `1x512 3x512 4x512 0x${GRANULE - 1536} 2x512`)
})

t.test('small writes that fill a granule together write each block once', async (t) => {
  const rig = buildRig()
  const part = GRANULE / 4
  rig.device(0).hold()
  const writes = [2, 0, 3, 1].map((at) => write(rig, at * part, part, at + 1))
  const again = write(rig, part, part, 9)
  await settle()
  t.equal(rig.device(0).inFlight, 4, 'who would write the same waits')
  rig.device(0).release()
  t.strictSame(await Promise.all([...writes, again]), Array(5).fill(undefined))
  t.equal(rig.device(0).counts.write, 5, 'no zeroes')
  t.equal(await read(rig, 0, GRANULE), `1x${part} 9x${part} 3x${part} 4x${part}`)

  rig.device(0).fail('write', 'io', 1)
  const [first, second] = [write(rig, GRANULE, part, 5), write(rig, GRANULE + part, part, 6)]
  t.match(await Promise.all([first, second]), [{ kind: 'io' }, { kind: 'io' }])
  t.equal(await read(rig, GRANULE, GRANULE), `0x${GRANULE}`)
  t.equal(await write(rig, GRANULE + part, part, 7), undefined)
  t.equal(await read(rig, GRANULE, GRANULE), `0x${part} 7x${part} 0x${2 * part}`)
  t.equal(rig.io.active + rig.io.locks.size, 0)
})

t.test(
  'a first write that fails leaves no trace, unless another one fills the chunk',
  async (t) => {
    const rig = buildRig()
    rig.device(0).fail('write', 'io')
    t.equal((await write(rig, 0, 2 * CHUNK, 1))?.kind, 'io')
    t.equal(rig.map.componentOf(0), 0)
    t.equal(await read(rig, 0, CHUNK), `0x${CHUNK}`)
    t.equal(await flush(rig), undefined)
    t.equal(rig.space.used, 0)

    rig.device(0).hold()
    const bad = write(rig, 0, GRANULE, 2)
    const good = write(rig, GRANULE, GRANULE, 3)
    rig.device(0).fail('write', 'io')
    rig.device(0).release()
    t.strictSame([(await bad)?.kind, await good], ['io', undefined])
    t.equal(rig.space.used, 1)
    t.equal(await read(rig, 0, 2 * GRANULE), `0x${GRANULE} 3x${GRANULE}`)
  },
)

t.test('a discard of all that is valid keeps the place of who fills the rest', async (t) => {
  const rig = buildRig()
  await write(rig, 0, GRANULE, 1)
  rig.device(0).hold()
  const good = write(rig, GRANULE, GRANULE, 2)
  t.equal(await change(rig, 'discard', 0, GRANULE), undefined)
  rig.device(0).release()
  t.equal(await good, undefined)
  t.equal(await read(rig, 0, 2 * GRANULE), `0x${GRANULE} 2x${GRANULE}`)

  rig.device(0).hold()
  rig.device(0).fail('write', 'io')
  const bad = write(rig, 0, GRANULE, 3)
  await change(rig, 'discard', GRANULE, GRANULE)
  rig.device(0).release()
  t.equal((await bad)?.kind, 'io')
  t.equal(rig.map.componentOf(0), 0, 'nobody needs it')
})

t.test('a rewrite that fails keeps the chunk', async (t) => {
  const rig = buildRig()
  await write(rig, 0, GRANULE, 1)
  rig.device(0).fail('write', 'io')
  t.equal((await write(rig, 0, 512, 2))?.kind, 'io')
  t.equal(await read(rig, 0, GRANULE), `1x${GRANULE}`)
})

for (const op of ['discard', 'write-zeroes'] as const) {
  t.test(`${op}: whole granules without I/O, zeroes to the rest of what is valid`, async (t) => {
    const rig = buildRig()
    const { counts } = rig.device(0)
    await write(rig, 0, 3 * GRANULE, 1)
    t.equal(await change(rig, op, GRANULE, GRANULE), undefined)
    t.equal(counts.write, 1)
    t.equal(await change(rig, op, 512, 3 * GRANULE), undefined)
    t.equal(await read(rig, 0, 4 * GRANULE), `1x512 0x${4 * GRANULE - 512}`)
    t.equal(counts.write, 2, 'the last granule was not valid')
    t.equal(await change(rig, op, 0, 512), undefined)
    t.equal(rig.space.used, 1, 'a granule that is all zeroes still counts')
    t.equal(await change(rig, op, 0, CHUNK), undefined)
    t.equal(rig.map.componentOf(0), 0)
    t.equal(await flush(rig), undefined)
    t.equal(rig.space.used, 0)
  })
}

t.test('a discard whose zeroes fail changes nothing', async (t) => {
  const rig = buildRig()
  await write(rig, 0, CHUNK, 1)
  rig.device(0).fail('write', 'io')
  t.equal((await change(rig, 'discard', 512, CHUNK - 512))?.kind, 'io')
  t.equal(await read(rig, 0, CHUNK), `1x${CHUNK}`)
})

t.test('a discard of more than 4 GiB ends, in turns of the event loop', async (t) => {
  const chunks = (5 * GIB) / CHUNK
  const rig = buildRig({ chunks })
  await write(rig, 4 * GIB, 512, 1)
  const end = watch(change(rig, 'discard', 0, 5 * GIB))
  await settle(2)
  t.notOk(end.ended)
  t.equal(await read(rig, 0, 512), '0x512', 'others are served meanwhile')
  t.equal(await end.promise, undefined)
  t.equal(rig.map.componentOf((4 * GIB) / CHUNK), 0)
})

t.test('a released place comes back after the commit, and after who reads there', async (t) => {
  const rig = buildRig({ physical: [1] })
  await write(rig, 0, CHUNK, 1)
  t.equal(await flush(rig), undefined)
  rig.device(0).hold()
  const reader = read(rig, 0, CHUNK)
  t.equal(await change(rig, 'discard', 0, CHUNK), undefined)
  t.equal((await write(rig, CHUNK, CHUNK, 2))?.kind, 'no-space', 'not committed')
  await settle()
  t.equal(rig.map.ownerOf({ component: 1, number: 0 }), -1, 'committed at once: space is short')
  t.equal((await write(rig, CHUNK, CHUNK, 2))?.kind, 'no-space', 'somebody reads there')
  rig.device(0).release()
  t.equal(await reader, `1x${CHUNK}`)
  t.equal(await write(rig, CHUNK, CHUNK, 2), undefined)
})

t.test('FUA waits for a commit only where something is not durable', async (t) => {
  const rig = buildRig()
  t.equal(await write(rig, 0, GRANULE, 1, true), undefined)
  t.equal(rig.map.appended.length, 1)
  t.equal(rig.device(0).counts.flush, 1)
  t.equal(await write(rig, 0, 512, 2, true), undefined)
  t.equal(rig.map.appended.length, 1)
  t.equal(rig.device(0).counts.flush, 1)
  t.equal(rig.device(0).unflushed, 0)
  await write(rig, GRANULE, GRANULE, 3)
  t.equal(await write(rig, GRANULE, 512, 4, true), undefined, 'its granule is not durable')
  t.equal(rig.map.appended.length, 2)
  t.equal(rig.device(0).unflushed, 0)
})

t.test('FUA waits for the commit that is under way', async (t) => {
  const rig = buildRig()
  await write(rig, 0, GRANULE, 1)
  let open = (): void => {}
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  rig.map.gate = () => gate
  const end = flush(rig)
  await settle()
  const forced = watch(write(rig, 0, 512, 2, true))
  await settle()
  t.notOk(forced.ended, 'the entry of its chunk is not durable')
  open()
  t.strictSame([await end, await forced.promise], [undefined, undefined])
})

t.test('all or none: a write that is too large takes nothing', async (t) => {
  const rig = buildRig({ physical: [2] })
  const error = await write(rig, 0, 3 * CHUNK, 1)
  t.equal(error?.kind, 'no-space')
  t.match(error?.message, /thin is full: a write needs 3 .* 2 are free; .*plexus virstor add thin/)
  t.equal(rig.space.used, 0)
  t.equal(rig.device(0).counts.write, 0)
})

t.test('a full device: writes wait in order, and go on when there is space', async (t) => {
  const rig = buildRig({ physical: [2], fullWaitMs: 1000 })
  await write(rig, 0, 2 * CHUNK, 1)
  await flush(rig)
  const large = watch(write(rig, 2 * CHUNK, 2 * CHUNK, 2))
  const small = watch(write(rig, 4 * CHUNK, 512, 3))
  await settle()
  t.equal(rig.io.waiting, 2)
  t.equal(await write(rig, 0, 512, 4), undefined, 'what has its place is written')
  t.equal(await read(rig, 2 * CHUNK, 512), '0x512')
  t.equal(await change(rig, 'discard', 0, CHUNK), undefined)
  await settle()
  t.notOk(large.ended || small.ended, 'one chunk is not enough for the first, and nobody overtakes')
  t.equal(rig.space.free, 1)
  t.equal(await change(rig, 'discard', CHUNK, CHUNK), undefined)
  t.equal(await large.promise, undefined, 'committed without a flush')
  t.notOk(small.ended)
  rig.space.add({ ...rig.components[0], id: 2, startBytes: START } as Rig['components'][0])
  t.equal(await small.promise, undefined)
  t.equal(rig.io.waiting, 0)
})

t.test(
  'a full device: the wait ends for all, then writes fail until somebody gets space',
  async (t) => {
    const rig = buildRig({ physical: [1], fullWaitMs: 1000 })
    await write(rig, 0, CHUNK, 1)
    const one = watch(write(rig, CHUNK, 512, 2))
    await settle()
    rig.clock.advance(600)
    const two = watch(write(rig, 2 * CHUNK, 512, 3))
    await settle()
    rig.clock.advance(399)
    await settle()
    t.notOk(one.ended || two.ended)
    rig.clock.advance(1)
    t.equal((await one.promise)?.kind, 'no-space')
    t.equal((await two.promise)?.kind, 'no-space', 'the device was full for so long')
    t.equal((await write(rig, CHUNK, 512, 2))?.kind, 'no-space', 'at once')
    await change(rig, 'discard', 0, CHUNK)
    t.equal(await write(rig, CHUNK, 512, 2), undefined, 'waits for what is on its way')
    const three = watch(write(rig, 3 * CHUNK, 512, 4))
    await settle()
    rig.clock.advance(500)
    await settle()
    t.notOk(three.ended, 'who has got space begins a new time')
    rig.io.queue.waitMs = 400
    rig.clock.advance(399)
    await settle()
    t.notOk(three.ended, 'another time begins anew')
    rig.clock.advance(1)
    t.equal((await three.promise)?.kind, 'no-space')
  },
)

t.test('two that wait for one chunk need one place', async (t) => {
  const rig = buildRig({ physical: [1], fullWaitMs: 1000 })
  await write(rig, 0, CHUNK, 1)
  const both = [write(rig, CHUNK, 512, 2), write(rig, CHUNK + 512, 512, 3)]
  await settle()
  await change(rig, 'discard', 0, CHUNK)
  t.strictSame(await Promise.all(both), [undefined, undefined])
  t.equal(await read(rig, CHUNK, 1024), '2x512 3x512')
})

t.test('few wait, the rest is to come again; all fail when the device ends', async (t) => {
  const rig = buildRig({ physical: [1], fullWaitMs: 1000, chunkBytes: MIB })
  await write(rig, 0, MIB, 1)
  const some = Array.from({ length: VIRSTOR_SPACE_WAITERS }, () => write(rig, MIB, 512, 2))
  await settle()
  t.equal(rig.io.waiting, VIRSTOR_SPACE_WAITERS)
  t.equal((await write(rig, MIB, 512, 2))?.kind, 'exhausted')
  rig.io.stop()
  const kinds = new Set((await Promise.all(some)).map((error) => error?.kind))
  t.strictSame([...kinds], ['gone'])
  t.equal(rig.io.locks.size, 0)
})

t.test('what waits holds few bytes together, and one may always wait', async (t) => {
  const rig = buildRig({ physical: [1], fullWaitMs: 1000, chunkBytes: MIB })
  await write(rig, 0, MIB, 1)
  const one = watch(write(rig, MIB, 2 * MIB, 2))
  await settle()
  t.equal((await write(rig, 4 * MIB, 512, 3))?.kind, 'exhausted')
  t.notOk(one.ended)
  rig.clock.advance(1000)
  t.equal((await one.promise)?.kind, 'no-space')
})

t.test('a component that is away: its chunks fail, the others serve', async (t) => {
  const rig = buildRig({ physical: [4, 4], policy: 'round-robin' })
  await write(rig, 0, CHUNK, 1)
  await write(rig, CHUNK, CHUNK, 2)
  await flush(rig)
  rig.takeAway(1)
  t.equal(await read(rig, 0, 512), 'gone')
  const error = await write(rig, 0, 512, 3)
  t.equal(error?.kind, 'gone')
  t.match(error?.message, /component 1, which has this part of it, is missing; connect it again/)
  t.equal((await write(rig, GRANULE, 4 * CHUNK, 3))?.kind, 'gone')
  t.equal(rig.space.used, 2, 'nothing was taken for the rest of it')
  t.equal(await read(rig, CHUNK, CHUNK), `2x${CHUNK}`)
  t.equal(await write(rig, 2 * CHUNK, 2 * CHUNK, 4), undefined, 'new chunks are elsewhere')
  t.strictSame([rig.map.componentOf(2), rig.map.componentOf(3)], [2, 2])
  t.equal((await change(rig, 'discard', 0, 512))?.kind, 'gone')
  const all = await change(rig, 'discard', 0, 2 * CHUNK)
  t.equal(all?.kind, 'gone', 'nor is it discarded')
  t.strictSame([rig.map.componentOf(0), rig.map.componentOf(1)], [1, 0], 'what serves is')
  t.equal(await flush(rig), undefined, 'nothing was lost')
})

t.test('a chunk whose entry cannot be right: nothing reads, writes or discards it', async (t) => {
  const rig = buildRig()
  await write(rig, CHUNK, CHUNK, 1)
  rig.map.assign(0, { component: 0xffff, number: 0 })
  rig.map.markValid(0, 0, CHUNK / GRANULE - 1)
  t.equal(await read(rig, 0, 512), 'corrupt')
  t.match((await write(rig, 0, 512, 1))?.message, /thin: the entry of the map for this part/)
  t.equal((await change(rig, 'discard', 0, 2 * CHUNK))?.kind, 'corrupt')
  t.equal(rig.map.componentOf(0), 0xffff)
  t.equal(rig.map.componentOf(1), 0, 'the rest of the range is discarded')
})

t.test('a read under way from a component that loses its cache shows nothing of it', async (t) => {
  const rig = buildRig()
  await write(rig, 0, CHUNK, 5)
  rig.device(0).hold()
  const reading = read(rig, 0, CHUNK)
  rig.takeAway(1)
  rig.io.lost()
  rig.device(0).release()
  t.equal(await reading, 'gone')
})

t.test('a pause: what works ends, what comes waits', async (t) => {
  const rig = buildRig()
  await write(rig, 0, CHUNK, 1)
  rig.device(0).hold()
  const under = write(rig, 0, 512, 2)
  const paused = watch(rig.io.pause())
  await settle()
  t.notOk(paused.ended)
  rig.device(0).release()
  await paused.promise
  t.equal(await under, undefined)
  const later = [watch(write(rig, 0, 512, 3)), watch(flush(rig)), watch(read(rig, 0, 512))]
  await settle()
  t.notOk(later.some(({ ended }) => ended))
  rig.io.resume()
  t.strictSame(await Promise.all(later.slice(0, 2).map(({ promise }) => promise)), [
    undefined,
    undefined,
  ])
})

t.test('a lock keeps changes off, not reads', async (t) => {
  const rig = buildRig()
  await write(rig, 0, CHUNK, 1)
  const unlock = await rig.io.lock(0, CHUNK)
  const held = watch(write(rig, 512, 512, 2))
  t.equal(await write(rig, CHUNK, 512, 3), undefined)
  t.equal(await read(rig, 0, 512), '1x512')
  t.notOk(held.ended)
  // What a job that empties a component does: the content is there before the map says so.
  const [to] = rig.space.take(1) ?? []
  const { media } = rig.device(0)
  media.copy(media, START + (to?.number ?? 0) * CHUNK, START, START + CHUNK)
  if (to) rig.map.move(0, to)
  unlock()
  t.equal(await held.promise, undefined)
  t.equal(await read(rig, 0, 1024), '1x512 2x512')
  t.equal(media[START + 512], 1, 'the old place is left alone')
  await flush(rig)
  t.equal(rig.space.used, 2)
})

t.test('a request of no bytes ends, later', async (t) => {
  const rig = buildRig()
  for (const op of ['read', 'write', 'discard'] as const) {
    t.equal(await send(rig.io, { op, offset: 8 * CHUNK, data: Buffer.alloc(0) }), undefined)
  }
  t.equal(rig.space.used, 0)
})

t.test('long zeroes are left to the component', async (t) => {
  const rig = buildRig({ chunkBytes: 16 * 1024 * 1024, physical: [2], chunks: 2 })
  const ops: [string, number][] = []
  const { device } = rig.components[0] as Rig['components'][0]
  const submit = device.submit.bind(device)
  device.submit = (request: IoRequest) => {
    ops.push([request.op, request.length])
    submit(request)
  }
  t.equal(await write(rig, 4096, 4096, 1), undefined)
  t.strictSame(ops, [
    ['write', 4096],
    ['write-zeroes', 2 * 1024 * 1024 - 8192],
    ['write', 4096],
  ])
  t.equal(await read(rig, 0, 12288), '0x4096 1x4096 0x4096')
})
