/** plexus.yaml: what is accepted, and every complaint with its place. src/daemon/config*.ts. */
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { CONFIG_PROBLEMS, MIB, POOL_BYTES_DEFAULT } from '../../src/base/limits.ts'
import { type Config, ConfigError, loadConfig, parseConfig } from '../../src/daemon/config.ts'
import {
  configJsonSchema,
  knownKeys,
  parseAdvertise,
  parseListen,
} from '../../src/daemon/config-schema.ts'
import { readConfig } from '../../src/daemon/config-thread.ts'
import { ROOT } from '../support/root.ts'

const dir = mkdtempSync(join(tmpdir(), 'plexus-config-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))
const file = join(dir, 'plexus.yaml')

function secret(name: string, text: string | Buffer, mode = 0o600): string {
  const path = join(dir, name)
  writeFileSync(path, text)
  chmodSync(path, mode)
  return name
}

/** The problems that a text has, as `line:column message`. */
function problemsOf(text: string): string[] {
  try {
    parseConfig(text, file)
  } catch (error) {
    if (!(error instanceof ConfigError)) throw error
    return error.problems.map((one) => `${one.line}:${one.column} ${one.message}`)
  }
  return []
}

function parsed(text: string): Config {
  return parseConfig(text, file)
}

const GOOD = `version: 1
portals:
  - name: san
    listen: ["10.0.10.5:3261", "[fd00::5]", 10.0.10.6]
    digests: { header: [CRC32C], data: None }
  - { name: lab, listen: ["127.0.0.1:3262"], discoveryAuth: hypervisors }
auth:
  - name: hypervisors
    chap: { user: esx, secretFile: one }
    mutual: { user: plexus, secretFile: two }
    initiators: ["iqn.1998-01.com.vmware:*"]
devices:
  d1: /dev/disk/by-id/wwn-0x5000c500a1c0d001
  d2: { path: images/d2.img, readOnly: true, label: initiator, timeout: 1m 30s }
targets:
  - name: iqn.2026-01.lab.Plexus:DB
    alias: Database disks
    portals: [san, lab]
    auth: hypervisors
    luns:
      - { lun: 0, device: d1, blockSize: 4096 }
      - { lun: 7, device: d2, readOnly: true }
    access:
      iqn.1998-01.com.VMware:esx1: [{ lun: 0 }, { lun: 7, readOnly: true }]
limits: { sessions: 8, commandsPerSession: 32, bufferPool: 64MiB }
log: { level: debug, format: json }
hal: { engine: threads }
state: { dir: state }
control: { dir: run }
`

t.test('a whole configuration', async (t) => {
  secret('one', 'initiator-secret\n')
  secret('two', 'target-secret-2\r\n')
  const config = parsed(GOOD)
  t.strictSame(config.portals, [
    {
      name: 'san',
      listen: [
        { host: '10.0.10.5', port: 3261 },
        { host: 'fd00::5', port: 3260 },
        { host: '10.0.10.6', port: 3260 },
      ],
      digests: { header: ['CRC32C'], data: ['None'] },
      advertise: undefined,
      discoveryAuth: ['none'],
    },
    {
      name: 'lab',
      listen: [{ host: '127.0.0.1', port: 3262 }],
      digests: { header: ['CRC32C', 'None'], data: ['CRC32C', 'None'] },
      advertise: undefined,
      discoveryAuth: ['hypervisors'],
    },
  ])
  t.equal(config.auth[0]?.chap?.secret.toString(), 'initiator-secret', 'without its line end')
  t.equal(config.auth[0]?.mutual?.secret.toString(), 'target-secret-2', 'without CR LF')
  t.strictSame(config.devices, [
    {
      name: 'd1',
      path: '/dev/disk/by-id/wwn-0x5000c500a1c0d001',
      readOnly: false,
      exported: true,
      label: undefined,
      timeoutMs: 30_000,
    },
    {
      name: 'd2',
      path: join(dir, 'images/d2.img'),
      readOnly: true,
      exported: true,
      label: 'initiator',
      timeoutMs: 90_000,
    },
  ])
  t.strictSame(config.units[0], { name: 'd1', blockBytes: 4096 })
  const target = config.targets[0]
  t.equal(target?.name, 'iqn.2026-01.lab.plexus:db', 'names in their normal form')
  t.strictSame(
    [...(target?.access ?? [])],
    [
      [
        'iqn.1998-01.com.vmware:esx1',
        [
          { lun: 0, readOnly: false },
          { lun: 7, readOnly: true },
        ],
      ],
    ],
  )
  t.strictSame(config.limits, {
    sessions: 8,
    sessionsPerAddress: 8,
    discoverySessions: 32,
    pendingLogins: 1024,
    commandsPerSession: 32,
    bufferPoolBytes: 64 * MIB,
  })
  t.strictSame(config.log, { level: 'debug', format: 'json' })
  t.equal(config.engine, 'threads')
  t.equal(config.stateDir, join(dir, 'state'))
  t.strictSame(config.warnings, [])
})

t.test('a running daemon reads the same configuration in its thread', async (t) => {
  secret('one', 'initiator-secret\n')
  secret('two', 'target-secret-2\n')
  const every = GOOD.replace('user: esx,', 'user: esx, algorithms: [sha3-256, sha256],')
    .replace('digests:', 'advertise: ["san.lab:3261"]\n    digests:')
    .replace('["127.0.0.1:3262"]', '["[::]:3262"]')
    .replace(
      '{ lun: 7, device: d2, readOnly: true }',
      '{ lun: 7, volume: v, blockSize: 512, readOnly: true }',
    )
    .replace('luns:', 'luns:\n      - { lun: 8, device: d2 }')
    .replace('dir: state', 'dir: state, movedFrom: "0123456789ab"')
  const path = join(dir, 'every.yaml')
  writeFileSync(path, every)
  chmodSync(path, 0o600)
  const config = loadConfig(path)
  t.strictSame(config.auth[0]?.chap?.algorithms, [8, 7])
  t.strictSame(await readConfig(path), config)
})

t.test('defaults', async (t) => {
  const config = parsed('version: 1\n')
  t.strictSame(
    [config.portals, config.auth, config.devices, config.targets],
    [[], [], [], []],
    'nothing is listened on until named',
  )
  t.equal(config.limits.bufferPoolBytes, POOL_BYTES_DEFAULT)
  t.equal(config.engine, 'auto')
  t.equal(config.stateDir, '/var/lib/plexus')
})

t.test('the annotated example is good but for its secrets', async (t) => {
  const path = join(ROOT, 'config/plexus.yaml')
  const text = readFileSync(path, 'utf8').replaceAll('/etc/plexus/secrets/', `${dir}/`)
  for (const name of ['esx1', 'esx2', 'target']) secret(name, `the-secret-of-${name}\n`)
  t.strictSame(parsed(text).warnings, [])
})

t.test('the editor schema on disk is the one of the code', async (t) => {
  const path = join(ROOT, 'config/plexus.schema.json')
  t.strictSame(
    JSON.parse(readFileSync(path, 'utf8')),
    JSON.parse(JSON.stringify(configJsonSchema())),
    'run: npm run schema',
  )
  t.match(knownKeys(['targets', 0, 'luns', 3]), [
    'lun',
    'device',
    'volume',
    'blockSize',
    'readOnly',
  ])
  t.match(knownKeys(['devices', 'd1']), ['path', 'readOnly'])
})

t.test('all problems at once, in the order of the text', async (t) => {
  const text = `version: 2
portals:
  - name: san
    listen: ["10.0.0.1:99999", "10.0.0.2:3260"]
    digest: {}
  - name: san
    listen: ["0.0.0.0:3260"]
devices:
  d1: ./d1.img
  "bad name": ./x
  d3: { path: ./x, readOnly: maybe }
  d4: { path: ./x, label: initiator }
targets:
  - name: nonsense
    portals: [sann]
    auth: nobody
    luns:
      - { lun: 0, devise: d1 }
      - { lun: 0, device: d2 }
      - { lun: 256, device: d1 }
      - { lun: 3, volume: db }
    access:
      iqn.2026-01.x:y: [{ lun: 9 }]
limits: { sessions: 0, bufferPool: 5MiB }
log: { level: inof }
hal: { timeout: 0s }
volumes: []
`
  t.strictSame(problemsOf(text), [
    '1:10 "version" in the configuration: expected 1, found number 2',
    '4:14 portal "san": write an address as 10.0.0.1:3260 or [fd00::5]:3260, a link-local one with its interface: [fe80::1%eth0]:3260',
    '5:5 unknown key "digest" in portal "san"; did you mean "digests"?',
    '6:11 portal "san" is defined twice',
    '7:14 portal "san": 0.0.0.0:3260 is taken by portal "san" already',
    '10:3 "bad name" in "devices": a name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit',
    '11:30 "readOnly" in device "d3": expected true or false, found "maybe"',
    '12:20 device "d4": "label" is for a device that a LUN names; take it away',
    '14:11 "nonsense" is not an iSCSI name; write iqn.YYYY-MM.reversed.domain:anything',
    '15:15 target "nonsense": there is no portal "sann"; did you mean "san"?',
    '16:11 target "nonsense": there is no auth group "nobody"',
    '18:9 target "nonsense" lun 0 needs exactly one of "device" and "volume"',
    '18:19 unknown key "devise" in target "nonsense" lun 0; did you mean "device"?',
    '19:16 target "nonsense" lun 0 is defined twice',
    '19:27 target "nonsense" lun 0: there is no device "d2"; did you mean "d1"?',
    '20:16 "lun" in target "nonsense" lun 256: must be at most 255, found number 256',
    '23:32 target "nonsense" access of "iqn.2026-01.x:y": there is no lun 9 in target "nonsense"',
    '24:21 "sessions" in "limits": must be at least 1, found number 0',
    '24:36 "bufferPool" in "limits": a size from 32MiB to 2GiB, a multiple of 4MiB',
    '25:15 "level" in "log": expected debug or info or warn or error, found "inof"; did you mean "info"?',
    '26:17 "timeout" in "hal": a time from 1s to 1h, such as 30s',
    '27:1 volumes are made with plexus volume create NAME --mirror DEVICE DEVICE; the labels on the disks hold the configuration',
  ])
})

t.test('YAML that is none', async (t) => {
  t.match(problemsOf('version: 1\nportals: [\n'), [/^\d+:\d+ .+/])
  t.match(problemsOf('version: 1\nversion: 1\n'), [/^2:1 .*unique/])
  t.match(problemsOf('- a\n- b\n'), [/expected keys and values/])
  t.match(problemsOf(''), [/"version" is missing in the configuration/])
})

t.test('authentication', async (t) => {
  const withAuth = (group: string) => problemsOf(`version: 1\nauth:\n  - ${group}\n`)
  const chap = (name: string) => `{ user: u, secretFile: ${name} }`
  t.match(withAuth('{ name: none, initiators: [iqn.2026-01.x:y] }'), [/a word of its own/])
  t.match(withAuth('{ name: a }'), [/neither "chap" nor "initiators"/])
  t.match(withAuth('{ name: a, initiators: ["what*%"] }'), [/not an iSCSI name/])
  t.match(withAuth(`{ name: a, initiators: [iqn.2026-01.x:*], mutual: ${chap('two')} }`), [
    /only together with "chap"/,
  ])
  t.match(withAuth(`{ name: a, chap: ${chap('absent')} }`), [/^3:45 .*cannot be read: ENOENT/])
  t.match(withAuth(`{ name: a, chap: ${chap('.')} }`), [/is not a file/])
  const short = secret('short', 'only eleven')
  t.match(withAuth(`{ name: a, chap: ${chap(short)} }`), [/has 11 bytes/])
  t.match(withAuth(`{ name: a, chap: ${chap(secret('long', 'x'.repeat(300)))} }`), [/300 bytes/])
  t.match(withAuth(`{ name: a, chap: ${chap(secret('lines', 'twelve bytes\nand more'))} }`), [
    /one line/,
  ])
  const open = secret('open', 'twelve bytes', 0o644)
  t.match(withAuth(`{ name: a, chap: ${chap(open)} }`), [/open to every user \(mode 644\)/])
  t.strictSame(withAuth(`{ name: a, chap: ${chap(secret('ok', 'twelve bytes', 0o640))} }`), [])
  const same = problemsOf(
    `version: 1\nauth:\n  - { name: a, chap: ${chap('ok')} }\n  - { name: b, chap: ${chap('one')}, mutual: ${chap('ok')} }\n`,
  )
  t.match(same, [/^4:.*the secret of "chap" in auth group "a"; they must differ/])
  for (const text of [...same, ...withAuth(`{ name: a, chap: ${chap(open)} }`)]) {
    t.notMatch(text, /twelve bytes/, 'no message shows a secret')
  }
})

t.test('one device, one block size; addresses collide within a family', async (t) => {
  const lun = (size: string) => `luns: [{ lun: 0, device: d${size} }]`
  const two = (a: string, b: string) =>
    problemsOf(`version: 1
portals: [{ name: p, listen: [127.0.0.1] }]
devices: { d: ./d }
targets:
  - { name: "iqn.2026-01.x:a", portals: [p], auth: none, ${lun(a)} }
  - { name: "iqn.2026-01.x:b", portals: [p], auth: none, ${lun(b)} }
`)
  t.strictSame(two('', ''), [], 'one device in two targets is one unit')
  t.match(two(', blockSize: 512', ', blockSize: 4096'), [/another "blockSize"/])
  const listen = (...addresses: string[]) =>
    problemsOf(`version: 1\nportals: [{ name: p, listen: ${JSON.stringify(addresses)} }]\n`)
  t.strictSame(listen('127.0.0.1', '[::]', '[::1]:3261', '10.0.0.1'), [])
  t.match(listen('[::]', '[::1]'), [/is taken/])
  t.match(listen('10.0.0.1', '0.0.0.0'), [/is taken/])
  t.match(listen('0.0.0.0', '10.0.0.2'), [/is taken/])
  t.match(listen('10.0.0.1', '10.0.0.1'), [/is taken/])
  t.match(listen('[fd00::5]', '[FD00:0::5]'), [/is taken/], 'one address written in two ways')
  t.match(listen('[fe80::1]'), [/link-local one with its interface/])
})

t.test('thousands of addresses are compared in linear time', async (t) => {
  const took = (count: number): number => {
    const listen = Array.from({ length: count }, (_, at) => `10.0.${at >> 8}.${at & 255}`)
    const text = `version: 1\nportals: [{ name: p, listen: ${JSON.stringify(listen)} }]\n`
    const startedMs = performance.now()
    parsed(text)
    return performance.now() - startedMs
  }
  took(100)
  const [few, many] = [took(1000), took(8000)]
  t.ok(many < few * 20, `${Math.round(many / few)} times as long for 8 times as much`)
})

t.test('[::] takes IPv4 unless a portal listens on IPv4 with its port', async (t) => {
  const dualStack = (other: string) =>
    parsed(
      `version: 1\nportals: [{ name: p, listen: ["[::]:3260"] }, { name: q, listen: ["${other}"] }]\n`,
    ).portals[0]?.listen[0]?.dualStack
  t.equal(dualStack('[::]:3261'), true)
  t.equal(dualStack('10.0.0.1:3261'), true)
  t.equal(dualStack('10.0.0.1:3260'), undefined)
  t.equal(dualStack('0.0.0.0:3260'), undefined)
})

t.test('warnings do not refuse', async (t) => {
  const { warnings } = parsed(`version: 1
portals: [{ name: p, listen: [127.0.0.1] }]
auth: [{ name: g, initiators: ["iqn.2026-01.x:*"] }]
devices: { d: ./d }
targets:
  - { name: "iqn.2026-01.x:a", portals: [p], luns: [{ lun: 0, device: d }] }
  - { name: "iqn.2026-01.x:b", portals: [p], auth: g, access: { iqn.2026-02.y:z: [] } }
`)
  t.match(
    warnings.map((one) => one.message),
    [/nobody may log in/, /anybody can use where no CHAP/, /auth group "g" does not admit it/],
  )
})

t.test('a LUN mask says what it is worth', async (t) => {
  const warned = (auth: string, access: string) =>
    parsed(`version: 1
portals: [{ name: p, listen: [127.0.0.1] }]
auth:
  - { name: alice, chap: { user: a, secretFile: one }, initiators: ["iqn.2026-01.x:alice"] }
  - { name: bob, chap: { user: b, secretFile: two }, initiators: ["iqn.2026-01.x:bob"] }
  - { name: both, chap: { user: c, secretFile: ok }, initiators: ["iqn.2026-01.x:*"] }
  - { name: names, initiators: ["iqn.2026-01.x:*"] }
devices: { d: ./d, e: ./e }
targets:
  - name: "iqn.2026-01.x:t"
    portals: [p]
    auth: ${auth}
    luns: [{ lun: 0, device: d }, { lun: 1, device: e }]
    access: ${access}
`).warnings.map((one) => one.message)
  const apart = '{ "iqn.2026-01.x:alice": [{ lun: 0 }], "iqn.2026-01.x:bob": [{ lun: 1 }] }'
  const alike = '{ "iqn.2026-01.x:alice": [{ lun: 0 }], "iqn.2026-01.x:bob": [{ lun: 0 }] }'
  t.strictSame(warned('[alice, bob]', apart), [], 'each name has its own secret')
  t.strictSame(warned('[alice, bob, both]', apart), [], 'a closer group speaks for both names')
  t.match(warned('both', apart), [/share auth group "both", so each can log in with the name/])
  t.strictSame(warned('both', alike), [], 'nothing to take from each other')
  t.match(warned('[alice, names]', apart), [/anybody can use/], 'one name without CHAP')
  t.match(warned('none', apart), [/anybody can use/])
})

t.test('several auth groups for one target', async (t) => {
  const withAuth = (auth: string, more = '') =>
    problemsOf(`version: 1
portals: [{ name: p, listen: [127.0.0.1]${more} }]
auth:
  - { name: a, chap: { user: u, secretFile: one }, initiators: ["iqn.2026-01.x:a"] }
  - { name: b, chap: { user: u, secretFile: two }, initiators: ["iqn.2026-01.x:b"] }
  - { name: c, chap: { user: w, secretFile: two, algorithms: [sha256] } }
  - { name: d, initiators: ["iqn.2026-01.x:a"] }
targets: [{ name: "iqn.2026-01.x:t", portals: [p], auth: ${auth} }]
`)
  t.strictSame(withAuth('[a, c]', ', discoveryAuth: [b, c]'), [])
  t.match(withAuth('[a, b]'), [/^8:.*different secrets for user "u"/])
  t.match(withAuth('[a, d]'), [/^8:.*"d" without CHAP and in "a" with it/])
  t.match(withAuth('[a, a]'), [/^8:.*"a" stands twice/])
  t.match(withAuth('[a, none]'), [/^8:.*stands alone/])
  t.match(withAuth('[a, x]'), [/^8:62 .*there is no auth group "x"/])
  t.match(withAuth('[]'), [/at least 1 entry/])
  t.match(withAuth('a', ', discoveryAuth: [a, b]'), [/^2:.*different secrets for user "u"/])
  const { auth, targets } = parsed(`version: 1
portals: [{ name: p, listen: [127.0.0.1] }]
auth:
  - { name: a, chap: { user: u, secretFile: one, algorithms: [md5, sha3-256] }, initiators: ["iqn.2026-01.x:a"] }
targets: [{ name: "iqn.2026-01.x:t", portals: [p], auth: a }]
`)
  t.strictSame(auth[0]?.chap?.algorithms, [8, 5])
  t.strictSame(targets[0]?.auth, ['a'])
})

t.test('names that every object of JavaScript has', async (t) => {
  const config = parsed(`version: 1
portals: [{ name: constructor, listen: [127.0.0.1] }]
auth: [{ name: toString, initiators: ["iqn.2026-01.x:*"] }]
devices: { constructor: ./d, valueOf: ./e }
targets:
  - name: "iqn.2026-01.x:a"
    portals: [constructor]
    auth: toString
    luns: [{ lun: 0, device: constructor }]
`)
  t.strictSame(
    config.devices.map(({ name, exported }) => [name, exported]),
    [
      ['constructor', true],
      ['valueOf', false],
    ],
  )
  t.strictSame(
    problemsOf('version: 1\nconstructor: 1\nlog: { toString: 1 }\nhasOwnProperty: {}\n'),
    [
      '2:1 unknown key "constructor" in the configuration',
      '3:8 unknown key "toString" in "log"',
      '4:1 unknown key "hasOwnProperty" in the configuration',
    ],
  )
  t.strictSame(problemsOf('version: 1\ndevices:\n  __proto__: ./d\n'), [
    '3:3 "__proto__" cannot be a name or a key here',
  ])
  const lun = 'luns: [{ lun: 0, device: hasOwnProperty, constructor: 1 }]'
  t.match(
    problemsOf(
      `version: 1\nportals: [{ name: p, listen: [127.0.0.1] }]\ntargets:\n  - { name: "iqn.2026-01.x:a", portals: [p], auth: none, ${lun} }\n`,
    ),
    [/there is no device "hasOwnProperty"$/, /unknown key "constructor" in target .* lun 0/],
  )
})

t.test('thousands of problems: a hundred are described, all are counted', async (t) => {
  const count = 3000
  const rows = (row: (at: number) => string) => Array.from({ length: count }, (_, at) => row(at))
  const text = [
    'version: 1',
    'portals: [{ name: p, listen: [127.0.0.1] }]',
    'devices:',
    ...rows((at) => `  disk-of-the-cluster-${at}: ./${at}`),
    'targets:',
    ...rows(
      (at) =>
        `  - { name: "iqn.2026-01.x:${at}", portals: [p], auth: none, luns: [{ lun: 0, device: disk-of-teh-cluster-${at} }] }`,
    ),
  ].join('\n')
  const startedMs = performance.now()
  const problems = problemsOf(text)
  const tookMs = performance.now() - startedMs
  t.equal(problems.length, CONFIG_PROBLEMS + 1)
  t.match(
    problems[0],
    /there is no device "disk-of-teh-cluster-0"; did you mean "disk-of-the-cluster-0"/,
  )
  t.equal(
    problems.at(-1),
    `0:0 ${count - CONFIG_PROBLEMS} more problems are not listed; mend these first`,
  )
  t.ok(tookMs < 10_000, `${Math.round(tookMs)} ms: before, each was compared with all names`)
})

t.test(
  'a configuration with an auth group for each target is checked in linear time',
  async (t) => {
    const took = (count: number): number => {
      const rows = (row: (at: number) => string) =>
        Array.from({ length: count }, (_, at) => row(at))
      const text = [
        'version: 1',
        'portals: [{ name: p, listen: [127.0.0.1] }]',
        'auth:',
        ...rows((at) => `  - { name: g${at}, initiators: ["iqn.2026-01.x:h${at}"] }`),
        'devices:',
        ...rows((at) => `  d${at}: ./${at}`),
        'targets:',
        ...rows(
          (at) =>
            `  - { name: "iqn.2026-01.x:${at}", portals: [p], auth: g${at}, luns: [{ lun: 0, device: d${at} }], access: { "iqn.2026-01.x:h${at}": [{ lun: 0 }] } }`,
        ),
      ].join('\n')
      const startedMs = performance.now()
      parsed(text)
      return performance.now() - startedMs
    }
    took(100)
    const [few, many] = [took(500), took(4000)]
    t.ok(many < few * 20, `${Math.round(many / few)} times as long for 8 times as much`)
  },
)

t.test('secrets that nobody could type, and files that anybody could change', async (t) => {
  const group = (name: string) =>
    `version: 1\nauth:\n  - { name: a, chap: { user: u, secretFile: ${name} } }\n`
  const bytes = 'twelve bytes'
  for (const [name, content] of [
    ['bom', Buffer.from(`\ufeff${bytes}\n`)],
    ['utf16', Buffer.from(`\ufeff${bytes}\n`, 'utf16le')],
  ] as const) {
    t.match(problemsOf(group(secret(name, content))), [/byte order mark/], name)
  }
  t.match(problemsOf(group(secret('wide', Buffer.from(bytes, 'utf16le')))), [/one line of text/])
  t.match(parsed(group(secret('blank', `${bytes} \n`))).warnings, [
    { message: /begins or ends with blanks/ },
  ])
  t.strictSame(parsed(group(secret('tidy', `${bytes}\n`))).warnings, [])

  const open = join(dir, 'anybody')
  mkdirSync(open)
  chmodSync(open, 0o777)
  secret('anybody/s', bytes)
  t.match(parsed(group('anybody/s')).warnings, [{ message: /every user may write to .*anybody, / }])
  const at = (mode: number, folder: string): Config['warnings'] => {
    const path = join(folder, 'who.yaml')
    writeFileSync(path, 'version: 1\n')
    chmodSync(path, mode)
    return loadConfig(path).warnings
  }
  t.strictSame(at(0o644, dir), [])
  t.match(at(0o646, dir), [{ message: /every user may write to .*who\.yaml, .*chmod o-w/ }])
  t.match(at(0o644, open), [{ message: /every user may write to .*anybody, / }])
  chmodSync(open, 0o1777)
  t.strictSame(at(0o644, open), [], 'as /tmp: nobody can replace the file of another user')
})

t.test('a hook that will not be run', async (t) => {
  const program = join(dir, 'on-event')
  const warned = (path = program): unknown => {
    const { onEvent, warnings } = parsed(`version: 1\nhooks: { onEvent: ${path} }\n`)
    t.equal(onEvent, path)
    return warnings.map(({ line, column, message }) => `${line}:${column} ${message}`)
  }
  t.match(warned(), [/^2:19 "onEvent" is not run: .* cannot be looked at: ENOENT/])
  writeFileSync(program, '#!/bin/sh\n')
  chmodSync(program, 0o644)
  t.match(warned(), [/on-event is not executable; run: chmod 755 .*on-event$/])
  chmodSync(program, 0o777)
  t.match(warned(), [/other users than root may write to .*on-event, .*; run: chown .* chmod go-w/])
  chmodSync(program, 0o755)
  t.strictSame(warned(), [])
  t.match(warned(dir), [/is not a file/])
  t.equal(parsed('version: 1\n').onEvent, undefined)
  t.strictSame(problemsOf('version: 1\nhooks: { onEvent: on-event, on: x }\n'), [
    '2:19 "onEvent" in "hooks": write an absolute path, such as /etc/plexus/on-event',
    '2:29 unknown key "on" in "hooks"',
  ])
})

t.test('listen addresses', async (t) => {
  t.strictSame(parseListen('[::1]:1'), { host: '::1', port: 1 })
  t.strictSame(parseListen('[fe80::1%eth0]'), { host: 'fe80::1%eth0', port: 3260 })
  t.strictSame(parseListen('[FD00:0:0::05]'), { host: 'fd00::5', port: 3260 }, 'shortest form')
  t.strictSame(parseListen('[::ffff:10.0.0.1]:1'), { host: '10.0.0.1', port: 1 })
  for (const text of [
    '',
    'host:3260',
    '::1',
    '[10.0.0.1]:1',
    '1.2.3.4:0',
    '1.2.3.4:65536',
    '1.2.3',
    '[fe80::1]:3260',
    '[fd00::5%eth0]',
  ]) {
    t.equal(parseListen(text), undefined, text)
  }
  t.strictSame(parseAdvertise('san.example.org'), { host: 'san.example.org', port: 3260 })
  t.strictSame(parseAdvertise('203.0.113.5:1'), { host: '203.0.113.5', port: 1 })
  t.strictSame(parseAdvertise('[2001:DB8::5]:1'), { host: '2001:db8::5', port: 1 })
  for (const text of ['', '1.2.3', '[fe80::1%eth0]', 'a..b', '-a', 'san:0', 'san:1:2', 'a b']) {
    t.equal(parseAdvertise(text), undefined, text)
  }
})

t.test('a file that is not there', async (t) => {
  t.throws(() => loadConfig(join(dir, 'no.yaml')), { kind: 'not-found', message: /no\.yaml/ })
})
