/** Who gets a place: logins that wait, sessions, discovery; and what the log says of it. In one process. */
import t, { type Test } from 'tap'
import { MIB } from '../../../src/base/limits.ts'
import { createLogger } from '../../../src/base/log.ts'
import type { Lease } from '../../../src/hal/block-device.ts'
import { Initiator } from '../../support/initiator.ts'
import { INITIATOR_NAME } from '../../support/initiator-login.ts'
import { AT, CONTINUE, NO_TAG, newHeader, OP } from '../../support/initiator-pdu.ts'
import { Wire } from '../../support/initiator-wire.ts'
import { ManualClock } from '../../support/manual-clock.ts'
import { openPortal, TARGET, type TestPortal } from '../../support/portal.ts'

const ISID = Buffer.from('80abcdef0002', 'hex')

/** A session that is closed with the test, whatever became of it. */
async function enter(t: Test, port: number, options: object = {}): Promise<Initiator> {
  const initiator = await Initiator.open({ port, targetName: TARGET, ...options })
  t.teardown(() => initiator.destroy())
  return initiator
}

async function discover(t: Test, port: number, options: object = {}): Promise<Initiator> {
  return enter(t, port, { targetName: undefined, discovery: true, ...options })
}

/** Log lines of a portal, parsed. */
function logOf() {
  const lines: Record<string, unknown>[] = []
  const log = createLogger('info', 'json', (text) => {
    lines.push(JSON.parse(text) as Record<string, unknown>)
  })
  const events = (event: string) => lines.filter((one) => one['event'] === event)
  return { log, lines, events }
}

const names = (portal: TestPortal): string[] =>
  portal.server.sessions().map((one) => one.initiatorName.slice(INITIATOR_NAME.length))

t.test('a burst of logins from one address all succeed', async (t) => {
  const portal = await openPortal(t, { limits: { sessions: 256, sessionsPerAddress: 256 } })
  const burst = Array.from({ length: 255 }, (_, i) =>
    enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-${i}` }),
  )
  t.equal((await Promise.all(burst)).length, 255)
  t.equal(portal.server.sessions().length, 255)
})

t.test('half-open connections give way to newer ones, from where most of them are', async (t) => {
  const { log, events } = logOf()
  const portal = await openPortal(t, { limits: { pendingLogins: 16 }, log })
  const halfOpen: Wire[] = []
  for (const localAddress of ['127.0.0.5', '127.0.0.9', '127.0.0.9', '127.0.0.9']) {
    for (let i = 0; i < 4; i++) {
      halfOpen.push(await Wire.connect({ port: portal.port, localAddress }))
    }
  }
  t.teardown(() => {
    for (const wire of halfOpen) wire.destroy()
  })
  await enter(t, portal.port)
  t.equal(portal.server.sessions().length, 1, 'the newcomer is in')
  t.ok(await halfOpen[4]?.closedWithin(1000), 'for the oldest of those from 127.0.0.9')
  t.equal(halfOpen.filter((wire) => wire.ended).length, 1, 'and for no other')
  t.match(events('drop'), [{ remote: /^127\.0\.0\.9:/, reason: /16 connections wait/ }])
})

t.test('discovery sessions have few places of their own, and a minute', async (t) => {
  const clock = new ManualClock()
  const portal = await openPortal(t, { limits: { sessions: 1, discoverySessions: 2 }, clock })
  const other = await discover(t, portal.port, { localAddress: '127.0.0.5' })
  const first = await discover(t, portal.port)
  t.match((await first.text(Buffer.from('SendTargets=All\0'))).toString(), TARGET)
  const normal = await enter(t, portal.port)
  const third = await discover(t, portal.port, { localAddress: '127.0.0.5' })
  t.ok(await other.wire.closedWithin(1000), 'the oldest where most come from makes room')
  t.notOk(first.wire.ended)

  const again = { isid: ISID, initiatorName: `${INITIATOR_NAME}-twice` }
  const before = await discover(t, portal.port, again)
  await discover(t, portal.port, again)
  t.ok(await before.wire.closedWithin(1000), 'discovery sessions are reinstated, too')

  for (let seconds = 0; seconds < 62; seconds += 10) {
    clock.advance(10_000)
    for (const one of [normal, third]) if (!one.wire.ended) await one.nop().catch(() => {})
  }
  t.ok(await third.wire.closedWithin(1000), 'a discovery session ends, however alive')
  t.notOk(normal.wire.ended, 'a normal one stays')
})

t.test('a dead session makes room, a living one never does', async (t) => {
  const clock = new ManualClock()
  const portal = await openPortal(t, { limits: { sessionsPerAddress: 2 }, clock })
  const dead = await enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-dead` })
  dead.answerPings = false
  const idle = await enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-idle` })
  clock.advance(5_000)

  const late = enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-late` })
  await dead.until(() => dead.pings === 1, 'the silent ones are asked')
  await idle.until(() => idle.pings === 1, 'all of them')
  await enter(t, portal.port, { localAddress: '127.0.0.5', initiatorName: `${INITIATOR_NAME}-5` })
  t.same(names(portal), ['-dead', '-idle', '-5'], 'other addresses are not concerned')
  for (let i = 0; i < 13; i++) {
    await new Promise((resolve) => setTimeout(resolve, 5))
    clock.advance(250)
  }
  t.equal((await (await late).nop(Buffer.from('in'))).toString(), 'in')
  t.same(names(portal).sort(), ['-5', '-idle', '-late'])

  clock.advance(5_000)
  const { pings } = idle
  const refused = enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-one-more` })
  await idle.until(() => idle.pings > pings, 'asked again')
  await new Promise((resolve) => setTimeout(resolve, 20))
  clock.advance(250)
  await t.rejects(refused, /0302/, 'when all answer there is no place')
  t.same(names(portal).sort(), ['-5', '-idle', '-late'])
})

t.test('the place of one that leaves is free when it has left', async (t) => {
  const portal = await openPortal(t, { limits: { sessions: 1 } })
  const leaving = await enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-leaving` })
  // An initiator that logs out and keeps its side of the connection open.
  leaving.wire.socket.allowHalfOpen = true
  leaving.logout().catch(() => {})
  await enter(t, portal.port)
  t.same(names(portal), [''], 'after a second at most')
})

t.test('MaxCmdSN never goes back, from the first login response on', async (t) => {
  const narrow = await openPortal(t, { limits: { commandsPerSession: 4 } })
  const initiator = await enter(t, narrow.port)
  t.equal(initiator.maxCmdSn - initiator.expCmdSn, 3)
  await initiator.close()
  const busy = await openPortal(t)
  const leases: Lease[] = []
  for (let lease = busy.pool.lease(MIB); lease; lease = busy.pool.lease(MIB)) leases.push(lease)
  const late = await enter(t, busy.port)
  t.ok(late.maxCmdSn - late.expCmdSn < 16, 'a session of a target that is short of memory')
  await late.close()
  for (const lease of leases) lease.release()
})

t.test('text that is continued without text is refused, and the session goes on', async (t) => {
  const portal = await openPortal(t)
  const initiator = await discover(t, portal.port)
  const part = async (text: string): Promise<boolean> => {
    const seen = initiator.rejects.length
    const header = newHeader(OP.TEXT, CONTINUE, 0x7000 + seen)
    header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    header.writeUInt32BE(initiator.cmdSn, AT.CMD_SN)
    initiator.cmdSn++
    initiator.wire.send(header, Buffer.from(text))
    await initiator.until(() => initiator.rejects.length > seen, 'a reject', 1000)
    return initiator.rejects.at(-1)?.header[2] === 4
  }
  t.ok(await part(''), 'protocol error')
  t.match((await initiator.text(Buffer.from('SendTargets=All\0'))).toString(), TARGET)
})

t.test('two hosts with one name are pointed out once', async (t) => {
  const { log, events } = logOf()
  const portal = await openPortal(t, { log })
  for (let i = 0; i < 8; i++) {
    await enter(t, portal.port, { isid: ISID, localAddress: `127.0.0.${5 + (i % 2)}` })
  }
  t.match(events('clones'), [{ initiator: INITIATOR_NAME, addresses: ['127.0.0.5', '127.0.0.6'] }])
  const { log: quiet, events: none } = logOf()
  const steady = await openPortal(t, { log: quiet })
  for (let i = 0; i < 8; i++) await enter(t, steady.port, { isid: ISID })
  t.same(none('clones'), [], 'one host that comes again and again is no clone')
})

t.test('one noisy address does not hide another, and no line has a key twice', async (t) => {
  const raw: string[] = []
  const log = createLogger('info', 'json', (text) => raw.push(text))
  const portal = await openPortal(t, { log, limits: { sessions: 1 } })
  await enter(t, portal.port)
  for (let i = 0; i < 30; i++) {
    await t.rejects(enter(t, portal.port, { initiatorName: `${INITIATOR_NAME}-${i}` }), /0302/)
  }
  const quiet = enter(t, portal.port, { localAddress: '127.0.0.5', targetName: `${TARGET}-none` })
  await t.rejects(quiet, /0203/)
  const of = (address: string) =>
    raw.filter((line) => line.includes('login-refused') && line.includes(`"${address}:`)).length
  t.ok(of('127.0.0.1') <= 10, `${of('127.0.0.1')} lines for 30 refusals`)
  t.equal(of('127.0.0.5'), 1)
  t.match(
    raw.find((line) => line.includes('0302')),
    /limits in plexus\.yaml: sessions/,
  )
  const twice = raw.filter((line) => {
    const keys = [...line.matchAll(/[{,]"(\w+)":/g)].map(([, key]) => key)
    return new Set(keys).size < keys.length
  })
  t.same(twice, [])
})

t.test('connections leave descriptors to the disks', async (t) => {
  const { log, events } = logOf()
  const portal = await openPortal(t, { log, limits: { descriptors: 64 } })
  await t.rejects(enter(t, portal.port))
  await t.rejects(enter(t, portal.port))
  t.match(events('descriptors')[0], { level: 50, limit: 64, msg: /LimitNOFILE/ })
})
