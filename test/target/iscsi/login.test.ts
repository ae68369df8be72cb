import fc from 'fast-check'
import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { LOGIN_REQUESTS } from '../../../src/base/limits.ts'
import { createLogger, silentLogger } from '../../../src/base/log.ts'
import {
  CHAP_ALGORITHMS,
  chapResponse,
  decodeBinary,
  encodeBinary,
} from '../../../src/iscsi/chap.ts'
import { InitiatorNames } from '../../../src/iscsi/names.ts'
import { assertSessionParameters, DEFAULT_PARAMETERS } from '../../../src/iscsi/parameters.ts'
import { decodeText } from '../../../src/iscsi/text.ts'
import type { Auth } from '../../../src/target/iscsi/auth.ts'
import { LoginNegotiation } from '../../../src/target/iscsi/login.ts'
import type { LoginContext } from '../../../src/target/iscsi/login-identity.ts'
import type { LoginReply, LoginRequest } from '../../../src/target/iscsi/login-messages.ts'
import {
  type PortalGroup,
  type TargetInit,
  TargetNode,
  TargetRegistry,
} from '../../../src/target/iscsi/target-node.ts'

const OPEN = 'iqn.2026-01.lab.plexus:open'
const LOCKED = 'iqn.2026-01.lab.plexus:locked'
const DENIED = 'iqn.2026-01.lab.plexus:denied'
const LISTED = 'iqn.2026-01.lab.plexus:listed'
const ELSEWHERE = 'iqn.2026-01.lab.plexus:elsewhere'
const DEBIAN = 'iqn.1993-08.org.debian:01:a1b2c3d4e5f6'
const ISID = Buffer.from('00023d000001', 'hex')
const CHAP = { user: 'esx', secret: Buffer.from('initiator-secret') }
const MUTUAL = { user: 'plexus', secret: Buffer.from('target-secret-1') }

const SAN: PortalGroup = {
  name: 'san',
  tag: 7,
  listen: [{ host: '10.0.10.5', port: 3260 }],
  digests: { header: ['CRC32C', 'None'], data: ['CRC32C', 'None'] },
  discoveryAuth: 'none',
}

function targetInit(name: string, auth: Auth, more: Partial<TargetInit> = {}): TargetInit {
  return { name, alias: undefined, portalGroups: [SAN], auth, luns: new Map(), ...more }
}

/** A login to a site with one target of each kind, and the means to send requests to it. */
function site(more: Partial<LoginContext> = {}) {
  const registry = new TargetRegistry()
  const lab = { ...SAN, name: 'lab' }
  registry.set(new TargetNode(targetInit(OPEN, 'none', { alias: 'Database disks' })))
  registry.set(new TargetNode(targetInit(LOCKED, [{ name: 'h', chap: CHAP, mutual: MUTUAL }])))
  registry.set(new TargetNode(targetInit(DENIED, [])))
  registry.set(
    new TargetNode(targetInit(LISTED, [{ name: 'l', initiators: new InitiatorNames([DEBIAN]) }])),
  )
  registry.set(new TargetNode(targetInit(ELSEWHERE, 'none', { portalGroups: [lab] })))
  let seed = 0
  const login = new LoginNegotiation({
    registry,
    portalGroup: SAN,
    localAddress: '10.0.10.5',
    remoteAddress: '10.0.10.9',
    log: silentLogger(),
    random: (bytes) => Buffer.alloc(bytes, ++seed),
    hasSession: () => false,
    ...more,
  })
  const send = (lines: readonly string[], header: Partial<LoginRequest> = {}): LoginReply =>
    login.handle(request(lines, header))
  return { login, registry, send }
}

/** A request of stage 1 that asks for full feature phase, unless `header` says otherwise. */
function request(lines: readonly string[], header: Partial<LoginRequest> = {}): LoginRequest {
  return {
    transit: true,
    continued: false,
    csg: 1,
    nsg: 3,
    versionMin: 0,
    versionMax: 0,
    isid: ISID,
    tsih: 0,
    cid: 0,
    text: Buffer.from(lines.map((line) => `${line}\0`).join('')),
    ...header,
  }
}

const SECURITY = { csg: 0, nsg: 1 } as const
const STAY = { transit: false, nsg: 0 } as const

const lines = (reply: LoginReply): string[] => decodeText(reply.text).map((pair) => pair.join('='))
const answerTo = (reply: LoginReply, key: string): string | undefined =>
  new Map(decodeText(reply.text)).get(key)
const status = (reply: LoginReply): string =>
  ((reply.statusClass << 8) | reply.statusDetail).toString(16).padStart(4, '0')

const who = (target: string, name = DEBIAN): string[] => [
  `InitiatorName=${name}`,
  'SessionType=Normal',
  `TargetName=${target}`,
]

/** CHAP_N and CHAP_R for the challenge in a reply. */
function proof(reply: LoginReply, credentials = CHAP): string[] {
  const id = Number(answerTo(reply, 'CHAP_A'))
  const algorithm = defined(
    CHAP_ALGORITHMS.find((each) => each.id === id),
    `algorithm ${id}`,
  )
  const challenge = defined(decodeBinary(answerTo(reply, 'CHAP_C') ?? '', 1024), 'CHAP_C')
  const identifier = Number(answerTo(reply, 'CHAP_I'))
  const response = chapResponse(algorithm, identifier, credentials.secret, challenge)
  return [`CHAP_N=${credentials.user}`, `CHAP_R=${encodeBinary(response)}`]
}

t.test('golden: open-iscsi with CHAP both ways', async (t) => {
  const { send, registry } = site()
  const first = send(
    [
      `InitiatorName=${DEBIAN}`,
      'InitiatorAlias=lab1',
      `TargetName=${LOCKED}`,
      'SessionType=Normal',
      'AuthMethod=CHAP,None',
    ],
    { ...SECURITY, transit: false },
  )
  t.same(lines(first), ['TargetPortalGroupTag=7', 'AuthMethod=CHAP'])
  t.match(first, { statusClass: 0, transit: false, csg: 0 })
  const second = send(['CHAP_A=8,7,6,5'], { ...SECURITY, transit: false })
  t.equal(answerTo(second, 'CHAP_A'), '8')
  const third = send([...proof(second), 'CHAP_I=11', 'CHAP_C=0x1122334455'], SECURITY)
  t.match(third, { statusClass: 0, transit: true, csg: 0, nsg: 1 })
  t.equal(answerTo(third, 'CHAP_N'), 'plexus')
  const sha3 = defined(CHAP_ALGORITHMS[0], 'SHA3-256')
  const expected = chapResponse(sha3, 11, MUTUAL.secret, Buffer.from('1122334455', 'hex'))
  t.equal(answerTo(third, 'CHAP_R'), encodeBinary(expected))
  const last = send([
    'HeaderDigest=None,CRC32C',
    'DataDigest=None',
    'DefaultTime2Wait=2',
    'DefaultTime2Retain=0',
    'IFMarker=No',
    'OFMarker=No',
    'ErrorRecoveryLevel=0',
    'InitialR2T=No',
    'ImmediateData=Yes',
    'MaxBurstLength=16776192',
    'FirstBurstLength=262144',
    'MaxOutstandingR2T=1',
    'MaxConnections=1',
    'DataPDUInOrder=Yes',
    'DataSequenceInOrder=Yes',
    'MaxRecvDataSegmentLength=262144',
  ])
  t.match(last, { statusClass: 0, transit: true, csg: 1, nsg: 3 })
  t.same(lines(last), [
    'HeaderDigest=None',
    'DataDigest=None',
    'DefaultTime2Wait=2',
    'DefaultTime2Retain=0',
    'IFMarker=No',
    'OFMarker=No',
    'ErrorRecoveryLevel=0',
    'InitialR2T=No',
    'ImmediateData=Yes',
    'MaxBurstLength=1048576',
    'FirstBurstLength=262144',
    'MaxOutstandingR2T=1',
    'MaxConnections=1',
    'DataPDUInOrder=Yes',
    'DataSequenceInOrder=Yes',
    'MaxRecvDataSegmentLength=262144',
  ])
  t.same(last.outcome, {
    sessionType: 'normal',
    initiatorName: DEBIAN,
    initiatorAlias: 'lab1',
    isid: ISID,
    requestedTsih: 0,
    target: registry.get(LOCKED),
    proof: { user: 'esx', secret: CHAP.secret, algorithm: 8 },
    parameters: {
      ...DEFAULT_PARAMETERS,
      sendSegmentBytes: 262144,
      receiveSegmentBytes: 262144,
      initialR2t: false,
      maxBurstBytes: 1048576,
      firstBurstBytes: 262144,
      time2RetainS: 0,
    },
  })
})

t.test('golden: open-iscsi discovery', async (t) => {
  const { send } = site()
  const first = send(
    [`InitiatorName=${DEBIAN}`, 'InitiatorAlias=lab1', 'SessionType=Discovery', 'AuthMethod=None'],
    SECURITY,
  )
  t.same(lines(first), ['AuthMethod=None'])
  t.match(first, { transit: true, csg: 0, nsg: 1 })
  const last = send([
    'HeaderDigest=None',
    'DataDigest=None',
    'DefaultTime2Wait=2',
    'DefaultTime2Retain=0',
    'IFMarker=No',
    'OFMarker=No',
    'ErrorRecoveryLevel=0',
    'MaxRecvDataSegmentLength=32768',
  ])
  t.match(last.outcome, {
    sessionType: 'discovery',
    target: undefined,
    proof: undefined,
    parameters: { sendSegmentBytes: 32768, receiveSegmentBytes: 8192 },
  })
})

t.test('golden: Windows, everything in its own request and ERL 2 offered', async (t) => {
  const { send } = site()
  const name = 'iqn.1991-05.com.microsoft:WIN-7K3_LAB'
  const first = send(
    [`InitiatorName=${name}`, 'SessionType=Normal', `TargetName=${OPEN}`, 'AuthMethod=None,CHAP'],
    SECURITY,
  )
  t.same(lines(first), ['TargetAlias=Database disks', 'TargetPortalGroupTag=7', 'AuthMethod=None'])
  const second = send(
    [
      'HeaderDigest=None,CRC32C',
      'DataDigest=None,CRC32C',
      'ErrorRecoveryLevel=2',
      'InitialR2T=No',
      'ImmediateData=Yes',
      'MaxRecvDataSegmentLength=65536',
      'MaxBurstLength=262144',
      'FirstBurstLength=65536',
      'MaxConnections=1',
      'DataPDUInOrder=Yes',
      'DataSequenceInOrder=Yes',
      'DefaultTime2Wait=0',
      'DefaultTime2Retain=60',
      'MaxOutstandingR2T=16',
    ],
    STAY,
  )
  t.match(second, { statusClass: 0, transit: false, csg: 1 })
  t.equal(answerTo(second, 'ErrorRecoveryLevel'), '0')
  t.equal(answerTo(second, 'DefaultTime2Wait'), '2')
  t.equal(answerTo(second, 'MaxOutstandingR2T'), '8')
  t.equal(answerTo(second, 'MaxRecvDataSegmentLength'), '262144')
  const last = send([])
  t.same(lines(last), [], 'nothing is declared twice')
  t.equal(last.outcome?.initiatorName, name.toLowerCase())
  t.equal(last.outcome?.parameters.maxBurstBytes, 262144)
})

t.test('golden: ESXi, digests prohibited, vendor keys', async (t) => {
  const { send } = site()
  send(
    [
      'InitiatorName=iqn.1998-01.com.vmware:esx1-4a5b6c7d',
      'InitiatorAlias=esx1',
      `TargetName=${OPEN}`,
      'SessionType=Normal',
      'AuthMethod=None',
    ],
    SECURITY,
  )
  const last = send([
    'HeaderDigest=None',
    'DataDigest=None',
    'InitialR2T=Yes',
    'ImmediateData=Yes',
    'FirstBurstLength=262144',
    'MaxBurstLength=262144',
    'MaxRecvDataSegmentLength=131072',
    'MaxOutstandingR2T=1',
    'MaxConnections=1',
    'ErrorRecoveryLevel=0',
    'DefaultTime2Wait=0',
    'DefaultTime2Retain=0',
    'X-com.vmware.example=1',
    'TaskReporting=RFC3720',
    'iSCSIProtocolLevel=1',
  ])
  t.equal(answerTo(last, 'X-com.vmware.example'), 'NotUnderstood')
  t.match(last.outcome?.parameters, {
    initialR2t: true,
    immediateData: true,
    firstBurstBytes: 262144,
  })
})

t.test('golden: libiscsi starts in the operational stage without a user', async (t) => {
  const { send } = site()
  const last = send([
    'InitiatorName=iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test',
    `TargetName=${OPEN}`,
    'SessionType=Normal',
    'HeaderDigest=None,CRC32C',
    'DataDigest=None',
    'InitialR2T=Yes',
    'ImmediateData=No',
    'MaxBurstLength=262144',
    'FirstBurstLength=262144',
    'MaxRecvDataSegmentLength=262144',
  ])
  t.match(last, { statusClass: 0, transit: true, csg: 1, nsg: 3 })
  t.same(lines(last).slice(0, 2), ['TargetAlias=Database disks', 'TargetPortalGroupTag=7'])
  t.equal(answerTo(last, 'FirstBurstLength'), 'Irrelevant')
  t.ok(last.outcome)
})

t.test('golden: libiscsi with a user repeats its names in every stage', async (t) => {
  const { send } = site()
  send([...who(LOCKED), 'AuthMethod=CHAP,None'], SECURITY)
  const challenge = send(['CHAP_A=5'], { ...SECURITY, transit: false })
  t.match(send(proof(challenge), SECURITY), { transit: true, nsg: 1 })
  const last = send([...who(LOCKED), 'HeaderDigest=None'])
  t.equal(last.outcome?.proof?.user, 'esx')
})

t.test('from security straight to full feature phase nothing is declared', async (t) => {
  const { send } = site()
  const reply = send([...who(OPEN), 'AuthMethod=None'], { csg: 0, nsg: 3 })
  t.match(reply, { transit: true, csg: 0, nsg: 3 })
  t.same(reply.outcome?.parameters, DEFAULT_PARAMETERS)
  t.equal(status(send([])), '020b', 'a login ends once')
})

t.test('refusals and their status', async (t) => {
  const cases: Record<string, readonly [string, readonly string[], Partial<LoginRequest>?]> = {
    'no initiator name': ['0207', [`TargetName=${OPEN}`]],
    'nothing at all': ['0207', []],
    'no target name': ['0207', [`InitiatorName=${DEBIAN}`]],
    'bad initiator name': ['0200', who(OPEN, 'esx1')],
    'bad session type': ['0209', [`InitiatorName=${DEBIAN}`, 'SessionType=Boot']],
    'unknown target': ['0203', who('iqn.2026-01.lab.plexus:nosuch')],
    'target name that is none': ['0203', who('disk')],
    'target of another portal': ['0203', who(ELSEWHERE)],
    'target without auth': ['0202', who(DENIED)],
    'initiator that is not listed': ['0202', who(LISTED, 'iqn.1993-08.org.debian:02')],
    'CHAP skipped': ['0201', who(LOCKED)],
    'CHAP skipped, at once': ['0201', who(LOCKED), STAY],
    'CHAP not offered': ['0201', [...who(LOCKED), 'AuthMethod=None'], SECURITY],
    'no method offered': ['0201', who(LOCKED), SECURITY],
    'CHAP where there is none': ['0201', [...who(OPEN), 'AuthMethod=CHAP'], SECURITY],
    'CHAP keys with the method': [
      '0201',
      [...who(LOCKED), 'AuthMethod=CHAP', 'CHAP_A=5'],
      SECURITY,
    ],
    'CHAP keys without method': ['0201', [...who(LOCKED), 'CHAP_A=5'], SECURITY],
    'newer version': ['0205', who(OPEN), { versionMin: 1, versionMax: 1 }],
    'unknown session': ['020a', who(OPEN), { tsih: 5 }],
    'reserved stage': ['0200', who(OPEN), { csg: 2 }],
    'full feature stage': ['0200', who(OPEN), { csg: 3 }],
    'transition to itself': ['0200', who(OPEN), { csg: 1, nsg: 1 }],
    'transition back': ['0200', who(OPEN), { csg: 1, nsg: 0 }],
    'transition to 2': ['0200', who(OPEN), { csg: 0, nsg: 2 }],
    'T and C': ['0200', who(OPEN), { continued: true }],
    'key twice': ['0200', [...who(OPEN), 'InitialR2T=No', 'InitialR2T=No']],
    'two initiators': ['0200', [...who(OPEN), 'InitiatorName=iqn.2026-01.lab.x']],
    'reserved word proposed': ['0200', [...who(OPEN), 'MaxBurstLength=Irrelevant']],
    'no pair': ['0200', [...who(OPEN), 'MaxBurstLength']],
    'not UTF-8': ['0200', [], { text: Buffer.from([0x41, 0x3d, 0xff, 0]) }],
  }
  for (const [name, [expected, text, header]] of Object.entries(cases)) {
    const { send, login } = site()
    const reply = send(text, header)
    t.equal(status(reply), expected, name)
    t.match(reply, { transit: false, continued: false, text: Buffer.alloc(0) })
    t.equal(reply.outcome, undefined)
    t.type(login.lastFailure, 'string')
    t.not(send(who(OPEN)).statusClass, 0, 'a refused login stays refused')
  }
})

t.test('why a login was refused', async (t) => {
  const reason = (...args: Parameters<ReturnType<typeof site>['send']>): string | undefined => {
    const { login, send } = site()
    send(...args)
    return login.lastFailure
  }
  t.match(reason(who(DENIED)), /target iqn.*denied does not admit iqn.*: it has no auth/)
  t.match(reason(who(LISTED, 'iqn.1993-08.org.debian:02')), /debian:02: its auth does not list/)
  t.match(reason(who(ELSEWHERE)), /not offered on portal san/)
  t.match(reason([...who(LOCKED), 'AuthMethod=None'], SECURITY), /AuthMethod=None offered, CHAP/)
  t.ok((reason(who('x'.repeat(5000)))?.length ?? 0) < 500, 'of bounded length')
  const { login, send } = site()
  send(who(OPEN))
  t.equal(login.lastFailure, undefined)
  t.equal(login.initiatorName, DEBIAN)
  t.equal(login.target?.name, OPEN)
})

t.test('a TSIH of a session that lives', async (t) => {
  const asked: unknown[] = []
  const { send } = site({
    hasSession: (...args) => {
      asked.push(args)
      return true
    },
  })
  t.equal(status(send(who(OPEN), { tsih: 5 })), '0206')
  t.same(asked, [[DEBIAN, ISID, 5]])
})

t.test('nothing is told of sessions before the proof', async (t) => {
  for (const lives of [true, false]) {
    const attempt = (credentials = CHAP): string => {
      const { send } = site({ hasSession: () => lives })
      const header = { ...SECURITY, tsih: 5 }
      t.equal(status(send([...who(LOCKED), 'AuthMethod=CHAP'], header)), '0000')
      const challenge = send(['CHAP_A=7'], header)
      return status(send(proof(challenge, credentials), header))
    }
    t.equal(attempt({ ...CHAP, secret: Buffer.from('a-wrong-secret') }), '0201')
    t.equal(attempt(), lives ? '0206' : '020a', 'and then it is')
    const { send } = site({ hasSession: () => lives })
    t.equal(status(send(who(LOCKED), { ...SECURITY, tsih: 5 })), '0201', 'no method offered')
  }
})

t.test('what an initiator gets wrong about itself', async (t) => {
  const { send, login } = site()
  const hostile = 'Esx_1\u009b'
  t.equal(status(send(who(OPEN, hostile.padEnd(3000, 'x')))), '0200')
  t.match(login.lastFailure, /^InitiatorName "Esx_1.*" does not have the form that RFC 7143/)
  t.match(login.lastFailure, /change it on that host to iqn\.YYYY-MM/)

  const alias = site()
  const text = Buffer.concat([
    request(who(OPEN)).text,
    Buffer.from('InitiatorAlias=\xff\0', 'latin1'),
  ])
  t.match(alias.send([], { text }).outcome, { initiatorName: DEBIAN })

  for (const value of ['100', '0', '16777216', 'many']) {
    const { send } = site()
    const reply = send([...who(OPEN), `MaxRecvDataSegmentLength=${value}`])
    t.same(lines(reply).slice(2), ['MaxRecvDataSegmentLength=Reject'], `${value}: answered once`)
    t.equal(reply.outcome?.parameters.sendSegmentBytes, 8192, 'the default')
  }
})

t.test('the alias is for who has proved itself', async (t) => {
  const { send, registry } = site()
  const auth = [{ name: 'h', chap: CHAP }]
  registry.get(LOCKED)?.update(targetInit(LOCKED, auth, { alias: 'Payroll' }))
  const first = send([...who(LOCKED), 'AuthMethod=CHAP'], SECURITY)
  t.same(lines(first), ['TargetPortalGroupTag=7', 'AuthMethod=CHAP'])
  t.equal(answerTo(send(proof(send(['CHAP_A=7'], SECURITY)), SECURITY), 'TargetAlias'), undefined)
  t.equal(answerTo(send([]), 'TargetAlias'), 'Payroll')
})

t.test('wrong secrets and wrong order never log in', async (t) => {
  const wrong = { user: 'esx', secret: Buffer.from('another-secret') }
  const { send, login } = site()
  send([...who(LOCKED), 'AuthMethod=CHAP'], SECURITY)
  const challenge = send(['CHAP_A=5'], SECURITY)
  t.match(challenge, { statusClass: 0, transit: false }, 'no transition before the proof')
  t.equal(status(send(proof(challenge, wrong), SECURITY)), '0201')
  t.match(login.lastFailure, /wrong CHAP response from user "esx"/)
  t.equal(status(send(proof(challenge), SECURITY)), '020b')

  const empty = site()
  empty.send([...who(LOCKED), 'AuthMethod=CHAP'], SECURITY)
  for (let i = 2; i <= LOGIN_REQUESTS; i++) {
    t.match(empty.send([], { csg: 0, nsg: 3 }), { statusClass: 0, transit: false })
  }
  t.equal(status(empty.send([], { csg: 0, nsg: 3 })), '0200', 'and not for ever')

  const forward = site()
  forward.send([...who(LOCKED), 'AuthMethod=CHAP'], SECURITY)
  t.equal(status(forward.send([])), '0200', 'the stage is not the initiator’s to choose')
})

t.test('header fields stay the same over a login', async (t) => {
  for (const change of [{ isid: Buffer.alloc(6) }, { cid: 1 }, { tsih: 1 }]) {
    const { send } = site()
    t.match(send(who(OPEN), STAY), { statusClass: 0, transit: false })
    t.equal(status(send([], change)), '0200')
  }
})

t.test('keys of other places and times', async (t) => {
  const { send } = site()
  const reply = send(
    [
      ...who(OPEN),
      'SendTargets=All',
      'TargetPortalGroupTag=1',
      'TargetAddress=10.0.0.1',
      'AuthMethod=None',
      'CHAP_A=5',
      'X#NodeArchitecture=x86',
      'RDMAExtensions=Yes',
      `InitiatorAlias=${'a'.repeat(256)}`,
    ],
    STAY,
  )
  t.same(lines(reply).slice(2, -1), [
    'SendTargets=Reject',
    'TargetAddress=Reject',
    'AuthMethod=Reject',
    'CHAP_A=Reject',
    'X#NodeArchitecture=NotUnderstood',
    'RDMAExtensions=NotUnderstood',
    'InitiatorAlias=Reject',
  ])
  t.match(send(['TargetAlias=NotUnderstood', 'MaxRecvDataSegmentLength=8192'], STAY), {
    statusClass: 0,
  })
  const last = send(['MaxRecvDataSegmentLength=Irrelevant'])
  t.equal(last.outcome?.parameters.sendSegmentBytes, 8192, 'answers to declarations change nothing')
  t.notOk('initiatorAlias' in (last.outcome ?? {}))

  const late = site()
  late.send([`InitiatorName=${DEBIAN}`, `TargetName=${OPEN}`], STAY)
  t.equal(status(late.send(['SessionType=Discovery'])), '0200')
  const again = site()
  again.send([...who(OPEN), 'MaxBurstLength=4096'], STAY)
  t.equal(status(again.send(['MaxBurstLength=8192'])), '0200', 'no renegotiation')
  const other = site()
  other.send(who(OPEN), STAY)
  t.equal(status(other.send([`TargetName=${LISTED}`])), '0200', 'no change of target')
})

t.test('text over several requests', async (t) => {
  const { send } = site()
  const text = request([...who(OPEN), 'MaxBurstLength=65536', 'InitialR2T=No']).text
  for (let at = 0; at < text.length - 10; at += 10) {
    const part = { transit: false, continued: true, text: text.subarray(at, at + 10) }
    const reply = send([], part)
    t.match(reply, { statusClass: 0, transit: false, continued: false, text: Buffer.alloc(0) })
  }
  const last = send([], { text: text.subarray(-(text.length % 10 || 10)) })
  t.match(last.outcome?.parameters, { maxBurstBytes: 65536, initialR2t: false })
})

t.test('text without bound', async (t) => {
  const part = { transit: false, continued: true, text: Buffer.alloc(8192, 0x41) } as const
  const { send } = site()
  t.equal(status(send([], part)), '0000')
  t.equal(status(send([], part)), '0000')
  t.equal(status(send([], part)), '0200')

  const empty = site()
  t.equal(status(empty.send([], { transit: false, continued: true })), '0200', 'more of nothing')

  const keys = site()
  const many = Array.from({ length: 100 }, (_, i) => `X-key${i}=1`)
  t.equal(status(keys.send([...who(OPEN), ...many], STAY)), '0000')
  t.equal(status(keys.send(Array.from({ length: 50 }, (_, i) => `X-more${i}=1`))), '0200')
})

t.test('an answer over several replies', async (t) => {
  const { send } = site()
  const names = Array.from({ length: 120 }, (_, i) => `X-${i}-`.padEnd(63, 'k'))
  const first = send([...who(OPEN), ...names.map((name) => `${name}=1`)])
  t.match(first, { statusClass: 0, transit: false, continued: true })
  t.equal(first.text.length, 8192)
  const last = send([])
  t.match(last, { statusClass: 0, transit: true, continued: false, nsg: 3 })
  t.ok(last.outcome)
  const answered = decodeText(Buffer.concat([first.text, last.text])).map(([name]) => name)
  t.same(
    answered.filter((name) => name.startsWith('X-')),
    names,
  )

  const rude = site()
  rude.send([...who(OPEN), ...names.map((name) => `${name}=1`)])
  t.equal(status(rude.send(['InitialR2T=No'])), '0200', 'new text before the answer is fetched')
})

t.test('discovery with its own authentication', async (t) => {
  const auth = {
    name: 'd',
    chap: CHAP,
    initiators: new InitiatorNames(['iqn.1993-08.org.debian:*']),
  }
  const portalGroup = { ...SAN, discoveryAuth: [auth] }
  const discovery = (name = DEBIAN): string[] => [`InitiatorName=${name}`, 'SessionType=Discovery']
  const skipped = site({ portalGroup })
  t.equal(status(skipped.send(discovery())), '0201')
  const unlisted = site({ portalGroup })
  t.equal(status(unlisted.send(discovery('iqn.2026-01.lab.x'))), '0202')
  const { send } = site({ portalGroup })
  send([...discovery(), 'AuthMethod=CHAP'], SECURITY)
  const last = send(proof(send(['CHAP_A=7'], SECURITY)), { csg: 0, nsg: 3 })
  t.match(last.outcome, { sessionType: 'discovery', proof: { user: 'esx' } })
})

t.test('digests that the portal demands', async (t) => {
  const digests = { header: ['CRC32C'], data: ['CRC32C', 'None'] } as const
  const portalGroup = { ...SAN, digests }
  const silent = site({ portalGroup })
  t.equal(status(silent.send(who(OPEN))), '0200')
  t.match(silent.login.lastFailure, /demands HeaderDigest/)
  const { send } = site({ portalGroup })
  const reply = send([...who(OPEN), 'HeaderDigest=CRC32C', 'DataDigest=CRC32C,None'])
  t.match(reply.outcome?.parameters, { headerDigest: true, dataDigest: true })
})

t.test('a configuration that changes under a login', async (t) => {
  const removed = site()
  removed.send(who(OPEN), STAY)
  removed.registry.remove(OPEN)
  t.equal(status(removed.send([])), '0203')

  const locked = site()
  locked.send(who(OPEN), STAY)
  locked.registry.get(OPEN)?.update(targetInit(OPEN, [{ name: 'h', chap: CHAP }]))
  t.equal(status(locked.send([])), '0301', 'it must begin anew under the new rules')
})

t.test('the trace shows the text but no response', async (t) => {
  let written = ''
  const log = createLogger('debug', 'json', (text) => {
    written += text
  })
  const { send } = site({ log })
  send([...who(LOCKED), 'AuthMethod=CHAP'], SECURITY)
  send(proof(send(['CHAP_A=5'], SECURITY)), SECURITY)
  t.match(written, /AuthMethod=CHAP -> TargetPortalGroupTag=7/)
  t.match(written, /CHAP_N=esx CHAP_R=… ->/)
  t.notMatch(written, /CHAP_R=0x/)
})

// Pieces of real logins, right and wrong, from which the properties build texts.
const IDENTITIES = [
  who(OPEN),
  who(LOCKED),
  [`InitiatorName=${DEBIAN}`, 'SessionType=Discovery'],
  [...who(LOCKED), 'AuthMethod=CHAP'],
  [...who(LOCKED), 'AuthMethod=CHAP,None'],
  [...who(OPEN), 'AuthMethod=None'],
  who(LISTED),
]
const PIECES = [
  'AuthMethod=CHAP,None',
  'AuthMethod=None',
  'CHAP_A=5,6,7,8',
  'CHAP_N=esx',
  'CHAP_R=0x00000000000000000000000000000000',
  'CHAP_I=1',
  'CHAP_C=0x1234',
  'HeaderDigest=CRC32C',
  'InitialR2T=No',
  'ImmediateData=No',
  'MaxBurstLength=512',
  'FirstBurstLength=16777215',
  'MaxRecvDataSegmentLength=0',
  'MaxOutstandingR2T=65535',
  'TargetAlias=Reject',
  'Unknown=1',
]

const pieces = fc.subarray(PIECES, { maxLength: 4 })
const lead = fc
  .tuple(fc.constantFrom(...IDENTITIES), pieces)
  .map(([identity, some]) => [...identity, ...some])
const plain = fc.oneof(lead, pieces, fc.constant([])).map((some) => request(some).text)
const anyText = fc.oneof(
  { weight: 6, arbitrary: plain },
  { weight: 1, arbitrary: fc.uint8Array({ maxLength: 200 }).map((bytes) => Buffer.from(bytes)) },
  {
    weight: 2,
    arbitrary: fc.tuple(lead, fc.nat(), fc.nat({ max: 255 })).map(([some, at, byte]) => {
      const { text } = request(some)
      text.writeUInt8(byte, at % text.length)
      return text
    }),
  },
)

/** Headers that a real initiator could send, with any text. */
const likelyRequest: fc.Arbitrary<LoginRequest> = fc
  .tuple(fc.boolean(), fc.constantFrom([0, 1], [0, 3], [1, 3]), anyText)
  .map(([transit, stages, text]) =>
    request([], { transit, csg: stages[0] ?? 0, nsg: stages[1] ?? 0, text }),
  )
const wildRequest: fc.Arbitrary<LoginRequest> = fc.record({
  transit: fc.boolean(),
  continued: fc.boolean(),
  csg: fc.nat({ max: 3 }),
  nsg: fc.nat({ max: 3 }),
  versionMin: fc.constantFrom(0, 0, 0, 1),
  versionMax: fc.constant(0),
  isid: fc.constantFrom(ISID, Buffer.alloc(6)),
  tsih: fc.constantFrom(0, 0, 0, 9),
  cid: fc.constant(0),
  text: anyText,
})
const anyLogin = fc.array(
  fc.oneof({ weight: 6, arbitrary: likelyRequest }, { weight: 1, arbitrary: wildRequest }),
  { maxLength: 6 },
)

t.test('property: nothing throws, what is agreed is legal, CHAP is never passed by', async (t) => {
  let outcomes = 0
  fc.assert(
    fc.property(anyLogin, (requests) => {
      const { login } = site()
      for (const each of requests) {
        const reply = login.handle(each)
        t.ok(reply.text.length <= 8192)
        t.notOk(reply.transit && reply.continued)
        t.notOk(reply.transit && !each.transit)
        if (!reply.outcome) continue
        outcomes++
        assertSessionParameters(reply.outcome.parameters)
        t.not(reply.outcome.target?.name, LOCKED, 'nobody here knows the secret')
        t.match(reply, { statusClass: 0, transit: true, nsg: 3 })
      }
    }),
    { numRuns: 1500 },
  )
  t.ok(outcomes >= 10, `some of them log in (${outcomes})`)
})

t.test(
  'property: any mutation of a valid CHAP login agrees or fails, and never on another secret',
  async (t) => {
    fc.assert(
      fc.property(
        fc.nat({ max: 2 }),
        fc.nat(),
        fc.integer({ min: 1, max: 255 }),
        (where, at, flip) => {
          const { login } = site()
          let reply = login.handle(request([...who(LOCKED), 'AuthMethod=CHAP'], SECURITY))
          const steps = [
            () => request(['CHAP_A=7'], SECURITY),
            () => request(proof(reply), SECURITY),
            () => request(['MaxBurstLength=65536', 'InitialR2T=No']),
          ]
          steps.forEach((step, i) => {
            if (reply.statusClass !== 0) return
            if (i === 1 && !answerTo(reply, 'CHAP_C')) return
            const next = step()
            const index = at % next.text.length
            if (i === where) next.text.writeUInt8(next.text.readUInt8(index) ^ flip, index)
            reply = login.handle(next)
          })
          if (reply.outcome) {
            assertSessionParameters(reply.outcome.parameters)
            t.equal(reply.outcome.proof?.user, 'esx')
          } else t.ok(true)
        },
      ),
      { numRuns: 400 },
    )
  },
)
