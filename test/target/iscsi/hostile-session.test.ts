/**
 * Hostile and broken initiators after the login, against a running plexusd (RFC 7143, 7): what each may get,
 * and that nobody else feels it. Logins are attacked in hostile.test.ts; the random counterpart is
 * test/fuzz/pdu-fuzz.ts.
 */
import { randomBytes } from 'node:crypto'
import { inquiry, read10, write10 } from '../../support/cdb.ts'
import { TARGET } from '../../support/daemon.ts'
import { Initiator } from '../../support/initiator.ts'
import { login, randomIsid } from '../../support/initiator-login.ts'
import {
  AT,
  encodePdu,
  FINAL,
  IMMEDIATE,
  lunField,
  NO_TAG,
  newHeader,
  OP,
  opcodeOf,
  type Pdu,
} from '../../support/initiator-pdu.ts'
import { Wire } from '../../support/initiator-wire.ts'
import { startVictim } from '../../support/victim.ts'

const MIB = 1024 * 1024
const BLOCK = 512
/** limits.ts: immediate commands of one session at once. */
const IMMEDIATE_COMMANDS = 16
const REJECT = {
  DATA_DIGEST: 2,
  SNACK: 3,
  PROTOCOL: 4,
  NOT_SUPPORTED: 5,
  TOO_MANY_IMMEDIATE: 6,
  IN_PROGRESS: 7,
} as const
const ABORTED = 0x0b
const WRITE = 0x20
const READ = 0x40
const SIMPLE = 1

const { daemon, port, hostile, open } = await startVictim()

/** A SCSI Command PDU with the session's next CmdSN, to be changed before it is sent. */
function commandHeader(session: Initiator, tag: number, flags: number, cdb: Buffer): Buffer {
  const header = newHeader(OP.SCSI_COMMAND, flags | SIMPLE, tag)
  header.writeUInt32BE(session.cmdSn, AT.CMD_SN)
  header.writeUInt32BE(session.expStatSn, AT.EXP_STAT_SN)
  cdb.copy(header, AT.CDB, 0, 16)
  return header
}

function dataOutHeader(
  tag: number,
  transferTag: number,
  sn: number,
  offset: number,
  flags = FINAL,
) {
  const header = newHeader(OP.DATA_OUT, flags, tag)
  header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
  header.writeUInt32BE(sn, AT.DATA_SN)
  header.writeUInt32BE(offset, AT.BUFFER_OFFSET)
  return header
}

hostile('unknown and forbidden opcodes are rejected, and the session goes on', async (t) => {
  const session = await open()
  const expected: [number, number][] = [
    [0x07, REJECT.NOT_SUPPORTED],
    [0x1c, REJECT.NOT_SUPPORTED],
    [0x25, REJECT.NOT_SUPPORTED],
    [0x3f, REJECT.NOT_SUPPORTED],
    [OP.SNACK, REJECT.SNACK],
    [OP.LOGIN, REJECT.PROTOCOL],
  ]
  for (const [opcode, reason] of expected) {
    const seen = session.rejects.length
    const header = newHeader(opcode | IMMEDIATE, FINAL, 0x1000 + opcode)
    header.writeUInt32BE(session.cmdSn, AT.CMD_SN)
    session.wire.send(header)
    await session.until(() => session.rejects.length > seen, `reject of ${opcode}`)
    const reject = session.rejects.at(-1)
    t.equal(reject?.header[2], reason, `opcode ${opcode.toString(16)}h`)
    t.equal(reject?.data.readUInt32BE(AT.TAG), 0x1000 + opcode, 'with the header that is meant')
  }
  await session.close()
})

hostile('a data segment above MaxRecvDataSegmentLength ends the connection', async (t) => {
  const session = await open()
  const header = commandHeader(session, 0x2000, FINAL | WRITE, write10(1000, 1))
  header.writeUInt32BE(BLOCK, AT.EXPECTED_BYTES)
  const pdu = encodePdu(header, Buffer.alloc(BLOCK))
  pdu.writeUIntBE(0xfffffc, AT.SEGMENT_BYTES, 3)
  session.wire.write(pdu)
  t.ok(await session.wire.closedWithin(5000))
  session.destroy()
})

hostile('a CmdSN outside the window is ignored in silence', async (t) => {
  const session = await open()
  const statSn = session.expStatSn
  for (const cmdSn of [session.maxCmdSn + 1, session.cmdSn - 1, session.cmdSn + 0x7fffffff]) {
    const header = commandHeader(session, 0x3000, FINAL | READ, inquiry())
    header.writeUInt32BE(255, AT.EXPECTED_BYTES)
    header.writeUInt32BE(cmdSn >>> 0, AT.CMD_SN)
    session.wire.send(header)
  }
  t.equal((await session.nop(Buffer.from('still here'))).toString(), 'still here')
  t.equal(session.expStatSn, (statSn + 1) >>> 0, 'nothing but the ping was answered')
  await session.close()
})

hostile('Data-Out that lies writes nothing', async (t) => {
  const session = await open({ InitialR2T: 'Yes', ImmediateData: 'No' })
  const lba = 2000
  const old = randomBytes(4 * BLOCK)
  t.equal((await session.scsi({ cdb: write10(lba, 4), write: old })).status, 0)
  const lies: [string, (tag: number, transferTag: number) => [Buffer, number]][] = [
    ['a wrong DataSN', (tag, ttt) => [dataOutHeader(tag, ttt, 5, 0), 4 * BLOCK]],
    ['a wrong offset', (tag, ttt) => [dataOutHeader(tag, ttt, 0, BLOCK), 3 * BLOCK]],
    ['an offset far outside', (tag, ttt) => [dataOutHeader(tag, ttt, 0, 0xfffffe00), BLOCK]],
    ['too little', (tag, ttt) => [dataOutHeader(tag, ttt, 0, 0), BLOCK]],
    ['too much', (tag, ttt) => [dataOutHeader(tag, ttt, 0, 0), 8 * BLOCK]],
  ]
  for (const [name, lie] of lies) {
    const tag = await startHeld(session, write10(lba, 4), 4 * BLOCK)
    const [header, length] = lie(tag.tag, tag.transferTag())
    header.writeUInt32BE(session.expStatSn, AT.EXP_STAT_SN)
    session.wire.send(header, Buffer.alloc(length, 0xbd))
    // A target may wait for the rest of a sequence that was answered with a lie: end it.
    const { status, sense } = await tag.done
    t.equal(status, 2, `${name}: CHECK CONDITION`)
    t.equal(sense?.key, ABORTED, `${name}: ABORTED COMMAND`)
  }
  const { data } = await session.scsi({ cdb: read10(lba, 4), read: 4 * BLOCK })
  t.ok(data.equals(old), 'the blocks are as they were')
  await session.close()
})

/** Starts a write whose first R2T the test answers itself. */
async function startHeld(session: Initiator, cdb: Buffer, length: number) {
  let transferTag = NO_TAG
  const { wire } = session
  const command = await session.start({
    cdb,
    write: Buffer.alloc(length),
    onR2t: (r2t) => {
      transferTag = r2t.transferTag
      return false
    },
  })
  await session.until(() => transferTag !== NO_TAG, 'an R2T')
  return { tag: command.tag, transferTag: () => transferTag, done: command.done, wire, command }
}

hostile('Data-Out that nobody asked for is thrown away', async (t) => {
  const session = await open()
  session.wire.send(dataOutHeader(0xdead, NO_TAG, 0, 0), Buffer.alloc(BLOCK, 1))
  session.wire.send(dataOutHeader(0xdead, 0x77, 3, 1 << 30), Buffer.alloc(BLOCK, 1))
  t.equal((await session.nop(Buffer.from('on'))).toString(), 'on')
  await session.close()
})

hostile('unsolicited data beyond FirstBurstLength is refused', async (t) => {
  const session = await open({ FirstBurstLength: '4096', ImmediateData: 'No' })
  const tag = 0x4000
  const header = commandHeader(session, tag, WRITE, write10(3000, 32))
  header.writeUInt32BE(32 * BLOCK, AT.EXPECTED_BYTES)
  session.cmdSn = (session.cmdSn + 1) >>> 0
  const answer = listenFor(session, tag)
  session.wire.send(header)
  session.wire.send(dataOutHeader(tag, NO_TAG, 0, 0), Buffer.alloc(32 * BLOCK, 0xbd))
  const response = await answer()
  t.equal(response?.header[3], 2)
  t.equal((response?.data[4] ?? 0) & 0x0f, ABORTED)
  session.destroy()
})

/**
 * Raw commands are unknown to the session's books, which take an answer to them for a breach: catches the
 * PDU on the way in.
 */
function listenFor(session: Initiator, tag: number): () => Promise<Pdu | undefined> {
  let caught: Pdu | undefined
  const cut = session.wire.cutter.next.bind(session.wire.cutter)
  session.wire.cutter.next = () => {
    const pdu = cut()
    if (pdu && pdu.header.readUInt32BE(AT.TAG) === tag) caught = pdu
    return pdu
  }
  return async () => {
    for (let tries = 0; tries < 200 && !caught; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 10))
    }
    return caught
  }
}

hostile('a task tag that is in use is rejected, the first task goes on', async (t) => {
  const session = await open({ InitialR2T: 'Yes', ImmediateData: 'No' })
  const held = await startHeld(session, write10(4000, 1), BLOCK)
  const twin = commandHeader(session, held.tag, FINAL | READ, inquiry())
  session.cmdSn = (session.cmdSn + 1) >>> 0
  const seen = session.rejects.length
  session.wire.send(twin)
  await session.until(() => session.rejects.length > seen, 'a reject')
  t.equal(session.rejects.at(-1)?.header[2], REJECT.IN_PROGRESS)
  const answer = listenFor(session, held.tag)
  session.wire.send(dataOutHeader(held.tag, held.transferTag(), 0, 0), Buffer.alloc(BLOCK, 0x11))
  const response = await answer()
  t.equal(response && opcodeOf(response), OP.SCSI_RESPONSE)
  t.equal(response?.header[3], 0, 'GOOD')
  session.destroy()
})

hostile('an R2T that is never answered ties up nothing when the peer goes', async (t) => {
  for (let i = 0; i < 8; i++) {
    const session = await open({ InitialR2T: 'Yes', ImmediateData: 'No' })
    await startHeld(session, write10(5000, 8192), 8192 * BLOCK)
    session.destroy()
  }
  const data = randomBytes(8192 * BLOCK)
  const session = await open()
  t.equal((await session.scsi({ cdb: write10(5000, 8192), write: data })).status, 0)
  const back = await session.scsi({ cdb: read10(5000, 8192), read: data.length })
  t.ok(back.data.equals(data), 'the blocks can be written and read at once')
  await session.close()
})

hostile(
  'a wrong data digest fails the command, a wrong header digest the connection',
  async (t) => {
    const session = await open({ HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' })
    t.ok(session.parameters.headerDigest && session.parameters.dataDigest)
    const old = randomBytes(BLOCK)
    t.equal((await session.scsi({ cdb: write10(6000, 1), write: old })).status, 0)
    const tag = 0x5000
    const header = commandHeader(session, tag, FINAL | WRITE, write10(6000, 1))
    header.writeUInt32BE(BLOCK, AT.EXPECTED_BYTES)
    session.cmdSn = (session.cmdSn + 1) >>> 0
    const answer = listenFor(session, tag)
    const bad = encodePdu(header, Buffer.alloc(BLOCK, 0xbd), { header: true, data: true })
    bad[bad.length - 1] = (bad.at(-1) ?? 0) ^ 1
    session.wire.write(bad)
    const response = await answer()
    t.equal(response?.header[3], 2, 'CHECK CONDITION')
    t.equal(session.rejects.at(-1)?.header[2], REJECT.DATA_DIGEST)
    session.destroy()

    const second = await open({ HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' })
    const back = await second.scsi({ cdb: read10(6000, 1), read: BLOCK })
    t.ok(back.data.equals(old), 'the damaged write has not happened')
    const ping = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 1)
    const wrong = encodePdu(ping, undefined, { header: true, data: true })
    wrong[48] = (wrong[48] ?? 0) ^ 1
    second.wire.write(wrong)
    t.ok(await second.wire.closedWithin(5000))
    second.destroy()
  },
)

hostile('an initiator that sends pings and reads no answers is held back', async (t) => {
  const session = await open()
  const before = daemon.residentBytes
  session.wire.socket.pause()
  const ping = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 0x6000)
  ping.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
  ping.writeUInt32BE(session.cmdSn, AT.CMD_SN)
  const pdu = encodePdu(ping, Buffer.alloc(64 * 1024, 0x55))
  for (let i = 0; i < 1600; i++) session.wire.write(pdu)
  await new Promise((resolve) => setTimeout(resolve, 1000))
  const grown = daemon.residentBytes - before
  t.ok(grown < 64 * MIB, `${(grown / MIB).toFixed(1)} MiB more for 100 MiB of pings`)
  session.destroy()
})

hostile('a flood of immediate commands ends in rejects, not in memory', async (t) => {
  const wire = await Wire.connect({ port })
  const { cmdSn, expStatSn } = await login(wire, {
    targetName: TARGET,
    keys: { InitialR2T: 'Yes', ImmediateData: 'No' },
  })
  const ready = newHeader(OP.SCSI_COMMAND, FINAL | SIMPLE, 0x6fff)
  ready.writeUInt32BE(cmdSn, AT.CMD_SN)
  wire.send(ready)
  t.equal(opcodeOf(await wire.next()), OP.SCSI_RESPONSE, 'the unit attention is taken')
  const flood = 200
  for (let i = 0; i < flood; i++) {
    const header = newHeader(OP.SCSI_COMMAND | IMMEDIATE, FINAL | WRITE | SIMPLE, 0x7000 + i)
    header.writeUInt32BE(BLOCK, AT.EXPECTED_BYTES)
    header.writeUInt32BE(cmdSn + 1, AT.CMD_SN)
    header.writeUInt32BE(expStatSn, AT.EXP_STAT_SN)
    write10(7000, 1).copy(header, AT.CDB)
    wire.send(header)
  }
  const counts = new Map<string, number>()
  for (let i = 0; i < flood; i++) {
    const pdu = await wire.next()
    const kind = opcodeOf(pdu) === OP.REJECT ? `reject ${pdu.header[2]}` : `opcode ${opcodeOf(pdu)}`
    counts.set(kind, (counts.get(kind) ?? 0) + 1)
  }
  t.strictSame(
    Object.fromEntries(counts),
    {
      [`opcode ${OP.R2T}`]: IMMEDIATE_COMMANDS,
      [`reject ${REJECT.TOO_MANY_IMMEDIATE}`]: flood - IMMEDIATE_COMMANDS,
    },
    'as many as the limit says are taken, the rest is rejected',
  )
  wire.destroy()
})

hostile('reading and writing at once, long headers and other oddities harm nobody', async (t) => {
  const oddities: [string, (session: Initiator) => Buffer][] = [
    ['R and W', (s) => encodePdu(commandHeader(s, 0x8000, FINAL | READ | WRITE, read10(0, 1)))],
    ['a long AHS', (s) => withAhs(s, Buffer.alloc(1020, 0))],
    ['an AHS that lies about its length', (s) => withAhs(s, Buffer.from([0xff, 0xff, 1, 0]))],
    [
      'a LUN of four levels',
      (s) => {
        const header = commandHeader(s, 0x8000, FINAL | READ, inquiry())
        header.fill(0xff, AT.LUN, AT.LUN + 8)
        header.writeUInt32BE(255, AT.EXPECTED_BYTES)
        return encodePdu(header)
      },
    ],
    [
      '4 GiB expected',
      (s) => {
        const header = commandHeader(s, 0x8000, FINAL | READ, read10(0, 65535))
        header.writeUInt32BE(0xffffffff, AT.EXPECTED_BYTES)
        return encodePdu(header)
      },
    ],
    [
      'task management of no kind',
      (s) => {
        const header = newHeader(OP.TASK_MANAGEMENT | IMMEDIATE, FINAL | 0x7f, 0x8000)
        header.writeUInt32BE(s.cmdSn, AT.CMD_SN)
        return encodePdu(header)
      },
    ],
    [
      'a logout of another connection',
      (s) => {
        const header = newHeader(OP.LOGOUT | IMMEDIATE, FINAL | 1, 0x8000)
        header.writeUInt16BE(0x7777, 20)
        header.writeUInt32BE(s.cmdSn, AT.CMD_SN)
        return encodePdu(header)
      },
    ],
  ]
  for (const [name, make] of oddities) {
    const session = await open()
    const answer = listenFor(session, 0x8000)
    session.wire.write(make(session))
    const got = await Promise.race([answer(), session.wire.closed.then(() => 'closed' as const)])
    t.ok(got === 'closed' || got !== undefined || session.rejects.length > 0, `${name} is answered`)
    session.destroy()
  }
})

function withAhs(session: Initiator, ahs: Buffer): Buffer {
  const header = commandHeader(session, 0x8000, FINAL | READ, inquiry())
  lunField(0).copy(header, AT.LUN)
  header.writeUInt32BE(255, AT.EXPECTED_BYTES)
  return encodePdu(header, undefined, undefined, ahs)
}

hostile(
  'the same initiator port logs in again: the old session ends, the new one works',
  async (t) => {
    const isid = randomIsid()
    const first = await Initiator.open({ port, targetName: TARGET, isid })
    const wire = await Wire.connect({ port })
    await login(wire, { targetName: TARGET, isid })
    t.ok(await first.wire.closedWithin(5000), 'the old connection is closed')
    wire.destroy()
    first.destroy()
  },
)
