/**
 * Hostile and broken peers before the login, against a running plexusd (RFC 7143, 6.3 and 7.1): what each may
 * get, and that nobody else feels it. Sessions are attacked in hostile-session.test.ts; the random counterpart
 * is test/fuzz/pdu-fuzz.ts.
 */
import { randomBytes } from 'node:crypto'
import { TARGET } from '../../support/daemon.ts'
import { randomIsid } from '../../support/initiator-login.ts'
import {
  AT,
  CONTINUE,
  encodePdu,
  encodeText,
  FINAL,
  IMMEDIATE,
  newHeader,
  OP,
  opcodeOf,
  type Pdu,
} from '../../support/initiator-pdu.ts'
import { Wire } from '../../support/initiator-wire.ts'
import { startVictim } from '../../support/victim.ts'

const MIB = 1024 * 1024
/** limits.ts: connections that wait for their login. */
const PENDING_LOGINS = 1024

const { daemon, port, hostile, open } = await startVictim()

function loginPdu(
  flags: number,
  text: Buffer,
  change: (header: Buffer) => void = () => {},
): Buffer {
  const header = newHeader(OP.LOGIN | IMMEDIATE, flags, 7)
  randomIsid().copy(header, AT.LUN)
  header.writeUInt32BE(1, AT.CMD_SN)
  const pdu = encodePdu(header, text)
  change(pdu)
  return pdu
}

const SECURITY_TO_OPERATIONAL = FINAL | 1
const NAMES = encodeText([
  ['InitiatorName', 'iqn.2026-11.test.plexus:hostile'],
  ['TargetName', TARGET],
  ['SessionType', 'Normal'],
  ['AuthMethod', 'None'],
])

/** Sends bytes on a fresh connection; the answers until the target closes, or until it has been quiet. */
async function attack(bytes: Buffer, quietMs = 5000): Promise<{ answers: Pdu[]; closed: boolean }> {
  const wire = await Wire.connect({ port })
  const answers: Pdu[] = []
  try {
    wire.write(bytes)
    for (;;) answers.push(await wire.next(quietMs))
  } catch {
    return { answers, closed: wire.ended }
  } finally {
    wire.destroy()
  }
}

hostile(
  'a first PDU that is no login request closes the connection without an answer',
  async (t) => {
    for (let opcode = 0; opcode < 64; opcode++) {
      if (opcode === OP.LOGIN) continue
      const { answers, closed } = await attack(encodePdu(newHeader(opcode | IMMEDIATE, FINAL, 1)))
      t.ok(closed && answers.length === 0, `opcode ${opcode.toString(16)}h`)
    }
    const web = Buffer.from(`GET / HTTP/1.1\r\nHost: ${'x'.repeat(300)}\r\n\r\n`)
    t.match(await attack(web), { answers: [], closed: true })
    t.match(await attack(randomBytes(4096).fill(0xff, 0, 48)), { answers: [], closed: true })
  },
)

hostile('a login whose lengths lie is closed before memory is taken', async (t) => {
  const before = daemon.residentBytes
  const giant = loginPdu(SECURITY_TO_OPERATIONAL, NAMES, (pdu) => pdu.writeUIntBE(0xffffff, 5, 3))
  for (let i = 0; i < 8; i++) t.match(await attack(giant), { answers: [], closed: true })
  const ahs = encodePdu(
    loginPdu(SECURITY_TO_OPERATIONAL, Buffer.alloc(0)).subarray(0, 48),
    NAMES,
    undefined,
    Buffer.alloc(1020, 0xee),
  )
  const { answers } = await attack(ahs, 500)
  t.ok(answers.length <= 1, 'additional header segments of a login are skipped or refused')
  t.ok(daemon.residentBytes - before < 32 * MIB)
})

hostile('a login that makes no sense is refused with a status, and closed', async (t) => {
  const text = (pairs: [string, string][]) => encodeText(pairs)
  const cases: [string, Buffer][] = [
    ['no names', loginPdu(SECURITY_TO_OPERATIONAL, Buffer.alloc(0))],
    ['a reserved stage', loginPdu(FINAL | (2 << 2) | 3, NAMES)],
    ['a stage that goes back', loginPdu(FINAL | (1 << 2) | 0, NAMES)],
    ['C and T at once', loginPdu(FINAL | CONTINUE | 1, NAMES)],
    [
      'a version of the future',
      loginPdu(SECURITY_TO_OPERATIONAL, NAMES, (pdu) => pdu.fill(9, 2, 4)),
    ],
    [
      'bytes that are no text',
      loginPdu(SECURITY_TO_OPERATIONAL, randomBytes(2000).fill(0xff, 0, 9)),
    ],
    ['a key without a value', loginPdu(SECURITY_TO_OPERATIONAL, Buffer.from('InitiatorName\0'))],
    [
      'a name that is no name',
      loginPdu(SECURITY_TO_OPERATIONAL, text([['InitiatorName', '../etc']])),
    ],
    ['a key twice', loginPdu(SECURITY_TO_OPERATIONAL, Buffer.concat([NAMES, NAMES]))],
    [
      'more keys than a login may have',
      loginPdu(
        SECURITY_TO_OPERATIONAL,
        text(Array.from({ length: 200 }, (_, i): [string, string] => [`X-k${i}`, '1'])),
      ),
    ],
    [
      'a session that does not exist',
      loginPdu(SECURITY_TO_OPERATIONAL, NAMES, (pdu) => pdu.writeUInt16BE(4711, 14)),
    ],
  ]
  for (const [name, pdu] of cases) {
    const { answers, closed } = await attack(pdu)
    const [answer] = answers
    t.equal(answers.length, 1, `${name}: one answer`)
    t.equal(answer && opcodeOf(answer), OP.LOGIN_RESPONSE, `${name}: a login response`)
    t.equal(answer?.header[36], 2, `${name}: status class 2, an initiator error`)
    t.ok(closed, `${name}: closed`)
  }
})

hostile('text that is continued for ever ends at the limit', async (t) => {
  const wire = await Wire.connect({ port })
  const piece = Buffer.from('x'.repeat(4096))
  let rounds = 0
  let status = 0
  while (rounds < 100 && status === 0) {
    wire.write(loginPdu(CONTINUE, piece))
    const answer = await wire.next().catch(() => undefined)
    if (answer === undefined) break
    status = answer.header[36] ?? 0
    rounds++
  }
  t.ok(rounds < 33, `${rounds} rounds`)
  t.ok(await wire.closedWithin(5000))
  wire.destroy()
})

hostile('a login in segments of one byte is a login', async (t) => {
  const wire = await Wire.connect({ port })
  for (const byte of loginPdu(SECURITY_TO_OPERATIONAL, NAMES)) {
    wire.write(Buffer.from([byte]))
    await new Promise((resolve) => setImmediate(resolve))
  }
  const answer = await wire.next()
  t.equal(opcodeOf(answer), OP.LOGIN_RESPONSE)
  t.equal(answer.header[36], 0)
  wire.destroy()
})

hostile('idle connections of one address do not keep others out', async (t) => {
  const idle: Wire[] = []
  while (idle.length < PENDING_LOGINS + 8) {
    const more = Array.from({ length: 86 }, () => Wire.connect({ port, localAddress: '127.0.0.9' }))
    idle.push(...(await Promise.all(more)))
  }
  const other = await open()
  await other.close()
  const ended = idle.filter((wire) => wire.ended).length
  t.equal(ended, idle.length + 1 - PENDING_LOGINS, 'the oldest of them made room')
  for (const wire of idle) wire.destroy()
})

hostile('a peer that leaves in the middle of a PDU leaves nothing behind', async (t) => {
  for (const length of [1, 47, 48, 60]) {
    const wire = await Wire.connect({ port })
    wire.write(loginPdu(SECURITY_TO_OPERATIONAL, NAMES).subarray(0, length))
    wire.socket.resetAndDestroy()
  }
  const half = await Wire.connect({ port })
  half.write(loginPdu(SECURITY_TO_OPERATIONAL, NAMES).subarray(0, 50))
  half.socket.end()
  t.ok(await half.closedWithin(5000), 'a half-closed connection is closed')
  half.destroy()
})
