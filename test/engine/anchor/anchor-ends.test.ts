/** The two ends of a label: grown, shrunk and copied media, overwritten ends, the resize and every cut of it. */
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { KIB, MIB } from '../../../src/base/limits.ts'
import { restoreLabel, wipeLabel } from '../../../src/engine/anchor/anchor-ends.ts'
import { findLabel } from '../../../src/engine/anchor/anchor-find.ts'
import {
  frontOf,
  HEAD_SLOTS,
  planAnchor,
  planAnchorAround,
  planResize,
} from '../../../src/engine/anchor/anchor-layout.ts'
import { AnchoredDevice } from '../../../src/engine/anchor/anchored-device.ts'
import { deviceContents, formatContents } from '../../../src/hal/device-contents.ts'
import { MemoryDevice } from '../../support/memory-device.ts'
import { readAnchor } from '../../support/read-anchor.ts'
import { RecordedDevice } from '../../support/recorded-device.ts'

const NAMES = {
  setUuid: '11111111-2222-4333-8444-555555555555',
  className: 'vinum',
  deviceUuid: 'aaaaaaaa-bbbb-4ccc-8ddd-eeeeeeeeeeee',
}
const SIZE_BYTES = 2 * MIB

function disk(sizeBytes = SIZE_BYTES, blockBytes = 512): MemoryDevice {
  return new MemoryDevice({ sizeBytes, blockBytes, path: '/dev/test' })
}

/** A drive with two commits, and something in its data, map and journal. */
async function drive(blockBytes = 512): Promise<MemoryDevice> {
  const device = disk(SIZE_BYTES, blockBytes)
  const made = await AnchoredDevice.format(device, NAMES)
  await made.commit(1, Buffer.from('one'))
  await made.commit(2, Buffer.from('two'))
  await made.writeMapBlock(15, 1, Buffer.alloc(4096, 7))
  device.media.fill(0xda, made.anchor.dataStartBytes, made.anchor.dataEndBytes)
  return device
}

async function reopen(device: MemoryDevice): Promise<AnchoredDevice> {
  return AnchoredDevice.open(device, defined(await readAnchor(device), 'an anchor'))
}

async function configuration(device: MemoryDevice): Promise<string> {
  return `${(await (await reopen(device)).read())?.payload}`
}

/** The same bytes at the front of a medium of another size, as dd copies them. */
function copied(device: MemoryDevice, sizeBytes: number): MemoryDevice {
  const copy = disk(sizeBytes, device.geometry.logicalBlockBytes)
  device.media.copy(copy.media, 0, 0, Math.min(sizeBytes, SIZE_BYTES))
  return copy
}

/** A partition table as Linux writes one: 34 sectors at the front, 33 at the end. */
type Ends = readonly ('front' | 'end')[]

function writeGpt({ media }: MemoryDevice, ends: Ends): void {
  if (ends.includes('front')) {
    media.fill(0, 0, 34 * 512)
    media.write('EFI PART', 512)
  }
  if (!ends.includes('end')) return
  media.fill(0, media.length - 33 * 512)
  media.write('EFI PART', media.length - 512)
}

t.test('the front copy lies where neither a partition table nor FreeBSD writes', async (t) => {
  for (const blockBytes of [512, 4096]) {
    for (const mediaBytes of [1 * MIB, 2 * MIB, 63 * MIB, 64 * MIB, 2 ** 40]) {
      const layout = planAnchor(mediaBytes, blockBytes)
      const { offset, length } = frontOf(layout)
      t.ok(offset >= 34 * 512 && offset >= 6 * 4096, 'behind a GPT')
      t.ok(offset + length <= layout.dataStartBytes, 'before the data')
    }
  }
  const kept = { startBytes: 135680, endBytes: 8 * MIB - 512 }
  const converted = planAnchorAround(8 * MIB, 512, kept)
  const front = frontOf(converted)
  t.equal(front.offset + front.length, 135680)
  for (const { offset, length } of HEAD_SLOTS) t.ok(offset + length <= front.offset)
})

t.test('commits write as often as before, and leave the front copy alone', async (t) => {
  const device = await drive()
  const front = Buffer.from(device.media.subarray(60 * KIB, 64 * KIB))
  const anchor = defined(await readAnchor(device), 'an anchor')
  const recorded = new RecordedDevice(device)
  const opened = AnchoredDevice.open(recorded, anchor)
  await opened.read()
  recorded.log.length = 0
  await opened.commit(3, Buffer.from('three'))
  t.strictSame(
    recorded.log.map(({ op }) => op),
    ['write', 'flush', 'write', 'flush'],
  )
  t.ok(device.media.subarray(60 * KIB, 64 * KIB).equals(front))
  const { write, flush } = device.counts
  await (await reopen(device)).settle()
  t.match(device.counts, { write, flush }, 'nor does the next start write it')
})

t.test('a medium that has grown, or a copy on a larger one, is used as it was', async (t) => {
  for (const blockBytes of [512, 4096]) {
    const device = copied(await drive(blockBytes), 3 * MIB)
    t.match(await findLabel(device), { problem: undefined, anchor: { mediaBytes: SIZE_BYTES } })
    t.equal(await configuration(device), 'two')
    await (await reopen(device)).commit(3, Buffer.from('three'))
    t.equal(await configuration(device), 'three')
    t.equal(
      formatContents(await deviceContents(device)),
      'Plexus label for 2 MiB (the disk is 3 MiB now)',
      'nobody takes it for blank',
    )
  }
})

t.test('a medium that has shrunk is named, not used, and not blank', async (t) => {
  const device = copied(await drive(), 1 * MIB)
  const found = await findLabel(device)
  t.equal(found?.anchor.deviceUuid, NAMES.deviceUuid)
  t.match(found?.problem?.text, /a Plexus label for 2 MiB; the disk is 1 MiB now/)
  t.match(found?.problem?.action, /size of at least 2097152 bytes .* plexus volume replace/)
  t.equal(await readAnchor(device), undefined)
  t.match(formatContents(await deviceContents(device)), /for 2 MiB \(the disk is 1 MiB now/)
  await wipeLabel(device, defined(found, 'a label').anchor)
  t.equal(await findLabel(device), undefined, 'its label can be taken off')
})

t.test('a disk whose blocks have another size now is named', async (t) => {
  const device = copied(await drive(512), SIZE_BYTES)
  const other = disk(SIZE_BYTES, 4096)
  device.media.copy(other.media)
  const found = await findLabel(other)
  t.match(found?.problem?.text, /with blocks of 512 bytes, which this disk does not have/)
})

t.test('a partition table over either end is named; the label is written again', async (t) => {
  for (const blockBytes of [512, 4096]) {
    const cases: readonly Ends[] = [['front'], ['end'], ['front', 'end']]
    for (const ends of cases) {
      const device = await drive(blockBytes)
      const whole = Buffer.from(device.media)
      writeGpt(device, ends)
      if (ends.includes('front')) device.media.fill(0xee, 60 * KIB, 64 * KIB)
      if (ends.length === 2) whole.copy(device.media, 60 * KIB, 60 * KIB, 64 * KIB)
      const found = defined(await findLabel(device), 'a label')
      const end = ends.includes('end') ? 'end' : 'front'
      const name =
        blockBytes === 4096 && !ends.includes('front') ? /GPT/ : /\((GPT|GPT backup|GPT.*)\)/
      t.match(found.problem?.text, new RegExp(`label whose ${end} was overwritten`))
      t.match(found.problem?.text, name)
      t.match(found.problem?.action, /plexus device restore-label NAME/)
      t.equal(await readAnchor(device), undefined, 'nobody takes it as it is')
      await restoreLabel(device, found.anchor)
      t.equal(device.unflushed, 0, 'durable')
      t.equal(await configuration(device), 'two')
      const { dataStartBytes, dataEndBytes } = found.anchor
      t.ok(device.media.subarray(dataStartBytes, dataEndBytes).every((byte) => byte === 0xda))
      t.strictSame(
        (await deviceContents(device)).map(({ kind }) => kind),
        ['plexus'],
        'the partition table is gone',
      )
    }
  }
})

t.test(
  'an end that is damaged, with nothing else there, is put right by who takes it',
  async (t) => {
    const device = await drive()
    device.media.fill(0, 60 * KIB, 64 * KIB)
    await (await reopen(device)).settle()
    device.media.fill(0, SIZE_BYTES - 512)
    t.equal(await configuration(device), 'two', 'the front copy is there again, and speaks for it')
    await (await reopen(device)).commit(3, Buffer.from('three'))
    device.media.fill(0, 60 * KIB, 64 * KIB)
    t.equal(await configuration(device), 'three', 'the anchor is there again')
  },
)

t.test('without a slot nothing is restored, and the disk is not blank', async (t) => {
  const device = await drive()
  device.media.fill(0, SIZE_BYTES - 600 * KIB)
  const found = await findLabel(device)
  t.match(found?.problem, { restorable: false, text: /with all that its slots held/ })
  t.equal(await readAnchor(device), undefined)
})

t.test('one disk copied over another one: neither label counts by itself', async (t) => {
  const large = disk(4 * MIB)
  const other = 'bbbbbbbb-bbbb-4ccc-8ddd-eeeeeeeeeeee'
  await AnchoredDevice.format(large, { ...NAMES, deviceUuid: other })
  const small = await drive()
  small.media.copy(large.media)
  const found = defined(await findLabel(large), 'a label')
  t.match(found.problem?.text, /two Plexus labels: at the front .*aaaa.* 2 MiB, at the end .*bbbb/)
  await restoreLabel(large, found.anchor)
  t.equal(await configuration(large), 'two')
  small.media.copy(large.media)
  await wipeLabel(large, found.anchor)
  t.equal(await findLabel(large), undefined, 'both go')
})

t.test('a resize moves the tail; a small one the anchor only', async (t) => {
  for (const [growBytes, moves] of [
    [4096, false],
    [600 * KIB, true],
    [30 * MIB, true],
  ] as const) {
    const device = copied(await drive(), SIZE_BYTES + growBytes)
    const opened = await reopen(device)
    const before = opened.anchor
    await opened.resize()
    t.equal(device.unflushed, 0, 'durable')
    const again = await reopen(device)
    t.equal(again.anchor.mediaBytes, SIZE_BYTES + growBytes)
    t.equal(again.anchor.dataStartBytes, before.dataStartBytes)
    t.equal(again.anchor.dataEndBytes > before.dataEndBytes, moves)
    t.equal(await configuration(device), 'two')
    t.equal((await again.read())?.older?.generation, 1, 'both slots went along')
    t.ok((await again.readMapPair(15))[1].equals(Buffer.alloc(4096, 7)), 'and the map')
    await opened.commit(3, Buffer.from('three'))
    t.equal(await configuration(device), 'three')
    device.media.fill(0, device.media.length - 512)
    t.equal(await configuration(device), 'three', 'the front copy says where its slots are')
  }
})

t.test('wherever a resize is cut off, the drive has its newest configuration', async (t) => {
  for (const [blockBytes, growBytes] of [
    [512, 1 * MIB],
    [4096, 1 * MIB],
    [512, 8192],
  ] as const) {
    const device = copied(await drive(blockBytes), SIZE_BYTES + growBytes)
    const before = Buffer.from(device.media)
    const recorded = new RecordedDevice(device)
    await AnchoredDevice.open(recorded, (await reopen(device)).anchor).resize()
    const counts = { old: 0, new: 0 }
    for (const { image, done, what } of recorded.cuts(before, 8 * blockBytes)) {
      device.media = image
      const again = await reopen(device)
      const isNew = again.anchor.mediaBytes === SIZE_BYTES + growBytes
      if (done && !isNew) t.fail(`${what}: the old size`)
      counts[isNew ? 'new' : 'old']++
      if (`${(await again.read())?.payload}` !== 'two') t.fail(`${what}: not the newest`)
      // And it is taken, resized, and committed to from there.
      await again.settle()
      await again.resize()
      await again.commit(3, Buffer.from('three'))
      const last = await reopen(device)
      if (`${(await last.read())?.payload}` !== 'three') t.fail(`${what}: three is lost`)
      if (last.anchor.mediaBytes !== SIZE_BYTES + growBytes) t.fail(`${what}: not resized`)
      const pair = await last.readMapPair(15)
      if (!pair[1].equals(Buffer.alloc(4096, 7))) t.fail(`${what}: the map is lost`)
      const { dataStartBytes } = last.anchor
      const data = image.subarray(dataStartBytes, planAnchor(SIZE_BYTES, blockBytes).dataEndBytes)
      if (!data.every((byte) => byte === 0xda)) t.fail(`${what}: data is damaged`)
    }
    t.ok(counts.old > 0 && counts.new > 1, JSON.stringify(counts))
  }
})

t.test('a resize that fails leaves the drive as it was; commits and marks go on', async (t) => {
  const layout = planResize(planAnchor(SIZE_BYTES, 512), 3 * MIB)
  // map, journal, slots zeroed; then each of them copied; then the anchor, the front copy, the old anchor.
  for (let writes = 0; writes < 8; writes++) {
    const device = copied(await drive(), 3 * MIB)
    const opened = await reopen(device)
    let left = writes
    const submit = device.submit.bind(device)
    device.submit = (request) => {
      if (request.op === 'write' && left-- === 0) device.fail('write', 'io')
      submit(request)
    }
    await opened.resize().catch(() => {})
    device.submit = submit
    await opened.writeMapBlock(3, 0, Buffer.alloc(4096, 5))
    await opened.commit(3, Buffer.from('three'))
    t.equal(await configuration(device), 'three', `write ${writes} fails`)
    const again = await reopen(device)
    t.strictSame(again.anchor, opened.anchor, 'the same end counts after a restart')
    t.equal((await again.readMapPair(3))[0][0], 5)
    await again.settle()
    await again.resize()
    t.equal((await reopen(device)).anchor.dataEndBytes, layout.dataEndBytes)
    t.equal(await configuration(device), 'three')
  }
})

t.test('what is written while a resize runs is in the new place', async (t) => {
  const device = copied(await drive(), 4 * MIB)
  const opened = await reopen(device)
  const resized = opened.resize()
  const work: Promise<unknown>[] = [resized]
  let ended = false
  void resized.then(() => {
    ended = true
  })
  for (let turn = 0; !ended; turn++) {
    work.push(opened.writeMapBlock(turn % 8, 0, Buffer.alloc(4096, turn % 251)))
    if (turn === 3) work.push(opened.commit(3, Buffer.from('three')))
    await new Promise((resolve) => setImmediate(resolve))
  }
  await opened.writeMapBlock(9, 0, Buffer.alloc(4096, 99))
  await Promise.all(work)
  t.ok(work.length > 6, `${work.length} writes beside it`)
  t.equal(await configuration(device), 'three')
  const again = await reopen(device)
  for (let pair = 0; pair < 10; pair++) {
    t.ok((await again.readMapPair(pair))[0].equals((await opened.readMapPair(pair))[0]))
  }
  t.equal((await again.readMapPair(9))[0][0], 99)
})
