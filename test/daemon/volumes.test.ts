/**
 * The command line against plexusd as a process, while a LUN on a volume is in use: every noun, exit codes, the two
 * sockets, events, and what `status --check` says. Commands run in this process, over the daemon's sockets; a few
 * as processes of their own, which takes seconds each from the sources.
 */
import {
  copyFileSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import type { StatReport, StatusReport } from '../../src/control/daemon-reports.ts'
import type { EventReport, JobReport, PlanReport } from '../../src/control/reports.ts'
import { type CliResult, runTerminal, TestTerminal } from '../support/control.ts'
import { Daemon, runPlexus } from '../support/daemon.ts'
import { Initiator } from '../support/initiator.ts'

const TARGET = 'iqn.2026-11.test.plexus:volumes'
const DISK_BYTES = 24 * 2 ** 20
const BLOCK = 512
/** Per command of the load. */
const LOAD_BLOCKS = 64
/** Blocks of the volume that the load writes. */
const LOAD_SPAN = 8 * 1024

const dir = mkdtempSync(join(tmpdir(), 'plexus-volumes-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function image(name: string): string {
  const path = join(dir, name)
  writeFileSync(path, '')
  truncateSync(path, DISK_BYTES)
  return path
}

const disks = Object.fromEntries(
  ['d1', 'd2', 'd3', 'd4', 'd5', 'd6'].map((name) => [name, image(`${name}.img`)]),
)
const target = {
  name: TARGET,
  portals: ['test'],
  auth: 'none',
  luns: [
    { lun: 0, volume: 'db' },
    { lun: 1, volume: 'fast' },
  ],
}
const config = { devices: disks, targets: [target] }
const daemon = await Daemon.start({ config })
t.teardown(() => daemon.stop())

/** Sleeps in real time and reads real files, as a terminal does. */
class RealTerminal extends TestTerminal {
  override readFile(path: string): string {
    return readFileSync(path, 'utf8')
  }

  override sleep(ms = 0): Promise<void> {
    if (this.interrupted) throw new Error('interrupted')
    return new Promise((resolve) => setTimeout(resolve, ms))
  }
}

const plexus = (line: string, answers?: readonly string[]): Promise<CliResult> =>
  runTerminal([...line.split(' '), '--socket', daemon.controlDir], new RealTerminal(answers))

/** The command must end with `exit` and say what `says` matches, on either output. */
async function run(t: Test, line: string, exit: number, says: RegExp = /(?:)/): Promise<string> {
  const result = await plexus(line)
  const all = result.out + result.err
  t.equal(result.exit, exit, `plexus ${line} ends with ${exit}; it says: ${all}`)
  t.match(all, says, `plexus ${line}: what it says`)
  return all
}

async function json<T>(t: Test, line: string): Promise<T> {
  const { exit, out, err } = await plexus(`${line} --json`)
  t.equal(exit, 0, `plexus ${line} --json: ${err}`)
  const answer = JSON.parse(out)
  const { command, ...version } = answer.outputVersion
  t.same(version, { major: 1, minor: 0 }, `plexus ${line} --json: its version`)
  t.equal(command.split(' ')[0], line.split(' ')[0], `plexus ${line} --json: its command`)
  t.equal(Object.keys(answer)[0], 'outputVersion', 'the version comes first')
  return answer
}

async function until(line: string, pattern: RegExp): Promise<void> {
  const end = Date.now() + 15_000
  for (;;) {
    const { out } = await plexus(line)
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

/** Writes LUN 0 again and again, and reads back what it wrote. Unit attentions are noted, errors end it. */
class Load {
  readonly session: Initiator
  readonly attentions: number[] = []
  rounds = 0
  failure: string | undefined
  #stopped = false
  #ended: Promise<void> | undefined

  constructor(session: Initiator) {
    this.session = session
  }

  start(): void {
    this.#ended = this.#run()
  }

  async stop(): Promise<void> {
    this.#stopped = true
    await this.#ended
  }

  async #run(): Promise<void> {
    while (!this.#stopped && this.failure === undefined) {
      const lba = ((this.rounds * 3) % (LOAD_SPAN / LOAD_BLOCKS)) * LOAD_BLOCKS
      const data = Buffer.alloc(LOAD_BLOCKS * BLOCK, `${this.rounds}/`)
      await this.#command(cdb10(0x2a, lba, LOAD_BLOCKS), { write: data })
      const back = await this.#command(cdb10(0x28, lba, LOAD_BLOCKS), { read: data.length })
      if (back && !data.equals(back)) this.failure ??= `round ${this.rounds}: other data at ${lba}`
      this.rounds++
      // Leaves the processor to the daemon and the commands.
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
  }

  async #command(
    cdb: Buffer,
    transfer: { readonly write: Buffer } | { readonly read: number },
  ): Promise<Buffer | undefined> {
    for (;;) {
      const { status, sense, data } = await this.session.scsi({ cdb, ...transfer, lun: 0 })
      if (status === 0) return data
      if (sense?.key === 6) this.attentions.push(sense.code)
      else {
        this.failure ??= `status ${status}, sense ${JSON.stringify(sense)}`
        return undefined
      }
    }
  }
}

t.test('before there is a volume', async (t) => {
  await run(t, 'status', 0, /volume create makes one|leads to "db", which is not there/)
  await run(t, 'status --check', 11)
  await run(t, 'device list', 0, /d1 +ready +24\.0 MiB|d1 +ready +24 MiB/)
  const list = await json<{ devices: unknown[] }>(t, 'device list')
  t.equal(list.devices.length, 6)
  await run(t, 'device probe d1', 0, /d1 +yes/)
  await run(t, 'device show d1', 0, /d1\.img/)
  await run(t, 'lun list', 0, /db +not ready/)
  await run(t, 'volume list', 0, /there are no volumes/)
  await run(t, 'volume create db --mirror d1 d2 --dry-run', 0, /would write label on d1/)
  const dry = await json<PlanReport>(t, 'volume create db --mirror d1 d2 --dry-run')
  t.equal(dry.dryRun, true)
  t.match(dry.steps[0], { object: 'd1', text: /write label on d1/ })
  await run(t, 'volume list', 0, /there are no volumes/)
})

t.test('exit codes', async (t) => {
  await run(
    t,
    'volume create db --mirror d1 d2 --wait',
    0,
    /create volume db: [\s\S]*sync of db\.p1 is done/,
  )
  await run(t, 'volume create db --mirror d3 d4', 5, /db.*exists|there is .*db already/i)
  await run(t, 'volume create other --mirror d1 d2', 1, /d1 has no room/)
  await run(t, 'volume create other --mirror d8 d9', 4, /d8/)
  await run(t, 'volume show dc', 4, /did you mean "?db/)
  await run(t, 'volume create', 2, /missing required argument/)
  await run(t, 'volume create other --stripe d3 d4 --stripe-size 5000', 2, /multiple of 512 B/)
  await run(t, 'volume destroy db', 2, /--yes/)
  await run(t, 'job pause j0', 4, /no job "j0"/)
  const nowhere = await runTerminal(['status', '--socket', join(dir, 'no')], new TestTerminal())
  t.equal(nowhere.exit, 3, nowhere.err)
  const [usage, unreachable, done] = await Promise.all([
    runPlexus(['volume', 'frobnicate']),
    runPlexus(['status', '--socket', join(dir, 'no')]),
    daemon.plexus(['status', '--check']),
  ])
  t.equal(usage.exit, 2, 'as a process: usage')
  t.match(unreachable, { exit: 3, out: '', err: /cannot be reached/ }, 'as a process: no daemon')
  t.match(done, { exit: 11, out: /volume: db +state: UP/ }, 'as a process: LUN 1 leads nowhere yet')
})

t.test('every noun while a LUN is in use', async (t) => {
  await run(t, 'volume create fast --stripe d3 d4 --stripe-size 64KiB', 0)
  await run(t, 'status --check', 0, /state: UP/)
  const load = new Load(await Initiator.open({ port: daemon.port, targetName: TARGET }))
  load.start()
  t.teardown(() => load.stop())

  await t.test('what is there', async (t) => {
    await run(t, 'status', 0, /exported: iqn\.2026-11\.test\.plexus:volumes lun 0, 1 session/)
    const status = await json<StatusReport>(t, 'status')
    t.match(
      status.objects.filter(({ type }) => type === 'volume'),
      [
        { name: 'db', state: 'UP', health: 'HEALTHY' },
        { name: 'fast', state: 'UP', health: 'HEALTHY' },
      ],
    )
    await run(t, 'status -x', 0, /all is healthy/)
    await run(t, 'tree', 0, /d1 .*vinum.*db.*lun 0/)
    await json(t, 'tree')
    await run(t, 'target list', 0, new RegExp(TARGET))
    await run(t, 'lun list', 0, /db +ready/)
    await run(t, 'session list', 0, new RegExp(TARGET))
    await run(t, 'geom list', 0, /vinum/)
    for (const noun of ['target', 'lun', 'session', 'geom', 'device', 'volume']) {
      await json(t, `${noun} list`)
    }
    await run(t, 'device list -o name,used-by --no-headings', 0, /^d1\tvinum drive d1$/m)
    await run(t, 'device probe d1', 0, /d1 +no/)
    await run(t, 'device clear-label d1 --yes', 5, /vinum/)
  })

  await t.test('vinum, one by one', async (t) => {
    for (const verb of ['list', 'ld', 'lv', 'lp', 'ls']) {
      await run(t, `vinum ${verb}`, 0, verb === 'ld' ? /d1/ : /db/)
      await json(t, `vinum ${verb}`)
    }
    await run(t, 'vinum list -r db', 0, /db\.p0\.s0/)
    const text = await run(t, 'vinum printconfig', 0, /volume db/)
    const file = join(dir, 'vinum.conf')
    writeFileSync(file, text)
    await run(t, `vinum create -f ${file} --dry-run`, 0, /nothing to do[\s\S]*left as it is/)
    await run(t, `vinum create ${file}`, 5, /d1 exists/)
    await run(t, `vinum create ${join(dir, 'none')}`, 4, /cannot be read/)
    await run(t, 'vinum saveconfig', 0)
    await run(t, 'vinum rename fast quick -r', 5, /in use under its name/)
    await run(t, 'vinum rename d1 first', 0, /rename/)
    await run(t, 'vinum rename first d1', 0)
    await run(t, 'vinum detach db.p1', 5, /-f|--force/)
    await run(t, 'vinum rm db --yes', 5, /./)
    await run(t, 'vinum start db', 0)
    await run(t, 'vinum stop', 5, /in use|open/)
  })

  await t.test('a volume grows, the initiator hears of it', async (t) => {
    await run(t, 'job limit all 1MiB', 0)
    await run(t, 'volume grow fast d5', 0, /grow of fast\.p0 has started/)
    const [job] = (await json<{ jobs: JobReport[] }>(t, 'job list')).jobs
    t.match(job, { kind: 'grow', object: 'fast.p0', parent: 'fast', state: 'running' })
    const id = job?.id ?? ''
    await run(t, 'status', 0, /volume: fast +state: GROWING[\s\S]*grow: \[/)
    await run(t, 'wait fast --now', 7, /still run/)
    await run(t, 'wait fast --for grow --timeout 100ms', 7, /still run after 0\.1 s/)
    await run(t, `job pause ${id}`, 0, /paused/)
    await run(t, 'status fast', 0, new RegExp(`action: To go on: plexus job resume ${id}`))
    await run(t, `job resume ${id}`, 0)
    await run(t, `job limit ${id} 0`, 2, /limit of 0/)
    await run(t, 'volume grow fast d6', 5, new RegExp(id))
    await run(t, 'job limit all none', 0)
    await run(t, 'wait fast --for grow --timeout 20s', 0, /grow of fast\.p0 is done/)
    await run(t, 'wait nothing', 4, /nothing/)
    await until('lun list', /fast +ready +70\.1 MiB/)
    await run(t, `job cancel ${id}`, 2, /at work no more/)
  })

  await t.test('copies come and go', async (t) => {
    await run(t, 'volume add-mirror db d6 --wait', 0, /sync of db\.p2 is done/)
    await run(t, 'volume show db', 0, /db\.p2/)
    await run(t, 'volume set db --read-policy prefer --plex db.p2', 0)
    await run(t, 'volume set db --read-policy round-robin', 0)
    await run(t, 'volume scrub db --wait', 0, /check of db is done/)
    await run(t, 'volume remove-mirror db db.p0 --yes', 0)
    await run(t, 'volume replace db d2 d1 --wait', 0, /is done/)
    const wrong = await plexus('volume remove-mirror db db.p1', ['db'])
    t.match(wrong, { exit: 1, err: /that is not "db\.p1"; nothing was changed/ })
    const used = await plexus('volume destroy db', ['db'])
    t.match(used, { exit: 5, err: /in use/ }, 'refused before anything is asked')
    await run(t, 'volume destroy db --yes', 5, /in use[\s\S]*--force/)
    await run(t, 'volume rename fast quick --dry-run', 5, /in use under its name/)
  })

  await t.test('faults on purpose', async (t) => {
    await run(t, 'nop create d2', 5, /in use/)
    await run(t, 'vinum rm d2 --yes', 0)
    await run(t, 'nop create d2', 0)
    await run(t, 'nop list', 0, /d2\.nop/)
    await run(t, 'nop delay d2.nop --read 5', 0)
    await run(t, 'nop fail d2.nop --op write --count 1', 0)
    await json(t, 'nop list')
    await run(t, 'nop clear d2.nop', 0)
    await run(t, 'nop destroy d2.nop', 0)
    await run(t, 'nop destroy d2.nop', 4, /d2\.nop/)
  })

  await t.test('rates', async (t) => {
    await run(t, 'stat -I 200ms -c 1', 0, /^ *db +/m)
    await run(t, 'stat db -I 50ms -c 1 --consumers', 0, /logical unit db/)
    const { providers } = await json<StatReport>(t, 'stat db')
    t.ok((providers[0]?.operations['write']?.bytes ?? 0) > 0, 'the load is counted')
    await run(t, 'stat nothing', 4, /nothing/)
  })

  const { rounds } = load
  t.ok(rounds > 20, `the load went on meanwhile: ${rounds} rounds`)
  await load.stop()
  t.equal(load.failure, undefined, 'no error reached the initiator')
  await load.session.close()
})

t.test('who may do what', async (t) => {
  const status = join(daemon.controlDir, 'status.sock')
  const onStatus = (line: string): Promise<CliResult> =>
    runTerminal([...line.split(' '), '--socket', status], new TestTerminal())
  t.match(await onStatus('status'), { exit: 0, out: /volume: db/ })
  t.match(await onStatus('job list'), { exit: 0 })
  for (const line of [
    'volume create x --concat d2',
    'volume create x --concat d2 --dry-run',
    'device probe',
    'config dump',
    'job limit all none',
  ]) {
    const { exit, err } = await onStatus(line)
    t.equal(exit, 6, `${line} on status.sock: ${err}`)
  }
})

t.test('events', async (t) => {
  await run(t, 'events', 0, /sync-finished +db\.p1/)
  const { events } = await json<{ events: EventReport[] }>(t, 'events --since 1h')
  t.ok(events.some(({ event }) => event === 'grow-finished'))
  t.same(
    events.map(({ sequence }) => sequence),
    events.map((_, index) => (events[0]?.sequence ?? 0) + index),
  )
  await run(t, 'events --since yesterday', 2, /yesterday/)

  const terminal = new RealTerminal()
  const following = runTerminal(
    ['events', '--follow', '--json', '--socket', daemon.controlDir],
    terminal,
  )
  const lines = (): EventReport[] =>
    terminal.outText
      .split('\n')
      .filter((line) => line !== '')
      .map((line) => JSON.parse(line))
  const end = Date.now() + 10_000
  while (lines().length === 0 && Date.now() < end) {
    // It may take a moment until it listens.
    await run(t, 'vinum saveconfig', 0)
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  t.match(lines()[0], { severity: 'info', event: /saveconfig/ })

  // Everything is there again after a restart, and who follows goes on.
  await daemon.kill()
  t.equal((await plexus('status')).exit, 3, 'nobody is there')
  await daemon.spawn()
  await until('status', /volume: db +state: UP/)
  const again = Date.now() + 10_000
  while (!lines().some(({ event }) => event === 'started') && Date.now() < again) {
    await new Promise((resolve) => setTimeout(resolve, 100))
  }
  t.ok(lines().some(({ event }) => event === 'started'))
  terminal.interrupted = true
  // It looks for an interruption where it rests.
  const ended = t.rejects(following, /interrupted/)
  await daemon.kill()
  await ended
  await daemon.spawn()
  await until('status', /volume: db +state: UP/)
})

t.test('health', async (t) => {
  await run(t, 'wait db --timeout 10s', 0)
  await run(t, 'status --check', 0)
  daemon.configure({ ...config, limits: { sessions: 7 } })
  await run(t, 'status --check', 12, /has changed since it was applied/)
  await run(t, 'config diff', 0, /would/)
  await run(t, 'config apply --dry-run', 0, /would/)
  await run(t, 'config apply', 0)
  await run(t, 'status --check', 0)
  await run(t, 'config dump', 0, /sessions/)
  await json(t, 'config dump')

  const { d1 = '', d3 = '', ...others } = disks
  daemon.configure({ ...config, devices: others })
  await run(t, 'config apply', 5, /d1 is in use as vinum drive d1/)
  daemon.configure({ ...config, limits: { sessions: 7 } })

  // A disk without a size is gone.
  const lose = (path: string): void => {
    copyFileSync(path, `${path}.kept`)
    truncateSync(path, 0)
  }
  lose(d1)
  await until('status db', /state: DEGRADED/)
  // A write that was under way may have made the file longer again, which no disk does.
  truncateSync(d1, 0)
  await run(t, 'status --check', 10, /action: .*volume replace db d1 NEW-DEVICE/)
  await run(t, 'status -x', 0, /d1 +STALE.*0\/1 +gone since/)
  await until('device list', /d1 +missing/)
  lose(d3)
  await until('status fast', /state: DOWN/)
  await run(t, 'status --check', 11, /Connect drive d3 again/)
  await run(t, 'wait db --now', 0)
  for (const path of [d1, d3]) copyFileSync(`${path}.kept`, path)
  await until('status fast', /state: UP/)
  await until('status db', /state: UP/)
  await run(t, 'status --check', 0)
  await json(t, 'config apply')
  const file = join(dir, 'new.yaml')
  writeFileSync(file, 'version: 1\nportals: 7\n')
  await run(t, `config apply ${file}`, 2, /portals/)
  await run(t, 'config backups', 0, /there are no backups/)
})

t.test('the end of a volume', async (t) => {
  await run(t, 'volume destroy fast --yes', 5, /take its LUN away/)
  await run(t, 'volume destroy fast --yes --force', 0, /volume fast/)
  await run(t, 'volume show fast', 4)
  await run(t, 'status --check', 11, /LUN 1 of .* leads to "fast", which is not there/)
  await run(t, 'vinum resetconfig --yes', 5, /in use|open/)
  daemon.configure({ devices: disks, targets: [] })
  await run(t, 'config apply', 0, /remove/)
  await run(t, 'volume destroy db --yes', 0)
  await run(t, 'vinum resetconfig --yes', 0)
  await run(t, 'device probe d1', 0, /d1 +yes/)
})
