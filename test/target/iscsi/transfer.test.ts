/** The transport against the independent test initiator, in one process over a memory device. */
import net from 'node:net'
import { networkInterfaces } from 'node:os'
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { SocketStream, type StreamOwner } from '../../../src/target/iscsi/socket-stream.ts'
import { Initiator } from '../../support/initiator.ts'
import { INITIATOR_NAME } from '../../support/initiator-login.ts'
import { FINAL, IMMEDIATE, newHeader, OP } from '../../support/initiator-pdu.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { openPortal, read10, settled, TARGET, write10 } from '../../support/portal.ts'

const KIB = 1024

/** Bytes that differ at every place and for every seed. */
function pattern(length: number, seed: number): Buffer {
  const bytes = Buffer.alloc(length)
  for (let i = 0; i < length; i += 4) bytes.writeUInt32LE((i * 2654435761 + seed * 40503) >>> 0, i)
  return bytes
}

/** Clears the unit attention that every new nexus has. */
async function login(port: number, options: object = {}): Promise<Initiator> {
  const initiator = await Initiator.open({ port, targetName: TARGET, ...options })
  await initiator.scsi({ cdb: Buffer.alloc(6) })
  const ready = await initiator.scsi({ cdb: Buffer.alloc(6) })
  if (ready.status !== 0) throw new Error('the unit is not ready')
  return initiator
}

const WAYS: ReadonlyArray<readonly [string, Record<string, string>]> = [
  ['defaults of Linux', {}],
  ['no unsolicited data', { InitialR2T: 'Yes', ImmediateData: 'No' }],
  ['immediate data only', { InitialR2T: 'Yes', ImmediateData: 'Yes' }],
  ['unsolicited Data-Out only', { InitialR2T: 'No', ImmediateData: 'No' }],
  [
    'small segments and bursts',
    { MaxRecvDataSegmentLength: '512', MaxBurstLength: '2048', FirstBurstLength: '1024' },
  ],
  [
    'odd segments',
    { MaxRecvDataSegmentLength: '1023', MaxBurstLength: '5001', FirstBurstLength: '777' },
  ],
  ['one R2T at a time', { MaxOutstandingR2T: '1', InitialR2T: 'Yes', ImmediateData: 'No' }],
  ['both digests', { HeaderDigest: 'CRC32C', DataDigest: 'CRC32C' }],
]

t.test('data goes in and comes out the same whatever was negotiated', async (t) => {
  const portal = await openPortal(t)
  for (const [name, keys] of WAYS) {
    await t.test(name, async (t) => {
      const initiator = await login(portal.port, { keys })
      for (const [i, length] of [512, 4 * KIB, 40 * KIB, 300 * KIB, 2048 * KIB].entries()) {
        const data = pattern(length, i + 1)
        const write = await initiator.scsi({ cdb: write10(i * 8, length / 512), write: data })
        t.equal(write.status, 0)
        t.equal(write.residual, 0)
        const read = await initiator.scsi({ cdb: read10(i * 8, length / 512), read: length })
        t.equal(read.status, 0)
        t.equal(read.residual, 0)
        t.ok(read.data.equals(data), `${length} bytes`)
      }
      await initiator.close()
      await settled(portal, t)
    })
  }
})

t.test('many commands at once, mixed, keep their data apart', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port)
  const blocks = 16
  const writes = Array.from({ length: 200 }, (_, i) =>
    initiator.scsi({ cdb: write10(i * blocks, blocks), write: pattern(blocks * 512, i) }),
  )
  for (const result of await Promise.all(writes)) t.equal(result.status, 0)
  const reads = Array.from({ length: 200 }, (_, i) =>
    initiator.scsi({ cdb: read10(i * blocks, blocks), read: blocks * 512 }),
  )
  for (const [i, result] of (await Promise.all(reads)).entries()) {
    if (!result.data.equals(pattern(blocks * 512, i))) t.fail(`range ${i} differs`)
  }
  await initiator.close()
  await settled(portal, t)
})

t.test('Data-Out that nobody asked for fails the write, and the session goes on', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } })
  let stray = false
  const command = await initiator.start({
    cdb: write10(0, 16),
    write: pattern(8192, 1),
    onR2t: () => {
      const header = newHeader(OP.DATA_OUT, FINAL, command.tag)
      header.writeUInt32BE(0x7ffffff0, 20)
      if (!stray) initiator.wire.send(header, Buffer.alloc(512))
      stray = true
      return true
    },
  })
  const result = await command.done
  t.equal(result.status, 2)
  t.equal(result.sense?.key, 0xb)
  t.equal(result.sense?.code, 0x0c0c)
  const read = await initiator.scsi({ cdb: read10(0, 16), read: 8192 })
  t.ok(read.data.equals(Buffer.alloc(8192)), 'nothing was written')
  await initiator.close()
  await settled(portal, t)
})

t.test('Data-Out for a write that the disk already has changes nothing', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port)
  portal.device.hold()
  const command = await initiator.start({ cdb: write10(0, 8), write: pattern(4096, 1) })
  for (const tag of [0xffffffff, 0x7ffffff0]) {
    const header = newHeader(OP.DATA_OUT, FINAL, command.tag)
    header.writeUInt32BE(tag, 20)
    initiator.wire.send(header, Buffer.alloc(4096, 0xee))
  }
  await initiator.nop()
  t.equal(portal.pool.leased, 1, 'the buffer stays with the disk')
  portal.device.release()
  t.equal((await command.done).status, 0)
  const read = await initiator.scsi({ cdb: read10(0, 8), read: 4096 })
  t.ok(read.data.equals(pattern(4096, 1)))
  await initiator.close()
  await settled(portal, t)
})

t.test('residuals tell what was not moved', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port)
  const long = await initiator.scsi({ cdb: read10(0, 1), read: 2048 })
  t.equal(long.status, 0)
  t.equal(long.data.length, 512)
  t.equal(long.residual, 2048 - 512)
  const short = await initiator.scsi({ cdb: read10(0, 4), read: 512 })
  t.equal(short.data.length, 512)
  t.equal(short.residual, 512 - 2048)
  const none = await initiator.scsi({ cdb: read10(0, 1) })
  t.equal(none.status, 0)
  t.equal(none.residual, -512)
  const data = pattern(1024, 3)
  const tooMuch = await initiator.scsi({ cdb: write10(0, 1), write: data })
  t.equal(tooMuch.status, 0)
  t.equal(tooMuch.residual, 512)
  await initiator.close()
  await settled(portal, t)
})

t.test('task management ends a write whose data is still to come', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } })
  let asked = 0
  const command = await initiator.start({
    cdb: write10(0, 16),
    write: pattern(8192, 1),
    onR2t: () => {
      asked++
      return false
    },
  })
  await initiator.until(() => asked > 0, 'an R2T')
  t.equal(await initiator.tmf({ fn: 1, ref: command }), 0)
  initiator.abandon(command)
  t.equal(await initiator.tmf({ fn: 1, ref: command }), 1, 'the task is gone')
  t.equal(portal.pool.leased, 0, 'and its buffer, too')
  await initiator.close()
})

t.test('a reset from another session frees the buffers of a half-sent write', async (t) => {
  const portal = await openPortal(t)
  const victim = await login(portal.port, { keys: { InitialR2T: 'Yes', ImmediateData: 'No' } })
  const other = await login(portal.port, { initiatorName: 'iqn.2026-11.test.plexus:other' })
  let asked = 0
  const command = await victim.start({
    cdb: write10(0, 16),
    write: pattern(8192, 1),
    onR2t: () => {
      asked++
      return false
    },
  })
  await victim.until(() => asked > 0, 'an R2T')
  t.equal(await other.tmf({ fn: 5 }), 0)
  t.equal((await command.done).status, 0x40, 'TASK ABORTED')
  t.equal(portal.pool.leased, 0)
  const attention = await victim.scsi({ cdb: Buffer.alloc(6) })
  t.equal(attention.sense?.key, 6, 'unit attention')
  await victim.close()
  await other.close()
})

t.test('a dead session gives back what it held', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port)
  portal.device.hold()
  for (let i = 0; i < 20; i++) {
    await initiator.start({ cdb: write10(i * 16, 16), write: pattern(8192, i) })
    await initiator.start({ cdb: read10(i * 16, 16), read: 8192 })
  }
  await initiator.nop()
  initiator.destroy()
  await portal.until(() => portal.server.sessions().length === 0)
  t.ok(portal.pool.leased > 0, 'the disk still has the buffers')
  portal.device.release()
  await settled(portal, t)
})

t.test(
  'the same initiator port logs in again: the old session ends, its writes stay fenced',
  async (t) => {
    const portal = await openPortal(t)
    const isid = Buffer.from('80abcdef0001', 'hex')
    const first = await login(portal.port, { isid })
    portal.device.hold()
    await first.start({ cdb: write10(0, 8), write: pattern(4096, 1) })
    await first.nop()
    const second = await Initiator.open({ port: portal.port, targetName: TARGET, isid })
    await portal.until(() => portal.server.sessions().length === 1)
    await second.scsi({ cdb: Buffer.alloc(6) })
    const newer = second.scsi({ cdb: write10(0, 8), write: pattern(4096, 2) })
    await second.nop()
    portal.device.release()
    t.equal((await newer).status, 0)
    const read = await second.scsi({ cdb: read10(0, 8), read: 4096 })
    t.ok(read.data.equals(pattern(4096, 2)), 'the newer write is the one that stays')
    first.destroy()
    await second.close()
    await settled(portal, t)
  },
)

t.test('NOP-Out is echoed, text answers SendTargets, unknown opcodes are rejected', async (t) => {
  const portal = await openPortal(t)
  const initiator = await login(portal.port)
  const ping = pattern(3000, 9)
  t.ok((await initiator.nop(ping)).equals(ping))
  t.ok((await initiator.nop(Buffer.alloc(0), false)).equals(Buffer.alloc(0)))
  const answer = await initiator.text(Buffer.from('SendTargets=\0'))
  t.match(answer.toString(), new RegExp(`TargetName=${TARGET}`))
  t.match(answer.toString(), `TargetAddress=127.0.0.1:${portal.port},1`)
  const unknown = newHeader(0x1c | IMMEDIATE, FINAL, 77)
  unknown.writeUInt32BE(initiator.cmdSn, 24)
  initiator.wire.send(unknown)
  await initiator.until(() => initiator.rejects.length === 1, 'a reject')
  t.equal(initiator.rejects[0]?.header[2], 5, 'command not supported')
  t.ok((await initiator.nop(ping)).equals(ping), 'and the session goes on')
  await initiator.close()
})

t.test(
  'a command outside the window is ignored, one that skips a number ends the session',
  async (t) => {
    const portal = await openPortal(t)
    const initiator = await login(portal.port)
    const beyond = newHeader(OP.SCSI_COMMAND, FINAL, 4711)
    beyond.writeUInt32BE((initiator.maxCmdSn + 1) >>> 0, 24)
    initiator.wire.send(beyond)
    const old = newHeader(OP.SCSI_COMMAND, FINAL, 4712)
    old.writeUInt32BE((initiator.cmdSn - 1) >>> 0, 24)
    initiator.wire.send(old)
    t.ok((await initiator.nop(Buffer.from('still here'))).equals(Buffer.from('still here')))
    const gap = newHeader(OP.SCSI_COMMAND, FINAL, 4713)
    gap.writeUInt32BE((initiator.cmdSn + 1) >>> 0, 24)
    initiator.wire.send(gap)
    t.ok(await initiator.wire.closedWithin(2000))
    initiator.destroy()
  },
)

t.test('no more sessions than the limit, and none while the target shuts down', async (t) => {
  const portal = await openPortal(t, { limits: { sessions: 2 } })
  const a = await login(portal.port, { initiatorName: `${INITIATOR_NAME}-a` })
  const isid = Buffer.from('80abcdef0002', 'hex')
  const old = await login(portal.port, { initiatorName: `${INITIATOR_NAME}-b`, isid })
  const b = await login(portal.port, { initiatorName: `${INITIATOR_NAME}-b`, isid })
  old.destroy()
  t.equal(portal.server.sessions().length, 2, 'a session that is reinstated makes room for itself')
  await t.rejects(login(portal.port, { initiatorName: `${INITIATOR_NAME}-c` }), /0302/)
  const drained = portal.server.drain(3000)
  await a.until(() => a.asyncs.length === 1, 'the logout request')
  t.equal(a.asyncs[0]?.header[36], 1)
  await a.close()
  await b.close()
  await drained
  t.equal(portal.server.sessions().length, 0)
})

t.test('an initiator that takes nothing, or sends nothing, holds up nobody else', async (t) => {
  const portal = await openPortal(t)
  const keys = { InitialR2T: 'Yes', ImmediateData: 'No' }
  const stalled = await login(portal.port, { initiatorName: `${INITIATOR_NAME}-stalled`, keys })
  const other = await login(portal.port)
  stalled.wire.socket.pause()
  const length = 4 * KIB * KIB
  for (let i = 0; i < 40; i++) {
    await stalled.start({ cdb: read10(0, length / 512), read: length })
  }
  await portal.until(() => portal.pool.leased >= 3)
  const startMs = performance.now()
  for (let i = 0; i < 20; i++) {
    const result = await other.scsi({ cdb: read10(0, 2048), read: 1024 * KIB })
    t.equal(result.status, 0)
    const write = await other.scsi({ cdb: write10(0, 2048), write: pattern(1024 * KIB, i) })
    t.equal(write.status, 0)
  }
  t.ok(performance.now() - startMs < 5000, 'without waiting for the other')
  const half = portal.pool.totalBytes / 2
  t.ok(portal.pool.leased * length <= half / 2 + length, 'the stalled one has its share, no more')
  stalled.destroy()
  await other.close()
  await settled(portal, t)

  const silent = await login(portal.port, { initiatorName: `${INITIATOR_NAME}-silent`, keys })
  const full = []
  for (let i = 0; i < 20; i++) {
    const write = { cdb: write10(0, length / 512), write: pattern(length, i), onR2t: () => false }
    full.push((await silent.start(write)).done.then((result) => result.status))
  }
  t.equal(await Promise.race(full), 0x28, 'TASK SET FULL for it alone')
  const third = await login(portal.port)
  t.equal((await third.scsi({ cdb: write10(0, 8), write: pattern(4096, 1) })).status, 0)
  silent.destroy()
  await third.close()
  await settled(portal, t)
})

t.test('accepted sockets read into the memory that their owner names', async (t) => {
  const memory = Buffer.alloc(16)
  const ways: string[] = []
  const queues = { copiedBytes: 0 }
  let stream: SocketStream | undefined
  const owner: StreamOwner = {
    nextBuffer: () => memory,
    received: (count) => ways.push(`direct ${memory.toString('latin1', 0, count)}`) > 0,
    push: () => ways.push('copied') > 0,
    drained() {},
    closed: () => ways.push('closed'),
  }
  const server = net.createServer({ pauseOnConnect: true }, (socket) => {
    stream = new SocketStream(socket, owner, queues)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const client = net.connect((server.address() as net.AddressInfo).port, '127.0.0.1')
  client.write('hello')
  const echo = new Promise<string>((resolve) => client.once('data', (data) => resolve(`${data}`)))
  while (ways.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
  let sent = 0
  const pieces = [Buffer.from('one '), Buffer.from('two')]
  const batch = { pieces, bytes: 7, copiedBytes: 3, sent: () => sent++ }
  stream?.send(batch)
  t.equal(queues.copiedBytes, 3, 'the copies count while they wait')
  t.equal(await echo, 'one two')
  client.end()
  while (!ways.includes('closed')) await new Promise((resolve) => setTimeout(resolve, 5))
  t.same(ways, ['direct hello', 'closed'])
  stream?.send(batch)
  t.equal(sent, 2, 'what can no longer be sent is given back')
  t.equal(queues.copiedBytes, 0)
  server.close()
})

t.test('a silent initiator is asked, and dropped when it does not answer', async (t) => {
  const clock = new ManualClock()
  const portal = await openPortal(t, { clock })
  const initiator = await login(portal.port)
  clock.advance(14_000)
  await initiator.nop()
  clock.advance(14_000)
  t.equal(initiator.pings, 0, 'who speaks is not asked')
  clock.advance(3_000)
  await initiator.until(() => initiator.pings === 1, 'a ping')
  await initiator.nop()
  initiator.answerPings = false
  clock.advance(17_000)
  await initiator.until(() => initiator.pings === 2, 'another')
  t.equal(portal.server.sessions().length, 1)
  clock.advance(17_000)
  t.ok(await initiator.wire.closedWithin(2000))
  await portal.until(() => portal.server.sessions().length === 0)
  initiator.destroy()
})

t.test('a login, and the data of a write, that do not come end the connection', async (t) => {
  const clock = new ManualClock()
  const portal = await openPortal(t, { clock })
  const slow = net.connect(portal.port, '127.0.0.1')
  await new Promise((resolve) => slow.once('connect', resolve))
  const ended = new Promise((resolve) => slow.once('close', resolve))
  const keys = { InitialR2T: 'Yes', ImmediateData: 'No' }
  const initiator = await login(portal.port, { keys })
  clock.advance(15_000)
  slow.resume()
  await ended
  let asked = false
  await initiator.start({
    cdb: write10(0, 16),
    write: pattern(8192, 1),
    onR2t: () => {
      asked = true
      return false
    },
  })
  await initiator.until(() => asked, 'an R2T')
  for (let i = 0; i < 4; i++) {
    clock.advance(10_000)
    if (i < 2) await initiator.nop()
  }
  t.ok(await initiator.wire.closedWithin(2000))
  initiator.destroy()
  await settled(portal, t)
})

const HAS_IPV6 = Object.values(networkInterfaces())
  .flat()
  .some((address) => address?.address === '::1')

t.test(
  'portals on IPv6',
  { skip: HAS_IPV6 ? false : 'this machine has no IPv6 loopback' },
  async (t) => {
    const portal = await openPortal(t, { host: '::1' })
    const initiator = await login(portal.port, { host: '::1' })
    const answer = await initiator.text(Buffer.from('SendTargets=\0'))
    t.match(answer.toString(), `TargetAddress=[::1]:${portal.port},1`)
    await initiator.close()
  },
)

t.test('a READ over a bad block brings what is before it, and says so', async (t) => {
  const portal = await openPortal(t)
  const { device } = portal
  for (let at = 0; at < 4 * 1024 * KIB; at++) device.media[at] = at % 251
  const submit = device.submit.bind(device)
  const bad = 5000
  device.submit = (request) => {
    const { op, offset, length } = request
    const hit = offset <= bad * 512 && offset + length > bad * 512
    if (op === 'read' && hit) device.fail('read', 'io')
    submit(request)
  }
  const initiator = await login(portal.port)
  for (const [lba, blocks] of [
    [4990, 20],
    [5000, 8],
    [0, 8192],
  ] as const) {
    const { status, sense, data, residual } = await initiator.scsi({
      cdb: read10(lba, blocks),
      read: blocks * 512,
    })
    t.equal(status, 2)
    t.match(sense, { key: 3, code: 0x1100 })
    t.equal(sense?.raw.readUInt32BE(3), bad, 'INFORMATION')
    const good = (bad - lba) * 512
    t.ok(data.subarray(0, good).equals(device.media.subarray(lba * 512, bad * 512)))
    t.equal(residual, blocks * 512 - good, 'the rest has not come')
  }
  t.equal((await initiator.scsi({ cdb: read10(5001, 8), read: 4096 })).status, 0)
  await initiator.close()
  await settled(portal, t)
})

t.test('a session tells the ports of its target as the configuration has them', async (t) => {
  const portal = await openPortal(t)
  const target = defined(portal.server.registry.get(TARGET), 'the target')
  const before = await login(portal.port)
  const inquire = async (from: Initiator, page?: number) => {
    const cdb = Buffer.from([0x12, page === undefined ? 0 : 1, page ?? 0, 1, 0, 0])
    const { status, data } = await from.scsi({ cdb, read: 256 })
    t.equal(status, 0)
    return data.toString('latin1')
  }
  t.equal((await inquire(before)).charCodeAt(6), 0, 'MULTIP: one port')
  const group = defined(target.portalGroups[0], 'its portal group')
  target.update({
    name: TARGET,
    alias: undefined,
    portalGroups: [group, { ...group, name: 'second', tag: 7 }],
    portIds: new Map([
      ['test', 0x40],
      ['second', 0x41],
    ]),
    auth: 'none',
    luns: target.luns,
  })
  portal.server.refresh()
  await before.scsi({ cdb: Buffer.alloc(6) })
  const after = await login(portal.port)
  for (const session of [before, after]) {
    t.equal((await inquire(session)).charCodeAt(6), 0x10, 'MULTIP: two')
    const ports = await inquire(session, 0x88)
    for (const [id, tag] of [
      ['\x40', '1'],
      ['\x41', '7'],
    ]) {
      t.ok(ports.includes(`\0\0\0${id}\0\0\0\0`), `port ${id}`)
      t.ok(ports.includes(`${TARGET},t,0x000${tag}`))
    }
  }
  t.ok((await inquire(after, 0x83)).includes('\x51\x94\0\x04\0\0\0\x40'), 'the port of the session')
  for (const session of [before, after]) await session.close()
})
