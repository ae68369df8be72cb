/**
 * Chunks that move among random requests, against what each block may read as: while it runs, with components that fail,
 * and after a crash. Then movers that are broken on purpose, which must be found.
 */
import fc from 'fast-check'
import t from 'tap'
import { operatingError } from '../../../../src/base/errors.ts'
import { MIB } from '../../../../src/base/limits.ts'
import type { Consumer } from '../../../../src/engine/geom/consumer.ts'
import { ChunkMover } from '../../../../src/engine/virstor/moves/chunk-mover.ts'
import type { Place } from '../../../../src/engine/virstor/runtime.ts'
import { createAlignedPool } from '../../../../src/hal/aligned-pool.ts'
import { send, settle } from '../../../support/vinum-host.ts'
import { BlockHistory } from '../../../support/virstor-history.ts'
import {
  buildRig,
  CHUNK,
  contentAfterCrash,
  type Rig,
  STALE,
} from '../../../support/virstor-rig.ts'

const BLOCK = 2048
const CHUNKS = 4
const PER_CHUNK = CHUNK / BLOCK
const BLOCKS = CHUNKS * PER_CHUNK
const PHYSICAL = [4, 4, 4]

interface Step {
  readonly op: 'write' | 'read' | 'discard' | 'flush' | 'move'
  readonly block: number
  readonly count: number
  readonly fua: boolean
  /** Turns of the event loop before the next one. */
  readonly turns: number
  /** The next one of these fails on a component. */
  readonly fault: 'read' | 'write' | 'flush' | undefined
}

const range = fc.oneof(
  fc.record({ block: fc.nat(BLOCKS - 1), count: fc.integer({ min: 1, max: 6 }) }),
  fc.nat(CHUNKS - 1).map((chunk) => ({ block: chunk * PER_CHUNK, count: PER_CHUNK })),
)

const stepWith = (fault: fc.Arbitrary<Step['fault']>): fc.Arbitrary<Step> =>
  fc
    .record({
      op: fc.constantFrom('write', 'write', 'move', 'move', 'move', 'read', 'discard', 'flush'),
      range,
      fua: fc.boolean(),
      turns: fc.nat(4),
      fault,
    })
    .map(({ range: where, ...rest }) => ({ ...rest, ...where }))

const STEPS = {
  sound: stepWith(fc.constant(undefined)),
  faulty: stepWith(
    fc.oneof(
      { weight: 10, arbitrary: fc.constant(undefined) },
      { weight: 1, arbitrary: fc.constantFrom('read', 'write', 'flush') },
    ),
  ),
}

interface Run {
  readonly steps: readonly Step[]
  readonly turns: number
  /** Components whose caches lose what they have. */
  readonly cuts: readonly number[]
}

const runOf = (steps: fc.Arbitrary<Step>): fc.Arbitrary<Run> =>
  fc.record({
    steps: fc.array(steps, { minLength: 1, maxLength: 40 }),
    turns: fc.nat(12),
    cuts: fc.constantFrom([], [0], [1], [0, 1, 2]),
  })

type Breakage = 'noLock' | 'noFlush' | 'noCommit' | 'giveAtOnce' | undefined

/** Consumers that say that they have no cache, so that nobody flushes them. */
function cacheless({ space }: Rig): Rig['space'] {
  const made = new Map<Consumer, Consumer>()
  const wrap = (consumer: Consumer): Consumer => {
    const features = { ...consumer.features, volatileWriteCache: false }
    const fake = { features, submit: consumer.submit.bind(consumer) } as Consumer
    const known = made.get(consumer) ?? fake
    made.set(consumer, known)
    return known
  }
  return {
    take: (count: number) => space.take(count),
    give: (place: Place) => space.give(place),
    component: (id: number) => {
      const component = space.component(id)
      if (!component) return undefined
      const { chunks, startBytes, consumer } = component
      return { id, chunks, startBytes, consumer: consumer && wrap(consumer) }
    },
  } as unknown as Rig['space']
}

function moverOf(rig: Rig, breakage: Breakage, pool = createAlignedPool(32 * MIB)): ChunkMover {
  const { live, io, committer, space } = rig
  const { map } = rig
  const giving = (chunk: number, place: Place): void => {
    const old = { component: map.componentOf(chunk), number: map.numberOf(chunk) }
    map.move(chunk, place)
    map.forget(old)
    space.give(old)
  }
  const isBroken = (what: Breakage): boolean => breakage === what
  return new ChunkMover({
    name: 'thin',
    chunkBytes: CHUNK,
    pool,
    map: isBroken('giveAtOnce')
      ? new Proxy(live, {
          get: (target, key) =>
            key === 'move'
              ? giving
              : typeof Reflect.get(target, key) === 'function'
                ? (Reflect.get(target, key) as (...all: unknown[]) => unknown).bind(target)
                : Reflect.get(target, key),
        })
      : live,
    io: isBroken('noLock') ? ({ lock: async () => () => {} } as unknown as typeof io) : io,
    space: isBroken('noFlush') ? cacheless(rig) : space,
    committer: isBroken('noCommit')
      ? ({
          pass: async () => undefined,
          changed: (count: number) => committer.changed(count),
        } as unknown as typeof committer)
      : committer,
  })
}

/** What is wrong with a run; undefined: nothing. */
async function play(
  { steps, turns, cuts }: Run,
  table: boolean,
  breakage: Breakage = undefined,
): Promise<string | undefined> {
  const isFaulty = steps.some(({ fault }) => fault)
  const rig = buildRig({ chunks: CHUNKS, physical: PHYSICAL, policy: 'round-robin', table })
  const mover = moverOf(rig, breakage)
  const history = new BlockHistory(BLOCKS)
  let wrong: string | undefined
  let isCrashed = false
  const isExpected = (kind: string): boolean =>
    kind === 'no-space' || (isFaulty && (kind === 'io' || kind === 'gone'))
  const one = async (step: Step, at: number): Promise<void> => {
    const { op, block, count: wanted, fua, fault } = step
    if (fault) rig.device(at % PHYSICAL.length).fail(fault, 'io')
    const count = Math.min(wanted, BLOCKS - block)
    const where = { offset: block * BLOCK, length: count * BLOCK }
    if (op === 'move') {
      const chunk = Math.floor(block / PER_CHUNK)
      const from = rig.live.componentOf(chunk)
      const move = { chunk, from, to: undefined }
      const error = from && (await mover.move(move).catch((failure: unknown) => failure))
      if (isCrashed) return
      if (error instanceof Error && !isExpected((error as { kind?: string }).kind ?? '')) {
        wrong ??= `a move failed: ${error.message}`
      }
      return
    }
    const startedAt = history.now()
    const value = op === 'write' ? at + 1 : 0
    const change =
      op === 'write' || op === 'discard' ? history.begin(block, count, value) : undefined
    const data =
      op === 'write' || op === 'read' ? { data: Buffer.alloc(where.length, value) } : undefined
    const request = op === 'flush' ? { op } : { op, ...where, ...data, fua: op !== 'read' && fua }
    const error = await send(rig.io, request)
    if (isCrashed) return
    if (error) {
      if (op === 'flush' || fua) history.lost()
      if (!isExpected(error.kind)) wrong ??= `${op} failed: ${error.message}`
    } else if (op === 'flush') history.flushed(startedAt)
    else if (change) history.end(change, fua)
    else if (data) wrong ??= history.checkRead(block, data.data, startedAt, BLOCK)
  }
  const ends: Promise<void>[] = []
  for (const [at, next] of steps.entries()) {
    ends.push(one(next, at))
    await settle(next.turns)
  }
  await settle(turns)
  isCrashed = true
  for (const at of cuts) rig.components[at]?.device.powerCut()
  wrong ??= history.checkCrash(contentAfterCrash(rig), BLOCK)
  await Promise.all(ends)
  if (wrong || cuts.length > 0 || rig.failed.length > 0) return wrong
  isCrashed = false
  const all = { block: 0, count: BLOCKS, fua: false, turns: 0, fault: undefined }
  await one({ op: 'read', ...all }, 0)
  await one({ op: 'flush', ...all }, 0)
  if (wrong || rig.failed.length > 0) return wrong
  await rig.committer.pass()
  await new Promise<void>((resolve) => rig.io.afterAll(resolve))
  await settle()
  let used = 0
  for (let chunk = 0; chunk < CHUNKS; chunk++) if (rig.live.componentOf(chunk) !== 0) used++
  if (rig.space.used !== used) return `${rig.space.used} of ${used} chunks are in use`
  if (rig.io.active > 0 || rig.io.locks.size > 0) return 'not at rest'
  return undefined
}

async function search(
  steps: fc.Arbitrary<Step>,
  numRuns: number,
  table: boolean,
  breakage?: Breakage,
) {
  return fc.check(
    fc.asyncProperty(runOf(steps), async (one) => {
      const wrong = await play(one, table, breakage)
      if (wrong !== undefined) throw new Error(wrong)
    }),
    { numRuns, endOnFailure: breakage !== undefined },
  )
}

for (const [name, steps] of Object.entries(STEPS)) {
  for (const table of [false, true]) {
    t.test(`${name} components, on ${table ? 'the shipped' : 'a naive'} map`, async (t) => {
      const { failed, counterexample, errorInstance } = await search(steps, 200, table)
      t.notOk(failed, `${String(errorInstance)} ${JSON.stringify(counterexample)}`)
    })
  }
}

const BROKEN = {
  noLock: STEPS.sound,
  noFlush: STEPS.sound,
  giveAtOnce: STEPS.sound,
} as const

for (const [broken, steps] of Object.entries(BROKEN)) {
  t.test(`a mover with ${broken} is found`, async (t) => {
    t.ok((await search(steps, 5000, false, broken as Breakage)).failed)
  })
}

/** What a chunk reads as when its component has lost what was in its cache before the move; undefined: it fails. */
async function afterLostCache(breakage: Breakage): Promise<number | undefined> {
  const rig = buildRig({ chunks: CHUNKS, physical: PHYSICAL, table: true })
  const data = Buffer.alloc(CHUNK, 1)
  await send(rig.io, { op: 'write', offset: 0, length: CHUNK, data })
  rig.device(0).powerCut()
  rig.device(0).fail('flush', 'io')
  const move = { chunk: 0, from: 1, to: 2 }
  await moverOf(rig, breakage).move(move).catch(operatingError)
  return (await send(rig.io, { op: 'read', offset: 0, length: CHUNK, data })) ? undefined : data[0]
}

t.test('what a component has lost is not moved', async (t) => {
  t.equal(await afterLostCache(undefined), undefined)
  t.equal(await afterLostCache('noCommit'), STALE, 'a mover with noCommit is found')
})

/** A chunk with data, and a mover with a small pool. */
async function small() {
  const rig = buildRig({ chunks: CHUNKS, physical: PHYSICAL, table: true })
  const data = Buffer.alloc(CHUNK, 1)
  await send(rig.io, { op: 'write', offset: 0, length: CHUNK, data })
  const pool = createAlignedPool(4 * MIB)
  return { rig, data, pool, mover: moverOf(rig, undefined, pool) }
}

t.test('writes that wait for the chunk may hold all of the pool', async (t) => {
  const { rig, data, pool, mover } = await small()
  rig.device(0).hold()
  let isMoved = false
  const moved = mover.move({ chunk: 0, from: 1, to: 2 }).then(() => {
    isMoved = true
  })
  await settle()
  const leases = []
  for (let one = pool.lease(CHUNK); one; one = pool.lease(CHUNK)) leases.push(one)
  const written = send(rig.io, { op: 'write', offset: 0, length: CHUNK, data })
  rig.device(0).release()
  await settle(100)
  t.ok(isMoved)
  for (const one of leases) one.release()
  await moved
  t.equal(await written, undefined)
  t.equal(pool.leased, 0)
})

t.test('memory that a disk keeps is not what the new place gets', async (t) => {
  const { rig, data, pool, mover } = await small()
  const device = rig.device(0)
  const submit = device.submit.bind(device)
  let reads = 0
  device.submit = (request) => {
    const { op, data: into } = request
    if (op !== 'read' || !into || reads++ > 0) return submit(request)
    // A disk below has not answered, another one has; the first one writes to the memory all the same.
    pool.keep(into)
    const complete: typeof request.complete = (error) => {
      into.bytes.fill(9)
      request.complete(error)
    }
    submit({ ...request, complete })
  }
  t.equal(await mover.move({ chunk: 0, from: 1, to: 2 }), CHUNK)
  t.equal(reads, 2)
  t.equal(await send(rig.io, { op: 'read', offset: 0, length: CHUNK, data }), undefined)
  t.ok(data.equals(Buffer.alloc(CHUNK, 1)))
  t.equal(rig.space.used, 2, 'one place, and the old one until the commit')
})
