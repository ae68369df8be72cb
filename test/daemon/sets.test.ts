/**
 * Sets of drives against plexusd as a process: what is said of one that is not served, which names are free, two sets
 * with a volume of one name behind a LUN, and a volume that was destroyed and comes back.
 */
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import t, { type Test } from 'tap'
import type { ObjectList, ObjectReport } from '../../src/control/reports.ts'
import { type CliResult, runTerminal, TestTerminal } from '../support/control.ts'
import { Daemon, type DaemonConfig } from '../support/daemon.ts'
import { Initiator } from '../support/initiator.ts'

const TARGET = 'iqn.2026-11.test.plexus:sets'
const DISK_BYTES = 16 * 2 ** 20
const BLOCK = 512

const dir = mkdtempSync(join(tmpdir(), 'plexus-sets-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

/** Devices on image files of their own, which are made where they are not there yet. */
function images(folder: string, ...names: string[]): Record<string, string> {
  return Object.fromEntries(
    names.map((name) => {
      const path = join(dir, `${folder}-${name}.img`)
      writeFileSync(path, '', { flag: 'a' })
      truncateSync(path, DISK_BYTES)
      return [name, path]
    }),
  )
}

/** LUN 0 leads to volume db. */
function configOf(devices: Record<string, string>): DaemonConfig {
  const luns = [{ lun: 0, volume: 'db' }]
  return { devices, targets: [{ name: TARGET, portals: ['test'], auth: 'none', luns }] }
}

async function start(t: Test, devices: Record<string, string>): Promise<Daemon> {
  const daemon = await Daemon.start({ config: configOf(devices), startTimeoutMs: 60_000 })
  t.teardown(() => daemon.stop())
  return daemon
}

/** Ends it, and starts it again with these devices. */
async function restart(daemon: Daemon, devices: Record<string, string>): Promise<void> {
  await daemon.kill()
  daemon.configure(configOf(devices))
  await daemon.spawn()
}

function plexus(daemon: Daemon, line: string): Promise<CliResult> {
  return runTerminal([...line.split(' '), '--socket', daemon.controlDir], new TestTerminal())
}

/** The command must end with `exit` and say what `says` matches, on either output. Returns what it says. */
async function run(t: Test, daemon: Daemon, line: string, exit: number, says = /(?:)/) {
  const result = await plexus(daemon, line)
  const all = result.out + result.err
  t.equal(result.exit, exit, `plexus ${line}: ${all}`)
  t.match(all, says, `plexus ${line}`)
  return all
}

async function volumesOf(daemon: Daemon): Promise<readonly ObjectReport[]> {
  const { out } = await plexus(daemon, 'list volume --json')
  return (JSON.parse(out) as ObjectList).objects
}

/** The first blocks of LUN 0, and its NAA designator and serial number as the initiator gets them. */
async function lunOf(daemon: Daemon) {
  const session = await Initiator.open({ port: daemon.port, targetName: TARGET })
  const command = async (cdb: number[], read: number): Promise<string> => {
    for (;;) {
      const { status, sense, data } = await session.scsi({ cdb: Buffer.from(cdb), read, lun: 0 })
      if (status === 0) return (data ?? Buffer.alloc(0)).toString('hex')
      if (sense?.key !== 6) return `sense ${sense?.key}`
    }
  }
  const data = await command([0x28, 0, 0, 0, 0, 0, 0, 0, 1, 0], BLOCK)
  const naa = await command([0x12, 1, 0x83, 0, 255, 0], 255)
  const serial = await command([0x12, 1, 0x80, 0, 255, 0], 255)
  await session.close()
  return { data, naa, serial }
}

async function write(daemon: Daemon, byte: number): Promise<void> {
  const session = await Initiator.open({ port: daemon.port, targetName: TARGET })
  const cdb = Buffer.from([0x2a, 8, 0, 0, 0, 0, 0, 0, 1, 0])
  for (;;) {
    const { status } = await session.scsi({ cdb, write: Buffer.alloc(BLOCK, byte), lun: 0 })
    if (status === 0) break
  }
  await session.close()
}

t.test('a set that waits is in status, and its names are not free', async (t) => {
  const all = images('wait', 'd1', 'd2', 'd3', 's1')
  const { d1 = '', s1 = '' } = all
  const daemon = await start(t, all)
  await run(t, daemon, 'volume create db --raid5 d1 d2 d3 --wait', 0)
  const [{ set = '' } = {}] = await volumesOf(daemon)

  await restart(daemon, { d1, s1 })
  const said = await run(t, daemon, 'status', 0, new RegExp(`set: ${set} +state: DOWN`))
  t.match(said, /with db is not served: 2 drives are missing: d2, d3/)
  t.match(said, /Connect d2 \(.*wait-d2\.img\), d3 \(.*wait-d3\.img\)/, 'what they were')
  t.match(said, new RegExp(`plexus vinum assemble --force ${set}; .*db is FAULTED`))
  t.match(said, new RegExp(`LUN 0 .* leads to "db"[^]*it is served when ${set} is`))
  t.notMatch(said, /volume create/)
  await run(t, daemon, 'status -x', 0, new RegExp(set))
  await run(t, daemon, 'status --check', 11)
  await run(t, daemon, 'status db', 0, /2 drives are missing/)
  await run(t, daemon, 'status db --check', 11)
  for (const form of ['volume create db --concat s1', 'vinum concat s1 -n db']) {
    await run(t, daemon, form, 5, new RegExp(`db exists already on ${set}`))
  }
  await run(t, daemon, `vinum forget ${set} --yes`, 5, /drives of it are/)
  await run(t, daemon, 'volume create other --concat s1', 0)

  await restart(daemon, { s1 })
  await run(t, daemon, 'status', 0, /with db is not served: none of its 3 drives is here/)
  await run(t, daemon, 'status --check', 11)
  await run(t, daemon, 'volume rename other db', 5, /exists already on/)

  await restart(daemon, all)
  await run(t, daemon, 'status --check', 0, /volume: db/)

  await restart(daemon, { s1 })
  await run(t, daemon, `vinum forget ${set} --yes`, 0, /the names of db are free/)
  await run(t, daemon, 'volume rename other db', 0)
  await run(t, daemon, 'status --check', 0)
  await restart(daemon, all)
  t.match(await volumesOf(daemon), [{ name: 'db' }, { name: `${set}/db` }])
})

t.test('of two sets with a volume db the LUN keeps the one that it had', async (t) => {
  const ours = images('ours', 'd1', 'd2')
  const daemon = await start(t, ours)
  await run(t, daemon, 'volume create db --mirror d1 d2 --wait', 0)
  await write(daemon, 1)
  const before = await lunOf(daemon)
  const theirs = images('theirs', 'd1', 'd2')
  const other = await start(t, theirs)
  await run(t, other, 'volume create db --mirror d1 d2 --wait', 0)
  await write(other, 2)
  const foreign = await lunOf(other)
  await other.kill()

  // The foreign disks come first in the file, and first of all at the start.
  const foreignFirst = { e1: theirs['d1'] ?? '', e2: theirs['d2'] ?? '' }
  await restart(daemon, { ...foreignFirst, ...ours })
  t.same(await lunOf(daemon), before, 'the LUN has its disk')
  const volumes = await volumesOf(daemon)
  const second = volumes.find(({ name }) => name.includes('/'))
  t.match(volumes, [{ name: 'db', exported: [{ lun: 0 }] }, { exported: [] }])
  const said = await run(t, daemon, 'status', 0, /set: vinum-/)
  const [, rename = ''] = /plexus (volume rename \S+) NEW-NAME/.exec(said) ?? []
  t.equal(rename, `volume rename ${second?.name}`)
  await run(t, daemon, 'tree', 0, new RegExp(`e1 .*vinum ${second?.set} .* ${second?.name}`))

  // Not even while ours is away.
  await restart(daemon, foreignFirst)
  t.not((await lunOf(daemon)).naa, foreign.naa)
  await run(t, daemon, 'lun list', 0, /db +not ready/)
  await restart(daemon, { ...foreignFirst, ...ours })
  t.same(await lunOf(daemon), before)
  await run(t, daemon, `${rename} archive`, 0)
  await run(t, daemon, 'volume scrub archive --wait', 0, /check of archive is done/)
  await restart(daemon, { ...foreignFirst, ...ours })
  t.match(await volumesOf(daemon), [{ name: 'db' }, { name: 'archive' }])
  t.same(await lunOf(daemon), before)
})

t.test('a destroyed volume comes back, with its data and the identity of its LUN', async (t) => {
  const daemon = await start(t, images('undo', 'd1', 'd2', 'd3'))
  await run(t, daemon, 'volume create db --mirror d1 d2 --size 8MiB --wait', 0)
  await write(daemon, 7)
  const before = await lunOf(daemon)
  await run(t, daemon, 'volume undelete db --yes', 4, /has a destroyed volume "db"/)
  await run(t, daemon, 'volume destroy db --yes --force', 0, /plexus volume undelete db/)
  await run(t, daemon, 'status --check', 11, /leads to "db"/)

  await daemon.kill()
  await daemon.spawn()
  await run(
    t,
    daemon,
    'volume undelete db --dry-run',
    0,
    /would bring back volume db: 8 MiB, as it was on 20/,
  )
  await run(t, daemon, 'volume undelete db', 2, /--yes/)
  await run(t, daemon, 'volume undelete db --yes --wait', 0, /sync of db\.p1 is done/)
  t.same(await lunOf(daemon), before)
  await run(t, daemon, 'status --check', 0)
  await run(t, daemon, 'volume scrub db --wait', 0, /check of db is done/)

  // Another volume had its place for a while, and may have written there.
  await run(t, daemon, 'volume destroy db --yes --force', 0)
  await run(t, daemon, 'volume create tmp --concat d2', 0)
  await run(
    t,
    daemon,
    'volume undelete db --yes',
    5,
    /place of db\.p1\.s0 on drive d2 was given to tmp/,
  )
  await run(t, daemon, 'volume destroy tmp --yes', 0)
  await run(
    t,
    daemon,
    'volume undelete db --yes',
    5,
    /place of db\.p1\.s0 on drive d2 was given to tmp/,
  )
  await run(t, daemon, 'volume create db --concat d3', 0)
  while (!/db +ready/.test((await plexus(daemon, 'lun list')).out)) await setTimeout(20)
  t.not((await lunOf(daemon)).naa, before.naa, 'a new volume is another disk')
  await run(t, daemon, 'volume undelete db --yes', 5, /db exists/)
})
