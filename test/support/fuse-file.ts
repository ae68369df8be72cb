/** A file on a FUSE file system that can be told to answer nothing (fuse-server.ts). Needs root and /dev/fuse. */
import { type ChildProcess, execFileSync, spawn } from 'node:child_process'
import { once } from 'node:events'
import { accessSync, constants } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { Test } from 'tap'
import { tempDirectory } from './loop-device.ts'

export interface FuseFile {
  readonly path: string
  /** From when it resolves on nothing is answered, for 4 s at most. */
  stall(): Promise<void>
  go(): void
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

export async function fuseFile(t: Test): Promise<FuseFile> {
  const directory = tempDirectory(t)
  const script = fileURLToPath(new URL('./fuse-server.ts', import.meta.url))
  const server: ChildProcess = spawn(process.execPath, [...process.execArgv, script, directory], {
    stdio: ['ignore', 'inherit', 'inherit', 'ipc'],
  })
  t.teardown(async () => {
    execFileSync('umount', ['--lazy', directory])
    server.disconnect()
    if (server.exitCode === null) await once(server, 'exit')
  })
  await once(server, 'message')
  return {
    path: join(directory, 'disk.img'),
    async stall() {
      server.send('stall')
      await once(server, 'message')
    },
    go: () => void server.send('go'),
  }
}
