/** A file on a FUSE file system that can be told to answer nothing (fuse-server.ts). Needs root and /dev/fuse. */
import { execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { MIB } from '../../src/base/limits.ts'
import { tempDirectory } from './loop-device.ts'

export interface FuseFile {
  readonly path: string
  /** From when it resolves on nothing is answered. */
  stall(): Promise<void>
  go(): void
  stop(): Promise<void>
}

/** Why there can be none here; false: there can. */
export function noFuse(): string | false {
  try {
    accessSync('/dev/fuse', constants.R_OK | constants.W_OK)
  } catch {
    return 'no /dev/fuse'
  }
  return process.getuid?.() === 0 ? false : 'needs root'
}

/** The file, in an empty directory; a stall ends by itself after `stallMsMax`. */
export async function startFuse(
  directory: string,
  sizeBytes: number,
  stallMsMax: number,
): Promise<FuseFile> {
  const script = fileURLToPath(new URL('./fuse-server.js', import.meta.url))
  const args = [script, directory, String(sizeBytes), String(stallMsMax)]
  const stdio = ['ignore', 'inherit', 'inherit', 'ipc'] as const
  const server = spawn(process.execPath, args, { stdio: [...stdio] })
  await once(server, 'message')
  return {
    path: join(directory, 'disk.img'),
    async stall() {
      server.send('stall')
      await once(server, 'message')
    },
    go: () => void server.send('go'),
    async stop() {
      execFileSync('umount', ['--lazy', directory])
      server.disconnect()
      if (server.exitCode === null) await once(server, 'exit')
    },
  }
}

/** One of 8 MiB for a test, with stalls of 4 s at most. */
export async function fuseFile(t: Test): Promise<FuseFile> {
  const file = await startFuse(tempDirectory(t), 8 * MIB, 4000)
  t.teardown(() => file.stop())
  return file
}
