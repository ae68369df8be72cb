import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../src/base/errors.ts'
import {
  FIRST_BURST_BYTES,
  MAX_BURST_BYTES,
  TEXT_BYTES,
  TEXT_PARTS,
} from '../../src/base/limits.ts'
import {
  assertSessionParameters,
  DEFAULT_PARAMETERS,
  offeredParameters,
} from '../../src/iscsi/parameters.ts'
import {
  decodeText,
  encodeText,
  TextAssembler,
  TextOutbox,
  type TextPair,
} from '../../src/iscsi/text.ts'
import {
  findKey,
  isExtensionKey,
  KEY_TABLE,
  OperationalNegotiation,
  parseNumber,
  parseSegmentLength,
} from '../../src/iscsi/text-keys.ts'

/** Kind of the PlexusError that a function throws. */
function thrownKind(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    return error instanceof PlexusError ? error.kind : String(error)
  }
  return 'nothing'
}

const BOTH = { header: ['CRC32C', 'None'], data: ['CRC32C', 'None'] } as const

function negotiation(
  sessionType: 'normal' | 'discovery' = 'normal',
  digests: Parameters<typeof offeredParameters>[0] = BOTH,
): OperationalNegotiation {
  return new OperationalNegotiation(offeredParameters(digests), sessionType)
}

/** The answer to one key in a negotiation of its own. */
function one(name: string, value: string, ...before: TextPair[]): string | undefined {
  const own = negotiation()
  own.answer(before)
  return own.answer([[name, value]])[0]?.[1]
}

t.test('text to pairs', async (t) => {
  const decode = (text: string): TextPair[] => decodeText(Buffer.from(text))
  t.same(decode(''), [])
  t.same(decode('A=1\0B=\0'), [
    ['A', '1'],
    ['B', ''],
  ])
  t.same(decode('\0\0A=x=y\0\0\0B=2\0\0'), [
    ['A', 'x=y'],
    ['B', '2'],
  ])
  t.same(decode('A=1\0B=2'), [
    ['A', '1'],
    ['B', '2'],
  ])
  t.same(decode('InitiatorAlias=Größe\0'), [['InitiatorAlias', 'Größe']])
  const bad = (bytes: string | Buffer, kind: string): void => {
    t.equal(
      thrownKind(() => decodeText(Buffer.from(bytes as string))),
      kind,
      String(bytes).slice(0, 20),
    )
  }
  bad('novalue\0', 'protocol')
  bad('=value\0', 'protocol')
  bad('a b=1\0', 'protocol')
  bad(`${'k'.repeat(64)}=1\0`, 'protocol')
  bad('A=line\nbreak\0', 'protocol')
  bad('A=\u007f\0', 'protocol')
  bad(Buffer.from([0x41, 0x3d, 0xff, 0xfe, 0]), 'protocol')
  bad('A=1\0'.repeat(129), 'exhausted')
  t.equal(decode(`${'k'.repeat(63)}=1\0`).length, 1)
  t.equal(decode('A=1\0'.repeat(128)).length, 128)
})

t.test('property: pairs survive the way through text, cut anywhere', async (t) => {
  const value = fc.stringMatching(/^[ -~äß]{0,40}$/)
  const key = fc.stringMatching(/^[A-Z][A-Za-z0-9.+@_-]{0,20}$/)
  fc.assert(
    fc.property(
      fc.array(fc.tuple(key, value), { maxLength: 30 }),
      fc.integer({ min: 50, max: 200 }),
      (pairs, partBytes) => {
        const outbox = new TextOutbox(partBytes)
        const assembler = new TextAssembler()
        outbox.put(encodeText(pairs))
        for (let more = true; more; ) {
          const part = outbox.next()
          t.ok(part.text.length <= partBytes)
          t.equal(part.continued, outbox.pending)
          assembler.add(part.text, part.continued)
          more = part.continued
        }
        t.same(decodeText(assembler.take()), pairs)
        t.equal(assembler.pending, false)
      },
    ),
    { numRuns: 60 },
  )
})

t.test('the assembler keeps copies, and not without bound', async (t) => {
  const assembler = new TextAssembler()
  const part = Buffer.from('A=1\0')
  assembler.add(part, true)
  t.equal(assembler.pending, true)
  part.fill(0x78)
  t.equal(assembler.take().toString(), 'A=1\0')
  assembler.add(Buffer.alloc(TEXT_BYTES, 0x41), true)
  t.equal(
    thrownKind(() => assembler.add(Buffer.from('B'), true)),
    'exhausted',
  )
  const empty = new TextAssembler()
  t.equal(
    thrownKind(() => empty.add(Buffer.alloc(0), true)),
    'protocol',
    'an empty part that says that more is to come',
  )
  empty.add(Buffer.alloc(0), false)
  t.equal(empty.take().length, 0, 'an empty text is one')
  const small = new TextAssembler()
  for (let i = 0; i < TEXT_PARTS; i++) small.add(Buffer.from('A'), true)
  t.equal(
    thrownKind(() => small.add(Buffer.from('A'), false)),
    'exhausted',
    'many small parts',
  )
})

t.test('an InitiatorAlias that is no text is left out', async (t) => {
  for (const alias of [[0xff, 0xfe], [0x61, 0x0a, 0x62], [0xc3]]) {
    const text = Buffer.concat([
      Buffer.from('A=1\0InitiatorAlias='),
      Buffer.from(alias),
      Buffer.from('\0B=2\0'),
    ])
    t.same(decodeText(text), [
      ['A', '1'],
      ['B', '2'],
    ])
  }
  t.same(decodeText(Buffer.from('InitiatorAlias=\u00fc\0')), [['InitiatorAlias', '\u00fc']])
  t.equal(
    thrownKind(() => decodeText(Buffer.from([0x41, 0x3d, 0xff]))),
    'protocol',
    'but any other value must be text',
  )
})

t.test('numbers', async (t) => {
  t.equal(parseNumber('0'), 0)
  t.equal(parseNumber('262144'), 262144)
  t.equal(parseNumber('0x40000'), 262144)
  t.equal(parseNumber('0XfF'), 255)
  for (const text of [
    '',
    '-1',
    '+1',
    '1.5',
    '1e3',
    ' 1',
    '1 ',
    '007',
    '0x',
    '0b11',
    'Yes',
    '9'.repeat(17),
  ]) {
    t.equal(parseNumber(text), undefined, JSON.stringify(text))
  }
  t.equal(parseSegmentLength('512'), 512)
  t.equal(parseSegmentLength('16777215'), 16777215)
  t.equal(parseSegmentLength('511'), undefined)
  t.equal(parseSegmentLength('16777216'), undefined)
})

t.test('the table', async (t) => {
  t.equal(new Set(KEY_TABLE.map(({ name }) => name)).size, KEY_TABLE.length, 'no key twice')
  for (const key of KEY_TABLE) {
    t.equal(findKey(key.name), key)
    t.equal(key.negotiate !== undefined, key.use === 'operational', key.name)
  }
  t.equal(findKey('maxburstlength'), undefined, 'names are case-sensitive')
  t.equal(isExtensionKey('X-com.cisco.PingTimeout'), true)
  t.equal(isExtensionKey('X#NodeArchitecture'), true)
  t.equal(isExtensionKey('Xylophone'), false)
})

t.test('result functions', async (t) => {
  const cases: readonly (readonly [string, string, string])[] = [
    ['HeaderDigest', 'CRC32C,None', 'CRC32C'],
    ['HeaderDigest', 'None,CRC32C', 'None'],
    ['DataDigest', 'MD5,CRC32C', 'CRC32C'],
    ['DataDigest', 'MD5', 'Reject'],
    ['DataDigest', '', 'Reject'],
    ['DataDigest', 'crc32c', 'Reject'],
    ['MaxConnections', '8', '1'],
    ['MaxConnections', '0', 'Reject'],
    ['MaxConnections', '65536', 'Reject'],
    ['InitialR2T', 'No', 'No'],
    ['InitialR2T', 'Yes', 'Yes'],
    ['ImmediateData', 'Yes', 'Yes'],
    ['ImmediateData', 'No', 'No'],
    ['ImmediateData', 'yes', 'Reject'],
    ['MaxBurstLength', '16776192', String(MAX_BURST_BYTES)],
    ['MaxBurstLength', '0x8000', '32768'],
    ['MaxBurstLength', '512', '512'],
    ['MaxBurstLength', '511', 'Reject'],
    ['MaxBurstLength', '16777216', 'Reject'],
    ['MaxBurstLength', 'lots', 'Reject'],
    ['FirstBurstLength', '262144', '262144'],
    ['FirstBurstLength', '65536', '65536'],
    ['FirstBurstLength', '0', 'Reject'],
    ['DefaultTime2Wait', '0', '2'],
    ['DefaultTime2Wait', '3600', '3600'],
    ['DefaultTime2Wait', '3601', 'Reject'],
    ['DefaultTime2Retain', '20', '0'],
    ['MaxOutstandingR2T', '1', '1'],
    ['MaxOutstandingR2T', '65535', '8'],
    ['DataPDUInOrder', 'No', 'Yes'],
    ['DataSequenceInOrder', 'No', 'Yes'],
    ['ErrorRecoveryLevel', '2', '0'],
    ['ErrorRecoveryLevel', '3', 'Reject'],
    ['TaskReporting', 'FastAbort,ResponseFence,RFC3720', 'RFC3720'],
    ['TaskReporting', 'FastAbort', 'Reject'],
    ['iSCSIProtocolLevel', '2', '1'],
    ['iSCSIProtocolLevel', '32', 'Reject'],
    ['IFMarker', 'Yes', 'No'],
    ['OFMarker', 'No', 'No'],
    ['IFMarkInt', '2048~8192', 'Reject'],
    ['OFMarkInt', '1', 'Reject'],
    ['MaxRecvDataSegmentLength', '100', 'Reject'],
    ['HeaderDigest', `${'x'.repeat(255)},CRC32C`, 'Reject'],
  ]
  for (const [name, value, answer] of cases) t.equal(one(name, value), answer, `${name}=${value}`)
  t.equal(one('MaxRecvDataSegmentLength', '262144'), undefined, 'declarations have no answer')
})

t.test('what is agreed is what is answered', async (t) => {
  const own = negotiation()
  own.answer([
    ['HeaderDigest', 'CRC32C'],
    ['MaxRecvDataSegmentLength', '65536'],
    ['InitialR2T', 'No'],
    ['MaxBurstLength', '131072'],
    ['DefaultTime2Retain', '20'],
    ['MaxOutstandingR2T', '4'],
  ])
  t.same(own.declare(), [['MaxRecvDataSegmentLength', '262144']])
  t.same(own.declare(), [], 'once')
  t.same(own.result(), {
    ...DEFAULT_PARAMETERS,
    headerDigest: true,
    sendSegmentBytes: 65536,
    receiveSegmentBytes: 262144,
    initialR2t: false,
    maxBurstBytes: 131072,
    time2RetainS: 0,
    maxOutstandingR2t: 4,
  })
})

t.test('an unmentioned key keeps its default, a rejected one as well', async (t) => {
  t.same(negotiation().result(), DEFAULT_PARAMETERS)
  const own = negotiation()
  own.answer([
    ['MaxBurstLength', '1'],
    ['InitialR2T', 'no'],
    ['MaxRecvDataSegmentLength', '1'],
  ])
  t.same(own.result(), DEFAULT_PARAMETERS)
})

t.test('FirstBurstLength stays below MaxBurstLength, whatever the order', async (t) => {
  const own = negotiation()
  t.same(
    own.answer([
      ['FirstBurstLength', '262144'],
      ['MaxBurstLength', '65536'],
    ]),
    [
      ['FirstBurstLength', '65536'],
      ['MaxBurstLength', '65536'],
    ],
  )
  const unmentioned = negotiation()
  unmentioned.answer([['MaxBurstLength', '4096']])
  t.equal(unmentioned.result().firstBurstBytes, 4096)
  t.equal(FIRST_BURST_BYTES <= MAX_BURST_BYTES, true)
})

t.test('FirstBurstLength is irrelevant when nothing unsolicited may come', async (t) => {
  const own = negotiation()
  t.same(
    own.answer([
      ['FirstBurstLength', '262144'],
      ['ImmediateData', 'No'],
      ['InitialR2T', 'Yes'],
    ]),
    [
      ['FirstBurstLength', 'Irrelevant'],
      ['ImmediateData', 'No'],
      ['InitialR2T', 'Yes'],
    ],
  )
  t.equal(one('FirstBurstLength', '65536', ['ImmediateData', 'No'], ['InitialR2T', 'No']), '65536')
  t.equal(
    one('FirstBurstLength', '65536', ['ImmediateData', 'Yes'], ['InitialR2T', 'Yes']),
    '65536',
  )
})

t.test('discovery sessions', async (t) => {
  const own = negotiation('discovery')
  t.same(
    own.answer([
      ['HeaderDigest', 'CRC32C,None'],
      ['MaxConnections', '1'],
      ['InitialR2T', 'No'],
      ['MaxBurstLength', '1'],
      ['DefaultTime2Wait', '2'],
      ['ErrorRecoveryLevel', '0'],
    ]),
    [
      ['HeaderDigest', 'CRC32C'],
      ['MaxConnections', 'Irrelevant'],
      ['InitialR2T', 'Irrelevant'],
      ['MaxBurstLength', 'Irrelevant'],
      ['DefaultTime2Wait', '2'],
      ['ErrorRecoveryLevel', '0'],
    ],
  )
  t.equal(own.result().initialR2t, true)
})

t.test('a portal that demands digests', async (t) => {
  const strict = { header: ['CRC32C'], data: ['None'] } as const
  const refused = negotiation('normal', strict)
  t.same(refused.answer([['HeaderDigest', 'None']]), [['HeaderDigest', 'Reject']])
  t.match(refused.unmetDemand(), /demands HeaderDigest=CRC32C/)
  t.match(negotiation('normal', strict).unmetDemand(), /HeaderDigest/, 'silence is None')
  const agreed = negotiation('normal', strict)
  agreed.answer([
    ['HeaderDigest', 'None,CRC32C'],
    ['DataDigest', 'CRC32C,None'],
  ])
  t.equal(agreed.unmetDemand(), undefined)
  t.equal(agreed.result().headerDigest, true)
  t.equal(agreed.result().dataDigest, false)
  t.equal(negotiation('discovery', strict).unmetDemand(), undefined)
})

t.test('property: whatever is proposed, the result is legal', async (t) => {
  const names = KEY_TABLE.filter(({ negotiate }) => negotiate).map(({ name }) => name)
  const value = fc.oneof(
    fc.constantFrom('Yes', 'No', 'None', 'CRC32C', '', '0', '1', '511', '512', '16777215'),
    fc.constantFrom('16777216', '0x200', 'Irrelevant', 'RFC3720', '-1', '1e3', 'NaN', 'Infinity'),
    fc.nat().map(String),
    fc.string(),
  )
  const text = fc.array(fc.tuple(fc.constantFrom(...names), value), { maxLength: 24 })
  fc.assert(
    fc.property(fc.array(text, { maxLength: 3 }), fc.boolean(), (texts, discovery) => {
      const own = negotiation(discovery ? 'discovery' : 'normal')
      for (const pairs of texts) {
        for (const [name, answer] of own.answer(pairs)) {
          t.ok(names.includes(name))
          t.notMatch(answer, /NaN|undefined|Infinity/)
        }
        own.declare()
      }
      assertSessionParameters(own.result())
    }),
    { numRuns: 300 },
  )
})

t.test('property: any bytes decode or throw a PlexusError', async (t) => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), (bytes) => {
      try {
        decodeText(Buffer.from(bytes))
      } catch (error) {
        t.ok(error instanceof PlexusError)
      }
    }),
    { numRuns: 300 },
  )
})
