/** Pages and journal blocks of the chunk map as bytes, what is refused, which blocks count, and where pages lie. */
import t, { type Test } from 'tap'
import { crc32c } from '../../../../src/base/crc32c.ts'
import { PlexusError } from '../../../../src/base/errors.ts'
import {
  BLOCK_RECORDS,
  blockFor,
  blocksFor,
  decodeBlock,
  encodeBlocks,
  type JournalBlock,
  recordsOf,
  replayable,
} from '../../../../src/engine/virstor/map/journal.ts'
import { chunksForPages, pagePlaces } from '../../../../src/engine/virstor/map/layout.ts'
import {
  decodePage,
  isEmptyPage,
  PAGE_ENTRIES,
  sealPage,
  writeEntry,
} from '../../../../src/engine/virstor/map/page.ts'
import type { MapRecord } from '../../../../src/engine/virstor/runtime.ts'

const BLOCK = 4096
const UUID = '8f0c7c9e30c54f5e9c3a0d8f6e2b1a77'
const ORIGIN = { uuid: Buffer.from(UUID, 'hex'), epoch: 0x01020304 }
const RECORD: MapRecord = {
  chunk: 2 ** 33 + 5,
  validLow: 0x80000001,
  validHigh: 0xf0000000,
  lost: true,
  number: 0xfffffffe,
  component: 0x1234,
}

function page(): Buffer {
  const bytes = Buffer.alloc(BLOCK)
  writeEntry(bytes, 1, RECORD)
  sealPage(bytes, ORIGIN, 7, 2 ** 40 + 9)
  return bytes
}

function group(records: readonly MapRecord[], first: number, oldest = first): JournalBlock[] {
  const bytes = Buffer.alloc(blocksFor(records.length) * BLOCK)
  encodeBlocks(bytes, records, ORIGIN, { first, oldest })
  return Array.from({ length: bytes.length / BLOCK }, (_, index) => {
    const block = decodeBlock(bytes.subarray(index * BLOCK, (index + 1) * BLOCK), ORIGIN)
    if (!block) throw new Error(`block ${index} is whole`)
    return block
  })
}

/** The bytes that are not zero, but for the CRC; and the CRC is right. */
function fields(t: Test, bytes: Buffer): string {
  const unsigned = Buffer.from(bytes)
  unsigned.writeUInt32LE(0, 12)
  t.equal(bytes.readUInt32LE(12), crc32c(unsigned))
  return `${unsigned.toString('hex', 0, 112)} ${unsigned.subarray(112).every((byte) => byte === 0)}`
}

t.test('a page, byte by byte', async (t) => {
  t.equal(PAGE_ENTRIES, 252)
  t.equal(
    fields(t, page()),
    // Magic, version, CRC, device, epoch, page, sequence, 16 bytes, then entry 0, entry 1, and the next one.
    `${Buffer.from('PLEXVMAP').toString('hex')}01000000${'00'.repeat(4)}${UUID}` +
      `0403020107000000${'0900000000010000'}${'00'.repeat(16)}` +
      `${'00'.repeat(16)}01000080000000f0feffffff34120080${'00'.repeat(16)} true`,
  )
  t.equal(decodePage(page(), ORIGIN, 7), 2 ** 40 + 9)
  t.notOk(isEmptyPage(page()))
  const empty = Buffer.alloc(BLOCK)
  sealPage(empty, ORIGIN, 7, 1)
  t.ok(isEmptyPage(empty))
})

t.test('a block of the journal, byte by byte', async (t) => {
  const [block] = group([RECORD, { ...RECORD, chunk: 6 }], 2 ** 40 + 9, 3)
  t.equal(
    fields(t, block?.bytes ?? Buffer.alloc(0)).slice(0, 176),
    // Magic, version, CRC, device, epoch, records, sequence, oldest, index, blocks, 4 bytes, then the first record.
    `${Buffer.from('PLEXVJNL').toString('hex')}01000000${'00'.repeat(4)}${UUID}` +
      `0403020102000000${'0900000000010000'}0300000000000000${'00000100'}00000000` +
      '050000000200000001000080000000f0feffffff34120080',
  )
  t.strictSame(block && recordsOf(block), [RECORD, { ...RECORD, chunk: 6 }])
  const other = { ...ORIGIN, epoch: 9 }
  const copied = block && decodeBlock(blockFor(block, other), other)
  t.match(copied, { sequence: 2 ** 40 + 9, oldest: 3 })
})

t.test('every bit counts', async (t) => {
  const [block] = group([RECORD], 5)
  for (const [what, bytes, decode] of [
    ['page', page(), (bytes: Buffer) => decodePage(bytes, ORIGIN, 7)],
    ['block', block?.bytes ?? Buffer.alloc(0), (bytes: Buffer) => decodeBlock(bytes, ORIGIN)],
  ] as const) {
    t.not(decode(bytes), undefined, what)
    const accepted: number[] = []
    for (let bit = 0; bit < BLOCK * 8; bit++) {
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
      if (decode(bytes) !== undefined) accepted.push(bit)
      bytes[bit >> 3] = (bytes[bit >> 3] ?? 0) ^ (1 << (bit & 7))
    }
    t.strictSame(accepted, [], what)
  }
  t.equal(decodePage(page(), ORIGIN, 8), undefined, 'another page')
  t.equal(decodePage(page(), { ...ORIGIN, epoch: 1 }, 7), undefined, 'another copy')
  t.equal(decodePage(page(), { ...ORIGIN, uuid: Buffer.alloc(16) }, 7), undefined, 'another device')
  t.equal(decodeBlock(page(), ORIGIN), undefined, 'a page is no block')
})

/** Sequences that are replayed of these blocks, or the message of the error. */
function replayed(blocks: readonly JournalBlock[]): string {
  try {
    const found = new Map(blocks.map((block) => [block.sequence, block]))
    return replayable(found, 'v')
      .map(({ sequence }) => sequence)
      .join(' ')
  } catch (error) {
    return error instanceof PlexusError && error.kind === 'corrupt' ? error.message : `${error}`
  }
}

t.test('which blocks count', async (t) => {
  const many = Array.from({ length: 2 * BLOCK_RECORDS + 1 }, (_, chunk) => ({ ...RECORD, chunk }))
  const [one, two] = [group([RECORD], 1, 1), group([RECORD], 2, 2)]
  const three = group(many, 3, 2)
  t.strictSame(
    three.map(({ sequence, groupFirst, groupLast }) => [sequence, groupFirst, groupLast]),
    [3, 4, 5].map((sequence) => [sequence, 3, 5]),
  )
  t.equal(recordsOf(three[2] as JournalBlock).length, 1)
  t.equal(replayed([...three, ...two, ...one]), '2 3 4 5', 'from the oldest that the newest names')
  t.equal(replayed([...one, ...two]), '2')
  for (const left of [[0], [1], [2], [0, 1], [0, 2], [1, 2]]) {
    const torn = left.map((index) => three[index] as JournalBlock)
    t.equal(replayed([...one, ...two, ...torn]), '2', `torn: ${left} is there`)
  }
  t.match(
    replayed([...one, ...three]),
    /^v: block 2 of the journal .* \(blocks 2 to 5 are needed\)/,
  )
  const next = group([], 6, 2)
  t.match(replayed([...two, ...three.slice(1), ...next]), /^v: block 3 of the journal/)
  t.match(replayed([]), /^v: no copy of the journal/)
  t.match(replayed(three.slice(1)), /^v: no copy of the journal/)
})

t.test('where pages lie', async (t) => {
  const chunkBytes = 64 * 1024
  const places = pagePlaces(
    [
      { number: 3, count: 2 },
      { number: 10, count: 1 },
    ],
    chunkBytes,
  )
  t.equal(chunksForPages(17, chunkBytes), 3)
  t.equal(chunksForPages(16, chunkBytes), 2)
  t.strictSame(places(0, 0, 2), [{ offset: 3 * chunkBytes, length: 2 * BLOCK }])
  t.strictSame(places(1, 6, 12), [
    { offset: 3 * chunkBytes + 14 * BLOCK, length: 2 * BLOCK },
    { offset: 4 * chunkBytes + 8 * BLOCK, length: 8 * BLOCK },
    { offset: 10 * chunkBytes + 8 * BLOCK, length: 2 * BLOCK },
  ])
  t.throws(() => places(0, 24, 1), /the map has 3 chunks, and not chunk 3/)
})
