import fc from 'fast-check'
import t from 'tap'
import { RangeSet } from '../../../../src/base/range-set.ts'
import { PARITY_LAYOUTS } from '../../../../src/engine/vinum/model/model.ts'
import {
  checkStep,
  initialiseStep,
  rebuildStep,
  resyncStep,
} from '../../../../src/engine/vinum/raid5/row-jobs.ts'
import { pattern, Raid5Rig } from '../../../support/raid5-rig.ts'
import { setState, settle } from '../../../support/vinum-host.ts'

const S = 8192

/** Runs a step until the plex is done, and counts the steps. */
async function run(
  rig: Raid5Rig,
  step: (offset: number, maxBytes: number) => Promise<number>,
  maxBytes = 2 * S,
): Promise<number> {
  let steps = 0
  for (let offset = 0; offset < rig.plex.sizeBytes; steps++) {
    const next = await step(offset, maxBytes)
    t.ok(next > offset && next <= rig.plex.sizeBytes, 'a step goes on, and not beyond the end')
    offset = next
  }
  return steps
}

/** Writes of initiators all over the plex, until told to stop. */
function writing(rig: Raid5Rig, seed: number): () => Promise<void> {
  let going = true
  const blocks = rig.content.length / 512
  const work = (async () => {
    let state = seed
    for (let round = 0; going && round < 400; round++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      const block = state % (blocks - 4)
      await rig.write(block * 512, pattern((1 + (state % 3)) * 512, round))
    }
  })()
  return async () => {
    going = false
    await work
  }
}

function revive(rig: Raid5Rig, column: number): RangeSet {
  const subdisk = rig.subdisk(column)
  for (let row = 0; row < rig.rows; row++) rig.unit(column, row).fill(0xee)
  setState(subdisk, 'reviving')
  const missing = new RangeSet([{ offset: 0, length: rig.plex.sizeBytes }])
  subdisk.missing = missing
  return missing
}

t.test(
  'a rebuild under writes leaves a right column, and the column is used as far as it is',
  async (t) => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 3, max: 6 }),
        fc.constantFrom(...PARITY_LAYOUTS),
        fc.nat(5),
        fc.nat(1e6),
        async (columns, parityLayout, lost, seed) => {
          const column = lost % columns
          const rig = new Raid5Rig({ columns, parityLayout, rows: 10 })
          rig.fill()
          const missing = revive(rig, column)
          const stop = writing(rig, seed)
          await run(rig, (offset, maxBytes) =>
            rebuildStep(rig.plex, rig.subdisk(column), offset, maxBytes),
          )
          await stop()
          t.ok(missing.isEmpty)
          t.same(rig.differences(), [])
          const before = rig.drive(column).device.counts.read
          t.ok((await rig.read(0, rig.content.length)).equals(rig.content))
          t.ok(rig.drive(column).device.counts.read > before, 'reads go to it again')
          rig.assertAtRest()
        },
      ),
      { numRuns: 15 },
    )
  },
)

t.test('8.14: a step holds its few rows, not the rest of the plex', async (t) => {
  const rig = new Raid5Rig({ columns: 5, rows: 8 })
  rig.fill()
  revive(rig, 4)
  rig.drive(0).device.hold()
  // Rows 0 and 1 are being rebuilt, and cannot go on.
  const step = rebuildStep(rig.plex, rig.subdisk(4), 0, 8 * S)
  await settle()
  const inside = rig.write(S, pattern(512, 1))
  let insideDone = false
  void inside.then(() => {
    insideDone = true
  })
  // Row 5 behaves like any other row of a degraded plex; parity is on column 4: nothing but data is written.
  await rig.write(5 * 4 * S + S, pattern(512, 2))
  await settle()
  t.notOk(insideDone)
  rig.drive(0).device.release()
  t.equal(await step, 8 * S)
  await inside
  t.same(
    rig.differences().filter((place) => /row [01] /.test(place)),
    [],
  )
  rig.assertAtRest()
})

t.test(
  '8.8: a rebuild that fails makes nothing valid, and a column that was not asked for is left alone',
  async (t) => {
    const rig = new Raid5Rig()
    rig.fill()
    const missing = revive(rig, 1)
    rig.drive(2).device.fail('read', 'timeout')
    await t.rejects(rebuildStep(rig.plex, rig.subdisk(1), 0, 3 * S), { message: /injected/ })
    t.equal(missing.bytes, rig.plex.sizeBytes)
    rig.drive(1).device.fail('write', 'io')
    await t.rejects(rebuildStep(rig.plex, rig.subdisk(1), 0, 3 * S), { message: /injected/ })
    t.equal(missing.bytes, rig.plex.sizeBytes)
    t.ok((await rig.read(0, S)).equals(rig.content.subarray(0, S)), 'reads still go around it')
    const untouched = Buffer.from(rig.drive(3).device.media)
    setState(rig.subdisk(3), 'stale')
    await t.rejects(rebuildStep(rig.plex, rig.subdisk(1), 0, 3 * S), { message: /p\.s3 is stale/ })
    t.ok(untouched.equals(rig.drive(3).device.media))
    setState(rig.subdisk(3), 'up')
    rig.plex.record = { ...rig.plex.record, parityValidBytes: 0 }
    await t.rejects(rebuildStep(rig.plex, rig.subdisk(1), 0, 3 * S), {
      message: /parity is not known/,
    })
    rig.assertAtRest()
  },
)

t.test('8.2: initialisation computes parity under writes, and moves the mark', async (t) => {
  const rig = new Raid5Rig({ record: { parityValidBytes: 0 } })
  rig.fill()
  for (let row = 0; row < rig.rows; row++) rig.unit(3 - (row % 4), row).fill(0x77)
  const stop = writing(rig, 5)
  await run(rig, (offset, maxBytes) => initialiseStep(rig.plex, offset, maxBytes))
  await stop()
  t.equal(rig.plex.parityValidBytes, rig.content.length)
  t.same(rig.differences(), [])
  rig.drive(2).pull()
  t.ok((await rig.read(0, rig.content.length)).equals(rig.content))
  rig.assertAtRest()
})

t.test('8.6: an error in the initialisation does not move the mark', async (t) => {
  for (const [column, op] of [
    [0, 'read'],
    [3, 'write'],
  ] as const) {
    const rig = new Raid5Rig({ record: { parityValidBytes: 0 } })
    rig.fill()
    rig.drive(column).device.fail(op, 'io')
    await t.rejects(initialiseStep(rig.plex, 0, 3 * S), { message: /injected/ })
    t.equal(rig.plex.parityValidBytes, 0)
    t.equal(rig.subdisk(column).errors[op], 1)
    await initialiseStep(rig.plex, 0, 3 * S)
    t.equal(rig.plex.parityValidBytes, 3 * S)
    // A later row does not count before the ones between are done, nor does an older record take it back.
    await initialiseStep(rig.plex, 6 * S, 3 * S)
    t.equal(rig.plex.parityValidBytes, 3 * S)
    rig.plex.record = { ...rig.plex.record, state: 'initializing' }
    t.equal(rig.plex.parityValidBytes, 3 * S)
    setState(rig.subdisk(1), 'stale')
    await t.rejects(initialiseStep(rig.plex, 3 * S, 3 * S), { message: /p\.s1 is stale/ })
    rig.assertAtRest()
  }
})

t.test('8.25: a check reads each row once, and names every wrong one', async (t) => {
  const rig = new Raid5Rig({ rows: 9 })
  rig.fill()
  const spoil = (row: number, column: number, at: number) => {
    const unit = rig.unit(column, row)
    unit[at] = (unit[at] ?? 0) ^ 1
  }
  spoil(1, 2, 100)
  spoil(6, 3, 5000)
  spoil(6, 3, 6000)
  const found: number[] = []
  const check = (repair: boolean) => async (offset: number, maxBytes: number) => {
    const result = await checkStep(rig.plex, offset, maxBytes, { repair })
    found.push(...result.mismatches)
    return result.offset
  }
  const steps = await run(rig, check(false), 9 * S)
  t.same(found, [3 * S + 100, 18 * S + 5000])
  t.equal(steps, 3)
  t.equal(rig.count('read'), steps * 4, 'one request for each column and step')
  t.equal(rig.count('write'), 0)
  t.equal(
    rig.subdisks.reduce((sum, { errors }) => sum + errors.parity, 0),
    2,
  )
  found.length = 0
  await run(rig, check(true), 9 * S)
  t.equal(found.length, 2)
  spoil(6, 3, 6000)
  spoil(6, 3, 6000)
  found.length = 0
  await run(rig, check(false), 9 * S)
  t.same(found, [])
  // Parity was taken to be wrong, never data.
  t.same(
    rig.differences().filter((place) => !place.startsWith('row 6')),
    [],
  )
  rig.assertAtRest()
})

t.test('a check makes a bad sector good, and fails where it cannot', async (t) => {
  const rig = new Raid5Rig({ stripeBytes: 128 * 1024, rows: 4 })
  rig.fill()
  // The whole read fails, then the second of its pieces.
  const { device } = rig.drive(1)
  device.fail('read', 'io')
  const step = checkStep(rig.plex, 0, rig.stripeBytes * 3, { repair: false })
  const result = await step
  t.same(result.mismatches, [])
  t.same(rig.host.repairs, [], 'the second attempt has read it all')
  device.fail('read', 'io', 2)
  rig.unit(1, 0).fill(0, 0, 65_536)
  await checkStep(rig.plex, 0, rig.stripeBytes * 3, { repair: false })
  t.same(rig.host.repairs, [{ subdisk: rig.subdisk(1), offset: 0, length: 65_536 }])
  t.same(rig.differences(), [])
  device.fail('read', 'io', 2)
  rig.drive(2).device.fail('read', 'io', 2)
  await t.rejects(checkStep(rig.plex, 0, rig.stripeBytes * 3, { repair: true }), {
    kind: 'io',
  } as never)
  rig.drive(3).pull()
  await t.rejects(checkStep(rig.plex, 0, S, { repair: true }), {
    message: /p\.s3 is up and not valid/,
  })
  rig.assertAtRest()
})

t.test('8.12: after a repair that failed, nothing waits for ever', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  rig.unit(3, 0).fill(1)
  rig.drive(3).device.fail('write', 'io')
  await t.rejects(checkStep(rig.plex, 0, 3 * S, { repair: true }), { message: /injected/ })
  rig.assertAtRest()
  await rig.write(0, pattern(3 * S, 1))
  await rig.write(6 * S, pattern(3 * S, 2))
  t.same(rig.differences(), [])
})

/** Rows of these numbers are in doubt, and what they have for parity is wrong. */
function putInDoubt(rig: Raid5Rig, ...rows: readonly number[]): void {
  const rowBytes = (rig.columns - 1) * rig.stripeBytes
  for (const row of rows) {
    rig.plex.doubt.add(row * rowBytes, rowBytes)
    rig.unit(rig.columns - 1 - (row % rig.columns), row).fill(0x11)
  }
}

t.test(
  '8.1: after a crash the parity of a row in doubt is computed before it is used',
  async (t) => {
    const rig = new Raid5Rig({ columns: 5 })
    rig.fill()
    const row = 4 * S
    putInDoubt(rig, 2, 3)
    await rig.write(2 * row, pattern(512, 1))
    t.same(
      rig.differences().filter((place) => place.startsWith('row 2')),
      [],
      'all of it, before the first write',
    )
    t.ok(!rig.plex.doubt.touches(2 * row, row))
    rig.drive(0).device.fail('read', 'io')
    await t.rejects(rig.read(3 * row, 512), { message: /injected/ })
    t.same(rig.host.repairs, [], 'nothing is written from parity in doubt')
    // A block of another column cannot be read just now: the write goes on, and the doubt stays.
    rig.drive(4).device.fail('read', 'io')
    await rig.write(3 * row, pattern(512, 2))
    t.ok(rig.plex.doubt.touches(3 * row, row))
    const stop = writing(rig, 9)
    t.equal(await resyncStep(rig.plex, 2 * row, 2 * row), 4 * row)
    await stop()
    t.ok(!rig.plex.doubt.touches(0, rig.plex.sizeBytes))
    t.same(rig.differences(), [])
    // A column that fails a write in a row in doubt goes out of service as ever, with parity made right before.
    putInDoubt(rig, 1)
    rig.drive(1).device.fail('write', 'io')
    await rig.write(row + S, pattern(512, 3))
    t.same(rig.host.demoted, [['p.s1']])
    t.same(rig.differences([1]), [])
    setState(rig.subdisk(1), 'up')
    rig.fill()
    // A row whose parity column is missing has nothing to compute.
    putInDoubt(rig, 0)
    setState(rig.subdisk(4), 'stale')
    t.equal(await resyncStep(rig.plex, 0, row), row)
    t.ok(!rig.plex.doubt.touches(0, rig.plex.sizeBytes))
    rig.assertAtRest()
  },
)

t.test(
  'a column that is missing in a row in doubt is lost there until it is written',
  async (t) => {
    for (const settle of ['resync', 'write'] as const) {
      const rig = new Raid5Rig({ columns: 5 })
      rig.fill()
      putInDoubt(rig, 2, 3)
      const row = 4 * S
      setState(rig.subdisk(0), 'stale')
      await t.rejects(rig.read(2 * row, 512), { message: /since a crash/ }, 'no guess')
      t.ok(
        (await rig.read(2 * row + S, S)).equals(rig.content.subarray(2 * row + S, 2 * row + 2 * S)),
      )
      if (settle === 'resync') await resyncStep(rig.plex, 2 * row, 2 * row)
      else for (const at of [2, 3]) await rig.write(at * row + S, pattern(512, at))
      t.same(rig.plex.record.lost, [
        { column: 0, offsetBytes: 2 * S, lengthBytes: 2 * S, keptBy: undefined },
      ])
      for (let again = 0; again < 2; again++) {
        await t.rejects(rig.read(2 * row, 512), { kind: 'io', message: /are lost .*--force up p/ })
      }
      await rig.write(2 * row + 1024, pattern(2048, 7))
      t.ok((await rig.read(2 * row + 1024, 2048)).equals(pattern(2048, 7)), 'written: known')
      await t.rejects(rig.read(2 * row, 2048), { message: /are lost/ }, 'what is beside it is not')
      // Its rebuild does not make data of what parity says.
      revive(rig, 0)
      await run(rig, (offset, maxBytes) => rebuildStep(rig.plex, rig.subdisk(0), offset, maxBytes))
      setState(rig.subdisk(0), 'up')
      await t.rejects(rig.read(2 * row, 512), { message: /are lost/ })
      t.ok((await rig.read(2 * row + 1024, 2048)).equals(pattern(2048, 7)))
      await rig.write(2 * row, Buffer.from(rig.content.subarray(2 * row, 2 * row + S)))
      await rig.send({ op: 'write-zeroes', offset: 3 * row, length: row }).result
      rig.content.fill(0, 3 * row, 4 * row)
      t.equal(rig.plex.record.lost, undefined, 'all of it was written')
      t.same(rig.differences(), [])
      rig.assertAtRest()
    }
  },
)

t.test('a column that returns with what was lost makes it known again', async (t) => {
  const rig = new Raid5Rig({ columns: 4, parityLayout: 'left-symmetric' })
  rig.fill()
  putInDoubt(rig, 1, 2)
  const { uuid } = rig.subdisk(0).record
  setState(rig.subdisk(0), 'stale')
  // As the set writes down when a column leaves: the subdisk has its content still.
  const lost = [{ column: 0, offsetBytes: S, lengthBytes: 2 * S, keptBy: uuid }]
  rig.plex.record = { ...rig.plex.record, lost }
  rig.plex.doubt.remove(0, rig.plex.sizeBytes)
  await rig.write(3 * S, pattern(3 * S, 5))
  setState(rig.subdisk(0), 'reviving')
  rig.subdisk(0).missing = new RangeSet([{ offset: 0, length: rig.plex.sizeBytes }])
  await run(rig, (offset, maxBytes) => rebuildStep(rig.plex, rig.subdisk(0), offset, maxBytes))
  setState(rig.subdisk(0), 'up')
  t.equal(rig.plex.record.lost, undefined)
  t.same(rig.differences(), [], 'its own content where nothing was written, computed elsewhere')
  t.ok((await rig.read(0, rig.content.length)).equals(rig.content))
  rig.assertAtRest()
})

t.test('a rebuild takes nothing from before for what is written meanwhile', async (t) => {
  const rig = new Raid5Rig({ columns: 4, parityLayout: 'left-symmetric' })
  rig.fill()
  const { uuid } = rig.subdisk(0).record
  setState(rig.subdisk(0), 'stale')
  const lost = [{ column: 0, offsetBytes: 0, lengthBytes: S, keptBy: uuid }]
  rig.plex.record = { ...rig.plex.record, lost }
  // The row is written whole, and that it is known again takes its time to become durable.
  let durable = (): void => {}
  rig.host.gate = new Promise((resolve) => {
    durable = resolve
  })
  const written = rig.write(0, pattern(3 * S, 5))
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  setState(rig.subdisk(0), 'reviving')
  rig.subdisk(0).missing = new RangeSet([{ offset: 0, length: rig.plex.sizeBytes }])
  const rebuilt = run(rig, (offset, maxBytes) =>
    rebuildStep(rig.plex, rig.subdisk(0), offset, maxBytes),
  )
  for (let turn = 0; turn < 20; turn++) await new Promise(setImmediate)
  durable()
  rig.host.gate = undefined
  await Promise.all([written, rebuilt])
  setState(rig.subdisk(0), 'up')
  t.same(rig.differences(), [])
  t.ok((await rig.read(0, rig.content.length)).equals(rig.content))
  rig.assertAtRest()
})

t.test('a rebuild goes on after a block that cannot be read, and says what is lost', async (t) => {
  for (const bad of [1, 3]) {
    const rig = new Raid5Rig({ columns: 4, rows: 6 })
    rig.fill()
    const { device } = rig.drive(bad)
    const submit = device.submit.bind(device)
    // One block of row 0: of data for column 1, of parity for column 3.
    const at = 4096 + 1024
    let isBad = true
    device.submit = (request) => {
      const touches = request.offset <= at && request.offset + request.length > at
      if (request.op === 'write' && touches) isBad = false
      if (request.op === 'read' && touches && isBad) device.fail('read', 'io', 1)
      submit(request)
    }
    revive(rig, 0)
    let losses = 0
    await run(rig, (offset, maxBytes) =>
      rebuildStep(rig.plex, rig.subdisk(0), offset, maxBytes, () => losses++),
    )
    setState(rig.subdisk(0), 'up')
    t.equal(losses, 1)
    t.match(rig.host.doubts, [
      new RegExp(`512 bytes at 1024 of subdisk p.s${bad} .* drive d${bad}`),
    ])
    const lost = [{ column: 0, offsetBytes: 1024, lengthBytes: 512, keptBy: undefined }]
    t.same(rig.plex.record.lost, lost)
    await t.rejects(rig.read(0, S), { message: /are lost/ })
    t.ok((await rig.read(1536, 512)).equals(rig.content.subarray(1536, 2048)), 'no more than that')
    if (bad === 1) await t.rejects(rig.read(S + 1024, 512), { message: /injected/ }, 'nor guessed')
    t.ok((await rig.read(3 * S, S)).equals(rig.content.subarray(3 * S, 4 * S)))
    // Written again it is known, and with it the parity can be made right.
    for (const offset of [1024, S + 1024]) await rig.write(offset, pattern(512, 3))
    await resyncStep(rig.plex, 0, 3 * S)
    t.same(rig.differences(), [])
    t.equal(rig.plex.record.lost, undefined)
    rig.assertAtRest()
  }
})

t.test('steps of large stripes work in slices', async (t) => {
  const rig = new Raid5Rig({ stripeBytes: 2 * 1024 * 1024, rows: 2, columns: 3 })
  rig.fill()
  revive(rig, 0)
  await run(rig, (offset, maxBytes) => rebuildStep(rig.plex, rig.subdisk(0), offset, maxBytes))
  t.same(rig.differences(), [])
  const { mismatches } = await checkStep(rig.plex, 0, S, { repair: false })
  t.same(mismatches, [])
  rig.assertAtRest()
})

t.test(
  'nothing is computed from a column that went out of service since it was read',
  async (t) => {
    const steps = {
      resync: (rig: Raid5Rig) => resyncStep(rig.plex, 0, 2 * S),
      repair: (rig: Raid5Rig) => checkStep(rig.plex, 0, 2 * S, { repair: true }),
    }
    for (const [what, step] of Object.entries(steps)) {
      const rig = new Raid5Rig({ columns: 4 })
      rig.fill()
      const { device } = rig.drive(1)
      device.hold()
      const done = step(rig).then(
        () => undefined,
        (error: Error) => error,
      )
      await settle()
      // A flush has failed: the drive has lost what it had acknowledged.
      rig.unit(1, 0).fill(0xee)
      setState(rig.subdisk(1), 'stale')
      device.release()
      t.match(await done, { kind: 'io', message: /p\.s1 is stale/ }, what)
      t.same(rig.differences([1]), [], what)
      rig.assertAtRest()
    }
  },
)
