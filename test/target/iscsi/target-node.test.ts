import t from 'tap'
import { defined } from '../../../src/base/assert.ts'
import { PlexusError } from '../../../src/base/errors.ts'
import { SEND_TARGETS_KEPT_BYTES } from '../../../src/base/limits.ts'
import { InitiatorNames } from '../../../src/iscsi/names.ts'
import { decodeText, encodeText, type TextPair } from '../../../src/iscsi/text.ts'
import { type AuthGroup, admits, authGroupProblem } from '../../../src/target/iscsi/auth.ts'
import {
  type PortalGroup,
  type TargetInit,
  TargetNode,
  TargetRegistry,
} from '../../../src/target/iscsi/target-node.ts'
import { handleText, type TextRequest } from '../../../src/target/iscsi/text-request.ts'
import type { LogicalUnit, LunMapping } from '../../../src/target/scsi/types.ts'

const ESX1 = 'iqn.1998-01.com.vmware:esx1'
const ESX2 = 'iqn.1998-01.com.vmware:esx2'
const WIN = 'iqn.1991-05.com.microsoft:win'

/** Kind of the PlexusError that a function throws. */
function thrownKind(action: () => unknown): string {
  try {
    action()
  } catch (error) {
    return error instanceof PlexusError ? error.kind : String(error)
  }
  return 'nothing'
}

function portal(name: string, tag: number, ...listen: [string, number][]): PortalGroup {
  return {
    name,
    tag,
    listen: listen.map(([host, port]) => ({ host, port })),
    digests: { header: ['CRC32C', 'None'], data: ['CRC32C', 'None'] },
    discoveryAuth: 'none',
  }
}

const mapping = (lun: number, readOnly = false): [number, LunMapping] => [
  lun,
  // Only identity matters here: targets hand units on and never look into them.
  { lun, unit: { name: `unit ${lun}` } as LogicalUnit, readOnly },
]

const SAN = portal('san', 1, ['10.0.10.5', 3260], ['fd00::5', 3260])
const LAB = portal('lab', 2, ['0.0.0.0', 3261])
const VMWARE: AuthGroup = {
  name: 'hypervisors',
  initiators: new InitiatorNames(['iqn.1998-01.com.vmware:*']),
}
const CHAP = { user: 'esx', secret: Buffer.from('initiator-secret') }
const MUTUAL = { user: 'plexus', secret: Buffer.from('target-secret-1') }

const init = (name: string, more: Partial<TargetInit> = {}): TargetInit => ({
  name: `iqn.2026-01.lab.plexus:${name}`,
  alias: undefined,
  portalGroups: [SAN],
  auth: 'none',
  luns: new Map([mapping(0), mapping(1), mapping(7, true)]),
  ...more,
})

t.test('who is admitted', async (t) => {
  t.equal(new TargetNode(init('a', { auth: [] })).admits(ESX1), false, 'denied by default')
  t.equal(new TargetNode(init('a', { auth: 'none' })).admits(WIN), true)
  const listed = new TargetNode(init('a', { auth: [VMWARE] }))
  t.equal(listed.admits(ESX1), true)
  t.equal(listed.admits(WIN), false)
  const chap = new TargetNode(init('a', { auth: [{ name: 'c', chap: CHAP }] }))
  t.equal(chap.admits(WIN), true, 'any name; the proof is another matter')
  const upper = new TargetNode(
    init('a', { auth: [{ name: 'u', initiators: new InitiatorNames([ESX1.toUpperCase()]) }] }),
  )
  t.equal(upper.admits(ESX1), true, 'names compare without case')
})

t.test('a thousand patterns for a thousand targets and sessions', async (t) => {
  const rows = (row: (at: number) => string) => Array.from({ length: 1000 }, (_, at) => row(at))
  const group = {
    name: 'g',
    initiators: new InitiatorNames(rows((at) => `iqn.2026-01.x:*r${at}-*`)),
  }
  const names = rows((at) => `iqn.2026-01.x:host-r999-${at}`)
  const startedMs = performance.now()
  for (const name of names) new TargetNode(init(name.slice(-4), { auth: [group] }))
  const targetsMs = performance.now() - startedMs
  t.ok(targetsMs < 200, `${targetsMs} ms: names are normalized once for all targets`)
  t.ok(names.every((name) => admits([group], name, undefined)))
  const sessionsMs = performance.now() - startedMs - targetsMs
  t.ok(sessionsMs < 500, `${sessionsMs} ms: and patterns taken apart once for all sessions`)
})

t.test('ports have identifiers', async (t) => {
  const target = new TargetNode(init('a', { portalGroups: [LAB, SAN] }))
  t.strictSame(target.ports(), [
    {
      portalGroup: 'lab',
      tag: 2,
      relativePortId: 2,
      name: 'iqn.2026-01.lab.plexus:a,t,0x0002',
    },
    {
      portalGroup: 'san',
      tag: 1,
      relativePortId: 1,
      name: 'iqn.2026-01.lab.plexus:a,t,0x0001',
    },
  ])
  target.update(init('a', { portalGroups: [LAB, SAN], portIds: new Map([['lab', 17]]) }))
  t.strictSame(
    target.ports().map((port) => port.relativePortId),
    [17, 1],
    'what the daemon has given them; the tag otherwise',
  )
})

t.test('auth groups that would let in more than meant are refused', async (t) => {
  t.equal(authGroupProblem(VMWARE), undefined)
  t.equal(authGroupProblem({ name: 'g', chap: CHAP, mutual: MUTUAL }), undefined)
  t.match(authGroupProblem({ name: 'g' }), /neither chap nor initiators/)
  t.match(authGroupProblem({ name: 'g', mutual: MUTUAL }), /mutual without chap/)
  t.match(
    authGroupProblem({ name: 'g', chap: CHAP, mutual: { ...MUTUAL, secret: CHAP.secret } }),
    /one secret/,
  )
  t.match(
    authGroupProblem({ name: 'g', chap: { user: 'u', secret: Buffer.from('short') } }),
    /5 bytes/,
  )
  t.equal(
    thrownKind(() => new TargetNode(init('a', { auth: [{ name: 'g' }] }))),
    'invalid',
  )
})

t.test('LUN masks', async (t) => {
  const open = new TargetNode(init('a'))
  t.same([...open.lunsFor(WIN).keys()], [0, 1, 7], 'without access all see all')
  const masked = new TargetNode(
    init('a', {
      access: new Map([
        [
          ESX1.toUpperCase(),
          [
            { lun: 0, readOnly: false },
            { lun: 7, readOnly: false },
          ],
        ],
        [
          ESX2,
          [
            { lun: 0, readOnly: true },
            { lun: 99, readOnly: false },
          ],
        ],
        [WIN, []],
      ]),
    }),
  )
  const view = (name: string): [number, boolean][] =>
    [...masked.lunsFor(name)].map(([lun, { readOnly }]) => [lun, readOnly])
  t.same(
    view(ESX1),
    [
      [0, false],
      [7, true],
    ],
    'a read-only LUN stays so',
  )
  t.same(view(ESX2), [[0, true]], 'a LUN that is gone is not seen')
  t.same(view(WIN), [])
  t.same(view('iqn.1998-01.com.vmware:esx3'), [], 'who is not in it sees none')
  t.equal(masked.lunsFor(ESX2).get(0)?.unit, masked.luns.get(0)?.unit)
})

t.test('update keeps the object and changes all or nothing', async (t) => {
  const target = new TargetNode(init('a'))
  target.update(init('A', { alias: 'Database', auth: [VMWARE] }))
  t.equal(target.alias, 'Database')
  t.equal(target.admits(WIN), false)
  t.equal(
    thrownKind(() => target.update(init('a', { auth: [{ name: 'bad' }] }))),
    'invalid',
  )
  t.equal(
    thrownKind(() => target.update(init('a', { access: new Map([['nobody', []]]) }))),
    'invalid',
  )
  t.equal(
    thrownKind(() => target.update(init('a', { alias: 'a\0b' }))),
    'invalid',
  )
  t.equal(target.alias, 'Database', 'as before')
  t.throws(() => target.update(init('b')), /never renamed/)
  t.equal(
    thrownKind(() => new TargetNode({ ...init('a'), name: 'disk one' })),
    'invalid',
  )
  t.equal(
    thrownKind(
      () =>
        new TargetNode(
          init('a', {
            access: new Map([
              [ESX1, []],
              [ESX1.toUpperCase(), []],
            ]),
          }),
        ),
    ),
    'invalid',
  )
})

t.test('the registry', async (t) => {
  const registry = new TargetRegistry()
  const a = new TargetNode(init('a'))
  const b = new TargetNode(init('b', { auth: [VMWARE], portalGroups: [SAN, LAB] }))
  registry.set(a)
  registry.set(b)
  registry.set(a)
  t.equal(registry.get('IQN.2026-01.LAB.PLEXUS:A'), a)
  t.equal(registry.get('nonsense'), undefined)
  t.equal(
    thrownKind(() => registry.set(new TargetNode(init('a')))),
    'exists',
  )
  t.same(registry.visibleTo(ESX1, SAN), [a, b])
  t.same(registry.visibleTo(WIN, SAN), [a])
  t.same(registry.visibleTo(ESX1, { ...LAB }), [b], 'portal groups are told apart by name')
  t.equal(registry.remove('iqn.2026-01.lab.plexus:a'), a)
  t.equal(registry.remove('iqn.2026-01.lab.plexus:a'), undefined)
  t.same(registry.all(), [b])
})

function site() {
  const registry = new TargetRegistry()
  const target = new TargetNode(init('a', { portalGroups: [SAN, LAB] }))
  registry.set(target)
  registry.set(new TargetNode(init('b', { auth: [VMWARE] })))
  registry.set(new TargetNode(init('c', { auth: [] })))
  registry.set(new TargetNode(init('d', { portalGroups: [LAB] })))
  const request = (text: string | Buffer, more: Partial<TextRequest> = {}): TextRequest => ({
    text: Buffer.from(text as string),
    sessionType: 'discovery',
    target: undefined,
    initiatorName: ESX1,
    registry,
    portalGroup: SAN,
    localAddress: '10.0.10.5',
    localPort: 3260,
    ...more,
  })
  const normal = (text: string, more: Partial<TextRequest> = {}): TextRequest =>
    request(text, { sessionType: 'normal', target, ...more })
  return { registry, target, request, normal }
}

/** The pairs of an answer, or a pair that names the reason of a reject. */
function pairsOf(request: TextRequest): TextPair[] {
  const result = handleText(request)
  return 'rejectReason' in result
    ? [['reject', String(result.rejectReason)]]
    : decodeText(result.text)
}
const REJECTED: TextPair[] = [['reject', '4']]
const A: TextPair = ['TargetName', 'iqn.2026-01.lab.plexus:a']
const B: TextPair = ['TargetName', 'iqn.2026-01.lab.plexus:b']
const address = (value: string): TextPair => ['TargetAddress', value]

t.test('SendTargets in a discovery session', async (t) => {
  const { request } = site()
  const recordA = [
    A,
    address('10.0.10.5:3260,1'),
    address('[fd00::5]:3260,1'),
    address('10.0.10.5:3261,2'),
  ]
  const recordB = [B, address('10.0.10.5:3260,1'), address('[fd00::5]:3260,1')]
  t.same(pairsOf(request('SendTargets=All\0')), [...recordA, ...recordB])
  t.same(pairsOf(request('SendTargets=All\0', { initiatorName: WIN })), recordA, 'not what denies')
  t.same(pairsOf(request(`SendTargets=${B[1]}\0`)), recordB)
  t.same(pairsOf(request(`SendTargets=${B[1]}\0`, { initiatorName: WIN })), [], 'not there for it')
  t.same(pairsOf(request('SendTargets=iqn.2026-01.lab.plexus:zzz\0')), [])
  t.same(pairsOf(request('SendTargets=\0')), REJECTED, 'there is no own target')
})

t.test('SendTargets in a normal session tells the own target only', async (t) => {
  const { normal } = site()
  const own = pairsOf(normal('SendTargets=\0'))
  t.same(own[0], A)
  t.equal(own.filter(([key]) => key === 'TargetName').length, 1)
  t.same(pairsOf(normal('SendTargets=All\0')), own)
  t.same(pairsOf(normal(`SendTargets=${A[1].toUpperCase()}\0`)), own)
  t.same(pairsOf(normal(`SendTargets=${B[1]}\0`)), REJECTED)
})

t.test('what libiscsi sends and wants to fail without losing the session', async (t) => {
  const { normal } = site()
  for (const text of [
    'SendTargetsPlease=All\0',
    'SendTargets=Alle\0',
    'SendTargets=A\0',
    'sENDtARGETS=aLL\0',
  ]) {
    t.same(pairsOf(normal(text)), REJECTED, text)
  }
  t.same(pairsOf(normal('SendTargets=All\0'))[0], A)
})

t.test('addresses that the initiator can use', async (t) => {
  const told = (listen: [string, number][], localAddress: string): string[] => {
    const { registry, request } = site()
    const target = defined(registry.get(A[1]), 'target a')
    target.update(init('a', { portalGroups: [portal('san', 1, ...listen)] }))
    return pairsOf(request(`SendTargets=${A[1]}\0`, { localAddress }))
      .slice(1)
      .map(([, value]) => value)
  }
  t.same(told([['0.0.0.0', 3260]], '192.0.2.7'), ['192.0.2.7:3260,1'])
  t.same(told([['0.0.0.0', 3260]], '::ffff:192.0.2.7'), ['192.0.2.7:3260,1'], 'a mapped address')
  t.same(told([['0.0.0.0', 3260]], 'fd00::9'), [], 'no IPv6 request comes through 0.0.0.0')
  t.same(told([['::', 3260]], 'fd00::9'), ['[fd00::9]:3260,1'])
  t.same(told([['::', 3260]], '192.0.2.7'), [], 'nor one of IPv4 through a socket of IPv6 alone')
  t.same(
    told(
      [
        ['0.0.0.0', 3260],
        ['::', 3260],
      ],
      '192.0.2.7',
    ),
    ['192.0.2.7:3260,1'],
    'once',
  )
  t.same(told([['::', 3260]], 'fe80::1%eth0'), [], 'link-local')
  t.same(
    told(
      [
        ['fe80::1', 3260],
        ['192.0.2.7', 3260],
      ],
      '192.0.2.7',
    ),
    ['192.0.2.7:3260,1'],
  )
  t.same(
    told(
      [
        ['127.0.0.1', 3260],
        ['192.0.2.7', 3260],
      ],
      '192.0.2.7',
    ),
    ['192.0.2.7:3260,1'],
  )
  t.same(told([['127.0.0.1', 3260]], '127.0.0.1'), ['127.0.0.1:3260,1'])
  t.same(told([['::1', 3260]], '::1'), ['[::1]:3260,1'])
  t.same(told([['0.0.0.0', 0]], '127.0.0.1'), ['127.0.0.1:3260,1'], 'the port that was chosen')
})

t.test('advertised addresses stand in for those that are listened on', async (t) => {
  const { registry, request } = site()
  const nat = {
    ...portal('san', 1, ['10.0.10.5', 3260]),
    advertise: [
      { host: '203.0.113.5', port: 3261 },
      { host: '2001:db8::5', port: 3260 },
      { host: 'san.example.org', port: 3260 },
    ],
  }
  registry.get(A[1])?.update(init('a', { portalGroups: [nat] }))
  t.same(pairsOf(request(`SendTargets=${A[1]}\0`)).slice(1), [
    address('203.0.113.5:3261,1'),
    address('[2001:db8::5]:3260,1'),
    address('san.example.org:3260,1'),
  ])
})

t.test('a list is made once for each asker, until something changes', async (t) => {
  const { registry, target, request } = site()
  const list = (more: Partial<TextRequest> = {}): Buffer => {
    const result = handleText(request('SendTargets=All\0', more))
    return 'text' in result ? result.text : Buffer.alloc(0)
  }
  const first = list()
  t.equal(list(), first, 'the same bytes')
  t.not(list({ initiatorName: WIN }).toString(), first.toString(), 'another asker, another list')
  t.match(list({ localAddress: '10.0.10.6' }).toString(), '10.0.10.6:3261,2')
  t.match(list({ portalGroup: LAB }).toString(), 'plexus:d')
  target.update(init('a', { portalGroups: [LAB] }))
  registry.changed()
  t.not(list(), first)
  t.notMatch(list().toString(), 'plexus:a')
  registry.remove('iqn.2026-01.lab.plexus:b')
  t.equal(list().length, 0, 'a target that was removed')
  for (let i = 0; i < 400; i++) registry.set(new TargetNode(init(`disk${i}`)))
  const oldest = list({ localPort: 1 })
  const lengths = Array.from({ length: 200 }, (_, i) => list({ localPort: i + 1 }).length)
  t.ok(lengths.reduce((sum, bytes) => sum + bytes, 0) > SEND_TARGETS_KEPT_BYTES)
  t.not(list({ localPort: 1 }), oldest, 'the oldest is given up')
})

t.test('other keys in full feature phase', async (t) => {
  const { normal, request } = site()
  t.same(handleText(normal('MaxRecvDataSegmentLength=65536\0')), {
    text: Buffer.alloc(0),
    newSendSegmentBytes: 65536,
  })
  t.same(pairsOf(normal('MaxRecvDataSegmentLength=100\0')), [
    ['MaxRecvDataSegmentLength', 'Reject'],
  ])
  t.same(pairsOf(normal('MaxBurstLength=4096\0X-org.example=1\0')), [
    ['MaxBurstLength', 'Reject'],
    ['X-org.example', 'NotUnderstood'],
  ])
  t.same(pairsOf(normal('InitiatorAlias=me\0')), [])
  t.same(pairsOf(normal('')), [])
  t.same(pairsOf(normal('MaxBurstLength=Irrelevant\0')), REJECTED)
  t.same(pairsOf(normal('SendTargets=All\0SendTargets=All\0')), REJECTED)
  t.same(pairsOf(normal('nonsense\0')), REJECTED)
  t.same(pairsOf(request(Buffer.from([0x41, 0x3d, 0xff]))), REJECTED)
  const rejected = handleText(
    normal('MaxRecvDataSegmentLength=65536\0MaxRecvDataSegmentLength=8192\0'),
  )
  t.notOk('newSendSegmentBytes' in rejected, 'a rejected request changes nothing')
})

t.test('a long list comes whole', async (t) => {
  const { registry, request } = site()
  for (let i = 0; i < 300; i++) registry.set(new TargetNode(init(`disk${i}`)))
  const result = handleText(request('SendTargets=All\0'))
  const text = 'text' in result ? result.text : Buffer.alloc(0)
  t.ok(text.length > 16384)
  t.equal(text.toString().match(/TargetName=/g)?.length, 302)
  t.ok(text.subarray(-1).equals(encodeText([['', '']]).subarray(-1)), 'ends with NUL')
})
