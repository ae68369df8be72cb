/** The commit: order, sharing, what is flushed, failures of components and of the journal, the timer. */
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { VIRSTOR_COMMIT_ENTRIES, VIRSTOR_COMMIT_MS } from '../../../../src/base/limits.ts'
import { failureOf } from '../../../support/failure.ts'
import { send, settle } from '../../../support/vinum-host.ts'
import { buildRig, CHUNK, GRANULE, type Rig } from '../../../support/virstor-rig.ts'

const write = (rig: Rig, offset: number, length: number, value = 1) =>
  send(rig.io, { op: 'write', offset, data: Buffer.alloc(length, value) })

const flushes = (rig: Rig) => rig.components.map(({ device }) => device.counts.flush)

/** Two components, with a chunk on each. */
async function two() {
  const rig = buildRig({ physical: [4, 4], policy: 'round-robin' })
  await write(rig, 0, CHUNK)
  await write(rig, CHUNK, CHUNK)
  return rig
}

t.test('one commit at a time; whoever comes meanwhile shares the next', async (t) => {
  const rig = await two()
  let open = (): void => {}
  let waits = 0
  const gate = new Promise<void>((resolve) => {
    open = resolve
  })
  rig.map.gate = () => {
    waits++
    return gate
  }
  const first = rig.committer.commit()
  await settle()
  await write(rig, 2 * CHUNK, CHUNK)
  const others = [rig.committer.commit(), rig.committer.commit()]
  await settle()
  t.equal(waits, 1)
  open()
  await Promise.all([first, ...others])
  t.strictSame(
    rig.map.appended.map((records) => records.map(({ chunk }) => chunk)),
    [[0, 1], [2]],
  )
})

t.test('the data is flushed before the journal is written', async (t) => {
  const rig = await two()
  rig.device(1).hold()
  const end = rig.committer.commit()
  await settle()
  t.strictSame(flushes(rig), [1, 0])
  t.equal(rig.map.appended.length, 0)
  rig.device(1).release()
  await end
  t.equal(rig.map.appended.length, 1)
})

t.test('only what was written to is flushed, and only where there is a cache', async (t) => {
  const rig = await two()
  await rig.committer.commit()
  await write(rig, CHUNK, 512)
  await rig.committer.commit()
  await rig.committer.commit()
  t.strictSame(flushes(rig), [1, 2], 'a rewrite without a change of the map, too')
  t.equal(rig.map.appended.length, 1)

  const plain = buildRig({ features: { volatileWriteCache: false } })
  await write(plain, 0, 512)
  await plain.committer.commit()
  t.strictSame(flushes(plain), [0])
  t.equal(plain.map.appended.length, 1)
})

t.test('a write that ends during a flush is covered by the next one', async (t) => {
  const rig = await two()
  rig.device(0).hold()
  const under = write(rig, 0, 512)
  const end = rig.committer.commit()
  await settle()
  rig.device(0).release()
  await Promise.all([under, end])
  t.equal(rig.device(0).unflushed, 1)
  await rig.committer.commit()
  t.equal(rig.device(0).unflushed, 0)
})

t.test(
  'a component that fails a flush: out of service first, what was new withdrawn, all told once',
  async (t) => {
    const rig = await two()
    await rig.committer.commit()
    await write(rig, 2 * CHUNK, CHUNK)
    await write(rig, 3 * CHUNK, CHUNK)
    rig.device(0).fail('flush', 'io')
    const [one, other] = await Promise.all([
      failureOf(rig.committer.commit()),
      failureOf(rig.committer.commit()),
    ])
    t.match(one.message, /thin: writes that were acknowledged before this flush may be lost/)
    t.equal(one, other, 'they share it')
    t.strictSame(
      rig.failed.map(([id, { kind }]) => [id, kind]),
      [[1, 'io']],
    )
    t.strictSame(
      [2, 3].map((chunk) => rig.map.durable.get(chunk)?.validLow),
      [0, 0xff],
    )
    await rig.committer.commit()
    t.ok(rig.committer.isClean)
  },
)

t.test('all that a component has lost is withdrawn, in however many sets', async (t) => {
  const rig = await two()
  await write(rig, 2 * CHUNK, CHUNK)
  await write(rig, 3 * CHUNK, CHUNK)
  rig.map.limit = 1
  rig.device(0).fail('flush', 'io')
  rig.map.refuse = new PlexusError('io', { op: 'write', subject: 'j', message: 'no carrier' })
  t.match((await failureOf(rig.committer.commit())).message, /no carrier/)
  rig.map.refuse = undefined
  t.match((await failureOf(rig.committer.commit())).message, /may be lost/)
  const valid = [0, 1, 2, 3].map((chunk) => rig.map.durable.get(chunk)?.validLow)
  t.strictSame(valid, [0, 0xff, 0, 0xff])
  t.equal(rig.failed.length, 1)
})

t.test('what is written to a component while it fails is withdrawn, too', async (t) => {
  const rig = buildRig()
  await write(rig, 0, GRANULE)
  await rig.committer.commit()
  const { device } = rig.components[0] as Rig['components'][0]
  await write(rig, 0, GRANULE)
  device.fail('flush', 'io')
  device.hold()
  const told = failureOf(rig.committer.commit())
  await settle()
  const under = write(rig, GRANULE, GRANULE)
  device.releaseOne()
  await settle()
  t.equal(rig.failed.length, 1)
  device.release()
  t.equal(await under, undefined)
  t.match((await told).message, /may be lost/)
  t.match((await failureOf(rig.committer.commit())).message, /may be lost/, 'the write, too')
  await rig.committer.commit()
  t.equal(rig.map.durable.get(0)?.validLow, 1, 'what was flushed before stays')
  t.equal(
    (await send(rig.io, { op: 'read', offset: GRANULE, data: Buffer.alloc(512) }))?.kind,
    'gone',
    'and zeroes are not told instead of the rest',
  )
})

t.test(
  'a chunk that has moved to a component that fails is there, without what is new',
  async (t) => {
    const rig = await two()
    await rig.committer.commit()
    await send(rig.io, { op: 'discard', offset: 0, length: 2 * GRANULE })
    rig.map.move(0, { component: 2, number: 3 })
    await write(rig, 0, GRANULE)
    rig.device(1).fail('flush', 'io')
    await failureOf(rig.committer.commit())
    const { component, number, validLow } = rig.map.durable.get(0) ?? {}
    t.strictSame([component, number, validLow], [2, 3, 0b11111100])
    t.equal(rig.space.components[0]?.free, 4, 'its old place is free')
  },
)

t.test(
  'a component that went away with its cache has failed; one that was flushed before has not',
  async (t) => {
    const rig = await two()
    await rig.committer.commit()
    rig.takeAway(1)
    await rig.committer.commit()
    t.strictSame(rig.failed, [])
    await write(rig, CHUNK, 512)
    rig.takeAway(2)
    t.match((await failureOf(rig.committer.commit())).message, /component 2 went away/)
  },
)

t.test('what is lost in the background is owed to the next caller', async (t) => {
  const rig = await two()
  rig.device(0).fail('flush', 'io')
  rig.clock.advance(VIRSTOR_COMMIT_MS)
  await settle()
  t.equal(rig.failed.length, 1)
  t.notOk(rig.committer.isClean)
  t.match((await failureOf(rig.committer.commit())).message, /may be lost/)
  await rig.committer.commit()
})

t.test('nothing is built on a component until it is out of service for certain', async (t) => {
  let refuse = true
  const rig = buildRig({
    onFailed: async () => {
      if (!refuse) return
      throw new PlexusError('io', { op: 'commit', subject: 'thin', message: 'no quorum' })
    },
  })
  await write(rig, 0, CHUNK)
  rig.device(0).fail('flush', 'io')
  t.match((await failureOf(rig.committer.commit())).message, /no quorum/)
  t.match((await failureOf(rig.committer.commit())).message, /no quorum/)
  t.equal(rig.map.appended.length, 0)
  refuse = false
  t.match((await failureOf(rig.committer.commit())).message, /may be lost/)
  t.equal(rig.map.durable.get(0)?.validLow, 0)
})

t.test('a journal that fails: nothing is lost, and it is tried again', async (t) => {
  const rig = await two()
  rig.map.refuse = new PlexusError('io', { op: 'write', subject: 'j', message: 'no carrier' })
  t.match((await failureOf(rig.committer.commit())).message, /no carrier/)
  t.ok(rig.map.isChanged)
  rig.map.refuse = undefined
  rig.clock.advance(VIRSTOR_COMMIT_MS)
  await settle()
  t.strictSame([...rig.map.durable.keys()], [0, 1])
  await rig.committer.commit()
})

t.test('changes are durable after a time, or when there are many', async (t) => {
  const rig = await two()
  rig.clock.advance(VIRSTOR_COMMIT_MS - 1)
  await settle()
  t.equal(rig.map.appended.length, 0)
  rig.clock.advance(1)
  await settle()
  t.equal(rig.map.appended.length, 1)
  await write(rig, 0, GRANULE)
  rig.clock.advance(VIRSTOR_COMMIT_MS)
  await settle()
  t.equal(flushes(rig)[0], 1, 'a rewrite waits for whoever flushes')
  await write(rig, 2 * CHUNK, GRANULE)
  rig.committer.changed(VIRSTOR_COMMIT_ENTRIES)
  await settle()
  t.equal(rig.map.appended.length, 2)
  await write(rig, 3 * CHUNK, GRANULE)
  await rig.committer.stop()
  rig.clock.advance(VIRSTOR_COMMIT_MS)
  await settle()
  t.equal(rig.map.appended.length, 2)

  const gone = new PlexusError('gone', { op: 'write', subject: 'thin', message: 'it has ended' })
  let tries = 0
  rig.map.gate = () => {
    tries++
    return Promise.reject(gone)
  }
  t.equal(await rig.committer.pass(), gone)
  rig.clock.advance(VIRSTOR_COMMIT_MS)
  await settle()
  t.equal(tries, 1, 'what fails then is not tried for ever')
})
