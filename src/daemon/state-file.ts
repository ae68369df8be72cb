/**
 * Small files of the state folder that hold one JSON value each: read at the start, replaced whole and durably. What is in
 * them helps people and is never needed to serve; a file that cannot be read counts as absent, and says so in the log.
 */
import { readFileSync } from 'node:fs'
import { open, rename } from 'node:fs/promises'
import { dirname } from 'node:path'
import { toPlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'

/** The value in a file; undefined where there is none. */
export function readStateFile(path: string, log: Logger): unknown {
  try {
    return JSON.parse(readFileSync(path, 'utf8'))
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') {
      log.warn({ err: error, path }, `${path} cannot be read, and begins anew`)
    }
    return undefined
  }
}

/** Puts a text in the place of a file, whole and durably. Rejects with PlexusError. */
export async function replaceStateFile(path: string, text: string): Promise<void> {
  const temporary = `${path}.new`
  try {
    const file = await open(temporary, 'w', 0o640)
    try {
      await file.writeFile(text)
      await file.sync()
    } finally {
      await file.close()
    }
    await rename(temporary, path)
    const folder = await open(dirname(path), 'r')
    try {
      await folder.sync()
    } finally {
      await folder.close()
    }
  } catch (error) {
    throw toPlexusError(error, 'write', path)
  }
}
