/**
 * LUNs on devices that carry a vinum label, against plexusd as a process: whose label is it (docs/adr/0008), who may
 * write over it, what is said, and when the device is served after all. src/daemon/export-guard.ts.
 */
import { mkdtempSync, readFileSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { main } from '../../src/daemon/plexusd.ts'
import { type CliResult, runTerminal, TestTerminal } from '../support/control.ts'
import { Daemon, type DaemonConfig } from '../support/daemon.ts'
import { writeFreebsdDrive } from '../support/freebsd-image.ts'
import { Initiator } from '../support/initiator.ts'

const TARGET = 'iqn.2026-11.test.plexus:labels'
const DISK_BYTES = 16 * 2 ** 20
const BLOCK = 512
const CHUNK_BLOCKS = 256

const dir = mkdtempSync(join(tmpdir(), 'plexus-labels-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function image(name: string): string {
  const path = join(dir, `${name}.img`)
  writeFileSync(path, '')
  truncateSync(path, DISK_BYTES)
  return path
}

/** LUNs 0, 1, … on these devices. */
const luns = (...devices: string[]) => [
  {
    name: TARGET,
    portals: ['test'],
    auth: 'none',
    luns: devices.map((device, lun) => ({ lun, device })),
  },
]

async function start(t: Test, config: DaemonConfig): Promise<Daemon> {
  const daemon = await Daemon.start({ config, startTimeoutMs: 60_000 })
  t.teardown(() => daemon.stop())
  return daemon
}

/** With the next start it has `config`. */
async function restart(daemon: Daemon, config: DaemonConfig): Promise<void> {
  await daemon.kill()
  daemon.configure(config)
  await daemon.spawn()
}

function plexus(daemon: Daemon, line: string): Promise<CliResult> {
  return runTerminal([...line.split(' '), '--socket', daemon.controlDir], new TestTerminal())
}

/** The command must end with `exit` and say what `says` matches, on either output. */
async function run(t: Test, daemon: Daemon, line: string, exit: number, says = /(?:)/) {
  const result = await plexus(daemon, line)
  t.equal(result.exit, exit, `plexus ${line}: ${result.out}${result.err}`)
  t.match(result.out + result.err, says, `plexus ${line}: what it says`)
}

/** `plexus config check`, which is `plexusd --check`, in this process. */
async function check(t: Test, daemon: Daemon): Promise<{ exit: number; err: string }> {
  const out = t.capture(process.stdout, 'write', () => true)
  const err = t.capture(process.stderr, 'write', () => true)
  const exit = await main(['--check', '--config', daemon.configPath])
  const said = err()
    .map(({ args }) => String(args[0]))
    .join('')
  out.restore()
  err.restore()
  return { exit, err: said }
}

async function until(daemon: Daemon, line: string, pattern: RegExp): Promise<void> {
  const end = Date.now() + 20_000
  for (;;) {
    const { out } = await plexus(daemon, line)
    if (pattern.test(out)) return
    if (Date.now() > end) throw new Error(`plexus ${line} never showed ${pattern}:\n${out}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function cdb10(opcode: number, lba: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(10)
  cdb[0] = opcode
  cdb.writeUInt32BE(lba, 2)
  cdb.writeUInt16BE(blocks, 7)
  return cdb
}

/** Writes `data` at `lba` of a LUN, past unit attentions. What it ends with: status and sense key. */
async function write(daemon: Daemon, lun: number, lba: number, data: Buffer) {
  const session = await Initiator.open({ port: daemon.port, targetName: TARGET })
  try {
    for (;;) {
      const cdb = cdb10(0x2a, lba, data.length / BLOCK)
      const { status, sense } = await session.scsi({ cdb, write: data, lun })
      if (sense?.key !== 6) return { status, key: sense?.key }
    }
  } finally {
    await session.close()
  }
}

const NOT_READY = { status: 2, key: 2 }
const GOOD = { status: 0, key: undefined }
const JUNK = Buffer.alloc(BLOCK, 0xee)

/** Image files of a set that another machine has made: `names` in one volume v, concatenated. */
async function foreignSet(t: Test, ...names: string[]): Promise<string[]> {
  const devices = Object.fromEntries(names.map((name) => [name, image(name)]))
  const other = await start(t, { devices, targets: [] })
  await run(t, other, `volume create v --concat ${names.join(' ')}`, 0)
  await other.stop()
  return Object.values(devices)
}

t.test('a LUN names a drive of a volume, and plexusd starts with it', async (t) => {
  const devices = Object.fromEntries(['d1', 'd2', 'd3', 'd4'].map((name) => [name, image(name)]))
  const daemon = await start(t, { devices, targets: [] })
  await run(t, daemon, 'volume create db --raid5 d1 d2 d3 --wait', 0)
  daemon.configure({ devices, targets: luns('d2') })
  await run(t, daemon, 'config apply', 5, /d2 is in use as vinum drive d2/)
  t.match(
    await check(t, daemon),
    {
      exit: 0,
      err: /warning: device d2 is not exported: it carries drive d2 of vinum set .*volume db/,
    },
    'config check says so before the restart, beside the daemon that holds the device',
  )

  await restart(daemon, { devices, targets: luns('d2') })
  t.match(await write(daemon, 0, 0, JUNK), NOT_READY, 'initiators write nothing')
  t.match(await write(daemon, 0, DISK_BYTES / BLOCK - 1, JUNK), NOT_READY, 'least of all the label')
  await until(daemon, 'status db', /state: UP/)
  await run(
    t,
    daemon,
    'status',
    0,
    /LUN on d2 is not ready: device d2 is not exported: it carries drive d2 of vinum set \S+, with data of volume db; other devices of this machine[\s\S]*Map the volume instead \(volume: db\)[\s\S]*plexus vinum rm d2[\s\S]*device clear-label d2/,
  )
  await run(t, daemon, 'status --check', 11)
  await run(t, daemon, 'lun list', 0, /d2 +not ready/)
  await run(t, daemon, 'events', 0, /critical +export-refused +d2/i)
  t.ok(
    daemon.log.some((line) => line.includes('"event":"export-refused"')),
    'the log says it',
  )
  await run(t, daemon, 'device clear-label d2 --yes', 5, /in use by vinum drive d2/)
  await run(t, daemon, 'volume scrub db --wait', 0, /check of db.p0 is done, 0 mismatches/)

  // The mistake is taken out of the file: nothing of the volume is touched. Then it is made again.
  daemon.configure({ devices, targets: [] })
  await run(t, daemon, 'config apply', 0, /remove logical unit d2/)
  await run(t, daemon, 'status --check', 0, /volume: db +state: UP/)
  await run(t, daemon, 'device list', 0, /d2 +ready .* vinum drive d2/)
  await restart(daemon, { devices, targets: luns('d2') })
  await until(daemon, 'status db', /state: UP/)

  // Free, it is the LUN's, without a reload.
  await run(t, daemon, 'volume replace db d2 d4 --wait', 0)
  await run(t, daemon, 'vinum rm d2 --yes', 0)
  await until(daemon, 'lun list', /d2 +ready/)
  t.match(await write(daemon, 0, 0, JUNK), GOOD)
  await until(daemon, 'status --check', /volume: db +state: UP/)
  await run(t, daemon, 'status --check', 0)
  await run(t, daemon, 'volume scrub db --wait', 0, /check of db.p0 is done, 0 mismatches/)
  await run(t, daemon, 'volume create x --concat d2', 5, /in use by logical unit d2/)
})

t.test('an initiator labels its LUN: it stays the initiator’s', async (t) => {
  const [source = ''] = await foreignSet(t, 'n1')
  const config = { devices: { lun: image('lun') }, targets: luns('lun') }
  const daemon = await start(t, config)
  const data = readFileSync(source)
  for (let at = 0; at < data.length; at += CHUNK_BLOCKS * BLOCK) {
    const chunk = data.subarray(at, at + CHUNK_BLOCKS * BLOCK)
    if (chunk.every((byte) => byte === 0)) continue
    t.match(await write(daemon, 0, at / BLOCK, chunk), GOOD, `copied ${at}`)
  }
  await restart(daemon, config)
  t.match(await write(daemon, 0, 64, JUNK), GOOD, 'served after the restart')
  await run(t, daemon, 'status --check', 0)
  await run(t, daemon, 'device show lun', 0, /vinum/)
  await run(t, daemon, 'volume list', 0, /there are no volumes/)
  t.match(await check(t, daemon), { exit: 0, err: '' })

  // Not mapped for once, it is this machine's; and then nobody can know.
  const other = image('other')
  await restart(daemon, { devices: { ...config.devices, other }, targets: luns('other') })
  await run(t, daemon, 'volume list', 0, /^v /m)
  await restart(daemon, config)
  t.match(await write(daemon, 0, 64, JUNK), NOT_READY)
  await run(t, daemon, 'status', 0, /nothing shows that an initiator put it there/)
})

t.test('a label that nobody knows: refused until somebody says whose it is', async (t) => {
  const paths = await foreignSet(t, 'f1', 'f2', 'f3')
  const freebsd = image('bsd')
  const media = readFileSync(freebsd)
  writeFreebsdDrive(media, {
    driveName: 'a',
    text: 'volume old state up\nplex name old.p0 state up org concat vol old\nsd name old.p0.s0 drive a len 20480s driveoffset 265s state up plex old.p0 plexoffset 0s\n',
  })
  writeFileSync(freebsd, media)
  const [f1 = '', f2 = '', f3 = ''] = paths
  const devices = { f1, f2, f3, bsd: freebsd }
  const targets = luns('f1', 'f2', 'f3', 'bsd')
  const daemon = await start(t, { devices, targets })
  const before = paths.map((path) => readFileSync(path))
  for (const lun of [0, 1, 2, 3]) t.match(await write(daemon, lun, 0, JUNK), NOT_READY)
  await run(t, daemon, 'status', 0, /drive f1 of vinum set \S+, with data of volume v, and nothing/)
  await run(
    t,
    daemon,
    'status',
    0,
    /drive a of FreeBSD's vinum on host \S+, with data of volume old/,
  )
  await run(t, daemon, 'volume list', 0, /there are no volumes/)
  t.ok(
    paths.every((path, at) => readFileSync(path).equals(before[at] as Buffer)),
    'and the engine has not touched them either',
  )
  await run(t, daemon, 'volume create x --concat f3', 5, /in use by LUNs of the configuration/)

  await run(t, daemon, 'device clear-label f1 --yes', 0, /remove the label from f1/)
  await until(daemon, 'lun list', /f1 +ready/)
  t.match(await write(daemon, 0, 0, JUNK), GOOD, 'free without a reload')

  const said = (path: string) => ({ path, label: 'initiator' })
  daemon.configure({ devices: { ...devices, f2: said(f2), bsd: said(freebsd) }, targets })
  await run(t, daemon, 'config apply', 0, /warning: device f3 is not exported/)
  t.match(await write(daemon, 1, 0, JUNK), GOOD, 'the word of the configuration')
  t.match(await write(daemon, 3, 0, JUNK), GOOD)
  t.match(await write(daemon, 2, 0, JUNK), NOT_READY)

  // The word does not make a device the initiator's whose set this machine has.
  await restart(daemon, { devices: { f2: said(f2), f3 }, targets: luns('f2') })
  t.match(await write(daemon, 0, 0, JUNK), NOT_READY)
  await run(t, daemon, 'status', 0, /device f2 is not exported.*other devices of this machine/)
})
