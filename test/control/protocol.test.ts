/** Lines of JSON-RPC, parameters against their declaration, durations. */
import fc from 'fast-check'
import t from 'tap'
import { ERROR_KINDS, PlexusError } from '../../src/base/errors.ts'
import { MIB } from '../../src/base/limits.ts'
import { ALL_VERB_SPECS } from '../../src/control/all-verbs.ts'
import { methodName } from '../../src/control/daemon-verbs.ts'
import { formatDuration, parseDuration } from '../../src/control/duration.ts'
import { checkParameters, optionFlag } from '../../src/control/parameters.ts'
import {
  EXIT_OF_KIND,
  encodeMessage,
  errorObject,
  LineSplitter,
  parseRequest,
  parseServerMessage,
  RPC_CODE,
  RpcFault,
} from '../../src/control/protocol.ts'
import type { VerbSpec } from '../../src/control/verb-spec.ts'

t.test('a request is one line with an id, a method and an object', async (t) => {
  const good = encodeMessage({ id: 7, method: 'status', params: { name: 'db' } })
  t.equal(good, '{"jsonrpc":"2.0","id":7,"method":"status","params":{"name":"db"}}\n')
  t.same(parseRequest(good), { id: 7, method: 'status', params: { name: 'db' } })
  t.same(parseRequest('{"jsonrpc":"2.0","id":"a","method":"tree"}').params, {})
  const bad: [string, number, string | number | null][] = [
    ['{', RPC_CODE.PARSE, null],
    ['[]', RPC_CODE.INVALID_REQUEST, null],
    ['[{"jsonrpc":"2.0","id":1,"method":"status"}]', RPC_CODE.INVALID_REQUEST, null],
    ['null', RPC_CODE.INVALID_REQUEST, null],
    ['{"id":1,"method":"status"}', RPC_CODE.INVALID_REQUEST, 1],
    ['{"jsonrpc":"2.0","method":"status"}', RPC_CODE.INVALID_REQUEST, null],
    ['{"jsonrpc":"2.0","id":null,"method":"status"}', RPC_CODE.INVALID_REQUEST, null],
    ['{"jsonrpc":"2.0","id":1,"method":5}', RPC_CODE.INVALID_REQUEST, 1],
    ['{"jsonrpc":"2.0","id":1,"method":"status","params":[1]}', RPC_CODE.INVALID_PARAMS, 1],
  ]
  for (const [line, code, id] of bad) t.throws(() => parseRequest(line), { code, id }, line)
})

t.test('no line makes the parser do anything but answer or refuse', async () => {
  const jsonish = fc.oneof(
    fc.string(),
    fc.json(),
    fc
      .record(
        {
          jsonrpc: fc.oneof(fc.constant('2.0'), fc.anything()),
          id: fc.anything(),
          method: fc.anything(),
          params: fc.anything(),
        },
        { requiredKeys: [] },
      )
      .map((value) => {
        try {
          return JSON.stringify(value) ?? ''
        } catch {
          return ''
        }
      }),
  )
  fc.assert(
    fc.property(jsonish, (line) => {
      try {
        const { id, method, params } = parseRequest(line)
        return (
          (typeof id === 'string' || typeof id === 'number') &&
          typeof method === 'string' &&
          typeof params === 'object' &&
          !Array.isArray(params)
        )
      } catch (error) {
        return error instanceof RpcFault
      }
    }),
    { numRuns: 500 },
  )
})

t.test('lines come out whole, however they were cut', async (t) => {
  fc.assert(
    fc.property(
      fc.array(
        fc.string({ minLength: 1 }).map((one) => JSON.stringify(one)),
        { maxLength: 8 },
      ),
      fc.array(fc.integer({ min: 1, max: 9 }), { minLength: 1, maxLength: 50 }),
      (lines, cuts) => {
        const bytes = Buffer.from(lines.map((one) => `${one}\n`).join(''))
        const splitter = new LineSplitter(1000)
        const found: string[] = []
        for (let at = 0, index = 0; at < bytes.length; index++) {
          const length = cuts[index % cuts.length] ?? 1
          found.push(...splitter.push(bytes.subarray(at, at + length)))
          at += length
        }
        return JSON.stringify(found) === JSON.stringify(lines)
      },
    ),
    { numRuns: 200 },
  )
  const splitter = new LineSplitter(4)
  t.same([...splitter.push(Buffer.from('abcd\n\r\nef'))], ['abcd'])
  t.throws(
    () => [...splitter.push(Buffer.from('ghi'))],
    { code: RPC_CODE.INVALID_REQUEST },
    'a fifth byte is one too many',
  )
})

t.test(
  'a line that comes byte by byte takes no more memory than one that comes whole',
  async (t) => {
    const splitter = new LineSplitter(MIB)
    const lines: string[] = []
    const usedBytes = (): number => {
      const { heapUsed, arrayBuffers } = process.memoryUsage()
      return heapUsed + arrayBuffers
    }
    const beforeBytes = usedBytes()
    for (let n = 0; n < MIB / 2; n++) lines.push(...splitter.push(Buffer.from('x')))
    // 64 bytes and more for each part, were they kept.
    t.ok(
      usedBytes() - beforeBytes < 24 * MIB,
      `${Math.round((usedBytes() - beforeBytes) / MIB)} MiB`,
    )
    lines.push(...splitter.push(Buffer.from('\n')))
    t.strictSame(
      lines.map(({ length }) => length),
      [MIB / 2],
    )
  },
)

t.test('errors keep what they are over the wire', async (t) => {
  const error = new PlexusError('in-use', { op: 'destroy', subject: 'db', message: 'in use' })
  const message = parseServerMessage(encodeMessage({ id: 3, error: errorObject(error) }))
  t.match(message, {
    type: 'error',
    id: 3,
    error: { kind: 'in-use', subject: 'db', op: 'destroy', message: 'in use' },
  })
  const unknown = parseServerMessage(
    '{"jsonrpc":"2.0","id":1,"error":{"code":-32601,"message":"?"}}',
  )
  t.match(unknown, { error: { kind: 'unsupported' } })
  t.same(parseServerMessage('{"jsonrpc":"2.0","id":1,"result":{"a":1}}'), {
    type: 'result',
    id: 1,
    result: { a: 1 },
  })
  for (const line of ['HTTP/1.1 400 Bad Request', '{}', '[]', '{"jsonrpc":"2.0","id":1}']) {
    t.throws(() => parseServerMessage(line), { name: 'PlexusError', kind: 'protocol' }, line)
  }
  fc.assert(
    fc.property(fc.oneof(fc.string(), fc.json()), (line) => {
      try {
        parseServerMessage(line)
        return true
      } catch (thrown) {
        return thrown instanceof PlexusError && thrown.kind === 'protocol'
      }
    }),
  )
})

t.test('every kind of error has an exit code', async (t) => {
  t.same(Object.keys(EXIT_OF_KIND).sort(), [...ERROR_KINDS].sort())
  t.same(
    ['invalid', 'not-found', 'in-use', 'foreign', 'permission', 'timeout', 'io'].map(
      (kind) => EXIT_OF_KIND[kind as keyof typeof EXIT_OF_KIND],
    ),
    [2, 4, 5, 5, 6, 7, 1],
  )
})

const SPEC: VerbSpec = {
  noun: 'volume',
  name: 'create',
  summary: '',
  arguments: [
    { name: 'name', kind: 'text', summary: '' },
    { name: 'state', kind: 'text', summary: '', optional: true, choices: ['up', 'down'] },
    { name: 'devices', kind: 'device', summary: '', optional: true, variadic: true },
  ],
  options: [
    { name: 'stripeSize', value: 'size', summary: '' },
    { name: 'raid5', value: 'device', summary: '', variadic: true },
    { name: 'force', summary: '' },
  ],
  readOnly: false,
  dryRun: true,
}

t.test('parameters are what the verb declares, or are refused with what is right', async (t) => {
  const good = { name: 'db', state: 'up', devices: ['d1'], raid5: ['d2', 'd3'], force: true }
  t.same(checkParameters(SPEC, good), good)
  t.same(checkParameters(SPEC, { name: 'db', force: false, dryRun: true, devices: [] }), {
    name: 'db',
    dryRun: true,
  })
  const bad: [object, RegExp][] = [
    [{}, /<name> is missing/],
    [{ name: 'db', stripesize: '64k' }, /no parameter "stripesize"; did you mean "stripeSize"\?/],
    [{ name: 'db', stripeSize: 65536 }, /--stripe-size must be a text/],
    [{ name: ['db'] }, /<name> must be a text/],
    [{ name: 'db', force: 'yes' }, /--force must be true or false/],
    [{ name: 'db', raid5: 'd1' }, /--raid5 must be a list of texts/],
    [{ name: 'db', raid5: ['d1', 2] }, /--raid5 must be a list of texts/],
    [{ name: 'db', state: 'upp' }, /<state> must be one of up, down, not "upp"; did you mean "up"/],
    [JSON.parse('{"name":"db","__proto__":{"force":true}}'), /no parameter "__proto__"/],
    [{ name: 'db', constructor: 'x' }, /no parameter "constructor"/],
  ]
  for (const [given, message] of bad) {
    const parameters = given as Record<string, unknown>
    t.throws(() => checkParameters(SPEC, parameters), { kind: 'invalid', message }, String(message))
  }
  t.equal(optionFlag('wipeSignatures'), '--wipe-signatures')
  const { dryRun: _, ...noDry } = SPEC
  t.throws(() => checkParameters(noDry, { name: 'db', dryRun: true }), {
    name: 'PlexusError',
    kind: 'invalid',
  })
})

t.test('the declarations hold together', async (t) => {
  const names = ALL_VERB_SPECS.map(methodName)
  t.equal(new Set(names).size, names.length, 'no method twice')
  for (const spec of ALL_VERB_SPECS) {
    const own = [...spec.arguments, ...spec.options].map(({ name }) => name)
    const at = methodName(spec)
    t.equal(new Set(own).size, own.length, `${at}: no parameter twice`)
    t.ok(
      spec.arguments.slice(0, -1).every(({ variadic }) => !variadic),
      `${at}: variadic is last`,
    )
    const firstOptional = spec.arguments.findIndex(({ optional }) => optional)
    t.ok(
      firstOptional < 0 || spec.arguments.slice(firstOptional).every(({ optional }) => optional),
      `${at}: what may be left out is last`,
    )
    t.ok(!(spec.readOnly && spec.destructive), `${at}: what destroys does not only look`)
  }
})

t.test('durations as people write and read them', async (t) => {
  t.same(
    ['90', '90s', '1.5m', '1h30m', '1h 30m', '2d', '500ms'].map(parseDuration),
    [90_000, 90_000, 90_000, 5_400_000, 5_400_000, 172_800_000, 500],
  )
  for (const text of ['', 'soon', '1y', '-1s', '1h x']) {
    t.throws(() => parseDuration(text), { name: 'PlexusError', kind: 'invalid' }, text)
  }
  t.same([0, 45, 725, 5289, 86_400, 273_600].map(formatDuration), [
    '0s',
    '45s',
    '12m 5s',
    '1h 28m',
    '1d',
    '3d 4h',
  ])
})
