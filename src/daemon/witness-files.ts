/**
 * The notes of the sets' witnesses (engine/vinum/set/witness.ts) in the state folder, one file for each set:
 *
 *   STATE/witness/SET-UUID.json     {"format":"plexus-witness","version":1,"file":"INODE BIRTH","note":"…"}
 *
 * A file names itself by its inode and time of birth: one that was restored from a backup is an old note, which could
 * bring the older half of a set into service. It counts as lost. Made by plexusd.ts.
 */
import type { BigIntStats } from 'node:fs'
import { mkdir, open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { toPlexusError } from '../base/errors.ts'
import type { WitnessStore } from '../engine/vinum/set/witness.ts'

const FORMAT = 'plexus-witness'
const VERSION = 1
const fileSchema = z.object({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  file: z.string(),
  note: z.string(),
})

export class WitnessFiles implements WitnessStore {
  readonly path: string

  constructor(stateDir: string) {
    this.path = join(stateDir, 'witness')
  }

  async read(setUuid: string): Promise<string | undefined> {
    try {
      const file = await open(this.#fileOf(setUuid), 'r')
      try {
        const content = fileSchema.parse(JSON.parse(await file.readFile('utf8')))
        const isOwn = content.file === nameOf(await file.stat({ bigint: true }))
        return isOwn ? content.note : undefined
      } finally {
        await file.close()
      }
    } catch (error) {
      if (error instanceof z.ZodError || error instanceof SyntaxError) return undefined
      if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined
      throw toPlexusError(error, 'read', this.#fileOf(setUuid))
    }
  }

  async write(setUuid: string, note: string): Promise<void> {
    const path = this.#fileOf(setUuid)
    try {
      await mkdir(this.path, { recursive: true, mode: 0o750 })
      const file = await open(`${path}.new`, 'w', 0o640)
      try {
        const name = nameOf(await file.stat({ bigint: true }))
        await file.writeFile(
          `${JSON.stringify({ format: FORMAT, version: VERSION, file: name, note })}\n`,
        )
        await file.sync()
      } finally {
        await file.close()
      }
      await rename(`${path}.new`, path)
      const folder = await open(this.path, 'r')
      try {
        await folder.sync()
      } finally {
        await folder.close()
      }
    } catch (error) {
      throw toPlexusError(error, 'write', path)
    }
  }

  #fileOf(setUuid: string): string {
    return join(this.path, `${setUuid}.json`)
  }
}

/** A file by what no copy of it has. */
function nameOf({ ino, birthtimeNs }: BigIntStats): string {
  return `${ino} ${birthtimeNs}`
}
