/**
 * Disks that grew, shrank, were copied or written over, against plexusd as a process: what is said of them, what is
 * refused, and that the data is there (docs/adr/0012-anchor-at-both-ends.md).
 */
import {
  copyFileSync,
  mkdtempSync,
  openSync,
  rmSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type CliResult, runTerminal, TestTerminal } from '../support/control.ts'
import { Daemon, type DaemonConfig } from '../support/daemon.ts'
import { Initiator } from '../support/initiator.ts'

const TARGET = 'iqn.2026-11.test.plexus:media'
const MIB = 2 ** 20
const BLOCK = 512
const DATA = Buffer.alloc(128 * BLOCK, 'the data ')

const dir = mkdtempSync(join(tmpdir(), 'plexus-media-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

/** Image files of 16 MiB in a folder of their own, by name. */
function images(folder: string, ...names: string[]): Record<string, string> {
  const base = mkdtempSync(join(dir, folder))
  return Object.fromEntries(
    names.map((name) => {
      const path = join(base, `${name}.img`)
      writeFileSync(path, '')
      truncateSync(path, 16 * MIB)
      return [name, path]
    }),
  )
}

function configOf(devices: Record<string, string>): DaemonConfig {
  const luns = [{ lun: 0, volume: 'db' }]
  return { devices, targets: [{ name: TARGET, portals: ['test'], auth: 'none', luns }] }
}

async function start(t: Test, config: DaemonConfig): Promise<Daemon> {
  const daemon = await Daemon.start({ config, startTimeoutMs: 60_000 })
  t.teardown(() => daemon.stop())
  return daemon
}

async function restart(daemon: Daemon, config: DaemonConfig): Promise<void> {
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

async function until(daemon: Daemon, line: string, pattern: RegExp): Promise<void> {
  const end = Date.now() + 20_000
  for (;;) {
    const { out } = await plexus(daemon, line)
    if (pattern.test(out)) return
    if (Date.now() > end) throw new Error(`plexus ${line} never showed ${pattern}:\n${out}`)
    await new Promise((resolve) => setTimeout(resolve, 50))
  }
}

function cdb10(opcode: number): Buffer {
  const cdb = Buffer.alloc(10)
  cdb[0] = opcode
  cdb.writeUInt16BE(DATA.length / BLOCK, 7)
  return cdb
}

/** Reads the first blocks of LUN 0, or writes them. */
async function transfer(daemon: Daemon, write?: Buffer): Promise<Buffer> {
  const session = await Initiator.open({ port: daemon.port, targetName: TARGET })
  try {
    for (;;) {
      const command = write
        ? { cdb: cdb10(0x2a), write, lun: 0 }
        : { cdb: cdb10(0x28), read: DATA.length, lun: 0 }
      const { status, sense, data } = await session.scsi(command)
      if (status === 0) return data
      if (sense?.key !== 6) throw new Error(`status ${status}, sense key ${sense?.key}`)
    }
  } finally {
    await session.close()
  }
}

/** A daemon with a volume `db` that has data, of these devices. */
async function served(t: Test, devices: Record<string, string>, layout: string): Promise<Daemon> {
  const daemon = await start(t, configOf(devices))
  await run(t, daemon, `volume create db ${layout} --wait`, 0)
  await until(daemon, 'lun list', /db +ready/)
  await transfer(daemon, DATA)
  return daemon
}

async function checkData(t: Test, daemon: Daemon): Promise<void> {
  await until(daemon, 'lun list', /db +ready/)
  t.ok((await transfer(daemon)).equals(DATA), 'the data is there')
}

t.test('all disks of a RAID5 grow while plexusd is off', async (t) => {
  const devices = images('raid5', 'd1', 'd2', 'd3')
  const daemon = await served(t, devices, '--raid5 d1 d2 d3')
  await daemon.kill()
  for (const path of Object.values(devices)) truncateSync(path, 24 * MIB)
  await restart(daemon, configOf(devices))
  await checkData(t, daemon)
  await run(t, daemon, 'status --check', 0, /volume: db +state: UP/)
  await run(t, daemon, 'events', 0, /drive-grown +d1 +drive d1 has grown by .* MiB/)
  await run(t, daemon, 'vinum ld', 0, /d1 /)
  await run(t, daemon, 'device resize d1', 2, /drive d1 uses all of its disk: 24 MiB/)
  await run(t, daemon, 'volume create new --raid5 d1 d2 d3 --wait', 0)
  await run(t, daemon, 'volume scrub db --wait', 0, /0 mismatches/)
  await run(t, daemon, 'volume scrub new --wait', 0, /0 mismatches/)
  // And a disk that grows while it runs.
  truncateSync(devices['d2'] ?? '', 32 * MIB)
  await until(daemon, 'events', /device-resized +d2 .*24 MiB before, 32 MiB now/)
  await until(daemon, 'events', /drive-grown +d2 [\s\S]*drive-grown +d2 /)
  await checkData(t, daemon)
})

t.test('disks of a set that waits have grown: named, and never blank', async (t) => {
  const devices = images('waits', 'd1', 'd2', 'd3')
  const daemon = await served(t, devices, '--raid5 d1 d2 d3')
  await daemon.kill()
  for (const path of Object.values(devices)) truncateSync(path, 24 * MIB)
  const { d1 = '' } = devices
  await restart(daemon, configOf({ d1 }))
  await run(t, daemon, 'device probe d1', 0, /d1 +no .*label for 16 MiB \(the disk is 24 MiB now\)/)
  for (const line of ['device list', 'device show d1', 'status']) {
    await run(t, daemon, line, 0, /carries a Plexus label for 16 MiB; the disk is 24 MiB now/)
  }
  const create = 'volume create x --concat d1'
  await run(t, daemon, create, 5, /d1/)
  await daemon.kill()
  await restart(daemon, configOf(devices))
  await checkData(t, daemon)
})

t.test('a disk that has shrunk, and one that was written over', async (t) => {
  const devices = images('bad', 'd1', 'd2', 'd3')
  const daemon = await served(t, devices, '--mirror d1 d2 d3')
  const { d1 = '' } = devices
  await daemon.kill()
  copyFileSync(d1, `${d1}.whole`)
  truncateSync(d1, 12 * MIB)
  await restart(daemon, configOf(devices))
  const shrunk = /Plexus label for 16 MiB; the disk is 12 MiB now/
  for (const line of ['device list', 'device probe d1', 'device show d1', 'status']) {
    await run(t, daemon, line, 0, shrunk)
  }
  const { out } = await plexus(daemon, 'status')
  t.notMatch(out, /onnect drive d1/, 'it is there')
  await run(t, daemon, 'events', 0, /critical +label-problem +d1 /i)
  t.not((await plexus(daemon, 'volume create x --concat d1')).exit, 0, 'it is not blank')
  await checkData(t, daemon)
  await daemon.kill()

  copyFileSync(`${d1}.whole`, d1)
  const gpt = Buffer.alloc(33 * BLOCK)
  gpt.write('EFI PART', 32 * BLOCK)
  writeSync(openSync(d1, 'r+'), gpt, 0, gpt.length, 16 * MIB - gpt.length)
  await restart(daemon, configOf(devices))
  const lost = /Plexus label whose end was overwritten \(GPT backup/
  for (const line of ['device list', 'device probe d1', 'device show d1', 'status']) {
    await run(t, daemon, line, 0, lost)
  }
  const restore = 'device restore-label d1'
  await run(t, daemon, `${restore} --dry-run`, 0, /write the label again on d1/)
  await run(t, daemon, `${restore} --yes`, 0, /scrub its volumes afterwards/)
  await until(daemon, 'status db', /state: UP/)
  await run(t, daemon, `${restore} --yes`, 5, /in use by vinum drive d1/)
  await run(t, daemon, 'volume scrub db --wait', 0, /0 mismatches/)
  await run(t, daemon, 'status --check', 0)
  await checkData(t, daemon)
})

t.test('a copy of a drive beside it: both are left alone, one may be cleared', async (t) => {
  const devices = images('copies', 'd1', 'd2', 'd3')
  const daemon = await served(t, devices, '--mirror d1 d2 d3')
  await daemon.kill()
  const { d1 = '' } = devices
  const copy = `${d1}.copy`
  copyFileSync(d1, copy)
  await restart(daemon, configOf({ ...devices, copy }))
  await run(t, daemon, 'status', 0, /Device d1 carries the label of drive d1, and so does copy/)
  await run(t, daemon, 'status', 0, /Device copy carries the label of drive .*, and so does d1/)
  await run(t, daemon, 'device list', 0, /copy +ready .*None of them is used/)
  await checkData(t, daemon)
  await run(t, daemon, 'device clear-label copy --yes', 0, /remove the label from copy/)
  await until(daemon, 'status db', /state: UP/)
  await run(t, daemon, 'status --check', 0)
  await run(t, daemon, 'device probe copy', 0, /copy +yes/)
})

t.test('a spare that was a drive of another machine', async (t) => {
  const theirs = images('other', 'd1', 'd2')
  const other = await served(t, theirs, '--mirror d1 d2')
  await other.stop()
  const devices = images('own', 'e1', 'e2')
  const spare = theirs['d1'] ?? ''
  const daemon = await served(t, devices, '--concat e1')
  await daemon.kill()
  await restart(daemon, configOf({ ...devices, spare }))
  const add = 'volume add-mirror db spare'
  await run(t, daemon, add, 5, /spare/)
  const clear = 'device clear-label spare'
  await run(
    t,
    daemon,
    `${clear} --dry-run`,
    0,
    /drive d1 of vinum set \S+: what it has of volume db/,
  )
  await run(t, daemon, `${clear} --yes`, 0, /remove the label from spare/)
  await run(t, daemon, `${add} --wait`, 0)
  await checkData(t, daemon)
})
