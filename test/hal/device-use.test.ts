/** src/hal/device-use.ts and device-watch.ts, on loop devices and files. */
import { type ChildProcess, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  realpathSync,
  rmSync,
  symlinkSync,
  truncateSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import t, { type Test } from 'tap'
import { PlexusError } from '../../src/base/errors.ts'
import { describeUse, resolveDevice } from '../../src/hal/device-use.ts'
import { watchDevices } from '../../src/hal/device-watch.ts'
import { ManualClock } from '../support/manual-clock.ts'

const MIB = 1024 * 1024
const dir = realpathSync(mkdtempSync(join(tmpdir(), 'plexus use-')))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function makeFile(name: string, sizeBytes: number): string {
  const path = join(dir, name)
  writeFileSync(path, '')
  truncateSync(path, sizeBytes)
  return path
}

/** Runs a command; the reason why it failed, undefined when it did not. */
function run(command: string, ...args: string[]): string | undefined {
  const { error, status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (error) return `${command} is not installed`
  return status === 0 ? undefined : `${command} failed here: ${stderr.trim().split('\n')[0]}`
}

/** A loop device over a file, detached after the test; undefined, with a skip, where that is not permitted. */
function attach(t: Test, path: string, ...options: string[]): string | undefined {
  const result = spawnSync('losetup', ['-f', '--show', ...options, path], { encoding: 'utf8' })
  if (result.error || result.status !== 0) {
    t.pass('loop devices cannot be made here', { skip: true })
    return undefined
  }
  const loop = result.stdout.trim()
  t.teardown(() => {
    // Only while it is ours: a test may have given it back already, and somebody else has it now.
    const ours = spawnSync('losetup', ['-n', '-O', 'NAME', '-j', path], { encoding: 'utf8' })
    if (ours.stdout.split(/\s+/).includes(loop)) spawnSync('losetup', ['-d', loop])
  })
  return loop
}

/** Another process with `path` open, until the test ends. */
async function holdOpen(t: Test, path: string): Promise<number> {
  const script =
    'require("fs").openSync(process.argv[1], "r"); console.log("open"); setTimeout(() => {}, 60000)'
  const child: ChildProcess = spawn(process.execPath, ['-e', script, path])
  const exited = once(child, 'exit')
  t.teardown(async () => {
    child.kill('SIGKILL')
    await exited
  })
  if (child.stdout) await once(child.stdout, 'data')
  return child.pid ?? 0
}

function errorOf(call: () => unknown): readonly [string, string] {
  try {
    call()
    return ['none', '']
  } catch (error) {
    return error instanceof PlexusError ? [error.kind, error.message] : ['foreign', String(error)]
  }
}

t.test('which device a path means', (t) => {
  const file = makeFile('r.img', MIB)
  const link = join(dir, 'by-id')
  symlinkSync(file, link)
  const { path, kind } = resolveDevice(link)
  t.strictSame([path, kind], [file, 'file'])
  symlinkSync('circle', join(dir, 'circle'))
  mkdirSync(join(dir, 'folder'))
  const cases: ReadonlyArray<readonly [string, string, RegExp]> = [
    [join(dir, 'absent'), 'not-found', /does not exist/],
    [join(file, 'below'), 'not-found', /no directory/],
    [join(dir, 'circle'), 'invalid', /back to itself/],
    [join(dir, 'folder'), 'invalid', /is a directory/],
    ['/dev/null', 'invalid', /is a character device/],
  ]
  for (const [at, wanted, text] of cases) {
    const [error, message] = errorOf(() => resolveDevice(at))
    t.equal(error, wanted, at)
    t.match(message, text)
    t.ok(message.startsWith(at), 'the message names the path')
    t.equal(describeUse(at), undefined, 'nobody uses what is not there')
  }
  t.end()
})

t.test('a loop device over a file, and a mount of it', (t) => {
  const path = makeFile('m.img', 16 * MIB)
  t.equal(describeUse(path), undefined)
  const loop = attach(t, path)
  if (loop === undefined) return t.end()
  const block = resolveDevice(loop)
  t.strictSame([block.path, block.kind, block.major], [loop, 'block', 7])
  t.equal(`/dev/loop${block.minor}`, loop)
  t.equal(describeUse(path), `backing file of ${loop}`)
  t.equal(describeUse(loop), undefined)
  const point = join(dir, 'mount point')
  mkdirSync(point)
  const reason = run('mkfs.ext4', '-q', '-F', loop) ?? run('mount', loop, point)
  if (reason) {
    t.pass(reason, { skip: true })
    return t.end()
  }
  t.teardown(() => run('umount', point))
  t.equal(describeUse(loop), `mounted at ${point}`)
  t.end()
})

t.test('a mounted partition, and swap', (t) => {
  const loop = attach(t, makeFile('p.img', 32 * MIB), '-P')
  if (loop === undefined) return t.end()
  const partition = `${loop}p1`
  const point = join(dir, 'part')
  mkdirSync(point)
  const reason =
    run('addpart', loop, '1', '2048', '32768') ?? run('mkfs.ext4', '-q', '-F', partition)
  t.teardown(() => run('delpart', loop, '1'))
  const failed = reason ?? run('mount', partition, point)
  if (failed) {
    t.pass(failed, { skip: true })
    return t.end()
  }
  const name = partition.slice('/dev/'.length)
  t.equal(describeUse(loop), `its partition ${name} is mounted at ${point}`)
  t.equal(describeUse(partition), `mounted at ${point}`)
  run('umount', point)
  t.equal(describeUse(loop), undefined)

  const noSwap = run('mkswap', partition) ?? run('swapon', partition)
  if (noSwap) {
    t.pass(noSwap, { skip: true })
    return t.end()
  }
  const use = describeUse(loop)
  run('swapoff', partition)
  t.equal(use, `its partition ${name} is used as swap space`)
  t.end()
})

t.test('a holder', (t) => {
  const loop = attach(t, makeFile('dm.img', 4 * MIB))
  if (loop === undefined) return t.end()
  const name = `plexus-use-${process.pid}`
  const hasMapper = existsSync('/sys/class/misc/device-mapper')
  const reason = !hasMapper
    ? 'no device mapper in this kernel'
    : run('dmsetup', 'create', name, '--table', `0 8192 linear ${loop} 0`)
  if (reason) {
    t.pass(reason, { skip: true })
    return t.end()
  }
  const use = describeUse(loop)
  run('dmsetup', 'remove', name)
  t.match(use, new RegExp(`^held by dm-\\d+ \\(device mapper ${name}\\)$`))
  t.end()
})

t.test('processes with an open descriptor', async (t) => {
  const path = makeFile('o.img', MIB)
  const own = openSync(path, 'r')
  t.equal(describeUse(path), `open in this process, ${process.pid}`)
  const pid = await holdOpen(t, path)
  t.equal(describeUse(path), `open in process ${pid} (node)`, 'others come before ourselves')
  closeSync(own)

  const loop = attach(t, makeFile('ol.img', MIB))
  if (loop === undefined) return
  const holder = await holdOpen(t, loop)
  t.equal(describeUse(loop), `open in process ${holder} (node)`)
})

/** Waits in real time until `condition` holds: the looks of the watch are asynchronous. */
async function until(condition: () => boolean): Promise<void> {
  for (let i = 0; i < 200 && !condition(); i++) await sleep(5)
}

/** What the watch says is at a path, by the kind of it. */
const kind = (device: string): string => device.split(' ')[0] || 'nothing'

t.test('the watch tells of files that come, go and are replaced', async (t) => {
  const clock = new ManualClock()
  const events: string[] = []
  const here = makeFile('here.img', MIB)
  const later = join(dir, 'later.img')
  const paths = [here, later]
  const watch = watchDevices(
    () => paths,
    clock,
    (path, device) => events.push(`${basename(path)} ${kind(device)}`),
  )
  // Paths are looked at side by side; the events of one path keep their order.
  const byPath = (a: string, b: string) =>
    (a.split(' ')[0] ?? '').localeCompare(b.split(' ')[0] ?? '')
  const expect = async (wanted: readonly string[], text: string) => {
    await until(() => events.length >= wanted.length)
    t.strictSame(events.splice(0).sort(byPath), wanted, text)
  }
  await expect(['here.img file', 'later.img nothing'], 'the state when first seen')
  clock.advance(2000)
  await sleep(30)
  await expect([], 'no change, no event')

  makeFile('later.img', MIB)
  clock.advance(1999)
  await sleep(30)
  await expect([], 'not before the period is over')
  clock.advance(1)
  await expect(['later.img file'], 'it came')

  unlinkSync(here)
  clock.advance(2000)
  await expect(['here.img nothing'], 'it went')

  const other = makeFile('other.img', MIB)
  const replaced = spawnSync('mv', [other, later])
  t.equal(replaced.status, 0)
  clock.advance(2000)
  await expect(['later.img file'], 'another file of the same name')

  paths.splice(0, 2, '/dev/null')
  clock.advance(2000)
  await expect(['null nothing'], 'no device at all')

  paths.splice(0, 1, later)
  clock.advance(2000)
  watch.stop()
  await sleep(30)
  unlinkSync(later)
  clock.advance(10_000)
  await sleep(30)
  t.strictSame(events, [], 'silent after stop, even for a look that was under way')
})

t.test('the watch sees what is attached to a loop device', async (t) => {
  const clock = new ManualClock()
  const path = makeFile('w.img', MIB)
  const loop = attach(t, path)
  if (loop === undefined) return
  const events: string[] = []
  const watch = watchDevices(
    () => [loop],
    clock,
    (_, device) => events.push(kind(device)),
    500,
  )
  t.teardown(() => watch.stop())
  const look = async (count: number) => {
    clock.advance(500)
    await until(() => events.length >= count)
    return events.splice(0)
  }
  await until(() => events.length > 0)
  t.strictSame(events.splice(0), ['block'])
  run('losetup', '-d', loop)
  t.strictSame(await look(1), ['nothing'], 'a detached loop device is empty')
  const reason = run('losetup', loop, path)
  if (reason) return t.pass(reason, { skip: true })
  t.strictSame(await look(1), ['block'])
  const again = run('sh', '-c', 'losetup -d "$0" && losetup "$0" "$1"', loop, path)
  if (again) return t.pass(again, { skip: true })
  t.strictSame(await look(1), ['block'], 'attached anew between two looks')
})
