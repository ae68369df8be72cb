/**
 * A plexusd to be attacked in tests, with an honest session beside: after every attack the process must be the
 * same and the honest session must read what it wrote. Used by test/target/iscsi/hostile-*.test.ts.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { read10, testUnitReady, write10 } from './cdb.ts'
import { Daemon, oneDisk, TARGET } from './daemon.ts'
import { Initiator } from './initiator.ts'

const DISK_BYTES = 64 * 1024 * 1024
const BLOCK = 512
/** The blocks at the start that belong to the honest session. */
const KEPT_BLOCKS = 256

export interface Victim {
  readonly daemon: Daemon
  readonly port: number
  /** A test that ends with a look at the others: plexusd lives, the honest session reads what it wrote. */
  hostile(name: string, attackers: (t: Test) => Promise<void>): void
  /** A session whose unit attentions are taken. */
  open(keys?: Record<string, string>): Promise<Initiator>
}

export async function startVictim(): Promise<Victim> {
  const dir = mkdtempSync(join(tmpdir(), 'plexus-hostile-'))
  const image = join(dir, 'disk')
  writeFileSync(image, '')
  truncateSync(image, DISK_BYTES)
  const daemon = await Daemon.start({ config: oneDisk(image) })
  const { port, pid } = daemon
  const open = async (keys: Record<string, string> = {}): Promise<Initiator> => {
    const session = await Initiator.open({ port, targetName: TARGET, keys })
    for (let tries = 0; tries < 4; tries++) {
      if ((await session.scsi({ cdb: testUnitReady() })).status === 0) return session
    }
    throw new Error('the unit is not ready')
  }
  const honest = await open()
  const kept = randomBytes(KEPT_BLOCKS * BLOCK)
  t.equal((await honest.scsi({ cdb: write10(0, KEPT_BLOCKS), write: kept })).status, 0)
  t.teardown(async () => {
    honest.destroy()
    await daemon.stop()
    rmSync(dir, { recursive: true, force: true })
  })
  const hostile = (name: string, attackers: (t: Test) => Promise<void>): void => {
    void t.test(name, async (t) => {
      await attackers(t)
      t.ok(daemon.running && daemon.pid === pid, 'plexusd is alive')
      const { status, data } = await honest.scsi({ cdb: read10(0, KEPT_BLOCKS), read: kept.length })
      t.equal(status, 0)
      t.ok(data.equals(kept), 'the honest session reads what it wrote')
    })
  }
  return { daemon, port, hostile, open }
}
