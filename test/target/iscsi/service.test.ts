/**
 * What one session, or a stranger, does to the service of the others: buffers that come back, answers that nobody takes,
 * work that is shared, transfers beyond one lease. In one process over a memory device.
 */
import net from 'node:net'
import t from 'tap'
import { realClock } from '../../../src/base/clock.ts'
import {
  POOL_CHUNK_BYTES,
  SEND_QUEUE_BYTES,
  SLICE_MS,
  SPENT_MS,
  TURN_MS,
} from '../../../src/base/limits.ts'
import { Slice, Turns } from '../../../src/target/iscsi/turns.ts'
import { Initiator } from '../../support/initiator.ts'
import { INITIATOR_NAME } from '../../support/initiator-login.ts'
import {
  AT,
  encodePdu,
  FINAL,
  IMMEDIATE,
  NO_TAG,
  newHeader,
  OP,
} from '../../support/initiator-pdu.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import {
  openPortal,
  read10,
  settled,
  TARGET,
  type TestPortal,
  write10,
} from '../../support/portal.ts'

const KIB = 1024
const MIB = 1024 * KIB
const BLOCK = 512
const SOLICITED = { InitialR2T: 'Yes', ImmediateData: 'No' }
const TMF = { CLEAR_TASK_SET: 4, LUN_RESET: 5, COLD_RESET: 7 } as const
const ORDERED = 2
const TASK_ABORTED = 0x40
const TASK_SET_FULL = 0x28

function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i += 4) bytes.writeUInt32LE((i * 2654435761 + seed * 40503) >>> 0, i)
  return bytes
}

/** A session whose unit attention is taken. `name` makes it another initiator. */
async function login(portal: TestPortal, name = '', options: object = {}): Promise<Initiator> {
  const initiatorName = `${INITIATOR_NAME}${name}`
  const initiator = await Initiator.open({
    port: portal.port,
    targetName: TARGET,
    initiatorName,
    ...options,
  })
  await initiator.scsi({ cdb: Buffer.alloc(6) })
  return initiator
}

/** A write of 64 KiB of which the header of the answer to the R2T has been sent, and half of its data. */
async function halfWrite(initiator: Initiator, attribute = 1) {
  const length = 64 * KIB
  let transferTag: number | undefined
  const command = await initiator.start({
    cdb: write10(0, length / BLOCK),
    write: pattern(length, 1),
    attribute,
    onR2t: (r2t) => {
      transferTag = r2t.transferTag
      return false
    },
  })
  await initiator.until(() => transferTag !== undefined, 'an R2T')
  const header = newHeader(OP.DATA_OUT, FINAL, command.tag)
  header.writeUInt32BE(transferTag ?? 0, AT.TRANSFER_TAG)
  const pdu = encodePdu(header, pattern(length, 1), { header: false, data: false })
  initiator.wire.write(pdu.subarray(0, 48 + length / 2))
  return { command, rest: pdu.subarray(48 + length / 2) }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

t.test('a half-received write, a reset and a lost connection cost no buffer', async (t) => {
  for (const fn of [TMF.CLEAR_TASK_SET, TMF.LUN_RESET]) {
    const portal = await openPortal(t)
    const victim = await login(portal, '-victim', { keys: SOLICITED })
    const other = await login(portal, '-other')
    await halfWrite(victim)
    await pause(50)
    t.equal(portal.pool.leased, 1)
    t.equal(await other.tmf({ fn }), 0)
    victim.destroy()
    await portal.until(() => portal.server.sessions().length === 1)
    await settled(portal, t)
    await other.close()
  }
})

t.test(
  'immediate data that stops half-way, aborted by another session, costs no buffer',
  async (t) => {
    const portal = await openPortal(t)
    const victim = await login(portal, '-victim')
    const other = await login(portal, '-other')
    const header = newHeader(OP.SCSI_COMMAND, FINAL | 0x20 | 1, 0x77)
    header.writeUInt32BE(8192, AT.EXPECTED_BYTES)
    header.writeUInt32BE(victim.cmdSn, AT.CMD_SN)
    write10(0, 16).copy(header, AT.CDB)
    const pdu = encodePdu(header, pattern(8192, 1), { header: false, data: false })
    victim.wire.write(pdu.subarray(0, 4000))
    await portal.until(() => portal.pool.leased === 1)
    t.equal(await other.tmf({ fn: TMF.LUN_RESET }), 0)
    victim.wire.socket.resetAndDestroy()
    await portal.until(() => portal.server.sessions().length === 1)
    await settled(portal, t)
    await other.close()
  },
)

t.test(
  'initiators that read nothing but go on talking neither hold the pool nor stay',
  async (t) => {
    const clock = new ManualClock()
    const portal = await openPortal(t, { clock })
    const deaf: Initiator[] = []
    for (let i = 0; i < 20; i++) {
      const one = await login(portal, `-deaf${i}`)
      one.wire.socket.pause()
      // The CmdSN window closes down to four commands as the pool runs low.
      for (let n = 0; n < 4; n++) await one.start({ cdb: read10(0, 8192), read: 4 * MIB })
      deaf.push(one)
    }
    const honest = await login(portal, '-honest')
    for (let i = 0; i < 4; i++) {
      const length = MIB
      t.equal((await honest.scsi({ cdb: write10(0, 2048), write: pattern(length, i) })).status, 0)
      const read = await honest.scsi({ cdb: read10(0, 2048), read: length })
      t.ok(read.data.equals(pattern(length, i)), 'served beside them')
    }
    t.ok(
      portal.pool.freeBytes > portal.pool.totalBytes / 8,
      `${portal.pool.freeBytes} bytes are free`,
    )
    for (let seconds = 0; seconds < 40; seconds += 5) {
      for (const one of deaf) {
        const ping = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 7)
        ping.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
        ping.writeUInt32BE(one.cmdSn, AT.CMD_SN)
        one.wire.send(ping)
      }
      await honest.nop()
      await pause(20)
      clock.advance(5000)
    }
    await portal.until(() => portal.server.sessions().length === 1)
    for (const one of deaf) one.destroy()
    t.equal(
      (await honest.scsi({ cdb: Buffer.alloc(6) })).status,
      0,
      'the honest one is still there',
    )
    await honest.close()
    await settled(portal, t)
  },
)

t.test('initiators that hold the whole pool and do not move give way within seconds', async (t) => {
  const clock = new ManualClock()
  const portal = await openPortal(t, { clock })
  const honest = await login(portal, '-honest')
  const cdb = write10(0, (256 * KIB) / BLOCK)
  const write = pattern(256 * KIB, 1)
  const idle = await login(portal, '-idle')
  // Else more sessions were needed than may log in.
  const taken = Array.from({ length: 14 }, () => portal.pool.lease(POOL_CHUNK_BYTES))
  const silent: Initiator[] = []
  while (portal.pool.freeBytes >= 256 * KIB) {
    const one = await login(portal, `-silent${silent.length}`, { keys: SOLICITED })
    let asked = 0
    await one.start({
      cdb,
      write,
      onR2t: () => {
        asked++
        return false
      },
    })
    await one.until(() => asked > 0, 'an R2T')
    silent.push(one)
  }
  t.equal((await honest.scsi({ cdb, write })).status, TASK_SET_FULL, 'no room for the others')
  for (let seconds = 0; seconds < 4; seconds++) {
    await pause(20)
    clock.advance(1000)
  }
  await portal.until(() => portal.server.sessions().length === 2)
  t.equal((await honest.scsi({ cdb, write })).status, 0, 'there is room again')
  t.equal((await idle.scsi({ cdb: Buffer.alloc(6) })).status, 0, 'who holds nothing stays')
  for (const one of silent) one.destroy()
  for (const lease of taken) lease?.release()
  await honest.close()
  await idle.close()
  await settled(portal, t)
})

t.test('who takes or sends slowly, but goes on, stays', async (t) => {
  const clock = new ManualClock()
  const portal = await openPortal(t, { clock })
  const reader = await login(portal, '-reader')
  const { socket } = reader.wire
  let taken = 0
  socket.on('data', (chunk: Buffer) => {
    taken += chunk.length
    // Some hundred KiB for each step of the clock below.
    socket.pause()
  })
  const length = 16 * MIB
  const read = reader.scsi({ cdb: read10(0, length / BLOCK), read: length, timeoutMs: 60_000 })
  const writer = await login(portal, '-writer', { keys: SOLICITED })
  let transferTag = 0
  const data = pattern(256 * KIB, 2)
  const write = await writer.start({
    cdb: write10(40_000, data.length / BLOCK),
    write: data,
    timeoutMs: 60_000,
    onR2t: (r2t) => {
      transferTag = r2t.transferTag
      return false
    },
  })
  await writer.until(() => transferTag !== 0, 'an R2T')
  const header = newHeader(OP.DATA_OUT, FINAL, write.tag)
  header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
  const pdu = encodePdu(header, data, { header: false, data: false })
  const steps = 16
  for (let step = 0, at = 0; step < steps; step++) {
    const before = taken
    for (let n = 0; n < 200 && taken - before < 2 * MIB; n++) {
      socket.resume()
      await pause(1)
    }
    const end = step === steps - 1 ? pdu.length : at + Math.floor(pdu.length / steps)
    writer.wire.write(pdu.subarray(at, end))
    at = end
    await pause(20)
    // 16 times 10 s is more than any limit.
    clock.advance(10_000)
  }
  socket.removeAllListeners('pause')
  const drain = setInterval(() => socket.resume(), 1)
  t.equal((await write.done).status, 0, 'the writer')
  const { status, data: got } = await read
  clearInterval(drain)
  t.same([status, got.length], [0, length], 'the reader')
  reader.destroy()
  await writer.close()
  await settled(portal, t)
})

t.test('an ORDERED write without its data holds up its own session alone', async (t) => {
  const portal = await openPortal(t)
  const silent = await login(portal, '-silent', { keys: SOLICITED })
  const other = await login(portal, '-other')
  await halfWrite(silent, ORDERED)
  const read = await other.scsi({ cdb: read10(0, 8), read: 4096, timeoutMs: 2000 })
  t.equal(read.status, 0)
  silent.destroy()
  await other.close()
  await settled(portal, t)
})

t.test('READ and WRITE of 65,535 blocks go in pieces', async (t) => {
  const portal = await openPortal(t)
  for (const keys of [{}, { MaxRecvDataSegmentLength: '65536', MaxBurstLength: '100000' }]) {
    const initiator = await login(portal, '', { keys })
    const blocks = 65_535
    const data = pattern(blocks * BLOCK, 3)
    let held = 0
    const watch = setInterval(() => {
      held = Math.max(held, portal.pool.totalBytes - portal.pool.freeBytes)
    }, 1)
    const write = await initiator.scsi({ cdb: write10(1, blocks), write: data })
    t.same([write.status, write.residual], [0, 0])
    const read = await initiator.scsi({ cdb: read10(1, blocks), read: data.length })
    clearInterval(watch)
    t.same([read.status, read.residual], [0, 0])
    t.ok(read.data.equals(data))
    t.ok(held <= portal.pool.totalBytes / 2, `${held} bytes of the pool at most`)
    t.ok(held >= POOL_CHUNK_BYTES / 2)
    await initiator.close()
    await settled(portal, t)
  }
})

t.test('a long transfer is aborted between and within its pieces', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal)
  const blocks = 32_768
  const data = pattern(blocks * BLOCK, 4)
  let r2ts = 0
  const write = await initiator.start({
    cdb: write10(0, blocks),
    write: data,
    onR2t: () => ++r2ts < 8,
  })
  await initiator.until(() => r2ts >= 8, 'R2Ts of a later piece')
  t.equal(await initiator.tmf({ fn: 1, ref: write }), 0)
  initiator.abandon(write)
  t.equal(portal.unit.tasks.size, 0)
  portal.device.hold()
  const read = await initiator.start({ cdb: read10(0, blocks), read: data.length })
  await portal.until(() => portal.device.inFlight > 0)
  t.equal(await initiator.tmf({ fn: 1, ref: read }), 0)
  initiator.abandon(read)
  portal.device.release()
  await initiator.nop()
  await initiator.close()
  await settled(portal, t)
})

t.test('TAS = 1: whom a reset by another session robs of its tasks is told', async (t) => {
  const portal = await openPortal(t)
  const victim = await login(portal, '-victim', { keys: SOLICITED })
  const other = await login(portal, '-other')
  const collecting = await victim.start({
    cdb: write10(0, 16),
    write: pattern(8192, 1),
    onR2t: () => false,
  })
  portal.device.hold()
  const reading = await victim.start({ cdb: read10(0, 8), read: 4096 })
  await portal.until(() => portal.device.inFlight > 0)
  await victim.nop()
  t.equal(await other.tmf({ fn: TMF.CLEAR_TASK_SET }), 0)
  t.equal((await collecting.done).status, TASK_ABORTED)
  t.equal((await reading.done).status, TASK_ABORTED, 'while its I/O is still with the disk')
  portal.device.release()
  await victim.close()
  await other.close()
  await settled(portal, t)
})

t.test('a cold reset ends all sessions of the target', async (t) => {
  const portal = await openPortal(t)
  const [one, other] = [await login(portal, '-one'), await login(portal, '-other')]
  t.equal(await one.tmf({ fn: TMF.COLD_RESET }), 0)
  for (const session of [one, other]) {
    t.ok(await session.wire.closedWithin(2000))
    session.destroy()
  }
  await settled(portal, t)
})

t.test('a cold reset in the middle of the data of a write costs no buffer', async (t) => {
  const portal = await openPortal(t)
  const victim = await login(portal, '-victim', { keys: SOLICITED })
  const other = await login(portal, '-other')
  const { rest } = await halfWrite(victim)
  await portal.until(() => portal.pool.leased === 1)
  await pause(50)
  t.equal(await other.tmf({ fn: TMF.COLD_RESET }), 0)
  victim.wire.write(rest)
  await portal.until(() => portal.server.load().connections === 0)
  await settled(portal, t)
  victim.destroy()
  other.destroy()
})

t.test('a cold reset ends a session that goes on sending without a pause', async (t) => {
  // Each look at the clock is a whole slice later: every connection waits for its turns.
  let nowMs = 0
  const clock = { ...realClock, nowMs: () => (nowMs += SLICE_MS) }
  const portal = await openPortal(t, { clock })
  for (let round = 0; round < 4; round++) {
    const talker = await login(portal, '-talker')
    const other = await login(portal, '-other')
    const header = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 7)
    header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    header.writeUInt32BE(talker.cmdSn, AT.CMD_SN)
    const pdus = Buffer.concat(
      Array.from({ length: 4000 }, () =>
        encodePdu(header, Buffer.alloc(0), { header: false, data: false }),
      ),
    )
    talker.wire.socket.on('error', () => {})
    const sending = setInterval(() => talker.wire.write(pdus), 1)
    await pause(20)
    t.equal(await other.tmf({ fn: TMF.COLD_RESET }), 0)
    await pause(30)
    clearInterval(sending)
    talker.destroy()
    other.destroy()
    await portal.until(() => portal.server.load().connections === 0)
  }
  await settled(portal, t)
})

t.test('Data-Out for another R2T, or none, ends the command at once', async (t) => {
  const portal = await openPortal(t)
  for (const transferTag of [0x7ffffff0, NO_TAG]) {
    const initiator = await login(portal, '', { keys: SOLICITED })
    let asked = false
    const command = await initiator.start({
      cdb: write10(0, 16),
      write: pattern(8192, 1),
      timeoutMs: 3000,
      onR2t: () => {
        asked = true
        return false
      },
    })
    await initiator.until(() => asked, 'an R2T')
    const header = newHeader(OP.DATA_OUT, FINAL, command.tag)
    header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
    initiator.wire.send(header, pattern(8192, 9))
    const { status, sense } = await command.done
    t.same([status, sense?.key, sense?.code], [2, 0x0b, 0x0c0c])
    await initiator.close()
  }
  await settled(portal, t)
})

t.test('the reserved initiator task tag is no tag of a request', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal)
  for (const opcode of [OP.SCSI_COMMAND, OP.TASK_MANAGEMENT, OP.TEXT, OP.LOGOUT]) {
    const seen = initiator.rejects.length
    const flags = opcode === OP.TASK_MANAGEMENT ? TMF.LUN_RESET : 0
    const header = newHeader(opcode | IMMEDIATE, FINAL | flags, NO_TAG)
    header.writeUInt32BE(initiator.cmdSn, AT.CMD_SN)
    header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    initiator.wire.send(header)
    await initiator.until(() => initiator.rejects.length > seen, `a reject of opcode ${opcode}`)
    t.equal(initiator.rejects.at(-1)?.header[2], 9, 'invalid PDU field')
  }
  await initiator.close()
})

t.test('descriptor sense data also where the transport says what is wrong', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal)
  portal.unit.mode.descriptorSense = true
  const command = await initiator.start({
    cdb: write10(0, 1024),
    write: pattern(512 * KIB, 1),
    onR2t: (r2t) => {
      const stray = newHeader(OP.DATA_OUT, FINAL, command.tag)
      stray.writeUInt32BE(r2t.transferTag ^ 0x40000000, AT.TRANSFER_TAG)
      initiator.wire.send(stray, pattern(512, 1))
      return false
    },
  })
  const { sense } = await command.done
  t.equal(sense?.raw[0], 0x72)
  await initiator.close()
  await settled(portal, t)
})

t.test('one connection full of requests takes its slice, and a turn stays short', async (t) => {
  const clock = new ManualClock()
  const turns = new Turns(clock)
  const order: string[] = []
  const worker = (name: string, units: number) => {
    let left = units
    const one = {
      work() {
        slice.begin(clock.nowMs(), true)
        do {
          clock.advance(SLICE_MS / 4)
          order.push(name)
          left--
        } while (left > 0 && !slice.isOver(clock.nowMs()))
        slice.end(clock.nowMs())
        if (left > 0) turns.wait(one)
        else turns.forget(one)
      },
    }
    const slice = new Slice(turns, one)
    return one
  }
  const turn = async () => {
    order.length = 0
    await new Promise((resolve) => setImmediate(resolve))
    return order.join('')
  }
  turns.wait(worker('a', 1000))
  t.equal(await turn(), 'aaaa', 'who is alone has a slice in each turn')
  for (const name of ['b', 'c']) turns.wait(worker(name, 8))
  let order3 = ''
  for (let i = 0; i < 7; i++) {
    const served = await turn()
    t.ok(served.length <= 4 * Math.ceil(TURN_MS / SLICE_MS), 'a turn is short, however many wait')
    order3 += served
  }
  t.equal(order3, 'aaaabbbbccccaaaabbbbccccaaaa', 'round robin, until they have no more')
})

t.test('work without a pause uses up a turn, work with pauses does not', async (t) => {
  const clock = new ManualClock()
  const make = (turns = new Turns(clock)) => new Slice(turns, { work() {} })
  const work = (slice: Slice, pauseMs: number) => {
    clock.advance(pauseMs)
    slice.begin(clock.nowMs())
    clock.advance(SPENT_MS / 4)
    return slice.end(clock.nowMs())
  }
  const busy = make()
  t.same(
    [0, 0, 0, 0].map(() => work(busy, 0)),
    [false, false, false, true],
    'call after call',
  )
  const calm = make()
  for (let i = 0; i < 20; i++) t.notOk(work(calm, SPENT_MS / 4), 'as much pause as work')
  const talker = make()
  clock.advance(1)
  for (let i = 0; i < 3; i++) {
    talker.begin(clock.nowMs(), true)
    talker.count(true)
    clock.advance(SLICE_MS)
    talker.end(clock.nowMs())
  }
  clock.advance(SLICE_MS)
  talker.begin(clock.nowMs())
  t.ok(talker.isOver(clock.nowMs()), 'what was answered without a device is owed')
  clock.advance(20 * SLICE_MS)
  talker.begin(clock.nowMs())
  t.notOk(talker.isOver(clock.nowMs()), 'until it is paid back')
  const turns = new Turns(clock)
  const two = [make(turns), make(turns)]
  const spent = Array.from({ length: 8 }, () => two.map((slice) => work(slice, 0)).includes(true))
  t.ok(spent.includes(true), 'the work of another is no pause')
})

t.test('reads that wait in the task set give back their share when they are aborted', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal)
  portal.device.hold()
  for (const attribute of [ORDERED, 1, 1, ORDERED, 1]) {
    await initiator.start({ cdb: read10(0, 2048), read: MIB, attribute })
  }
  for (let n = 0; n < 30; n++) await initiator.start({ cdb: read10(0, 8192), read: 4 * MIB })
  await portal.until(() => portal.device.inFlight > 0)
  await initiator.nop()
  initiator.destroy()
  await portal.until(() => portal.server.sessions().length === 0)
  portal.device.release()
  await settled(portal, t)
})

t.test('what is queued is bounded before and between the PDUs of one read', async (t) => {
  const portal = await openPortal(t)
  const session = await login(portal)
  const socket = net.connect(portal.port, '127.0.0.1')
  t.teardown(() => socket.destroy())
  // 128 NOP-Outs of 256 KiB each, echoed to an initiator that takes nothing.
  session.wire.socket.pause()
  const ping = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 7)
  ping.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
  ping.writeUInt32BE(session.cmdSn, AT.CMD_SN)
  for (let i = 0; i < 128; i++) session.wire.send(ping, Buffer.alloc(256 * KIB, 1))
  let most = 0
  for (let i = 0; i < 40; i++) {
    await pause(10)
    most = Math.max(most, portal.server.load().sendQueueBytes)
  }
  t.ok(most <= SEND_QUEUE_BYTES + 2 * 256 * KIB, `${most} bytes were queued`)
  session.destroy()
  await portal.until(() => portal.server.load().sendQueueBytes === 0)
  t.equal(portal.server.sendQueues.copiedBytes, 0)
})
