/**
 * The notes of the sets' witnesses (src/engine/metadata/witness.ts) in the state folder, one file for each set:
 *
 *   STATE/witness/SET-UUID.json     {"format":"plexus-witness","version":1,"file":"INODE BIRTH","note":"…"}
 *
 * A file names itself by its inode and time of birth: one that was restored from a backup is an old note, which could
 * bring the older half of a set into service. It counts as lost. What cannot be told is an older image of the whole file
 * system (a snapshot of a virtual machine that is rolled back while the disks of the set are not): inode and time are as
 * they were. A half of the drives that has missed changes is then served if the other half stays away; when both are
 * there, the newer half counts. Made by plexusd.ts.
 */
import type { BigIntStats } from 'node:fs'
import { mkdir, open, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { toPlexusError } from '../base/errors.ts'
import type { WitnessStore } from '../engine/metadata/witness.ts'

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

  /** One write of a set after the other, also where one takes long. */
  readonly #writing = new Map<string, Promise<void>>()

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

  write(setUuid: string, note: string): Promise<void> {
    const before = this.#writing.get(setUuid) ?? Promise.resolve()
    const done = before.then(() => this.#write(setUuid, note))
    this.#writing.set(
      setUuid,
      done.catch(() => {}),
    )
    return done
  }

  async #write(setUuid: string, note: string): Promise<void> {
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
