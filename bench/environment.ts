/**
 * What a benchmark run needs from the machine: programs, a block device of its own, free ports, and
 * that everything is put back at the end. Called by bench.ts and soak.ts.
 */
import { execFile } from 'node:child_process'
import {
  closeSync,
  constants,
  existsSync,
  openSync,
  readFileSync,
  statfsSync,
  statSync,
} from 'node:fs'
import { mkdtemp, readdir, rm, truncate, writeFile } from 'node:fs/promises'
import { createServer } from 'node:net'
import { cpus, release, tmpdir } from 'node:os'
import { basename, delimiter, dirname, join } from 'node:path'
import { promisify } from 'node:util'
import { formatSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'
import { MIB } from '../src/base/limits.ts'

const execFileAsync = promisify(execFile)

/** Ends in reverse order what was begun; a failing step does not stop the others. */
export class Teardown {
  readonly #steps: { readonly what: string; readonly undo: () => Promise<void> }[] = []

  add(what: string, undo: () => Promise<void>): void {
    this.#steps.push({ what, undo })
  }

  async run(): Promise<void> {
    for (let step = this.#steps.pop(); step; step = this.#steps.pop()) {
      try {
        await step.undo()
      } catch (error) {
        process.stderr.write(`bench: ${step.what} failed: ${(error as Error).message}\n`)
      }
    }
  }
}

/** The standard output of a program that must succeed; its standard error is in the failure. */
export async function run(
  program: string,
  args: readonly string[],
  options: { signal?: AbortSignal | undefined; env?: NodeJS.ProcessEnv; timeoutMs?: number } = {},
): Promise<string> {
  try {
    const { stdout } = await execFileAsync(program, [...args], {
      maxBuffer: 64 * MIB,
      killSignal: 'SIGKILL',
      timeout: options.timeoutMs ?? 0,
      ...(options.signal ? { signal: options.signal } : {}),
      ...(options.env ? { env: options.env } : {}),
    })
    return stdout
  } catch (error) {
    options.signal?.throwIfAborted()
    const { code, stderr } = error as { code?: unknown; stderr?: string }
    throw new PlexusError('io', {
      op: 'run',
      subject: program,
      message: `${program} ${args.join(' ')} failed (${String(code)}): ${(stderr ?? '').trim()}`,
      cause: error,
    })
  }
}

/** The directory with package.json above this file, which runs from build/bench/ or bench/. */
export function projectRoot(): string {
  let directory = import.meta.dirname
  while (!existsSync(join(directory, 'package.json'))) directory = dirname(directory)
  return directory
}

const SYSTEM_PATHS = ['/usr/sbin', '/sbin', '/usr/bin', '/bin', '/usr/local/sbin', '/usr/local/bin']

/** The full path of a program, also when the PATH of the user lacks the system directories. */
export function findProgram(name: string): string | undefined {
  const directories = [...(process.env['PATH'] ?? '').split(delimiter), ...SYSTEM_PATHS]
  return directories.map((directory) => join(directory, name)).find((path) => existsSync(path))
}

/** The run time library of libiscsi, whatever its version: no -dev package is needed. */
export async function findLibiscsi(): Promise<string | undefined> {
  const roots = ['/usr/lib', '/usr/lib64', '/usr/local/lib', '/lib']
  for (const root of roots) {
    const names = await readdir(root).catch(() => [] as string[])
    const directories = [
      root,
      ...names.filter((n) => n.includes('-linux-')).map((n) => join(root, n)),
    ]
    for (const directory of directories) {
      const files = await readdir(directory).catch(() => [] as string[])
      const found = files.find((file) => /^libiscsi\.so\.\d+$/.test(file))
      if (found) return join(directory, found)
    }
  }
  return undefined
}

/** Debian's package of each program. */
const PACKAGES: Readonly<Record<string, string>> = {
  fio: 'fio',
  gcc: 'gcc libc6-dev',
  tgtd: 'tgt',
  tgtadm: 'tgt',
  istgt: 'istgt',
  losetup: 'util-linux',
  setpriv: 'util-linux',
  getconf: 'libc-bin',
}

/** Refuses with one message that names everything that is missing and how to install it. */
export async function requirePrograms(names: readonly string[]): Promise<void> {
  const missing = names.filter((name) => findProgram(name) === undefined)
  const packages = new Set(missing.flatMap((name) => (PACKAGES[name] ?? name).split(' ')))
  if ((await findLibiscsi()) === undefined) {
    missing.push('libiscsi.so')
    packages.add('libiscsi-bin')
  }
  const problems: string[] = []
  if (process.getuid?.() !== 0) problems.push('It needs root, for loop devices and the peers.')
  if (missing.length > 0) {
    problems.push(
      `Missing: ${missing.join(', ')}.`,
      `Install: apt-get install ${[...packages].join(' ')}`,
    )
  }
  if (problems.length > 0) {
    throw new PlexusError('unsupported', {
      op: 'start',
      subject: 'bench',
      message: `The benchmark cannot run here. ${problems.join(' ')}`,
    })
  }
}

export interface BenchDevice {
  readonly path: string
  /** `ram`: a loop device over tmpfs, whose gates differ from those of a disk. */
  readonly medium: 'ram' | 'disk'
  readonly text: string
}

const TMPFS_MAGIC = 0x01021994

/**
 * A loop device with direct I/O over a new file in `directory`, both removed by the teardown. Throws `no-space`
 * where the file would fill the directory.
 */
export async function attachLoopDevice(
  directory: string,
  bytes: number,
  teardown: Teardown,
): Promise<string> {
  const fs = statfsSync(directory)
  const freeBytes = fs.bavail * fs.bsize
  if (freeBytes < bytes + 64 * MIB) {
    throw new PlexusError('no-space', {
      op: 'create',
      subject: directory,
      message: `${directory} has ${formatSize(freeBytes)} free, the test device wants ${formatSize(bytes)}; choose a smaller --size or another --directory`,
    })
  }
  const work = await mkdtemp(join(directory, 'plexus-bench-'))
  teardown.add(`removing ${work}`, () => rm(work, { recursive: true, force: true }))
  const image = join(work, 'disk.img')
  await writeFile(image, '')
  await truncate(image, bytes)
  const losetup = findProgram('losetup') ?? 'losetup'
  const path = (await run(losetup, ['--direct-io=on', '-f', '--show', image])).trim()
  teardown.add(`detaching ${path}`, async () => {
    await run(losetup, ['-d', path])
  })
  return path
}

/** {@link attachLoopDevice}, filled once. */
export async function makeLoopDevice(
  directory: string,
  bytes: number,
  teardown: Teardown,
  signal: AbortSignal,
): Promise<BenchDevice> {
  const path = await attachLoopDevice(directory, bytes, teardown)
  // Unwritten blocks cost less than written ones: all of it is written once before anything counts.
  await run(
    findProgram('fio') ?? 'fio',
    [
      '--name=fill',
      `--filename=${path}`,
      '--rw=write',
      '--bs=1m',
      '--direct=1',
      '--ioengine=psync',
    ],
    { signal },
  )
  const medium = statfsSync(directory).type === TMPFS_MAGIC ? 'ram' : 'disk'
  return {
    path,
    medium,
    text: `loop device with direct I/O over ${formatSize(bytes)} in ${directory}`,
  }
}

/** A device of the user, whose content the benchmark destroys; refused when anybody has it in use. */
export function useDevice(path: string, confirmed: boolean): BenchDevice {
  const refuse = (why: string): never => {
    throw new PlexusError('in-use', { op: 'open', subject: path, message: `${path}: ${why}` })
  }
  if (!confirmed)
    refuse('the benchmark overwrites its content; repeat with --yes if nobody needs it')
  if (!statSync(path).isBlockDevice()) refuse('not a block device')
  try {
    closeSync(openSync(path, constants.O_RDWR | constants.O_EXCL))
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    refuse(code === 'EBUSY' ? 'in use: it, or a partition of it, is mounted or held' : message)
  }
  return { path, medium: 'disk', text: path }
}

/** A temporary directory, removed by the teardown. */
export async function temporaryDirectory(teardown: Teardown): Promise<string> {
  const path = await mkdtemp(join(tmpdir(), 'plexus-bench-'))
  teardown.add(`removing ${path}`, () => rm(path, { recursive: true, force: true }))
  return path
}

/** A TCP port of 127.0.0.1 that is free at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer()
  await new Promise<void>((resolve, reject) => {
    server.once('error', reject)
    server.listen(0, '127.0.0.1', resolve)
  })
  const address = server.address()
  await new Promise<void>((resolve) => server.close(() => resolve()))
  return typeof address === 'object' && address ? address.port : 0
}

/** Lines for the head of a report: what ran, where and when. */
export function machineLines(): string[] {
  const processors = cpus()
  const memory = /MemTotal:\s+(\d+) kB/.exec(readFileSync('/proc/meminfo', 'utf8'))?.[1] ?? '0'
  return [
    `machine: ${processors.length} x ${processors[0]?.model.trim() ?? 'unknown CPU'}, ${formatSize(Number(memory) * 1024)} of memory`,
    `system:  Linux ${release()}, Node.js ${process.version}`,
    `date:    ${new Date().toISOString()}`,
    `command: ${[basename(process.argv[1] ?? ''), ...process.argv.slice(2)].join(' ')}`,
  ]
}
