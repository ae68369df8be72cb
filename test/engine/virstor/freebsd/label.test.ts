/** Labels and maps of FreeBSD's virstor, whatever their bytes: used when all of it can be right, else refused with the reason. */
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../../../src/base/errors.ts'
import { GIB, MIB } from '../../../../src/base/limits.ts'
import {
  chunksOf,
  decodeFreebsdLabel,
  mapChunksOf,
} from '../../../../src/engine/virstor/freebsd/label.ts'
import { readFreebsdMap } from '../../../../src/engine/virstor/freebsd/map.ts'
import { decodeRecord, encodeRecord } from '../../../../src/engine/virstor/freebsd/record.ts'
import { failureOf } from '../../../support/failure.ts'
import { CHUNK, freebsdLabel, type LabelFields } from '../../../support/freebsd-virstor.ts'
import { MemoryDevice } from '../../../support/memory-device.ts'

const MEDIUM = { sizeBytes: 5 * MIB, blockBytes: 512 }

function decode(fields: LabelFields, medium = MEDIUM) {
  const usual = { count: 3, reserved: 2 }
  return decodeFreebsdLabel(freebsdLabel({ ...usual, ...fields }), medium)
}

t.test('a label says what FreeBSD has written', async (t) => {
  const found = decode({ count: 3, index: 2, reserved: 0, provider: 'da1', flags: 1 })
  t.match(found, {
    label: {
      name: 'big',
      id: 0xfeedbeef,
      virtualBytes: 64 * MIB,
      chunkBytes: CHUNK,
      count: 3,
      index: 2,
      mediaBytes: 5 * MIB,
      chunks: 39,
      reserved: 0,
    },
  })
  t.equal(decode({ magic: 'GEOM::MIRROR' }), undefined)
  t.equal(decodeFreebsdLabel(Buffer.alloc(512), MEDIUM), undefined)
  // 2 TiB in chunks of 4 MiB have a map of 4 MiB.
  const large = { virtualBytes: 2048 * GIB, chunkBytes: 4 * MIB, mediaBytes: GIB, chunks: 255 }
  const usual = decode(large, { sizeBytes: GIB, blockBytes: 512 })
  t.ok(usual && 'label' in usual && mapChunksOf(usual.label) === 1)
  t.ok(usual && 'label' in usual && chunksOf(usual.label) === 524288)
})

const HOSTILE: readonly (readonly [string, LabelFields, RegExp])[] = [
  ['another version', { version: 2 }, /has version 2; Plexus reads version 1/],
  ['another medium', { mediaBytes: 6 * MIB }, /is for 6291456 bytes, and the disk has 5242880/],
  ['a name without an end', { name: 'x'.repeat(16) }, /no name/],
  ['a name with an escape sequence', { name: 'a\x1b[2J' }, /no name/],
  ['no name', { name: '' }, /no name/],
  ['a name that a shell would run', { name: '$(reboot)' }, /no name/],
  ['a name that is an option', { name: '--force' }, /no name/],
  ['no chunks', { chunkBytes: 0 }, /chunks of 0 bytes/],
  ['chunks that are no blocks', { chunkBytes: 131_073 }, /no blocks of 512/],
  ['a size below a chunk', { virtualBytes: 4096 }, /a size of 4096 bytes/],
  ['a size of half a chunk', { virtualBytes: 64 * MIB + 512 }, /no chunks of 131072/],
  ['a size beyond all numbers', { virtualBytes: 2n ** 63n }, /a size of 9223372036854776000/],
  ['a medium beyond all numbers', { mediaBytes: 2n ** 64n - 1n }, /is for 18446744073709552000/],
  ['no components', { count: 0 }, /component 0 of 0/],
  ['an index behind the last', { index: 3 }, /component 3 of 3/],
  ['more components than ids', { count: 65535 }, /component 0 of 65535/],
  ['more chunks than the disk', { chunks: 41 }, /41 chunks of 131072 bytes, more than the disk/],
  ['chunks times size beyond 32 bits', { chunks: 0xffff_ffff }, /chunks at most/],
  ['more reserved than there is', { reserved: 40 }, /keeps 40 of 39 chunks/],
  ['a map that lies in data', { reserved: 0 }, /keeps 0 of 39 chunks for a map of 1/],
]

t.test('hostile labels are refused with the reason', async (t) => {
  for (const [what, fields, reason] of HOSTILE) t.match(decode(fields), { problem: reason }, what)
  const large = { chunkBytes: 2 ** 31, virtualBytes: 2n ** 55n, chunks: 1, reserved: 1 }
  const medium = { sizeBytes: 4 * GIB, blockBytes: 512 }
  const found = decode({ ...large, mediaBytes: medium.sizeBytes }, medium)
  t.match(found, { problem: /a size of 36028797018963970 bytes/ }, 'no number is as exact')
})

t.test('property: any bytes are refused, or all of their places exist', async () => {
  const numbers = fc.oneof(
    fc.nat(200),
    fc.constantFrom(CHUNK, 5 * MIB, 64 * MIB),
    fc.bigInt({ min: 0n, max: 2n ** 64n - 1n }),
  )
  const fields = fc.record({
    virtualBytes: numbers,
    mediaBytes: fc.oneof({ arbitrary: fc.constant(5 * MIB), weight: 5 }, numbers),
    chunkBytes: fc.oneof(fc.constantFrom(512, CHUNK, 2 * CHUNK), fc.nat(2 ** 31)),
    chunks: fc.oneof(fc.nat(64), fc.nat(2 ** 31)),
    count: fc.oneof(fc.nat(4), fc.nat(65535)),
    index: fc.oneof(fc.nat(4), fc.nat(65535)),
    reserved: fc.oneof(fc.nat(8), fc.nat(65535)),
  })
  const places = [...Array(92 - 16).keys()].map((at) => at + 16)
  const bytes = fc.array(fc.tuple(fc.constantFrom(...places), fc.nat(255)), { maxLength: 6 })
  fc.assert(
    fc.property(fields, bytes, (some, changes) => {
      const label = freebsdLabel(some)
      for (const [at, value] of changes) label[at] = value
      const found = decodeFreebsdLabel(label, MEDIUM)
      if (!found || 'problem' in found) return
      const { chunks, chunkBytes, count, index, reserved, virtualBytes } = found.label
      if (chunks * chunkBytes > MEDIUM.sizeBytes || index >= count || reserved > chunks) throw found
      if (!Number.isSafeInteger(virtualBytes / chunkBytes)) throw found
      if (index === 0 && 8 * chunksOf(found.label) > reserved * chunkBytes) throw found
    }),
    { numRuns: 2000 },
  )
})

function labelsOf(count: number) {
  return Array.from({ length: count }, (_, index) => {
    const found = decode({ count, index, reserved: index === 0 ? 2 : 0 })
    if (!found || 'problem' in found) throw new Error('the label is right')
    return found.label
  })
}

function mapDevice(entries: readonly (readonly [number, number, number, number])[]): MemoryDevice {
  const device = new MemoryDevice({ sizeBytes: 5 * MIB })
  for (const [chunk, flags, index, number] of entries) {
    device.media.writeUInt16LE(flags, 8 * chunk)
    device.media.writeUInt16LE(index, 8 * chunk + 2)
    device.media.writeUInt32LE(number, 8 * chunk + 4)
  }
  return device
}

t.test('a map with an entry that cannot be right names it', async (t) => {
  const wrong: readonly (readonly [
    readonly (readonly [number, number, number, number])[],
    string,
  ])[] = [
    [
      [[17, 1, 3, 5]],
      'entry 17 of its map names chunk 5 of component 3, and there are 3 components',
    ],
    [
      [[17, 1, 65535, 5]],
      'entry 17 of its map names chunk 5 of component 65535, and there are 3 components',
    ],
    [[[17, 1, 1, 39]], 'entry 17 of its map names chunk 39 of component 1, and it has 39'],
    [
      [[17, 1, 1, 0xffff_ffff]],
      'entry 17 of its map names chunk 4294967295 of component 1, and it has 39',
    ],
    [
      [[17, 1, 0, 1]],
      'entry 17 of its map names chunk 1 of component 0, which is kept for the map',
    ],
    [[[17, 0x8001, 1, 1]], 'entry 17 of its map has flags 32769'],
    [
      [
        [4, 1, 1, 7],
        [500, 1, 1, 7],
      ],
      'entries 4 and 500 of its map both name chunk 7 of component 1',
    ],
  ]
  for (const [entries, message] of wrong) {
    const error = await failureOf(readFreebsdMap(mapDevice(entries), labelsOf(3)))
    t.equal(error.kind, 'corrupt')
    t.match(error.message, message)
  }
  // What FreeBSD has taken back leaves its place in the entry.
  const table = await readFreebsdMap(mapDevice([[17, 0, 9, 99]]), labelsOf(3))
  t.equal(table.componentOf(17), 0)
})

t.test(
  'property: of a map of any bytes no place is used twice, and all of them exist',
  async () => {
    const labels = labelsOf(3)
    const entry = fc.tuple(
      fc.nat(511),
      fc.oneof({ arbitrary: fc.constant(1), weight: 20 }, fc.nat(65535)),
      fc.oneof({ arbitrary: fc.nat(2), weight: 20 }, fc.nat(65535)),
      fc.oneof({ arbitrary: fc.nat(38), weight: 20 }, fc.nat(2 ** 32 - 1)),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(entry, { maxLength: 5 }), async (entries) => {
        try {
          const table = await readFreebsdMap(mapDevice(entries), labels)
          const seen = new Set<string>()
          for (let chunk = 0; chunk < 512; chunk++) {
            const component = table.componentOf(chunk)
            if (component === 0) continue
            const number = table.numberOf(chunk)
            const place = `${component}/${number}`
            if (seen.has(place) || component > 3 || number > 38) throw new Error(place)
            if (component === 1 && number < 2) throw new Error(`${place} is the map's`)
            seen.add(place)
          }
        } catch (error) {
          if (!(error instanceof PlexusError) || error.kind !== 'corrupt') throw error
        }
      }),
      { numRuns: 150 },
    )
  },
)

t.test('the record of a conversion', async (t) => {
  const label = freebsdLabel({ count: 3, reserved: 2 })
  const setUuid = '6f0c11f2-93ce-4a4a-9c1e-0a1b2c3d4e5f'
  const record = { setUuid, offset: 5 * CHUNK, length: 1234, payloadCrc: 0xdeadbeef, label }
  const block = Buffer.alloc(4096, 0xff)
  encodeRecord(record, block)
  t.strictSame(decodeRecord(block), record)
  t.equal(
    block.subarray(156).every((byte) => byte === 0),
    true,
  )
  for (let at = 0; at < 512; at++) {
    block[at] = (block[at] ?? 0) ^ 1
    t.equal(decodeRecord(block), undefined, `byte ${at}`)
    block[at] = (block[at] ?? 0) ^ 1
  }
})
