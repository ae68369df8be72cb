import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { crc32c } from '../../src/base/crc32c.ts'
import {
  BHS_BYTES,
  cmdSn,
  dataSegmentBytes,
  initiatorTaskTag,
  isFinal,
  isImmediate,
  OPCODE,
  opcodeOf,
  padBytes,
  putHeader,
  putSequence,
  putU32,
  serialAdd,
  serialBefore,
  targetTransferTag,
  u32,
} from '../../src/iscsi/pdu.ts'
import { type PduHandler, PduReader } from '../../src/iscsi/pdu-reader.ts'
import { type Batch, PduWriter } from '../../src/iscsi/pdu-writer.ts'
import { ROOT } from '../support/root.ts'

interface Golden {
  name: string
  dataBytes: number
  pdu: Buffer
}

const GOLDEN: Golden[] = readFileSync(join(ROOT, 'test/golden/pdus.txt'), 'utf8')
  .split('\n')
  .filter((line) => line !== '' && !line.startsWith('#'))
  .map((line) => {
    const [name, , , dataBytes, hex] = line.split(' ')
    return {
      name: String(name),
      dataBytes: Number(dataBytes),
      pdu: Buffer.from(String(hex), 'hex'),
    }
  })

interface Seen {
  bhs: Buffer
  ahs: Buffer
  data: Buffer
  digestOk: boolean
}

/** A reader that keeps what it sees; `keep` says how many bytes of each segment have a place. */
function collector(keep: (length: number) => number = (length) => length) {
  const seen: Seen[] = []
  const faults: string[] = []
  let bhs: Buffer = Buffer.alloc(0)
  let ahs: Buffer = Buffer.alloc(0)
  let data: Buffer = Buffer.alloc(0)
  const handler: PduHandler = {
    header(header, additional) {
      bhs = Buffer.from(header)
      ahs = Buffer.from(additional)
      const length = dataSegmentBytes(header)
      data = Buffer.alloc(keep(length))
      if (data.length > 0) reader.into(data, 0, data.length)
      return true
    },
    complete(digestOk) {
      seen.push({ bhs, ahs, data, digestOk })
      return true
    },
    mayGoOn: () => true,
    fault(fault) {
      faults.push(fault)
    },
  }
  const reader: PduReader = new PduReader(handler, 4096, 1 << 20)
  reader.ahsBytesMax = 1020
  return { reader, seen, faults }
}

/** One PDU in bytes, by the layout of RFC 7143 and not by the writer under test. */
function makePdu(
  bhs: Buffer,
  ahs: Buffer,
  data: Buffer,
  digests: { header: boolean; data: boolean },
): Buffer {
  const header = Buffer.concat([bhs, ahs])
  header[4] = ahs.length / 4
  header.writeUIntBE(data.length, 5, 3)
  const parts: Buffer[] = [header]
  if (digests.header) parts.push(le32(crc32c(header)))
  const segment = Buffer.concat([data, Buffer.alloc(padBytes(data.length))])
  parts.push(segment)
  if (digests.data && data.length > 0) parts.push(le32(crc32c(segment)))
  return Buffer.concat(parts)
}

function le32(value: number): Buffer {
  const bytes = Buffer.alloc(4)
  bytes.writeUInt32LE(value)
  return bytes
}

t.test('crc32c has the values of RFC 7143, A.4', async (t) => {
  const ascending = Buffer.from(Array.from({ length: 32 }, (_, i) => i))
  t.equal(crc32c(Buffer.alloc(32)), 0x8a9136aa)
  t.equal(crc32c(Buffer.alloc(32, 0xff)), 0x62a8ab43)
  t.equal(crc32c(ascending), 0x46dd794e)
  t.equal(crc32c(Buffer.from(ascending).reverse()), 0x113fdb5c)
  t.equal(crc32c(Buffer.from('123456789')), 0xe3069283)
  const long = Buffer.from(Array.from({ length: 5000 }, (_, i) => (i * 7) & 0xff))
  const pieces = [0, 1, 7, 48, 300, 1000, 5000]
  let crc = 0
  for (let i = 1; i < pieces.length; i++) crc = crc32c(long.subarray(pieces[i - 1], pieces[i]), crc)
  t.equal(crc, crc32c(long), 'table and native agree over any split')
})

t.test('PDUs of other implementations read as what they are', async (t) => {
  t.ok(GOLDEN.length >= 20, 'the golden file is there')
  const codes: Record<string, number> = Object.fromEntries(
    Object.entries(OPCODE).map(([name, code]) => [name.toLowerCase().replaceAll('_', '-'), code]),
  )
  const { reader, seen } = collector()
  const stream = Buffer.concat(GOLDEN.map(({ pdu }) => pdu))
  reader.push(stream, 0, stream.length)
  reader.work()
  t.notOk(reader.hasMore)
  t.equal(seen.length, GOLDEN.length)
  for (const [i, golden] of GOLDEN.entries()) {
    const pdu = seen[i] as Seen
    t.equal(opcodeOf(pdu.bhs), codes[golden.name], golden.name)
    t.equal(pdu.data.length, golden.dataBytes)
    t.same(pdu.data, golden.pdu.subarray(BHS_BYTES, BHS_BYTES + golden.dataBytes))
  }
  const login = GOLDEN.find(({ name }) => name === 'login')?.pdu as Buffer
  t.ok(isImmediate(login))
  t.ok(isFinal(login), 'T is where F is elsewhere')
  const r2t = GOLDEN.find(({ name }) => name === 'r2t')?.pdu as Buffer
  const out = GOLDEN.find(({ name }) => name === 'data-out')?.pdu as Buffer
  t.equal(initiatorTaskTag(out), initiatorTaskTag(r2t))
  t.equal(targetTransferTag(out), targetTransferTag(r2t))
  const command = GOLDEN.find(({ name }) => name === 'scsi-command')?.pdu as Buffer
  const logins = GOLDEN.filter(({ name }) => name === 'login')
  t.ok(
    logins.some((pdu) => u32(pdu.pdu, 24) === cmdSn(command)),
    'login is immediate and uses no CmdSN',
  )
})

t.test('a header as written has every field in its place', async (t) => {
  const golden = GOLDEN.find(({ name }) => name === 'r2t')?.pdu as Buffer
  const to = Buffer.alloc(100, 0xaa)
  putHeader(to, 10, OPCODE.R2T, 0x80, 0, initiatorTaskTag(golden))
  golden.copy(to, 18, 8, 16)
  putU32(to, 30, targetTransferTag(golden))
  putSequence(to, 10, {
    statSn: u32(golden, 24),
    expCmdSn: u32(golden, 28),
    maxCmdSn: u32(golden, 32),
  })
  for (const at of [36, 40, 44]) putU32(to, 10 + at, u32(golden, at))
  t.same(to.subarray(10, 58), golden.subarray(0, 48))
  t.equal(to[9], 0xaa)
  t.equal(to[58], 0xaa)
})

t.test('the reader finds the same PDUs however the stream is cut', async (t) => {
  const pduArbitrary = fc.record({
    bhs: fc.uint8Array({ minLength: 48, maxLength: 48 }),
    ahs: fc
      .integer({ min: 0, max: 5 })
      .chain((n) => fc.uint8Array({ minLength: n * 4, maxLength: n * 4 })),
    data: fc.oneof(
      fc.uint8Array({ minLength: 0, maxLength: 70 }),
      fc.integer({ min: 0, max: 60_000 }).map((n) => Buffer.alloc(n, n & 0xff)),
    ),
  })
  const check = () =>
    fc.assert(
      fc.property(
        fc.array(pduArbitrary, { minLength: 1, maxLength: 5 }),
        fc.boolean(),
        fc.boolean(),
        fc.array(fc.integer({ min: 1, max: 30_000 }), { minLength: 1, maxLength: 20 }),
        fc.integer({ min: 0, max: 100 }),
        (pdus, header, data, cuts, keepPercent) => {
          const parts = pdus.map((p) =>
            makePdu(Buffer.from(p.bhs), Buffer.from(p.ahs), Buffer.from(p.data), { header, data }),
          )
          const stream = Buffer.concat(parts)
          const keep = (length: number) => Math.floor((length * Math.max(keepPercent, 1)) / 100)
          const { reader, seen, faults } = collector(keepPercent > 80 ? undefined : keep)
          reader.headerDigest = header
          reader.dataDigest = data
          let at = 0
          for (let i = 0; at < stream.length; i++) {
            const into = reader.nextBuffer()
            const count = Math.min(cuts[i % cuts.length] as number, into.length, stream.length - at)
            stream.copy(into, 0, at, at + count)
            reader.received(count)
            reader.work()
            at += count
          }
          return (
            faults.length === 0 &&
            seen.length === pdus.length &&
            seen.every((pdu, i) => {
              const sent = pdus[i] as (typeof pdus)[number]
              return (
                pdu.digestOk &&
                pdu.ahs.equals(sent.ahs) &&
                pdu.bhs.subarray(8).equals(Buffer.from(sent.bhs).subarray(8)) &&
                pdu.data.equals(Buffer.from(sent.data).subarray(0, pdu.data.length))
              )
            })
          )
        },
      ),
      { numRuns: 200 },
    )
  t.doesNotThrow(check)
})

t.test('one flipped bit is found by the digest that covers it', async (t) => {
  const check = () =>
    fc.assert(
      fc.property(
        fc.uint8Array({ minLength: 1, maxLength: 300 }),
        fc.nat(),
        fc.integer({ min: 0, max: 7 }),
        (data, where, bit) => {
          const bhs = Buffer.alloc(48)
          const pdu = makePdu(bhs, Buffer.alloc(0), Buffer.from(data), { header: true, data: true })
          const at = where % pdu.length
          pdu[at] = (pdu[at] as number) ^ (1 << bit)
          const { reader, seen, faults } = collector()
          reader.headerDigest = true
          reader.dataDigest = true
          reader.push(pdu, 0, pdu.length)
          reader.work()
          // A flip in TotalAHSLength moves the digest's place: the reader waits for more bytes.
          if (at === 4) return seen.length === 0
          if (at < 52) return faults[0] === 'header-digest' && seen.length === 0
          return seen.length === 1 && seen[0]?.digestOk === false
        },
      ),
    )
  t.doesNotThrow(check)
})

t.test('a segment that is too long stops the reader before a byte of it is taken', async (t) => {
  const { reader, seen, faults } = collector()
  reader.segmentBytesMax = 512
  const pdu = makePdu(Buffer.alloc(48), Buffer.alloc(0), Buffer.alloc(513), {
    header: false,
    data: false,
  })
  reader.push(pdu, 0, pdu.length)
  reader.work()
  t.same(faults, ['segment-too-long'])
  t.equal(seen.length, 0)
  const short = makePdu(Buffer.alloc(48), Buffer.alloc(0), Buffer.alloc(0), {
    header: false,
    data: false,
  })
  reader.push(short, 0, short.length)
  reader.work()
  t.equal(seen.length, 0, 'and it stays stopped')
})

t.test('a buffer that is named before what was received is worked off', async (t) => {
  const { reader, seen } = collector()
  const data = Buffer.alloc(100_000, 7)
  const pdu = makePdu(Buffer.alloc(48), Buffer.alloc(0), data, { header: false, data: false })
  for (let at = 0; at < pdu.length; ) {
    const into = reader.nextBuffer()
    const count = Math.min(into.length, pdu.length - at)
    pdu.copy(into, 0, at, at + count)
    reader.received(count)
    at += count
    // node:net asks for the next buffer at once, even where reading stops.
    if (reader.hasMore) reader.nextBuffer()
    reader.work()
  }
  t.equal(seen.length, 1)
  t.ok(seen[0]?.data.equals(data))
})

t.test('additional headers beyond the limit stop the reader before they arrive', async (t) => {
  const { reader, faults } = collector()
  reader.ahsBytesMax = 0
  const text = Buffer.from('GET / HTTP/1.1\r\nHost: a host with a name that is long enough\r\n\r\n')
  reader.push(text, 0, 48)
  reader.work()
  t.same(faults, ['ahs-too-long'])
})

t.test('what the writer collects, the reader reads', async (t) => {
  const arbitrary = fc.array(
    fc.record({ tag: fc.nat(), length: fc.integer({ min: 0, max: 40_000 }), lease: fc.boolean() }),
    { minLength: 1, maxLength: 30 },
  )
  const check = () =>
    fc.assert(
      fc.property(
        arbitrary,
        fc.boolean(),
        fc.boolean(),
        fc.integer({ min: 1, max: 9 }),
        (pdus, header, data, every) => {
          const batches: Batch[] = []
          let leased = 0
          const writer = new PduWriter((batch) => batches.push(batch), 64 * 1024)
          writer.headerDigest = header
          writer.dataDigest = data
          const streams: Buffer[] = []
          const take = () => {
            writer.flush()
            // Half of the batches leave late, so that staging buffers are shared and recycled.
            for (const batch of batches.splice(0, streams.length % 2)) batch.sent()
          }
          const copyOut = () => {
            for (const batch of batches) {
              if (copied.has(batch)) continue
              copied.add(batch)
              streams.push(Buffer.concat(batch.pieces))
            }
          }
          const copied = new Set<Batch>()
          for (const [i, { tag, length, lease }] of pdus.entries()) {
            const bytes = Buffer.alloc(length, i + 1)
            const to = writer.begin()
            putHeader(to, writer.headerAt, OPCODE.DATA_IN, 0x80, length, tag)
            if (length === 0) writer.end()
            else if (lease) {
              leased++
              const held = { bytes, release: () => leased-- }
              if (writer.endWithLease(held, 0, length)) held.release()
              else writer.release(held)
            } else writer.endWith(bytes, 0, length)
            if (i % every === 0) {
              writer.flush()
              copyOut()
              take()
            }
          }
          writer.flush()
          copyOut()
          for (const batch of batches) batch.sent()
          for (const batch of batches) batch.sent()
          const { reader, seen } = collector()
          reader.headerDigest = header
          reader.dataDigest = data
          const stream = Buffer.concat(streams)
          reader.push(stream, 0, stream.length)
          reader.work()
          return (
            leased === 0 &&
            seen.length === pdus.length &&
            seen.every((pdu, i) => {
              const sent = pdus[i] as (typeof pdus)[number]
              return (
                pdu.digestOk &&
                initiatorTaskTag(pdu.bhs) === sent.tag &&
                pdu.data.equals(Buffer.alloc(sent.length, i + 1))
              )
            })
          )
        },
      ),
      { numRuns: 200 },
    )
  t.doesNotThrow(check)
})

t.test('serial numbers wrap', async (t) => {
  t.equal(serialAdd(0xffffffff, 1), 0)
  t.equal(serialAdd(0, -1), 0xffffffff)
  t.ok(serialBefore(0xffffffff, 0))
  t.notOk(serialBefore(0, 0xffffffff))
  t.notOk(serialBefore(5, 5))
})
