/** Anchor and slots: layout, torn commits at every sector, damage, versions, golden bytes. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { crc32c } from '../../../src/base/crc32c.ts'
import { PlexusError } from '../../../src/base/errors.ts'
import { GIB, KIB, MIB } from '../../../src/base/limits.ts'
import { decodeAnchor, encodeAnchor } from '../../../src/engine/anchor/anchor-codec.ts'
import {
  ANCHOR_MEDIA_BYTES_MIN,
  type Anchor,
  type AnchorLayout,
  HEAD_SLOTS,
  planAnchor,
  planAnchorAround,
} from '../../../src/engine/anchor/anchor-layout.ts'
import type { CommitId } from '../../../src/engine/anchor/anchor-quorum.ts'
import { AnchoredDevice } from '../../../src/engine/anchor/anchored-device.ts'
import { allocateAligned } from '../../../src/hal/aligned-pool.ts'
import { failureOf } from '../../support/failure.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { readAnchor } from '../../support/read-anchor.ts'
import { RecordedDevice } from '../../support/recorded-device.ts'
import { ROOT } from '../../support/root.ts'

const SET = '11111111-2222-4333-8444-555555555555'
const DEVICE = 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee'
const NAMES = { setUuid: SET, className: 'vinum', deviceUuid: DEVICE }
const SIZE_BYTES = 2 * MIB

function disk(blockBytes = 512, sizeBytes = SIZE_BYTES): MemoryDevice {
  return new MemoryDevice({ sizeBytes, blockBytes, path: '/dev/test' })
}

function commitId(generation: number, text: string): CommitId {
  return { line: SET, generation, payloadCrc: crc32c(Buffer.from(text)) }
}

async function reopen(device: MemoryDevice): Promise<AnchoredDevice> {
  return AnchoredDevice.open(device, defined(await readAnchor(device), 'an anchor'))
}

function rangesOf(layout: AnchorLayout) {
  const data = {
    offset: layout.dataStartBytes,
    length: layout.dataEndBytes - layout.dataStartBytes,
  }
  return [data, layout.journal, layout.map, ...layout.slots].filter((one) => one.length > 0)
}

const media = fc
  .tuple(fc.constantFrom(512, 1024, 4096), fc.integer({ min: 256, max: 2 ** 33 }))
  .map(([blockBytes, blocks]) => ({ blockBytes, mediaBytes: blocks * 4096 + blockBytes * 3 }))

t.test('a layout has its parts in order, aligned, apart and within their bounds', async (t) => {
  const property = fc.property(media, ({ mediaBytes, blockBytes }) => {
    const layout = planAnchor(mediaBytes, blockBytes)
    const [data, journal, map, slotA, slotB] = rangesOf(layout).map((one) =>
      defined(one, 'a range'),
    )
    if (!data || !journal || !map || !slotA || !slotB) return false
    const order = [data, journal, map, slotA, slotB, { offset: mediaBytes - blockBytes, length: 0 }]
    const isInOrder = order.every((one, i) => {
      const next = order[i + 1]
      return !next || one.offset + one.length <= next.offset
    })
    const isAligned = order
      .slice(0, 5)
      .every((one) => (one.offset % 4096) + (one.length % 4096) === 0)
    const within = (value: number, min: number, max: number) => value >= min && value <= max
    return (
      isInOrder &&
      isAligned &&
      data.length >= 64 * KIB &&
      slotA.length === slotB.length &&
      within(slotA.length, 64 * KIB, 1 * MIB) &&
      within(map.length, 128 * KIB, 16 * MIB) &&
      within(journal.length, 256 * KIB, 64 * MIB) &&
      // What the metadata costs.
      mediaBytes - data.length <= 2 * MIB + mediaBytes / 100
    )
  })
  t.doesNotThrow(() => fc.assert(property))
})

t.test('layouts that must never change', async (t) => {
  const rows: readonly [number, number, readonly number[]][] = [
    // media, block: data start, data end, journal, map, slot A, slot B
    [1 * MIB, 512, [65536, 520192, 520192, 782336, 913408, 978944]],
    [64 * MIB, 512, [1048576, 66580480, 66580480, 66842624, 66973696, 67039232]],
    [64 * MIB + 512, 512, [1048576, 66580480, 66580480, 66842624, 66973696, 67039232]],
    [64 * MIB, 4096, [1048576, 66580480, 66580480, 66842624, 66973696, 67039232]],
    [
      100 * GIB,
      512,
      [1048576, 107288195072, 107288195072, 107355303936, 107372081152, 107373129728],
    ],
  ]
  for (const [mediaBytes, blockBytes, expected] of rows) {
    const layout = planAnchor(mediaBytes, blockBytes)
    const found = [
      layout.dataStartBytes,
      layout.dataEndBytes,
      layout.journal.offset,
      layout.map.offset,
      layout.slots[0].offset,
      layout.slots[1].offset,
    ]
    t.strictSame(found, expected, `${mediaBytes} bytes in blocks of ${blockBytes}`)
  }
  const large = planAnchor(100 * GIB, 512)
  t.strictSame(
    [large.journal.length, large.map.length, large.slots[0].length],
    [64 * MIB, 16 * MIB, 1 * MIB],
  )
})

t.test('too small a medium is refused, with the size that does', async (t) => {
  t.throws(() => planAnchor(ANCHOR_MEDIA_BYTES_MIN - 4096, 512), {
    kind: 'no-space',
    message: /1020 KiB is too small .* 1 MiB or more/,
  })
  t.throws(() => planAnchor(8 * MIB, 8192), { message: /512 to 4096 can/ })
  const small = disk(512, 512 * KIB)
  t.equal((await failureOf(AnchoredDevice.format(small, NAMES))).kind, 'no-space')
  t.ok(
    small.media.every((byte) => byte === 0),
    'nothing was written',
  )
  t.equal(await readAnchor(small), undefined)
})

t.test('a layout around data that must stay', async (t) => {
  const mediaBytes = 8 * MIB
  const startBytes = 135680
  const usual = planAnchor(mediaBytes, 512)
  const around = (endBytes: number) => planAnchorAround(mediaBytes, 512, { startBytes, endBytes })
  t.strictSame(around(usual.dataEndBytes), { ...usual, dataStartBytes: startBytes })
  const head = around(usual.dataEndBytes + 512)
  t.strictSame(head.slots, HEAD_SLOTS)
  t.ok(head.journal.length > 0 && head.map.length > 0)
  const bare = around(mediaBytes - 512)
  t.strictSame([bare.slots, bare.journal.length, bare.map.length], [HEAD_SLOTS, 0, 0])
  t.equal(bare.dataEndBytes, mediaBytes - 512)
  t.throws(() => around(mediaBytes - 511), { kind: 'no-space', message: /last block must be free/ })
  for (const layout of [head, bare]) {
    const device = disk(512, mediaBytes)
    const kept = device.media.subarray(startBytes, layout.dataEndBytes).fill(0x5a)
    const anchored = await AnchoredDevice.format(device, { ...NAMES, layout })
    await anchored.commit(1, Buffer.from('in the head'))
    t.equal((await (await reopen(device)).read())?.payload.toString(), 'in the head')
    t.ok(
      kept.every((byte) => byte === 0x5a),
      'the data is as it was',
    )
    device.media.fill(0xff, mediaBytes - 400)
    t.equal((await readAnchor(device))?.generation, 1, 'the slots in the head stand in for it')
  }
})

t.test('a device is formatted, committed to, read again, cleared', async (t) => {
  for (const blockBytes of [512, 4096]) {
    const device = disk(blockBytes)
    t.equal(await readAnchor(device), undefined, 'blank')
    device.media.fill(0xe5)
    const made = await AnchoredDevice.format(device, NAMES)
    t.equal(device.unflushed, 0, 'durable')
    t.equal(device.media[0], 0xe5, 'the data area is as it was')
    const { slots, map, journal } = made.anchor
    for (const { offset, length } of [...slots, map, journal]) {
      t.ok(device.media.subarray(offset, offset + length).every((byte) => byte === 0))
    }
    t.equal(await made.read(), undefined, 'nothing was committed yet')
    for (const generation of [1, 2, 7]) {
      await made.commit(generation, Buffer.from(`configuration ${generation}`))
      t.equal(device.unflushed, 0, 'durable')
      const again = await reopen(device)
      const { deviceUuid, setUuid, className, mediaBytes } = again.anchor
      t.strictSame(
        { deviceUuid, setUuid, className, mediaBytes, generation: again.anchor.generation },
        { ...NAMES, mediaBytes: SIZE_BYTES, generation },
      )
      const slot = await again.read()
      t.equal(slot?.payload.toString(), `configuration ${generation}`)
      t.equal(slot?.generation, generation)
      t.equal(slot?.damaged, false)
    }
    await made.clear()
    t.equal(device.unflushed, 0, 'durable')
    t.equal(await readAnchor(device), undefined, 'nobody’s')
    device.media.fill(0xff, SIZE_BYTES - blockBytes)
    device.media.write('PLEXUS::', SIZE_BYTES - blockBytes)
    t.equal(await readAnchor(device), undefined, 'no slot speaks for it either')
  }
})

t.test('vinum.md 8.17: a configuration fits or is refused; it is never cut', async (t) => {
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('small'))
  const before = Buffer.from(device.media)
  const error = await failureOf(made.commit(2, Buffer.alloc(made.payloadRoom + 1, 1)))
  t.equal(error.kind, 'no-space')
  t.match(error.message, /\/dev\/test: .* 61441 bytes does not fit .* 61440 bytes/)
  t.ok(device.media.equals(before), 'nothing was written')
  device.fail('write', 'no-space')
  const full = await failureOf(made.commit(2, Buffer.from('small')))
  t.equal(
    full.kind,
    'io',
    'a device that is full has failed: that the payload is too large is another error',
  )
  await made.commit(2, Buffer.alloc(made.payloadRoom, 1))
  t.equal((await (await reopen(device)).read())?.payload.length, made.payloadRoom)
  await t.rejects(made.commit(2, Buffer.alloc(1)), /generation 2 follows 2/, 'numbers only grow')
})

t.test(
  'vinum.md 8.17: a cut at any sector of any write of a commit leaves the old or the new',
  async (t) => {
    for (const blockBytes of [512, 4096]) {
      const device = disk(blockBytes)
      const made = await AnchoredDevice.format(device, NAMES)
      const texts = [1, 2, 3].map((n) => `${n}`.repeat(9000 + n))
      await made.commit(1, Buffer.from(defined(texts[0], 'text')))
      await made.commit(2, Buffer.from(defined(texts[1], 'text')))
      const before = Buffer.from(device.media)
      const recorded = new RecordedDevice(device)
      await AnchoredDevice.open(recorded, made.anchor).commit(
        3,
        Buffer.from(defined(texts[2], 'text')),
      )
      t.strictSame(
        recorded.log.map(({ op }) => op),
        ['read', 'read', 'read', 'read', 'write', 'flush', 'write', 'flush'],
      )
      let olds = 0
      let news = 0
      for (const { image, done, what } of recorded.cuts(before, blockBytes)) {
        device.media = image
        const slot = await (await reopen(device)).read()
        const isNew = slot?.payload.toString() === texts[2]
        const isOld = slot?.payload.toString() === texts[1]
        if (!(isNew || (isOld && !done)) || slot?.damaged) t.fail(`${what}: neither old nor new`)
        if (isNew) news++
        else olds++
        // And life goes on from there.
        if ((olds + news) % 5 > 0) continue
        const next = await reopen(device)
        await next.read()
        await next.commit(9, Buffer.from('next'))
        if ((await (await reopen(device)).read())?.payload.toString() !== 'next') t.fail(what)
      }
      t.ok(olds >= 4 && news >= 1, `${olds} old, ${news} new`)
    }
  },
)

t.test('a commit over the newest one keeps the older one, wherever it is cut', async (t) => {
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('relied upon'))
  await made.commit(2, Buffer.from('cut off'))
  const before = Buffer.from(device.media)
  const recorded = new RecordedDevice(device)
  const over = AnchoredDevice.open(recorded, made.anchor)
  const relied = commitId(1, 'relied upon')
  await over.commit(3, Buffer.from('next'), { follows: relied })
  t.match(await (await reopen(device)).read(), {
    generation: 3,
    follows: { generation: 1 },
    older: { generation: 1, follows: undefined },
    damaged: false,
  })
  const found: Record<string, number> = { 'relied upon': 0, 'cut off': 0, next: 0 }
  for (const { image, done, what } of recorded.cuts(before, 512)) {
    device.media = image
    const again = await reopen(device)
    const slot = await again.read()
    const text = `${slot?.payload}`
    found[text] = (found[text] ?? 0) + 1
    if (done && text !== 'next') t.fail(what)
    if (slot?.damaged !== false) t.fail(`${what}: ${text} is damaged`)
    if (text !== 'relied upon' && slot?.older?.generation !== 1) t.fail(`${what}: 1 is lost`)
    await again.commit(9, Buffer.from('later'), {
      follows: text === 'next' ? commitId(3, text) : relied,
    })
    const later = await (await reopen(device)).read()
    if (later?.generation !== 9) t.fail(`${what}: 9 does not follow`)
    if (text !== 'next' && later?.older?.generation !== 1) t.fail(`${what}: 1 is lost by 9`)
    if (text === 'next' && later?.older?.generation !== 3) t.fail(`${what}: 3 is lost by 9`)
  }
  t.ok(found['relied upon'] && found['cut off'] && found['next'], JSON.stringify(found))
  device.media = before
  const full = await reopen(device)
  device.fail('write', 'no-space')
  const refused = await failureOf(full.commit(3, Buffer.from('next'), { follows: relied }))
  t.equal(refused.kind, 'io', 'a device that is full has failed, also on the way back')
  t.equal(`${(await (await reopen(device)).read())?.payload}`, 'cut off')
  await full.repeat(Buffer.from('of another device'))
  t.equal((await (await reopen(device)).read())?.older?.generation, 1, 'that is not repeated')
  const fresh = disk()
  const first = await AnchoredDevice.format(fresh, NAMES)
  await first.commit(1, Buffer.from('one'))
  await first.commit(2, Buffer.from('two'), { follows: commitId(1, 'one') })
  t.match(await (await reopen(fresh)).read(), { generation: 2, older: { generation: 1 } })
})

t.test('what is repeated is in both slots: losing one of them costs nothing', async (t) => {
  const damage = (device: MemoryDevice, { anchor }: AnchoredDevice, slot: 0 | 1): void => {
    device.media.fill(0x55, anchor.slots[slot].offset, anchor.slots[slot].offset + 5000)
  }
  for (const slot of [0, 1] as const) {
    const device = disk()
    const made = await AnchoredDevice.format(device, NAMES)
    await made.commit(1, Buffer.from('one'))
    await made.repeat(Buffer.from('one'))
    await made.commit(2, Buffer.from('two'))
    await made.repeat(Buffer.from('two'))
    t.match((await (await reopen(device)).read())?.relied, { generation: 2 }, 'and it says so')
    damage(device, made, slot)
    const again = await reopen(device)
    const found = await again.read()
    t.match(found, { generation: 2, damaged: false, older: undefined })
    const before = Buffer.from(device.media)
    const recorded = new RecordedDevice(device)
    await AnchoredDevice.open(recorded, again.anchor).commit(3, Buffer.from('three'))
    for (const { image, what } of recorded.cuts(before, 512)) {
      device.media = image
      const text = `${(await (await reopen(device)).read())?.payload}`
      if (text !== 'two' && text !== 'three') t.fail(`${what}: ${text}`)
    }
  }
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('one'))
  await made.commit(2, Buffer.from('two'))
  damage(device, made, made.anchor.newestSlot)
  const again = await reopen(device)
  t.match(await again.read(), { generation: 1, damaged: true })
  const lost = commitId(2, 'two')
  t.match(again.anchor, lost, 'the anchor says what was lost')
  await again.repeat(Buffer.from('two'))
  t.match(await again.read(), { generation: 1, damaged: true }, 'nothing to repeat')
  await again.commit(3, Buffer.from('three'), { follows: lost })
  t.match(await (await reopen(device)).read(), {
    generation: 3,
    follows: lost,
    older: { generation: 1 },
  })
})

t.test('writes between two flushes may come in any order', async (t) => {
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('one'))
  for (let cutAfter = 0; cutAfter < 5; cutAfter++) {
    const media = Buffer.from(device.media)
    const again = await reopen(device)
    let steps = 0
    const target = {
      path: device.path,
      geometry: device.geometry,
      submit(request: Parameters<MemoryDevice['submit']>[0]) {
        if (request.op !== 'read' && steps++ >= cutAfter) device.powerCut()
        else device.submit(request)
      },
    }
    void AnchoredDevice.open(target, again.anchor).commit(2, Buffer.from('two'))
    for (let turn = 0; turn < 20; turn++) await new Promise((resolve) => setImmediate(resolve))
    const text = (await (await reopen(device)).read())?.payload.toString()
    t.equal(text, cutAfter < 4 ? 'one' : 'two', `power is cut after ${cutAfter} steps`)
    device.media = media
  }
})

t.test('a damaged or unreadable anchor is made up from the slots', async (t) => {
  for (const blockBytes of [512, 4096]) {
    const device = disk(blockBytes)
    const made = await AnchoredDevice.format(device, NAMES)
    await made.commit(1, Buffer.from('one'))
    await made.commit(2, Buffer.from('two'))
    const whole = Buffer.from(device.media)
    const at = SIZE_BYTES - blockBytes
    for (let byte = 8; byte < 512; byte += 7) {
      device.media[at + byte] = (device.media[at + byte] ?? 0) ^ 0x10
      const again = await reopen(device)
      if ((await again.read())?.payload.toString() !== 'two') t.fail(`byte ${byte}`)
      whole.copy(device.media)
    }
    device.fail('read', 'io')
    t.strictSame(await readAnchor(device), made.anchor, 'the last sector cannot be read')
    device.fail('read', 'io', 99)
    t.equal((await failureOf(readAnchor(device))).kind, 'io', 'nothing can be read')
    device.fail('read', 'io', 0)
  }
})

t.test('a damaged slot gives way to the other one, and says so', async (t) => {
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('one'))
  await made.commit(2, Buffer.from('two'))
  const whole = Buffer.from(device.media)
  const { slots, newestSlot } = made.anchor
  const newest = slots[newestSlot].offset
  const other = slots[newestSlot === 0 ? 1 : 0].offset
  for (const byte of [0, 12, 20, 81, 170, 173, 4096]) {
    device.media[newest + byte] = (device.media[newest + byte] ?? 0) ^ 1
    const slot = await (await reopen(device)).read()
    t.strictSame(
      [slot?.payload.toString(), slot?.generation, slot?.damaged],
      ['one', 1, true],
      `byte ${byte} of the newest slot`,
    )
    whole.copy(device.media)
    device.media[other + byte] = (device.media[other + byte] ?? 0) ^ 1
    t.equal((await (await reopen(device)).read())?.damaged, false, 'the older one does not matter')
    whole.copy(device.media)
  }
  const again = await reopen(device)
  device.fail('read', 'io')
  t.equal((await again.read())?.damaged, true, 'it cannot be read')
  await again.commit(3, Buffer.from('three'))
  t.equal((await (await reopen(device)).read())?.payload.toString(), 'three')
  whole.copy(device.media)
  device.media.fill(0, newest, newest + 512)
  device.media.fill(0, other, other + 512)
  const error = await failureOf((await reopen(device)).read())
  t.equal(error.kind, 'corrupt')
  t.match(error.message, /generation 2/)
})

t.test('a slot of another device is not ours', async (t) => {
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('mine'))
  const { newestSlot, slots } = made.anchor
  const stranger = disk()
  const other = await AnchoredDevice.format(stranger, { ...NAMES, deviceUuid: SET })
  await other.commit(1, Buffer.from('theirs'))
  const place = slots[newestSlot]
  stranger.media.copy(device.media, place.offset, place.offset, place.offset + place.length)
  t.equal((await failureOf((await reopen(device)).read())).kind, 'corrupt')
})

t.test('an anchor counts only at the end of the medium that it describes', async (t) => {
  const device = disk()
  await AnchoredDevice.format(device, NAMES)
  const partition = disk(512, SIZE_BYTES + 1 * MIB)
  device.media.copy(partition.media, 1 * MIB)
  t.equal(await readAnchor(partition), undefined, 'it belongs to a partition that ends here')
})

t.test('metadata of a newer version is refused in words', async (t) => {
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  encodeAnchor({ ...made.anchor, version: 3 }, device.media.subarray(SIZE_BYTES - 512))
  const error = await failureOf(readAnchor(device))
  t.equal(error.kind, 'unsupported')
  t.match(error.message, /\/dev\/test has metadata of version 3; this Plexus knows version 2/)
})

t.test('whatever the bytes say, decoding gives a sound anchor or none', async (t) => {
  const made = await AnchoredDevice.format(disk(), NAMES)
  const block = Buffer.alloc(512)
  const outside = { offset: 4096, length: SIZE_BYTES }
  const anchor = made.anchor
  const wrong: readonly [string, Partial<Anchor>][] = [
    ['journal over the end', { journal: outside }],
    ['map over a slot', { map: { ...anchor.slots[0] } }],
    ['slots alike', { slots: [anchor.slots[0], anchor.slots[0]] }],
    ['no room in a slot', { slots: [anchor.slots[0], { offset: 65536, length: 4096 }] }],
    ['data over the journal', { dataEndBytes: anchor.journal.offset + 512 }],
    ['odd places', { map: { offset: anchor.map.offset + 1, length: 4096 } }],
    ['an odd block', { blockBytes: 520 }],
  ]
  for (const [what, change] of wrong) {
    encodeAnchor({ ...anchor, ...change }, block)
    t.equal(decodeAnchor(block, 'x'), undefined, what)
  }
  encodeAnchor(anchor, block)
  t.strictSame(decodeAnchor(block, 'x'), anchor)
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 500, maxLength: 500 }), (bytes) => {
      const noise = Buffer.concat([Buffer.from('PLEXUS::'), bytes, Buffer.alloc(4)])
      try {
        return decodeAnchor(noise, 'x') === undefined
      } catch (error) {
        return error instanceof PlexusError
      }
    }),
    { numRuns: 200 },
  )
})

t.test('map and journal', async (t) => {
  const device = disk(4096)
  const made = await AnchoredDevice.format(device, NAMES)
  t.equal(made.mapSlots, 16)
  t.equal(made.journalBytes, 256 * KIB)
  await made.writeMapBlock(3, 1, Buffer.alloc(4096, 7), { fua: true })
  t.equal(device.unflushed, 0, 'durable at once')
  await Promise.all([
    made.writeMapBlock(15, 0, Buffer.alloc(4096, 1)),
    made.writeMapBlock(15, 1, Buffer.alloc(4096, 2)),
  ])
  const [a, b] = await made.readMapPair(15)
  t.ok(a.equals(Buffer.alloc(4096, 1)) && b.equals(Buffer.alloc(4096, 2)))
  t.equal(device.media[made.anchor.map.offset + 7 * 4096], 7)
  await t.rejects(made.readMapPair(16), /bytes 131072 to 139264 lie in its map/)
  const data = allocateAligned(8192)
  data.bytes.fill(9)
  await made.writeJournal(made.journalBytes - 8192, data, { fua: true })
  t.equal(device.unflushed, 2, 'the map’s two')
  t.ok((await made.readJournal(made.journalBytes - 8192, 8192)).bytes.equals(data.bytes))
  await t.rejects(made.writeJournal(made.journalBytes - 4096, data), /lie in its journal/)
  device.fail('read', 'io')
  t.equal((await failureOf(made.readMapPair(3))).kind, 'io', 'half a pair would hide something')
})

t.test('golden bytes: written the same today, and read as they were', async (t) => {
  const golden = join(ROOT, 'test/golden/anchor-v2.txt')
  const device = disk()
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('volume data\n'))
  const follows = commitId(1, 'volume data\n')
  const options = { line: DEVICE, follows, relied: follows }
  await made.commit(3, Buffer.from('volume data\nplex data.p0\n'), options)
  const pieces = readFileSync(golden, 'latin1')
    .split('\n')
    .filter((line) => /^\d/.test(line))
    .map((line) => {
      const [offset = '', hex = ''] = line.split(' ')
      return { offset: Number(offset), bytes: Buffer.from(hex, 'hex') }
    })
  const image = Buffer.alloc(SIZE_BYTES)
  for (const { offset, bytes } of pieces) bytes.copy(image, offset)
  t.ok(pieces.length > 4, `${pieces.length} pieces`)
  t.ok(device.media.equals(image), 'the same bytes')
  device.media = image
  const again = await reopen(device)
  const slot = await again.read()
  t.strictSame(
    [slot?.generation, slot?.payload.toString(), slot?.line, slot?.follows, slot?.relied],
    [3, 'volume data\nplex data.p0\n', DEVICE, follows, follows],
  )
})
