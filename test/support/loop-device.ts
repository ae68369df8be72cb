/**
 * Loop devices over sparse temporary files, for tests of the HAL and of everything end to end. Needs
 * root and the loop driver; `noLoopDevices` says why not, for `t.test(name, { skip })`.
 */
import { execFileSync } from 'node:child_process'
import { existsSync, mkdtempSync, rmSync, statSync, truncateSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Test } from 'tap'

export interface LoopOptions {
  readonly sizeBytes: number
  /** Logical block, bytes; 512 (default) or 4096. */
  readonly sectorBytes?: number
}

export interface LoopDevice {
  /** `/dev/loopN` */
  readonly path: string
  /** The backing file. */
  readonly file: string
  /** Bytes that the backing file takes from its file system. */
  allocatedBytes(): number
  /** Changes the size of the backing file, and tells the loop device. */
  resize(sizeBytes: number): void
  /** As if it were pulled out: every request from now on fails. Nothing is in flight. */
  pull(): void
  detach(): void
}

/**
 * loop_info64 of linux/loop.h is 232 bytes long, lo_offset is at 24; 0x4C05 reads it, 0x4C04 sets it. In Perl, which
 * every Debian has, because Node.js has no ioctl and only the HAL makes foreign calls.
 */
const SET_OFFSET = `
  open(my $loop, "<", $ARGV[0]) or die "open: $!";
  my $info = "\\0" x 232;
  ioctl($loop, 0x4C05, $info) or die "LOOP_GET_STATUS64: $!";
  substr($info, 24, 8) = pack("Q", $ARGV[1]);
  ioctl($loop, 0x4C04, $info) or die "LOOP_SET_STATUS64: $!";`

/**
 * Makes a loop device fail every request while others have it open: its data begins where what is behind it ends, at
 * `endBytes`, so its size is 0, which is what Linux gives to a disk that was pulled out. Requests that the kernel had
 * let in already go there, too: where that is a file, a write makes it longer, and a read may then find zeroes;
 * where it is a block device they fail as they should.
 */
export function pullLoop(path: string, endBytes: number): void {
  execFileSync('perl', ['-e', SET_OFFSET, path, String(endBytes)], { stdio: 'pipe' })
}

/** A fresh directory that the test removes, in memory where there is such a file system. */
export function tempDirectory(t: Test): string {
  const root = existsSync('/dev/shm') ? '/dev/shm' : tmpdir()
  const directory = mkdtempSync(join(root, 'plexus-test-'))
  t.teardown(() => rmSync(directory, { recursive: true, force: true }))
  return directory
}

/** A loop device with direct I/O for the life of the test. */
export function loopDevice(t: Test, options: LoopOptions): LoopDevice {
  const directory = tempDirectory(t)
  const file = join(directory, 'disk.img')
  writeFileSync(file, '')
  truncateSync(file, options.sizeBytes)
  const path = losetup(
    '--find',
    '--show',
    '--direct-io=on',
    `--sector-size=${options.sectorBytes ?? 512}`,
    file,
  )
  let attached = true
  const device: LoopDevice = {
    path,
    file,
    allocatedBytes: () => statSync(file).blocks * 512,
    resize(sizeBytes) {
      truncateSync(file, sizeBytes)
      losetup('--set-capacity', path)
    },
    pull: () => pullLoop(path, statSync(file).size),
    detach() {
      if (!attached) return
      attached = false
      losetup('--detach', path)
    },
  }
  t.teardown(() => device.detach())
  return device
}

function losetup(...args: string[]): string {
  return execFileSync('losetup', args, { encoding: 'utf8', stdio: 'pipe' }).trim()
}

/** `false` where loop devices can be made, otherwise the reason why tests that need them are skipped. */
export function noLoopDevices(): string | false {
  if (process.getuid?.() !== 0) return 'needs root for loop devices'
  try {
    losetup('--find')
    return false
  } catch (error) {
    return `no loop devices: ${error instanceof Error ? error.message : error}`
  }
}
