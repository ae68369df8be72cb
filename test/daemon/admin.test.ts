/**
 * What an administrator is told by plexusd as a process: whom a LUN is shown to, what a change would take away and from
 * whom, what is missing, what has happened before a restart, and who did it.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { EventReport } from '../../src/control/reports.ts'
import { type CliResult, runTerminal, TestTerminal } from '../support/control.ts'
import { Daemon } from '../support/daemon.ts'
import { Initiator } from '../support/initiator.ts'

const DISK_BYTES = 24 * 2 ** 20
const OPEN = 'iqn.2026-11.test.plexus:open'
const LOCKED = 'iqn.2026-11.test.plexus:locked'
const HOST = 'iqn.2026-11.test.host:one'
const OTHER = 'iqn.2026-11.test.host:two'

const dir = mkdtempSync(join(tmpdir(), 'plexus-admin-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function image(name: string): string {
  const path = join(dir, `${name}.img`)
  writeFileSync(path, '')
  truncateSync(path, DISK_BYTES)
  return path
}

const devices = Object.fromEntries(['d1', 'd2', 'd3', 'lent'].map((one) => [one, image(one)]))
const daemon = await Daemon.start({ config: { devices, targets: [] } })
t.teardown(() => daemon.stop())
const auth = [
  { name: 'g', chap: { user: 'u', secretFile: daemon.secretFile('s', 'right-secret') } },
]
const luns = [
  { lun: 0, volume: 'db' },
  { lun: 1, device: 'lent' },
]
const open = { name: OPEN, portals: ['test'], auth: 'none', luns }
const targets = [
  { ...open, access: { [HOST]: [{ lun: 0 }, { lun: 1 }], [OTHER]: [{ lun: 1 }] } },
  { name: LOCKED, portals: ['test'], auth: 'g', luns: [] },
]
const config = { auth, devices, targets }

const plexus = (line: string): Promise<CliResult> =>
  runTerminal([...line.split(' '), '--socket', daemon.controlDir], new TestTerminal())

async function run(t: Test, line: string, exit: number, says: RegExp): Promise<string> {
  const result = await plexus(line)
  const all = result.out + result.err
  t.equal(result.exit, exit, `plexus ${line}: ${all}`)
  t.match(all, says, `plexus ${line}: what it says`)
  return all
}

async function events(): Promise<readonly EventReport[]> {
  return JSON.parse((await plexus('events --json')).out).events
}

async function until(reached: () => Promise<boolean> | boolean, what: string): Promise<void> {
  for (const end = Date.now() + 15_000; !(await reached()); ) {
    if (Date.now() > end) throw new Error(`timed out: ${what}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

const login = (initiatorName: string): Promise<Initiator> =>
  Initiator.open({ port: daemon.port, targetName: OPEN, initiatorName })

t.test('an apply and its dry run refuse the same, with the cause', async (t) => {
  daemon.configure(config)
  await run(t, 'config apply', 0, /add target/)
  await run(t, 'volume create db --concat d1 d2', 0, /create volume db/)
  const { d1: _, ...without } = devices
  const changes: readonly (readonly [object, RegExp])[] = [
    [{ ...config, devices: without }, /d1 is in use as vinum drive d1: .* before it leaves/],
    [
      { ...config, devices: { ...devices, d1: image('else') } },
      /d1 is in use .* its path cannot change/,
    ],
    [
      { ...config, targets: [{ ...open, luns: [{ lun: 0, device: 'd1' }] }] },
      /d1 is in use .*: a LUN would let initiators write over its volumes; map a volume/,
    ],
  ]
  for (const [next, why] of changes) {
    daemon.configure(next as typeof config)
    await run(t, 'config apply --dry-run', 5, why)
    await run(t, 'config apply', 5, why)
  }
  daemon.configure(config)
  await run(t, 'config apply', 0, /nothing to do/)
})

t.test('a LUN counts the sessions that see it, and says by what it is known', async (t) => {
  const sessions = [await login(HOST), await login(OTHER)]
  t.teardown(() => {
    for (const one of sessions) one.destroy()
  })
  const rows = await run(t, 'lun list --no-headings -o lun,state,sessions', 0, /./)
  t.equal(rows, '0\tready\tone\n1\tready\tone, two\n')
  await run(t, 'status', 0, /exported: \S+ lun 0, 1 session \(one\)/)
  t.match(
    await run(t, 'lun list -o lun,naa,serial --no-headings', 0, /./),
    /^0\t[0-9a-f]{32}\t\S+\n/,
  )

  await t.test('and is not taken from one that is logged in without a word', async (t) => {
    daemon.configure({ ...config, targets: [{ ...open, luns: luns.slice(1) }] })
    const taken = /take LUN 0 \(db\) of \S+:open from \S+host:one at 127\.0\.0\.1/
    await run(t, 'config apply --dry-run', 0, taken)
    const refused = await run(t, 'config apply', 5, taken)
    t.notMatch(refused, /LUN 0 \(db\) of \S+ from \S+host:two/, 'who never saw it loses nothing')
    await run(
      t,
      'config diff',
      0,
      /change target \S+:open: luns 0: \{lun: 0, unit: "db".*-> nothing/,
    )
    await run(t, 'config apply --force', 0, /change target/)
    daemon.configure(config)
    await run(t, 'config apply', 0, /change target/)
  })
})

t.test('logins, and each refused one once, are events', async (t) => {
  for (let n = 0; n < 5; n++) {
    const chap = { user: 'u', secret: 'wrong-secret' }
    const wrong = Initiator.open({
      port: daemon.port,
      targetName: LOCKED,
      initiatorName: HOST,
      chap,
    })
    await t.rejects(wrong, { message: /0201h/ })
  }
  const found = await events()
  const refused = found.filter(({ event }) => event === 'login-refused')
  t.equal(refused.length, 1)
  t.match(refused[0], {
    severity: 'warning',
    object: LOCKED,
    message: /host:one from 127\.0\.0\.1/,
  })
  const logins = found.filter(({ event }) => event === 'login')
  t.match(logins[0], { object: OPEN, message: `${HOST} (127.0.0.1) has logged in to ${OPEN}` })
  const status = join(daemon.controlDir, 'status.sock')
  const everybody = await runTerminal(['events', '--socket', status], new TestTerminal())
  t.notMatch(everybody.out, /host:one/, 'not for every user of the system')
})

t.test('the log of verbs has their arguments and the user', async (t) => {
  await run(t, 'volume scrub db --dry-run', 1, /nothing to compare/)
  const said = (): boolean =>
    daemon.log.some((line) => /plexus volume scrub db --dry-run \(by \w+\)/.test(line))
  await until(said, 'the verb is in the log')
  t.ok(said())
})

t.test('the limit of all jobs is shown', async (t) => {
  await run(t, 'job limit all 20MiB', 0, /all jobs together: at most 20 MiB\/s/)
  await run(t, 'job list', 0, /all jobs together: at most 20 MiB\/s/)
})

t.test('what is missing is known, and its LUN is not ready', async (t) => {
  const session = await login(HOST)
  t.teardown(() => session.destroy())
  rmSync(devices['d2'] as string)
  await until(async () => /missing/.test((await plexus('device list')).out), 'd2 is missing')
  await until(
    async () => (await events()).some(({ event }) => event === 'volume-state'),
    'the state of db is an event',
  )
  const shown = await run(t, 'device show d2', 0, /state: +missing/)
  t.match(shown, /size: +24 MiB/)
  t.match(shown, /used by: +vinum drive d2/)
  await run(t, 'lun list --no-headings -o lun,state', 0, /^0\tnot ready\n1\tready\n/)
  await run(t, 'status', 0, /missing since \d{4}-\d\d-\d\d \d\d:\d\d:\d\d [+-]\d\d:\d\d\./)
  const cdb = Buffer.alloc(10)
  cdb[0] = 0x28
  // In the second half of the volume, which lies on d2.
  cdb.writeUInt32BE((30 * 2 ** 20) / 512, 2)
  cdb[8] = 1
  const read = () => session.scsi({ cdb, read: 512, lun: 0 })
  let result = await read()
  while (result.sense?.key === 6) result = await read()
  t.match(result.sense, { key: 2, code: 0x0403 }, 'not ready, manual intervention required')
})

t.test('a restart forgets nothing', async (t) => {
  const before = await events()
  daemon.signal('SIGTERM')
  await until(() => !daemon.running, 'it ends')
  t.notMatch(daemon.log.join('\n'), /logical unit has lost its device/, 'an orderly end is no loss')
  daemon.log.length = 0
  await daemon.spawn()
  const after = await events()
  t.strictSame(after.slice(0, before.length), before)
  const numbers = after.map(({ sequence }) => sequence)
  t.strictSame(
    numbers,
    [...numbers].sort((a, b) => a - b),
  )
  t.ok(after.some(({ event }) => event === 'stopping'))
  await run(t, 'job list', 0, /all jobs together: at most 20 MiB\/s/)
  await run(t, 'device show d2', 0, /size: +24 MiB/)
})
