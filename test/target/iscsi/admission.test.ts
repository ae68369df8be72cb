/** Who may be in a session: auth groups and names, reinstatement, and what a changed configuration ends. In one process. */
import { networkInterfaces } from 'node:os'
import t, { type Test } from 'tap'
import { InitiatorNames } from '../../../src/iscsi/names.ts'
import type { Auth, AuthGroup } from '../../../src/target/iscsi/auth.ts'
import { Initiator } from '../../support/initiator.ts'
import { INITIATOR_NAME } from '../../support/initiator-login.ts'
import { openPortal, TARGET, type TestPortal } from '../../support/portal.ts'

const ISID = Buffer.from('80abcdef0002', 'hex')
const ALICE = 'iqn.2026-11.test.plexus:alice'
const BOB = 'iqn.2026-11.test.plexus:bob'

interface Credentials {
  readonly user: string
  readonly secret: string
}
const ALICES: Credentials = { user: 'alice', secret: 'alices-secret' }
const BOBS: Credentials = { user: 'bob', secret: 'bobs-own-secret' }

function group(name: string, { user, secret }: Credentials, initiators?: string[]): AuthGroup {
  const chap = { user, secret: Buffer.from(secret) }
  return { name, chap, ...(initiators ? { initiators: new InitiatorNames(initiators) } : {}) }
}
const APART = [group('a', ALICES, [ALICE]), group('b', BOBS, [BOB])]

async function enter(t: Test, portal: TestPortal, options: object = {}): Promise<Initiator> {
  const initiator = await Initiator.open({ port: portal.port, targetName: TARGET, ...options })
  t.teardown(() => initiator.destroy())
  return initiator
}

/** Gives the target another auth, as a reload does. */
function reload(portal: TestPortal, auth: Auth): void {
  const target = portal.registry.get(TARGET)
  target?.update({
    name: TARGET,
    alias: undefined,
    portalGroups: [portal.group],
    auth,
    luns: target.luns,
  })
  portal.server.refresh()
}

t.test('a name goes with the secret of its own group', async (t) => {
  const portal = await openPortal(t, { auth: APART })
  await enter(t, portal, { initiatorName: ALICE, chap: ALICES })
  await enter(t, portal, { initiatorName: BOB, chap: BOBS })
  t.match(
    portal.server.sessions().map((one) => [one.initiatorName, one.authenticatedAs]),
    [
      [ALICE, 'alice'],
      [BOB, 'bob'],
    ],
  )
  await t.rejects(enter(t, portal, { initiatorName: ALICE, chap: BOBS }), /0201/)
  await t.rejects(enter(t, portal, { initiatorName: INITIATOR_NAME, chap: BOBS }), /0202/)
  await t.rejects(enter(t, portal, { initiatorName: ALICE }), /0201/, 'nor with none')
})

t.test('a closer group speaks for a name', async (t) => {
  const anyBob = [group('a', ALICES, [ALICE]), group('b', BOBS)]
  const somehow = [group('a', ALICES, [ALICE]), group('b', BOBS, ['iqn.2026-11.test.plexus:*'])]
  const open: Auth = [
    group('a', ALICES, [ALICE]),
    { name: 'names', initiators: new InitiatorNames(['iqn.*']) },
  ]
  for (const auth of [anyBob, somehow]) {
    const portal = await openPortal(t, { auth })
    await t.rejects(enter(t, portal, { initiatorName: ALICE, chap: BOBS }), /0201/)
    await enter(t, portal, { initiatorName: ALICE, chap: ALICES })
    await enter(t, portal, { initiatorName: INITIATOR_NAME, chap: BOBS })
  }
  const portal = await openPortal(t, { auth: open })
  await t.rejects(enter(t, portal, { initiatorName: ALICE }), /0201/, 'CHAP where it is demanded')
  await enter(t, portal, { initiatorName: INITIATOR_NAME })
})

t.test('only who proved the same may reinstate a session', async (t) => {
  const shared = [group('a', ALICES, [ALICE]), group('b', BOBS, [ALICE])]
  const portal = await openPortal(t, { auth: shared })
  const alices = await enter(t, portal, { initiatorName: ALICE, isid: ISID, chap: ALICES })
  await t.rejects(enter(t, portal, { initiatorName: ALICE, isid: ISID, chap: BOBS }), /0202/)
  t.equal((await alices.nop(Buffer.from('here'))).toString(), 'here', 'she notices nothing')
  await enter(t, portal, { initiatorName: ALICE, chap: BOBS })
  await enter(t, portal, { initiatorName: ALICE, isid: ISID, chap: ALICES })
  t.ok(await alices.wire.closedWithin(1000))
  t.equal(portal.server.sessions().length, 2)
})

t.test('a reload ends the sessions that would not be admitted now', async (t) => {
  const portal = await openPortal(t, { auth: 'none' })
  const unproven = await enter(t, portal, { initiatorName: BOB })
  reload(portal, APART)
  t.ok(await unproven.wire.closedWithin(1000), 'CHAP is demanded now')
  const alice = await enter(t, portal, { initiatorName: ALICE, chap: ALICES })
  const bob = await enter(t, portal, { initiatorName: BOB, chap: BOBS })
  reload(portal, [...APART, group('c', { user: 'c', secret: 'another-secret' })])
  t.equal(portal.server.sessions().length, 2, 'a group that is added concerns nobody')
  reload(portal, [
    group('a', ALICES, [ALICE]),
    group('b', { ...BOBS, secret: 'bobs-next-secret' }, [BOB]),
  ])
  t.ok(await bob.wire.closedWithin(1000), 'his secret was changed')
  t.equal((await alice.nop(Buffer.from('here'))).toString(), 'here')
  const chap = { user: 'alice', secret: Buffer.from(ALICES.secret), algorithms: [8] }
  reload(portal, [{ name: 'a', chap, initiators: new InitiatorNames([ALICE]) }])
  t.ok(await alice.wire.closedWithin(1000), 'her proof was SHA-256, which is not permitted now')
  const sha3 = await enter(t, portal, { initiatorName: ALICE, chap: ALICES, algorithms: '8' })
  reload(portal, 'none')
  t.equal((await sha3.nop(Buffer.from('here'))).toString(), 'here', 'less is asked for now')
})

t.test('discovery sessions, too', async (t) => {
  const portal = await openPortal(t)
  const discovery = { targetName: undefined, discovery: true }
  const open = await enter(t, portal, discovery)
  const normal = await enter(t, portal)
  Object.assign(portal.group, { discoveryAuth: APART })
  const site = {
    target: (name: string) => portal.registry.get(name),
    group: (name: string) => (name === portal.group.name ? portal.group : undefined),
  }
  t.match(portal.server.misfits(site), [
    { initiatorName: INITIATOR_NAME, address: '127.0.0.1', why: /discovery on portal test/ },
  ])
  portal.server.refresh()
  t.ok(await open.wire.closedWithin(1000))
  t.notOk(normal.wire.ended)
  await t.rejects(enter(t, portal, discovery), /0202/)
  await enter(t, portal, { ...discovery, initiatorName: ALICE, chap: ALICES })
  await portal.server.unlisten(portal.group.name)
  portal.server.refresh()
  await portal.until(() => portal.server.sessions().length === 0)
})

const HAS_IPV6 = Object.values(networkInterfaces())
  .flat()
  .some((address) => address?.address === '::1')

t.test('one socket for IPv6 and IPv4', { skip: !HAS_IPV6 && 'no IPv6 here' }, async (t) => {
  const portal = await openPortal(t, { host: '::', dualStack: true })
  const four = await enter(t, portal)
  t.equal(portal.server.sessions()[0]?.remoteAddress, '127.0.0.1', 'in its own form')
  const told = (await four.text(Buffer.from('SendTargets=\0'))).toString()
  t.match(told, `TargetAddress=127.0.0.1:${portal.port},1`)
  const six = await enter(t, portal, { host: '::1' })
  t.match((await six.text(Buffer.from('SendTargets=\0'))).toString(), `[::1]:${portal.port},1`)
})
