/**
 * Disks that the lab can pull out and put back: loop devices, each behind a link as under /dev/disk/by-id,
 * because a disk that returns may have another kernel name. For lab-host.ts. Needs root.
 *
 * `losetup -d` alone pulls nothing while the daemon has the device open: the kernel detaches it after the last
 * close. So pullLoop makes every request fail, and the device is detached when the daemon has noticed and closes
 * it. All disks lie side by side in one more loop device, not in files: see pullLoop.
 */
import { execFileSync } from 'node:child_process'
import { mkdirSync, readFileSync, rmSync, symlinkSync, truncateSync, writeFileSync } from 'node:fs'
import { basename, join } from 'node:path'
import { pullLoop } from '../support/loop-device.ts'

/** How long a pulled device may stay open: three seconds between two looks of the daemon, and some. */
const DETACH_TIMEOUT_MS = 15_000

function losetup(...args: string[]): string {
  return execFileSync('losetup', args, { encoding: 'utf8', stdio: 'pipe' }).trim()
}

/** Between the begins of two disks, in their sizes: a disk can be made so many times as large. */
const ROOM = 2

export class LabDisks {
  readonly #dir: string
  /** Of each disk. */
  #sizeBytes: number
  /** From one disk to the next. */
  readonly #strideBytes: number
  readonly #names: readonly string[]
  /** What all disks lie in; undefined: there are none. */
  readonly #shelf: string | undefined
  /** Loop devices of the disks that are plugged in. */
  readonly #plugged = new Map<string, string>()
  /** Those of disks that were pulled: detached when nobody has them open any more. */
  readonly #pulled = new Map<string, string>()

  /** `count` disks named d1, d2 and so on, of `sizeBytes` each; files and links in the directory `dir`. */
  constructor(dir: string, count: number, sizeBytes: number) {
    this.#dir = dir
    this.#sizeBytes = sizeBytes
    this.#strideBytes = ROOM * sizeBytes
    this.#names = Array.from({ length: count }, (_, index) => `d${index + 1}`)
    mkdirSync(join(dir, 'by-id'), { recursive: true })
    if (count === 0) return
    const file = join(dir, 'shelf.img')
    writeFileSync(file, '')
    truncateSync(file, count * this.#strideBytes)
    this.#shelf = losetup('--direct-io=on', '--find', '--show', file)
    for (const name of this.#names) this.#attach(name)
  }

  /** Paths by name, for the daemon's configuration; of pulled disks, too. */
  get devices(): Readonly<Record<string, string>> {
    return Object.fromEntries(this.#names.map((name) => [name, this.#link(name)]))
  }

  /** The disk fails every request from now on and is gone as soon as the daemon lets go of it. */
  pull(name: string): void {
    const loop = this.#plugged.get(name)
    if (loop === undefined) throw new Error(`disk ${name} is not plugged in`)
    rmSync(this.#link(name))
    this.#plugged.delete(name)
    this.#pulled.set(name, loop)
    losetup('--detach', loop)
    // Nobody may have had it open: then it is detached already.
    if (this.#isStill(loop)) pullLoop(loop, this.#names.length * this.#strideBytes)
  }

  /** The disk comes back with what it had. */
  async plug(name: string): Promise<void> {
    const loop = this.#pulled.get(name)
    if (loop === undefined) throw new Error(`disk ${name} was not pulled`)
    const deadline = Date.now() + DETACH_TIMEOUT_MS
    while (this.#isStill(loop)) {
      if (Date.now() > deadline) throw new Error(`${loop} is still open`)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    this.#pulled.delete(name)
    this.#attach(name)
  }

  /** All disks that are plugged in are `sizeBytes` large from now on; nobody has them open. */
  enlarge(sizeBytes: number): void {
    if (sizeBytes > this.#strideBytes)
      throw new Error(`a disk has ${this.#strideBytes} bytes at most`)
    this.#sizeBytes = sizeBytes
    for (const [name, loop] of this.#plugged) {
      losetup('--detach', loop)
      rmSync(this.#link(name))
      this.#attach(name)
    }
  }

  /** Detaches all disks; nobody has them open any more. */
  release(): void {
    for (const loop of this.#plugged.values()) losetup('--detach', loop)
    this.#plugged.clear()
    if (this.#shelf !== undefined) losetup('--detach', this.#shelf)
  }

  #attach(name: string): void {
    const shelf = this.#shelf ?? ''
    const place = [
      `--offset=${this.#names.indexOf(name) * this.#strideBytes}`,
      `--sizelimit=${this.#sizeBytes}`,
    ]
    const loop = losetup('--direct-io=on', ...place, '--find', '--show', shelf)
    symlinkSync(loop, this.#link(name))
    this.#plugged.set(name, loop)
  }

  /** A disk that was pulled is still attached. Its loop device may already serve another disk, or another lab. */
  #isStill(loop: string): boolean {
    const backing = `/sys/block/${basename(loop)}/loop/backing_file`
    if ([...this.#plugged.values()].includes(loop)) return false
    try {
      return readFileSync(backing, 'utf8').trim() === this.#shelf
    } catch {
      return false
    }
  }

  #link(name: string): string {
    return join(this.#dir, 'by-id', name)
  }
}
