import fc from 'fast-check'
import t from 'tap'
import { defined } from '../../src/base/assert.ts'
import {
  availableAlgorithms,
  CHAP_ALGORITHMS,
  type ChapStep,
  ChapTarget,
  chapCredentialsProblem,
  chapResponse,
  decodeBinary,
  encodeBinary,
  sameSecret,
} from '../../src/iscsi/chap.ts'

const ESX = { user: 'esx', secret: Buffer.from('initiator-secret') }
const PLEXUS = { user: 'plexus', secret: Buffer.from('target-secret-1') }

/** Predictable "random" bytes that differ from call to call. */
function counter(): (bytes: number) => Buffer {
  let next = 0
  return (bytes) => Buffer.alloc(bytes, ++next)
}

const target = (mutual: typeof PLEXUS | undefined = PLEXUS): ChapTarget =>
  new ChapTarget({ accounts: [{ chap: ESX, mutual }], random: counter() })

const keys = (record: Record<string, string>): Map<string, string> =>
  new Map(Object.entries(record))

const algorithm = (id: number) =>
  defined(
    CHAP_ALGORITHMS.find((a) => a.id === id),
    `CHAP_A ${id}`,
  )

/** The answers of a step that must have succeeded. */
function answers(step: ChapStep): Record<string, string> {
  return 'failure' in step ? { failure: step.failure } : Object.fromEntries(step.pairs)
}

/** CHAP_A sent and the right CHAP_N and CHAP_R for what came back. */
function begin(chap: ChapTarget, offer: string) {
  const challenge = answers(chap.step(keys({ CHAP_A: offer })))
  const chosen = algorithm(Number(challenge['CHAP_A']))
  const bytes = defined(decodeBinary(challenge['CHAP_C'] ?? '', 1024), 'CHAP_C')
  const response = chapResponse(chosen, Number(challenge['CHAP_I']), ESX.secret, bytes)
  return {
    challenge,
    bytes,
    chosen,
    response,
    good: { CHAP_N: 'esx', CHAP_R: encodeBinary(response) },
  }
}

t.test('responses as another implementation computes them', async (t) => {
  const challenge = Buffer.from(Array.from({ length: 16 }, (_, i) => i))
  const expected: readonly (readonly [number, string])[] = [
    [5, 'f4de9bc800fae8da0a1a37735884bfa9'],
    [6, '00c82cdd054ca37f5e414cc383449db45261031f'],
    [7, '79402d05a337ffaee24a8314c7c08a6940d606d7b1f783fbf3a5ac07d2fc7c5c'],
    [8, 'cecdba6217b6e2dc39279aad3f672d681713f9cf6dd9aa7eab39cea899bbc3af'],
  ]
  for (const [id, hex] of expected) {
    const response = chapResponse(algorithm(id), 37, Buffer.from('twelve-bytes'), challenge)
    t.equal(response.toString('hex'), hex, `algorithm ${id}`)
    t.equal(response.length, algorithm(id).digestBytes)
  }
  t.same(
    availableAlgorithms().map(({ id }) => id),
    [8, 7, 6, 5],
    'strongest first',
  )
})

t.test('one-way CHAP with each algorithm', async (t) => {
  for (const id of [5, 6, 7, 8]) {
    const chap = target()
    const { challenge, bytes, good } = begin(chap, String(id))
    t.equal(challenge['CHAP_A'], String(id))
    t.equal(bytes.length, algorithm(id).digestBytes, 'as many bytes of challenge as of digest')
    t.notOk(chap.proof)
    t.same(chap.step(keys(good)), { pairs: [], authenticated: true })
    t.ok(chap.proof)
  }
})

t.test('the first algorithm of the list that is permitted is taken', async (t) => {
  t.equal(begin(target(), '5,6,7,8').challenge['CHAP_A'], '5')
  t.equal(begin(target(), '8,7,5').challenge['CHAP_A'], '8')
  t.equal(begin(target(), '99,7,5').challenge['CHAP_A'], '7')
  for (const offer of ['', '56', '9', '5;6', '05', 'MD5', ' 5']) {
    t.match(
      target().step(keys({ CHAP_A: offer })),
      { failure: /no algorithm that is permitted/ },
      offer,
    )
  }
  const only = (...algorithms: number[]) => ({ ...ESX, algorithms })
  const made = (...users: (typeof ESX)[]) =>
    new ChapTarget({
      accounts: users.map((chap) => ({ chap, mutual: undefined })),
      random: counter(),
    })
  t.equal(begin(made(only(7, 8)), '5,6,7,8').challenge['CHAP_A'], '7', 'MD5 is forbidden')
  t.match(made(only(7, 8)).step(keys({ CHAP_A: '5,6' })), {
    failure: 'CHAP_A=5,6 has no algorithm that is permitted: 8 (sha3-256), 7 (sha256)',
  })
  t.equal(begin(made(only(6, 7), only(7, 8)), '6,7').challenge['CHAP_A'], '7', 'permitted to all')
  const some = made({ ...only(8), user: 'other' }, only(5))
  const { challenge, good } = begin(some, '8,5')
  t.equal(challenge['CHAP_A'], '8', 'permitted to one')
  t.match(some.step(keys(good)), { failure: /sha3-256 is not permitted to user "esx"/ })
})

t.test('the initiator names the user', async (t) => {
  const other = { user: 'other', secret: Buffer.from('the-other-secret') }
  const both = (): ChapTarget =>
    new ChapTarget({
      accounts: [
        { chap: other, mutual: undefined },
        { chap: ESX, mutual: PLEXUS },
      ],
      random: counter(),
    })
  const chap = both()
  t.same(chap.step(keys(begin(chap, '7').good)), { pairs: [], authenticated: true })
  t.match(chap.proof, { user: 'esx', algorithm: 7 })
  const mixed = both()
  const { good } = begin(mixed, '7')
  t.match(mixed.step(keys({ ...good, CHAP_N: 'other' })), { failure: /wrong CHAP response/ })
  t.equal(mixed.proof, undefined, "one's name with the other's secret")
})

t.test('each exchange has its own challenge and identifier', async (t) => {
  const random = counter()
  const make = (): ChapTarget =>
    new ChapTarget({ accounts: [{ chap: ESX, mutual: undefined }], random })
  const first = begin(make(), '5')
  const second = make()
  const challenge = answers(second.step(keys({ CHAP_A: '5' })))
  t.not(challenge['CHAP_C'], first.challenge['CHAP_C'])
  t.match(second.step(keys(first.good)), { failure: /wrong CHAP response/ }, 'a replay fails')
})

t.test('responses in base64', async (t) => {
  const chap = target()
  const { response } = begin(chap, '7')
  chap.step(keys({ CHAP_N: 'esx', CHAP_R: `0b${response.toString('base64')}` }))
  t.ok(chap.proof)
})

t.test('a user name that looks like a number is a name', async (t) => {
  for (const user of ['0x1234', '0bYWJj']) {
    const chap = new ChapTarget({
      accounts: [{ chap: { user, secret: ESX.secret }, mutual: undefined }],
      random: counter(),
    })
    const { good } = begin(chap, '5')
    chap.step(keys({ ...good, CHAP_N: user }))
    t.ok(chap.proof, user)
  }
})

t.test('wrong answers fail, and the exchange is over', async (t) => {
  const { response, good } = begin(target(), '5')
  const flipped = Buffer.from(response)
  flipped.writeUInt8(flipped.readUInt8(15) ^ 1, 15)
  const wrong: Record<string, Record<string, string>> = {
    'one bit': { ...good, CHAP_R: encodeBinary(flipped) },
    'other user': { ...good, CHAP_N: 'esy' },
    'user in capitals': { ...good, CHAP_N: 'ESX' },
    'no user': { CHAP_R: good.CHAP_R },
    'empty user': { ...good, CHAP_N: '' },
    'no response': { CHAP_N: 'esx' },
    'empty response': { ...good, CHAP_R: '' },
    '0x alone': { ...good, CHAP_R: '0x' },
    'too short': { ...good, CHAP_R: encodeBinary(response.subarray(0, 15)) },
    'too long': { ...good, CHAP_R: encodeBinary(Buffer.concat([response, Buffer.alloc(1)])) },
    'odd digits': { ...good, CHAP_R: good.CHAP_R.slice(0, -1) },
    'no prefix': { ...good, CHAP_R: response.toString('hex') },
    'algorithm again': { ...good, CHAP_A: '5' },
    'identifier without challenge': { ...good, CHAP_I: '1' },
    'challenge without identifier': { ...good, CHAP_C: '0x1234' },
  }
  for (const [name, pairs] of Object.entries(wrong)) {
    const chap = target()
    const again = begin(chap, '5')
    t.match(chap.step(keys(pairs)), { failure: String }, name)
    t.notOk(chap.proof, name)
    t.match(chap.step(keys(again.good)), { failure: /failed/ }, 'no second try')
  }
})

t.test('messages out of order fail', async (t) => {
  const early = target()
  t.match(early.step(keys({ CHAP_N: 'esx', CHAP_R: '0x00' })), { failure: /begins with CHAP_A/ })
  t.match(early.step(keys({ CHAP_A: '5' })), { failure: String })
  const both = target()
  t.match(both.step(keys({ CHAP_A: '5', CHAP_N: 'esx' })), { failure: String })
  const twice = target()
  begin(twice, '5')
  t.match(twice.step(keys({ CHAP_A: '5' })), { failure: String })
  const done = target()
  done.step(keys(begin(done, '5').good))
  t.match(done.step(keys({ CHAP_A: '5' })), { failure: /ended/ })
  t.notOk(done.proof, 'fails closed even after success')
})

t.test('mutual CHAP', async (t) => {
  const chap = target()
  const { good, chosen } = begin(chap, '7')
  const challenge = Buffer.from('a challenge of the initiator')
  const reply = answers(
    chap.step(keys({ ...good, CHAP_I: '0x11', CHAP_C: encodeBinary(challenge) })),
  )
  t.equal(reply['CHAP_N'], 'plexus')
  t.equal(reply['CHAP_R'], encodeBinary(chapResponse(chosen, 0x11, PLEXUS.secret, challenge)))
  t.ok(chap.proof)

  const longest = target()
  const sent = begin(longest, '5').good
  longest.step(keys({ ...sent, CHAP_I: '255', CHAP_C: encodeBinary(Buffer.alloc(1024, 7)) }))
  t.ok(longest.proof, '1024 bytes of challenge')
})

t.test('mutual CHAP that must fail', async (t) => {
  const attempt = (
    more: (own: string) => Record<string, string>,
    mutual: typeof PLEXUS | undefined = PLEXUS,
  ): string => {
    const chap = new ChapTarget({ accounts: [{ chap: ESX, mutual }], random: counter() })
    const { good, challenge } = begin(chap, '5')
    const step = chap.step(keys({ ...good, ...more(challenge['CHAP_C'] ?? '') }))
    t.notOk(chap.proof)
    return 'failure' in step ? step.failure : 'no failure'
  }
  t.match(
    attempt((own) => ({ CHAP_I: '1', CHAP_C: own })),
    /reflects/,
  )
  t.match(
    attempt(() => ({ CHAP_I: '1', CHAP_C: '0x1234' }), { ...PLEXUS, secret: ESX.secret }),
    /the same/,
  )
  for (const [CHAP_I, CHAP_C] of [
    ['256', '0x1234'],
    ['-1', '0x1234'],
    ['', '0x1234'],
    ['1', ''],
    ['1', '0x'],
    ['1', '1234'],
    ['1', encodeBinary(Buffer.alloc(1025))],
    ['1', `0b${Buffer.alloc(1026).toString('base64')}`],
    ['1', '0b####'],
  ] as const) {
    t.match(
      attempt(() => ({ CHAP_I, CHAP_C })),
      /malformed/,
      `${CHAP_I} ${CHAP_C.slice(0, 20)}`,
    )
  }
  const unconfigured = new ChapTarget({
    accounts: [{ chap: ESX, mutual: undefined }],
    random: counter(),
  })
  const { good } = begin(unconfigured, '5')
  t.match(unconfigured.step(keys({ ...good, CHAP_I: '1', CHAP_C: '0x1234' })), {
    failure: /not configured/,
  })
})

t.test('nothing of the target is proved before the initiator has proved itself', async (t) => {
  const chap = target()
  begin(chap, '5')
  const step = chap.step(
    keys({ CHAP_N: 'esx', CHAP_R: encodeBinary(Buffer.alloc(16)), CHAP_I: '1', CHAP_C: '0x1234' }),
  )
  t.match(step, { failure: /wrong CHAP response/ })
})

t.test('binary values', async (t) => {
  t.same(decodeBinary('0x00fF', 2), Buffer.from([0, 255]))
  t.same(decodeBinary('0XAB', 2), Buffer.from([0xab]))
  t.same(decodeBinary('0bAP8=', 2), Buffer.from([0, 255]))
  for (const text of [
    '',
    '0',
    '0x',
    '0b',
    '0x0',
    '0x0g',
    '0bAP8',
    '0bAP9=',
    '0bA',
    '0bAP8=\n',
    'AP8=',
  ]) {
    t.equal(decodeBinary(text, 16), undefined, JSON.stringify(text))
  }
  t.equal(decodeBinary('0x001122', 2), undefined, 'too long')
  t.equal(decodeBinary('0bABEi', 2), undefined, 'too long in base64')
  fc.assert(
    fc.property(fc.uint8Array({ minLength: 1, maxLength: 64 }), (array) => {
      const bytes = Buffer.from(array)
      t.ok(decodeBinary(encodeBinary(bytes), 64)?.equals(bytes))
      t.ok(decodeBinary(`0b${bytes.toString('base64')}`, 64)?.equals(bytes))
    }),
    { numRuns: 50 },
  )
})

t.test('property: no CHAP_R but the right one is let in', async (t) => {
  fc.assert(
    fc.property(
      fc.dictionary(
        fc.constantFrom('CHAP_A', 'CHAP_N', 'CHAP_R', 'CHAP_I', 'CHAP_C'),
        fc.oneof(
          fc.constantFrom('esx', '5', '1', '0x', '0b', '0x00', 'None'),
          fc.string(),
          fc.uint8Array({ minLength: 16, maxLength: 16 }).map((b) => encodeBinary(Buffer.from(b))),
        ),
      ),
      fc.boolean(),
      (record, chosen) => {
        const chap = target()
        if (chosen) begin(chap, '5')
        chap.step(keys({ ...record }))
        t.notOk(chap.proof)
      },
    ),
    { numRuns: 300 },
  )
})

t.test('what configuration refuses', async (t) => {
  const problem = (user: string, secret: string): string | undefined =>
    chapCredentialsProblem({ user, secret: Buffer.from(secret) })
  t.equal(problem('esx', 'twelve-bytes'), undefined)
  t.match(problem('esx', 'eleven-byte'), /11 bytes; use 12/)
  t.match(problem('esx', 'x'.repeat(256)), /256 bytes/)
  t.match(problem('', 'twelve-bytes'), /user name/)
  t.match(problem('a\0b', 'twelve-bytes'), /control/)
  t.match(problem('x'.repeat(256), 'twelve-bytes'), /user name/)
  t.notMatch(problem('esx', 'eleven-byte'), /eleven/, 'the secret is not told')
  t.equal(sameSecret(ESX, { secret: Buffer.from(ESX.secret) }), true)
  t.equal(sameSecret(ESX, PLEXUS), false)
})
