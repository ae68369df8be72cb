/** Discards towards the components: when, of what, and what they must never touch. */
import t from 'tap'
import type { IoRequest } from '../../../../src/hal/block-device.ts'
import type { MemoryDevice } from '../../../support/memory-device.ts'
import { send, settle } from '../../../support/vinum-host.ts'
import { buildRig, CHUNK, type Rig, START } from '../../../support/virstor-rig.ts'

const write = (rig: Rig, chunk: number, chunks = 1, value = 1) =>
  send(rig.io, { op: 'write', offset: chunk * CHUNK, data: Buffer.alloc(chunks * CHUNK, value) })
const discard = (rig: Rig, chunk: number, chunks = 1) =>
  send(rig.io, { op: 'discard', offset: chunk * CHUNK, length: chunks * CHUNK })
const flush = (rig: Rig) => send(rig.io, { op: 'flush' })

/** Discards that have reached a component: first place and number of places of each. */
function watchDiscards(device: MemoryDevice): (readonly [number, number])[] {
  const seen: (readonly [number, number])[] = []
  const submit = device.submit.bind(device)
  device.submit = (request: IoRequest) => {
    const { op, offset, length } = request
    if (op === 'discard') seen.push([(offset - START) / CHUNK, length / CHUNK])
    submit(request)
  }
  return seen
}

t.test('places are discarded when their release is durable, neighbours together', async (t) => {
  const rig = buildRig({ physical: [16], discards: true })
  const seen = watchDiscards(rig.device(0))
  await write(rig, 0, 6)
  await discard(rig, 0, 2)
  await discard(rig, 4, 2)
  await discard(rig, 3)
  await settle()
  t.strictSame(seen, [], 'not before the commit')
  await flush(rig)
  await settle()
  t.strictSame(seen, [
    [0, 2],
    [3, 3],
  ])
  t.equal(rig.space.free, 15)
  await discard(rig, 2)
  await flush(rig)
  t.equal(await write(rig, 7), undefined)
  await settle()
  t.equal(seen.length, 3)
  t.equal(rig.space.free, 15, 'and they are free again')
})

t.test('a place is not given out while it is discarded', async (t) => {
  const rig = buildRig({ physical: [8], discards: true, fullWaitMs: 1000 })
  const seen = watchDiscards(rig.device(0))
  await write(rig, 0, 4)
  await discard(rig, 0, 4)
  rig.device(0).hold()
  const flushed = flush(rig)
  while (seen.length === 0) {
    rig.device(0).releaseOne()
    await settle()
  }
  await flushed
  t.strictSame(seen, [[0, 4]])
  t.equal(rig.space.free, 4, 'half of what is free is left to writes')
  const written = write(rig, 0, 2, 7)
  await settle()
  rig.device(0).release()
  t.equal(await written, undefined)
  const places = [0, 1].map((chunk) => rig.map.numberOf(chunk))
  t.strictSame(places, [4, 5])
  await settle()
  t.equal(rig.space.free, 6)
})

t.test('what has been given out again is left alone', async (t) => {
  const rig = buildRig({ physical: [16], discards: true })
  const seen = watchDiscards(rig.device(0))
  await write(rig, 0, 3)
  await discard(rig, 0, 3)
  rig.space.watermarks = { chunkWatermark: 15, percentWatermark: 0, componentWatermark: 1 }
  await flush(rig)
  await settle()
  t.strictSame(seen, [], 'not while space is low')
  t.equal(await write(rig, 5), undefined)
  rig.space.watermarks = { chunkWatermark: 0, percentWatermark: 0, componentWatermark: 1 }
  await write(rig, 6)
  await discard(rig, 6)
  await flush(rig)
  await settle()
  t.strictSame(seen, [[1, 2]], 'chunk 5 lies at place 0, chunk 6 lay at place 1')
})

t.test('pauses for as long as a discard takes; one that fails is the last', async (t) => {
  const rig = buildRig({ physical: [32], discards: true })
  const times = watchDiscards(rig.device(0))
  await write(rig, 0, 5)
  for (const chunk of [0, 2, 4]) await discard(rig, chunk)
  rig.device(0).hold()
  const flushed = flush(rig)
  while (times.length === 0) {
    rig.device(0).releaseOne()
    await settle()
  }
  await flushed
  rig.clock.advance(40)
  rig.device(0).release()
  await settle()
  t.equal(times.length, 1)
  rig.clock.advance(39)
  await settle()
  t.equal(times.length, 1, 'the pause')
  rig.device(0).fail('discard', 'unsupported')
  rig.clock.advance(1)
  await settle()
  t.equal(times.length, 2)
  await discard(rig, 1)
  await flush(rig)
  rig.clock.advance(1000)
  await settle()
  t.equal(times.length, 2, 'no more after one was refused')
  t.equal(rig.space.free, 31)
})

t.test('off, or a component that cannot: nothing', async (t) => {
  for (const options of [
    { discards: false },
    { discards: true, features: { discardGranularityBytes: 0 } },
  ]) {
    const rig = buildRig({ physical: [8], ...options })
    const seen = watchDiscards(rig.device(0))
    await write(rig, 0)
    await discard(rig, 0)
    await flush(rig)
    await settle()
    t.strictSame(seen, [])
    t.equal(rig.space.free, 8)
  }
})

t.test('at any moment: nothing durable lies there, and nobody reads or writes there', async (t) => {
  let discards = 0
  for (let seed = 1; seed <= 20; seed++) {
    const rig = buildRig({ physical: [12, 12], policy: 'round-robin', discards: true })
    const faults: string[] = []
    let state = seed
    const roll = (n: number): number => {
      state = (Math.imul(state ^ (state >>> 15), 0x2c1b3c6d) + 0x9e3779b9) >>> 0
      return (state >>> 4) % n
    }
    const underWay: { id: number; from: number; to: number; op: string }[] = []
    for (const { id, device } of rig.components) {
      const submit = device.submit.bind(device)
      device.submit = (request: IoRequest) => {
        const { op, offset, length } = request
        const one = { id, from: offset, to: offset + length, op }
        const beside = underWay.filter(
          (two) => two.id === id && two.from < one.to && one.from < two.to,
        )
        if (beside.some((two) => op === 'discard' || two.op === 'discard')) {
          faults.push(`${op} beside ${beside.map((two) => two.op)}`)
        }
        if (op === 'discard') {
          discards++
          for (const { component, number, chunk } of rig.map.durable.values()) {
            const at = START + number * CHUNK
            if (component === id && at < one.to && at + CHUNK > one.from) {
              faults.push(`chunk ${chunk} lies there, durably`)
            }
          }
        }
        underWay.push(one)
        submit({
          ...request,
          complete(error) {
            const end = (): void => {
              underWay.splice(underWay.indexOf(one), 1)
              request.complete(error)
            }
            // A read may last while its chunk is discarded and that is committed.
            if (op === 'read') void settle(roll(40)).then(end)
            else end()
          },
        })
      }
    }
    const lane = async (): Promise<void> => {
      for (let step = 0; step < 40; step++) {
        const chunk = roll(7)
        const what = roll(6)
        if (what === 0) await flush(rig)
        else if (what === 1)
          await send(rig.io, { op: 'read', offset: chunk * CHUNK, data: Buffer.alloc(CHUNK) })
        else if (what < 4) await discard(rig, chunk, 1 + roll(2))
        else await write(rig, chunk, 1 + roll(2), step)
      }
    }
    await Promise.all([lane(), lane(), lane()])
    t.strictSame(faults, [], `seed ${seed}`)
  }
  t.ok(discards > 100, `${discards} discards`)
})
