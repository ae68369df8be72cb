import fc from 'fast-check'
import t from 'tap'
import { PARITY_LAYOUTS } from '../../../../src/engine/vinum/model/model.ts'
import { pattern, Raid5Rig } from '../../../support/raid5-rig.ts'
import { lastCopy, setState, settle } from '../../../support/vinum-host.ts'

const S = 8192

/** A generator of numbers below a bound, from one seed: a failing case can be run again. */
function numbers(seed: number): (below: number) => number {
  let state = seed >>> 0
  return (below) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * below)
  }
}

t.test(
  'random requests side by side, a column lost at any moment: as a plain buffer would',
  async (t) => {
    await fc.assert(
      fc.asyncProperty(
        fc.integer({ min: 3, max: 7 }),
        fc.constantFrom(...PARITY_LAYOUTS),
        fc.constantFrom(512, 4096),
        fc.boolean(),
        fc.nat(),
        async (columns, parityLayout, blockBytes, loses, seed) => {
          const next = numbers(seed)
          const rig = new Raid5Rig({ columns, parityLayout, blockBytes, rows: 6, stripeBytes: S })
          rig.fill(seed | 1)
          rig.shuffle(next)
          const blocks = rig.content.length / blockBytes
          let lost: number | undefined
          for (let batch = 0; batch < 5; batch++) {
            const before = Buffer.from(rig.content)
            const writes: { offset: number; data: Buffer }[] = []
            const results: Promise<Error | undefined>[] = []
            const reads: { offset: number; data: Buffer }[] = []
            // Zeroes of several rows take them one by one: a write that comes later may have the last ones first, as SIMPLE
            // tasks may change places (SAM-5). Nothing is written over them in the same batch.
            const zeroes: { offset: number; end: number }[] = []
            for (let one = 0; one < 8; one++) {
              const start = next(blocks)
              const length =
                (1 + next(Math.min(blocks - start, 1 + next((4 * S) / blockBytes)))) * blockBytes
              const offset = start * blockBytes
              const isOverZeroes = zeroes.some((z) => offset < z.end && z.offset < offset + length)
              const kind = isOverZeroes ? 0 : next(8)
              if (kind > 5) zeroes.push({ offset, end: offset + length })
              if (kind < 3) {
                const data = Buffer.alloc(length)
                reads.push({ offset, data })
                results.push(rig.send({ op: 'read', offset, data }).result)
              } else {
                const data = kind < 6 ? pattern(length, next(250)) : Buffer.alloc(length)
                writes.push({ offset, data })
                data.copy(rig.content, offset)
                const op = kind < 6 ? 'write' : kind === 6 ? 'discard' : 'write-zeroes'
                const fua = next(4) === 0
                results.push(
                  rig.send(op === 'write' ? { op, offset, data, fua } : { op, offset, length })
                    .result,
                )
              }
              if (loses && lost === undefined && next(15) === 0) {
                lost = next(columns)
                rig.drive(lost).pull()
              }
            }
            results.push(rig.send({ op: 'flush' }).result)
            t.same(
              await Promise.all(results),
              results.map(() => undefined),
              `${seed}`,
            )
            for (const read of reads) t.ok(isPlausible(read, before, writes, blockBytes), `${seed}`)
            t.same(
              rig.differences(lost === undefined ? [] : [lost]),
              [],
              'data and parity on the media',
            )
            t.ok((await rig.read(0, rig.content.length)).equals(rig.content))
          }
          if (lost !== undefined) {
            t.ok(rig.host.demotions.every(([one, more]) => one === rig.subdisks[lost] && !more))
          }
          rig.assertAtRest()
        },
      ),
      { numRuns: 40 },
    )
  },
)

t.test('a slice of an update may need more columns than all of it together', async (t) => {
  const rig = new Raid5Rig({ columns: 7, stripeBytes: 262_144, rows: 1 })
  rig.fill()
  const places = [
    [1, 159_744],
    [2, 151_552],
    [0, 8192],
    [0, 151_552],
    [3, 151_552],
    [1, 233_472],
    [3, 159_744],
    [1, 151_552],
    [2, 159_744],
  ] as const
  const writes = places.map(([unit, at], i) => rig.write(unit * 262_144 + at, pattern(4096, i)))
  await Promise.all(writes)
  t.same(rig.differences(), [])
  rig.assertAtRest()
})

t.test('wide rows and large stripes: many small writes to one row at once', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 3, max: 16 }),
      fc.constantFrom(4096, 65_536, 262_144, 1_048_576, 2_097_152),
      fc.constantFrom(...PARITY_LAYOUTS),
      fc.boolean(),
      fc.nat(),
      async (columns, stripeBytes, parityLayout, loses, seed) => {
        const next = numbers(seed)
        const rig = new Raid5Rig({ columns, parityLayout, rows: 2, stripeBytes })
        rig.fill(seed | 1)
        // A few places within the units: writes to the same one in several columns share their parity.
        const places = Array.from({ length: 1 + next(4) }, () => next(stripeBytes / 4096) * 4096)
        const few = 1 + next(columns - 1)
        const writes = Array.from({ length: 16 }, (_, i) =>
          rig.write(next(few) * stripeBytes + (places[i % places.length] ?? 0), pattern(4096, i)),
        )
        const lost = loses ? next(columns) : undefined
        if (lost !== undefined) rig.drive(lost).pull()
        await Promise.all(writes)
        t.same(rig.differences(lost === undefined ? [] : [lost]), [], `${seed}`)
        t.ok((await rig.read(0, rig.content.length)).equals(rig.content), `${seed}`)
        rig.assertAtRest()
      },
    ),
    { numRuns: 30 },
  )
})

/** Each block is what it was, or what one of the writes of the batch made it. */
function isPlausible(
  { offset, data }: { offset: number; data: Buffer },
  before: Buffer,
  writes: readonly { offset: number; data: Buffer }[],
  blockBytes: number,
): boolean {
  for (let at = 0; at < data.length; at += blockBytes) {
    const block = data.subarray(at, at + blockBytes)
    const place = offset + at
    const options = [before.subarray(place, place + blockBytes)]
    for (const write of writes) {
      const inner = place - write.offset
      if (inner >= 0 && inner < write.data.length) {
        options.push(write.data.subarray(inner, inner + blockBytes))
      }
    }
    if (!options.some((option) => option.equals(block))) return false
  }
  return true
}

t.test('a full stripe is written without a read, one request for each column', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  await rig.write(3 * S, pattern(6 * S, 2))
  t.equal(rig.count('read'), 0)
  t.equal(rig.count('write'), 8)
  t.same(rig.differences(), [])
  rig.assertAtRest()
})

t.test('what is read follows from how many columns are touched', async (t) => {
  for (const [units, reads, writes] of [
    [1, 2, 2],
    [2, 3, 3],
    [3, 2, 4],
    [4, 1, 5],
  ] as const) {
    const rig = new Raid5Rig({ columns: 6 })
    rig.fill()
    await rig.write(0, pattern(units * S, 3))
    t.equal(rig.count('read'), reads, `${units} of 5 units`)
    t.equal(rig.count('write'), writes)
    t.same(rig.differences(), [])
  }
})

t.test('small writes that come together are one update of the row', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  const half = S / 2
  await Promise.all([0, 1, 2, 3, 4, 5].map((i) => rig.write(i * half, pattern(half, i))))
  t.equal(rig.count('read'), 0, 'together they are a full stripe')
  t.same(rig.differences(), [])
  // The first one alone has begun already: the others wait for it, and then go together.
  for (const drive of rig.drives) drive.device.hold()
  const first = rig.write(0, pattern(512, 7))
  await settle()
  const rest = [1, 2, 3].map((i) => rig.write(i * 512, pattern(512, i)))
  await settle()
  const before = rig.count('write')
  for (const drive of rig.drives) drive.device.release()
  await Promise.all([first, ...rest])
  t.equal(rig.count('write') - before, 6, 'two of the first, three data and one parity of the rest')
  t.same(rig.differences(), [])
  rig.assertAtRest()
})

t.test(
  'writes that overlap keep their order, and neighbours do not wait for each other',
  async (t) => {
    const rig = new Raid5Rig()
    rig.fill()
    await Promise.all([1, 2, 3].map((i) => rig.write(512, pattern(2048, i))))
    t.same(rig.differences(), [], 'the last one is what remains')
    // A row whose update is stuck does not hold up the rows beside it (half-open ranges).
    const wide = new Raid5Rig({ columns: 5 })
    wide.fill()
    wide.drive(4).device.hold()
    const stuck = wide.write(4 * S - 512, pattern(512, 4))
    await settle()
    await wide.write(4 * S, pattern(512, 5))
    wide.drive(4).device.release()
    await stuck
    t.same(wide.differences(), [])
  },
)

t.test('large stripes are updated in slices of bounded scratch', async (t) => {
  const rig = new Raid5Rig({ stripeBytes: 1024 * 1024, rows: 2, columns: 4 })
  rig.fill()
  let most = 0
  const { lease } = rig.host.pool
  rig.host.pool.lease = (length) => {
    most = Math.max(most, length)
    return lease.call(rig.host.pool, length)
  }
  await rig.write(1024, pattern(1024 * 1024, 2))
  t.ok(most > 0 && most <= 1024 * 1024, `${most} bytes of scratch`)
  rig.drive(0).pull()
  t.ok((await rig.read(0, rig.content.length)).equals(rig.content))
  t.ok(most <= 1024 * 1024, `${most} bytes of scratch`)
  t.same(rig.differences([0]), [])
  rig.assertAtRest()
})

t.test(
  'with the pool all taken, rows are updated one after the other from the reserve',
  async (t) => {
    const rig = new Raid5Rig({ columns: 5 })
    rig.fill()
    setState(rig.subdisk(1), 'stale')
    const taken: { release(): void }[] = []
    for (let one = rig.host.pool.lease(4096); one; one = rig.host.pool.lease(4096)) taken.push(one)
    const writes = [0, 1, 2, 3, 4, 5].map((row) => rig.write(row * 4 * S + 512, pattern(S, row)))
    const reads = [0, 1, 2, 3].map((row) => rig.read((7 * 4 + row) * S, S))
    await Promise.all(writes)
    for (const [unit, data] of (await Promise.all(reads)).entries()) {
      t.ok(data.equals(rig.content.subarray((28 + unit) * S, (29 + unit) * S)))
    }
    t.same(rig.differences([1]), [])
    for (const one of taken) one.release()
    rig.assertAtRest()
  },
)

t.test('FUA goes to data and parity, and a flush to each drive once', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  await rig.write(0, pattern(512, 1), true)
  t.equal(
    rig.drives.reduce((sum, { device }) => sum + device.unflushed, 0),
    0,
  )
  await rig.write(0, pattern(512, 2))
  t.equal(
    rig.drives.reduce((sum, { device }) => sum + device.unflushed, 0),
    2,
  )
  t.equal(await rig.send({ op: 'flush' }).result, undefined)
  t.equal(rig.count('flush'), 4)
  t.equal(
    rig.drives.reduce((sum, { device }) => sum + device.unflushed, 0),
    0,
  )
})

t.test(
  'a drive that fails a flush goes out of service before the flush is acknowledged',
  async (t) => {
    const rig = new Raid5Rig()
    rig.drive(1).device.fail('flush', 'io')
    t.equal(await rig.send({ op: 'flush' }).result, undefined)
    t.same(rig.host.demotions, [[rig.subdisk(1)]])
    rig.drive(2).device.fail('flush', 'io')
    const { result, missed } = rig.send({ op: 'flush' })
    t.match(await result, { kind: 'io' })
    t.same(missed, ['p.s2'], 'a second one is for the volume to decide on')
  },
)

t.test(
  '8.1, 8.7: a write that one column missed waits until that column is out of service',
  async (t) => {
    for (const column of [0, 3]) {
      const rig = new Raid5Rig()
      rig.fill()
      let open = () => {}
      rig.host.gate = new Promise<void>((resolve) => {
        open = resolve
      })
      rig.drive(column).device.fail('write', 'io')
      let done = false
      const write = rig.write(0, pattern(512, 9)).then(() => {
        done = true
      })
      await settle(20)
      t.same(rig.host.demotions, [[rig.subdisk(column)]])
      t.notOk(done, 'not acknowledged before it is durable')
      open()
      await write
      t.same(rig.differences([column]), [])
      t.ok((await rig.read(0, S)).equals(rig.content.subarray(0, S)), 'read through parity')
      rig.assertAtRest()
    }
  },
)

t.test(
  '8.1: a write that two columns missed is an error, and nobody is taken out of service',
  async (t) => {
    const rig = new Raid5Rig()
    rig.fill()
    rig.drive(0).device.fail('write', 'io')
    rig.drive(3).device.fail('write', 'io')
    const { result, missed } = rig.send({ op: 'write', offset: 0, data: pattern(512, 1) })
    t.match(await result, { kind: 'io' })
    t.same(missed.sort(), ['p.s0', 'p.s3'])
    t.same(rig.host.demotions, [])
    rig.assertAtRest()
  },
)

t.test('the last good copy is not taken out of service: the write fails', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  rig.host.refuse = lastCopy
  rig.drive(0).device.fail('write', 'io')
  const { result, missed } = rig.send({ op: 'write', offset: 0, data: pattern(512, 1) })
  t.match(await result, { message: /last good copy/ })
  t.same(missed, ['p.s0'])
  rig.assertAtRest()
})

t.test(
  'a read error is made good from the other columns, and the range is written again',
  async (t) => {
    const rig = new Raid5Rig()
    rig.fill()
    const device = rig.drive(1).device
    rig.unit(1, 0).fill(0, 512, 1024)
    device.fail('read', 'io')
    t.ok((await rig.read(S + 512, 512)).equals(rig.content.subarray(S + 512, S + 1024)))
    t.same(rig.differences(), [], 'the bad range is right again')
    t.same(rig.host.repairs, [{ subdisk: rig.subdisk(1), offset: 512, length: 512 }])
    t.equal(rig.subdisk(1).errors.read, 1)
    device.fail('read', 'io')
    device.fail('write', 'io')
    t.ok((await rig.read(S, 512)).equals(rig.content.subarray(S, S + 512)))
    t.equal(rig.subdisk(1).errors.write, 1)
    t.same(rig.host.demoted, [], 'a sector is lost, not the column')
    rig.assertAtRest()
  },
)

t.test('a read error on two columns of a row is an error', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  rig.drive(0).device.fail('read', 'io')
  rig.drive(2).device.fail('read', 'io')
  await t.rejects(rig.read(0, 512), { message: /injected/ })
  t.same(rig.host.repairs, [])
  rig.assertAtRest()
})

t.test('a read error within a write: the row is computed another way', async (t) => {
  for (const column of [0, 3, 1]) {
    const rig = new Raid5Rig({ columns: 5 })
    rig.fill()
    rig.drive(column).device.fail('read', 'io')
    await rig.write(0, pattern(512, 3))
    await rig.write(4 * S, pattern(3 * S, 3))
    t.same(rig.differences(), [])
    t.same(rig.host.demotions, [])
    rig.assertAtRest()
  }
  const rig = new Raid5Rig({ columns: 5 })
  rig.fill()
  for (const column of [0, 1, 2, 3, 4]) rig.drive(column).device.fail('read', 'io')
  const { result, missed } = rig.send({ op: 'write', offset: 0, data: pattern(512, 1) })
  t.match(await result, { kind: 'io' })
  t.ok(missed.length >= 2, 'the plex as a whole has missed it')
  t.equal(rig.count('write'), 0, 'nothing was changed')
})

t.test(
  '8.11: a degraded read waits for a write in its row, and sees all of it or nothing',
  async (t) => {
    const rig = new Raid5Rig()
    rig.fill()
    setState(rig.subdisk(0), 'stale')
    // The write changes parity and column 1: between the two the XOR of the row is nonsense.
    rig.drive(3).device.hold()
    const write = rig.write(S, pattern(512, 4))
    await settle()
    const reading = rig.read(0, 512)
    await settle()
    t.equal(rig.drive(2).device.counts.read, 0, 'the row is not read meanwhile')
    rig.drive(3).device.release()
    await write
    t.ok((await reading).equals(rig.content.subarray(0, 512)))
    rig.assertAtRest()
  },
)

t.test('8.2: where parity was never computed it is neither used nor modified', async (t) => {
  const rig = new Raid5Rig({ record: { parityValidBytes: 2 * 3 * S } })
  rig.fill()
  for (let row = 2; row < rig.rows; row++) {
    const column = 3 - (row % 4)
    rig.unit(column, row).fill(0x5a)
  }
  const offset = 2 * 3 * S
  await rig.write(offset, pattern(512, 1))
  t.ok(rig.expectedRow(2)[1]?.subarray(0, 512).equals(rig.unit(1, 2).subarray(0, 512)))
  t.equal(rig.drive(1).device.counts.read, 0, 'old parity is not read')
  setState(rig.subdisk(0), 'stale')
  t.ok((await rig.read(0, 6 * S)).equals(rig.content.subarray(0, 6 * S)), 'below the mark')
  await t.rejects(rig.read(offset, 512), { message: /parity is not known to be right/ })
  const { result } = rig.send({ op: 'write', offset, data: pattern(512, 2) })
  t.match(await result, { kind: 'io', message: /cannot store/ })
  t.equal(
    await rig.send({ op: 'write', offset: offset + S, data: pattern(512, 2) }).result,
    undefined,
  )
  rig.assertAtRest()
})

t.test('writes while two columns are away leave what neither of them shows now', async (t) => {
  for (const op of ['write', 'write-zeroes'] as const) {
    for (let stale = 0; stale < 4; stale++) {
      for (let down = 0; down < 4; down++) {
        if (down === stale) continue
        const rig = new Raid5Rig()
        rig.fill()
        const before = Buffer.from(rig.content)
        setState(rig.subdisk(stale), 'stale')
        setState(rig.subdisk(down), 'down')
        const after = op === 'write' ? pattern(before.length, 7) : Buffer.alloc(before.length)
        const lengths = op === 'write' ? [512, S, 2 * S, S, 3 * S] : [3 * S]
        for (let offset = 0, turn = 0; offset < before.length; turn++) {
          const length = Math.min(lengths[turn % lengths.length] ?? 0, before.length - offset)
          const data = op === 'write' ? after.subarray(offset, offset + length) : undefined
          const request = { op, offset, length, ...(data ? { data } : {}) }
          await rig.send(request).result
          offset += length
        }
        // It comes back as it is; the other one is computed, as its rebuild does.
        setState(rig.subdisk(down), 'up')
        const found = await rig.read(0, before.length)
        for (let at = 0; at < found.length; at += 512) {
          const block = found.subarray(at, at + 512)
          const isOld = block.equals(before.subarray(at, at + 512))
          if (isOld || block.equals(after.subarray(at, at + 512))) continue
          t.fail(`${op}, ${stale} stale, ${down} away: the block at ${at}`)
          break
        }
        t.equal(rig.plex.storable(0, S), 'full')
        rig.assertAtRest()
      }
    }
  }
})

t.test('8.13: a request that waits for a row is cut once', async (t) => {
  const rig = new Raid5Rig()
  rig.fill()
  rig.drive(0).device.hold()
  const first = rig.write(3 * S, pattern(512, 1))
  await settle()
  const second = rig.write(0, pattern(9 * S, 2))
  await settle(20)
  rig.drive(0).device.release()
  await Promise.all([first, second])
  t.equal(rig.count('write'), 12 + 2, 'each unit of the three rows and two of the first')
  t.same(rig.differences(), [])
})

t.test(
  'zeroes and discards of whole rows move no data; parts of rows keep parity right',
  async (t) => {
    const rig = new Raid5Rig()
    rig.fill()
    for (const op of ['write-zeroes', 'discard'] as const) {
      rig.fill()
      const [writes, ranges] = [rig.count('write'), rig.count(op)]
      rig.content.fill(0, S, 14 * S)
      t.equal(await rig.send({ op, offset: S, length: 13 * S }).result, undefined)
      t.same(rig.differences(), [])
      t.ok(rig.count(op) - ranges >= 4, 'rows 1 to 3 are one request for each column')
      t.equal(
        rig.count('write') - writes,
        2,
        'only parity of the first and the last row is written',
      )
    }
    const plain = new Raid5Rig({ device: { features: { discardZeroes: false } } })
    plain.fill()
    plain.content.fill(0)
    await plain.send({ op: 'discard', offset: 0, length: plain.content.length }).result
    t.equal(plain.count('discard'), 0, 'a device that promises nothing is not asked to discard')
    t.same(plain.differences(), [])
    plain.drive(2).device.fail('write-zeroes', 'io')
    await plain.send({ op: 'discard', offset: 0, length: plain.content.length }).result
    t.same(plain.host.demotions, [[plain.subdisk(2)]])
    plain.assertAtRest()
  },
)

t.test(
  'with two columns away nothing is zeroed: they may come back with what they had',
  async (t) => {
    for (const op of ['write-zeroes', 'discard'] as const) {
      const rig = new Raid5Rig()
      rig.fill()
      for (const column of [0, 1]) setState(rig.subdisk(column), 'down')
      const sent = rig.send({ op, offset: 0, length: rig.content.length })
      t.match((await sent.result)?.message, /cannot store this/)
      t.same([rig.count(op), rig.count('write')], [0, 0])
      for (const column of [0, 1]) setState(rig.subdisk(column), 'up')
      t.same(rig.differences(), [])
      rig.assertAtRest()
    }
  },
)

t.test('a growing plex: new layout below the cursor, old one above', async (t) => {
  const rig = new Raid5Rig({ columns: 5, rows: 8, parityLayout: 'left-symmetric' })
  rig.fill()
  // Two rows of the new layout have moved; from there on the rows are those of four columns.
  const old = new Raid5Rig({ columns: 4, rows: 8, parityLayout: 'left-symmetric' })
  old.fill()
  const cursor = 2 * 4 * S
  rig.plex.record = {
    ...rig.plex.record,
    growth: { columnsBefore: 4, cursorBytes: cursor, backup: undefined },
  }
  for (let row = 2; row < 8; row++) {
    for (let column = 0; column < 4; column++) old.unit(column, row).copy(rig.unit(column, row))
  }
  t.equal(rig.plex.sizeBytes, old.content.length)
  const expected = Buffer.concat([rig.content.subarray(0, cursor), old.content.subarray(cursor)])
  t.ok((await rig.read(0, expected.length)).equals(expected))
  const data = pattern(6 * S, 5)
  data.copy(expected, cursor - 3 * S)
  t.equal(await rig.send({ op: 'write', offset: cursor - 3 * S, data }).result, undefined)
  t.equal(rig.plex.pieceEnd(cursor - 512), cursor)
  t.equal(rig.plex.pieceEnd(cursor), 9 * S, 'the rest of the old row')
  rig.drive(1).pull()
  t.ok((await rig.read(0, expected.length)).equals(expected), 'through parity of both layouts')
  t.equal(await rig.send({ op: 'write', offset: cursor - 3 * S, data }).result, undefined)
  t.ok((await rig.read(0, expected.length)).equals(expected))
  rig.assertAtRest()
})

t.test('the row that the cursor of a growth cuts says nothing of the row before it', async (t) => {
  const rig = new Raid5Rig({ columns: 5, rows: 8, parityLayout: 'left-symmetric' })
  rig.fill()
  const cursor = 2 * 4 * S
  const growth = { columnsBefore: 4, cursorBytes: cursor, backup: undefined }
  rig.plex.record = { ...rig.plex.record, growth }
  // A region of the intent map: the end of row 1 of the new layout, and what is left of row 2 of the old one.
  rig.plex.doubt.add(7 * S, 2 * S)
  t.equal(await rig.send({ op: 'write', offset: cursor, data: pattern(S, 5) }).result, undefined)
  t.same(rig.plex.doubt.ranges, [{ offset: 7 * S, length: S }])
  rig.drive(0).pull()
  const read = rig.send({ op: 'read', offset: 4 * S, data: Buffer.alloc(4 * S) })
  t.match(await read.result, { message: /parity is not known to be right/ })
  rig.assertAtRest()
})

t.test('what is written while a commit takes it to be lost is not lost', async (t) => {
  const rig = new Raid5Rig({ columns: 4, stripeBytes: S })
  rig.fill()
  const { host, plex } = rig
  rig.drive(0).pull()
  setState(rig.subdisk(0), 'stale')
  host.losing = true
  let commit = (): void => {}
  host.gate = new Promise((resolve) => {
    commit = resolve
  })
  let answer: unknown = 'none yet'
  const written = rig.send({ op: 'write', offset: 1024, data: pattern(2048, 7) }).result
  void written.then((error) => {
    answer = error
  })
  await settle()
  t.equal(answer, 'none yet', 'no answer before the commit is durable')
  const lost = [{ column: 0, offsetBytes: 0, lengthBytes: S, keptBy: 'subdisk' }]
  plex.record = { ...plex.record, lost }
  host.losing = false
  commit()
  t.equal(await written, undefined)
  t.match(plex.record.lost, [
    { offsetBytes: 0, lengthBytes: 1024 },
    { offsetBytes: 3072, lengthBytes: S - 3072 },
  ])
  t.ok((await rig.read(1024, 2048)).equals(pattern(2048, 7)))
  rig.assertAtRest()
})

t.test('parity is not made from a column that went out of service since it was read', async (t) => {
  const rig = new Raid5Rig({ columns: 4, stripeBytes: 8192 })
  rig.fill()
  const { device } = rig.drive(0)
  device.hold()
  const written = rig.write(8192 + 1024, pattern(2048, 7))
  await settle()
  // A flush has failed: the drive has lost what it had acknowledged, and the write has read what it had before.
  rig.unit(0, 0).fill(0xee)
  setState(rig.subdisk(0), 'stale')
  device.release()
  await written
  t.same(rig.differences([0]), [])
  t.ok((await rig.read(0, 8192)).equals(rig.content.subarray(0, 8192)), 'what it lost is in parity')
  rig.assertAtRest()
})

t.test('no read answers with what a column gave that went out of service meanwhile', async (t) => {
  // Straight from the column, and computed from the others for a sector that is bad.
  for (const bad of [false, true]) {
    const rig = new Raid5Rig({ columns: 4 })
    rig.fill()
    const wanted = Buffer.from(rig.content.subarray(0, 4096))
    if (bad) rig.drive(0).device.fail('read', 'io')
    const stale = bad ? 1 : 0
    const { device } = rig.drive(stale)
    device.hold()
    const read = rig.read(0, 4096).catch((error: Error) => error)
    await settle()
    rig.unit(stale, 0).fill(0xee)
    setState(rig.subdisk(stale), 'stale')
    device.release()
    const found = await read
    if (bad) t.match(found, { kind: 'io' }, 'nothing else has it')
    else t.same(found, wanted)
    t.same(rig.differences([stale]), [], 'and nothing wrong is written')
    rig.assertAtRest()
  }
})
