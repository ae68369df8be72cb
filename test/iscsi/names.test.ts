import t from 'tap'
import {
  formatIsid,
  InitiatorNames,
  initiatorPortName,
  normalizeInitiatorPattern,
  normalizeIscsiName,
  targetPortName,
} from '../../src/iscsi/names.ts'

t.test('names that initiators and targets really have', async (t) => {
  for (const name of [
    'iqn.1993-08.org.debian:01:a1b2c3d4e5f6',
    'iqn.1991-05.com.microsoft:win-7k3_lab.example.com',
    'iqn.1998-01.com.vmware:esx1-4a5b6c7d',
    'iqn.2007-10.com.github:sahlberg:libiscsi:iscsi-test-2',
    'iqn.2026-01.lab.plexus:db',
    'iqn.2026-01.lab.plexus',
    'eui.02004567a425678d',
    'naa.52004567ba64678d',
    'naa.62004567ba64678d0123456789abcdef',
    'iqn.2026-01.lab.plexus:größe',
  ]) {
    t.equal(normalizeIscsiName(name), name)
  }
})

t.test('case and compatibility forms compare equal', async (t) => {
  t.equal(normalizeIscsiName('IQN.1998-01.COM.VMware:ESX1'), 'iqn.1998-01.com.vmware:esx1')
  t.equal(normalizeIscsiName('EUI.02004567A425678D'), 'eui.02004567a425678d')
  // Full-width letters are other code points for the same name (RFC 3722).
  t.equal(normalizeIscsiName('iqn.2026-01.lab.plexus:ａｂ'), 'iqn.2026-01.lab.plexus:ab')
})

t.test('what is no name', async (t) => {
  for (const name of [
    '',
    'iqn.',
    'iqn.2026-01',
    'iqn.2026-13.lab.plexus:db',
    'iqn.2026-1.lab.plexus:db',
    'iqn.2026-01.lab.plexus:a b',
    'iqn.2026-01.lab.plexus:a/b',
    'iqn.2026-01.lab.plexus:a,t,0x1',
    'iqn.2026-01.lab.plexus:*',
    'iqn.2026-01.lab.plexus:a\n',
    'iqn.2026-01..lab',
    'eui.02004567a425678',
    'eui.02004567a425678g',
    'naa.1234',
    'All',
    ' iqn.2026-01.lab.plexus:db',
  ]) {
    t.equal(normalizeIscsiName(name), undefined, JSON.stringify(name))
  }
})

t.test('223 bytes of UTF-8 are the limit', async (t) => {
  const head = 'iqn.2026-01.lab.plexus:'
  const longest = head + 'x'.repeat(223 - head.length)
  t.equal(normalizeIscsiName(longest), longest)
  t.equal(normalizeIscsiName(`${longest}x`), undefined)
  t.equal(normalizeIscsiName(head + 'ü'.repeat(101)), undefined, 'bytes count, not characters')
  // One character that folds to many must not slip past the limit.
  t.equal(normalizeIscsiName(head + 'ﷺ'.repeat(60)), undefined)
})

t.test('patterns', async (t) => {
  const cases: readonly (readonly [string, string, boolean])[] = [
    ['iqn.1998-01.com.vmware:*', 'iqn.1998-01.com.vmware:esx1', true],
    ['iqn.1998-01.com.vmware:*', 'iqn.1998-01.com.vmwarf:esx1', false],
    ['*', 'eui.02004567a425678d', true],
    ['*:esx1', 'iqn.1998-01.com.vmware:esx1', true],
    ['*:esx1', 'iqn.1998-01.com.vmware:esx11', false],
    ['iqn.*:esx*-b', 'iqn.1998-01.com.vmware:esx1-b', true],
    ['iqn.*:esx*-b', 'iqn.1998-01.com.vmware:esx1-c', false],
    ['ab*ba', 'aba', false],
    ['ab*ba', 'abba', true],
    ['a*b*a', 'aba', true],
    ['a*bb*a', 'aba', false],
    ['iqn.2026-01.lab.plexus:db', 'iqn.2026-01.lab.plexus:db', true],
    ['iqn.2026-01.lab.plexus:db', 'iqn.2026-01.lab.plexus:db2', false],
    ['a.c*', 'abc', false],
  ]
  for (const [pattern, name, fits] of cases) {
    const listed = new InitiatorNames([pattern])
    t.equal(listed.entries.has(name) || listed.fitsPattern(name), fits, `${pattern} on ${name}`)
  }
  t.equal(normalizeInitiatorPattern('IQN.1998-01.*'), 'iqn.1998-01.*')
  t.equal(normalizeInitiatorPattern('nonsense'), undefined, 'without * it is a name')
  t.equal(normalizeInitiatorPattern('iqn.1998-01.com x*'), undefined)
  t.equal(normalizeInitiatorPattern('*'.repeat(300)), undefined)
  t.throws(() => new InitiatorNames(['esx1']), { kind: 'invalid', message: /"esx1" is neither/ })
})

t.test('SCSI port names', async (t) => {
  const isid = Buffer.from('00023d000001', 'hex')
  t.equal(formatIsid(isid), '0x00023d000001')
  t.equal(initiatorPortName('iqn.a', isid), 'iqn.a,i,0x00023d000001')
  t.equal(targetPortName('iqn.b', 1), 'iqn.b,t,0x0001')
  t.equal(targetPortName('iqn.b', 0xabcd), 'iqn.b,t,0xabcd')
  t.throws(() => formatIsid(Buffer.alloc(5)))
  t.throws(() => targetPortName('iqn.b', 65536))
})
