/**
 * The vote of the machine (witness-files.ts): a mirror of two whose one disk is dead when the daemon starts is served by
 * itself; a note from a backup counts as lost.
 */
import { copyFileSync, mkdtempSync, renameSync, rmSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import type { StatusReport } from '../../src/control/daemon-reports.ts'
import { WitnessFiles } from '../../src/daemon/witness-files.ts'
import { runTerminal, TestTerminal } from '../support/control.ts'
import { Daemon, type DaemonConfig } from '../support/daemon.ts'
import { failureOf } from '../support/failure.ts'

const SET = '5e70cafe-0000-4000-8000-000000000001'
const dir = mkdtempSync(join(tmpdir(), 'plexus-witness-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

t.test('a note is read as it was written', async (t) => {
  const files = new WitnessFiles(join(dir, 'state'))
  t.equal(await files.read(SET), undefined)
  await files.write(SET, 'one')
  await files.write(SET, 'two')
  t.equal(await files.read(SET), 'two')
  t.equal(await new WitnessFiles(join(dir, 'state')).read(SET), 'two', 'after a restart')
  const many = ['three', 'four', 'five']
  await Promise.all(many.map((note) => files.write(SET, note)))
  t.equal(await files.read(SET), 'five', 'in the order in which they were asked for')
})

t.test('a note from a backup, or a damaged one, is none', async (t) => {
  const files = new WitnessFiles(join(dir, 'backup'))
  await files.write(SET, 'old')
  const path = join(files.path, `${SET}.json`)
  copyFileSync(path, `${path}.saved`)
  await files.write(SET, 'new')
  renameSync(`${path}.saved`, path)
  t.equal(await files.read(SET), undefined, 'restored')
  writeFileSync(path, 'rubbish')
  t.equal(await files.read(SET), undefined)
  const nowhere = join(dir, 'file')
  writeFileSync(nowhere, '')
  t.match(await failureOf(new WitnessFiles(nowhere).write(SET, 'note')), { op: 'write' })
})

t.test('a mirror of two, one disk dead at the start: served without a verb', async (t) => {
  const devices = Object.fromEntries(
    ['d1', 'd2'].map((name) => {
      const path = join(dir, `${name}.img`)
      writeFileSync(path, '')
      truncateSync(path, 16 * 2 ** 20)
      return [name, path]
    }),
  )
  const config = (some: typeof devices): DaemonConfig => ({ devices: some, targets: [] })
  const daemon = await Daemon.start({ config: config(devices), startTimeoutMs: 60_000 })
  t.teardown(() => daemon.stop())
  const plexus = (line: string) =>
    runTerminal([...line.split(' '), '--socket', daemon.controlDir], new TestTerminal())
  const healthOf = async (): Promise<unknown> => {
    const { out } = await plexus('status --json')
    return (JSON.parse(out) as StatusReport).objects.flatMap(({ health }) => health ?? [])
  }
  const created = await plexus('volume create db --mirror d1 d2 --wait')
  t.equal(created.exit, 0, created.err)
  await daemon.kill()
  const { d2 = '' } = devices
  daemon.configure(config({ d1: join(dir, 'dead.img'), d2 }))
  await daemon.spawn()
  const startedMs = Date.now()
  while (Date.now() - startedMs < 10_000 && `${await healthOf()}` !== 'DEGRADED') {}
  t.strictSame(await healthOf(), ['DEGRADED'])
})
