/**
 * The names by which initiators know our logical units and ports, kept for ever: NAA designator and
 * serial number (SPC-5, VPD 83h and 80h) of each device, the target portal group tag (RFC 7143, 4.4.1)
 * of each portal and the relative identifier of each target port. A disk that came back with another identity would be
 * another disk to its initiators, so they are made once, at random, and stored: one JSON file with a CRC32C, replaced
 * atomically, with the copy before it beside it. Also kept: which disks were blank of our labels when they were exported
 * as they are (docs/adr/0008-whose-label.md). Used by unit-slots.ts, appliance.ts and export-guard.ts; the rules are in
 * identity-draft.ts.
 *
 *   {"format":"plexus-identities","version":1,"crc32c":"…","content":{"devices":[…],"portalTags":{…},"portIds":{…}}}
 */
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { open, readFile, rename } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { crc32c } from '../base/crc32c.ts'
import { PlexusError, toPlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { LunNames } from '../engine/geom/names.ts'
import {
  contentSchema,
  type DraftOptions,
  type IdentityContent,
  IdentityDraft,
  volumeOf,
} from './identity-draft.ts'

const FORMAT = 'plexus-identities'
const VERSION = 1
const FILE_NAME = 'identities.json'

const fileSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  crc32c: z.string(),
  content: contentSchema,
})

/** A change that waits for its turn. */
interface Change {
  /** Works on a draft, perhaps more than once; returns what to call when that is durable. */
  readonly run: (draft: IdentityDraft) => () => void
  readonly reject: (error: unknown) => void
}

export interface IdentityStoreOptions {
  readonly dir: string
  /** INQUIRY revision of all units. */
  readonly revision: string
  readonly log: Logger
  readonly random?: (bytes: number) => Buffer
  /** This machine (machine-id.ts); undefined: it has no name of its own. */
  readonly machine?: string | undefined
}

export class IdentityStore implements LunNames {
  readonly #path: string
  readonly #draftOptions: DraftOptions
  readonly #waiting: Change[] = []
  #isWriting = false
  #content: IdentityContent = { devices: [], portalTags: {} }
  /** What the file holds, as far as it is known to be good. */
  #text: string | undefined
  #lent: ReadonlySet<string> | undefined

  private constructor({ dir, revision, random = randomBytes, machine }: IdentityStoreOptions) {
    this.#path = join(dir, FILE_NAME)
    this.#draftOptions = { revision, random, machine }
  }

  /**
   * Opens the store in `dir`, which is made if absent. Throws `corrupt` when neither the file nor the copy before it can
   * be trusted: with new identities, initiators would take every LUN for another disk.
   */
  static open(options: IdentityStoreOptions): IdentityStore {
    const store = new IdentityStore(options)
    try {
      mkdirSync(options.dir, { recursive: true, mode: 0o750 })
    } catch (error) {
      throw new PlexusError('permission', {
        op: 'create',
        subject: options.dir,
        message: `the state folder ${options.dir} cannot be made: ${toPlexusError(error, 'create', options.dir).message}; set "state: { dir: … }" or make it by hand`,
        cause: error,
      })
    }
    store.#read(options.log)
    return store
  }

  /**
   * Runs `work`, which may ask the draft for identities and change it, and resolves to its result when all of that is on
   * disk: an identity that was shown once must never be forgotten. Changes that come while another one is written go to
   * disk together, with one write. Rejects with what `work` throws and, then without any effect, when the disk fails.
   */
  change<T>(work: (draft: IdentityDraft) => T): Promise<T> {
    return new Promise((resolve, reject) => {
      const run = (draft: IdentityDraft): (() => void) => {
        const result = work(draft)
        return () => resolve(result)
      }
      this.#waiting.push({ run, reject })
      if (!this.#isWriting) void this.#carryOut()
    })
  }

  /** Was the disk (`evidenceOf` in export-guard.ts) exported as it is, without a label of ours, and not taken back since? */
  isLent(disk: string): boolean {
    this.#lent ??= new Set(
      this.#content.devices
        .filter(({ lent, machine }) => !isPath(lent) || this.#isHere(machine))
        .flatMap(({ lent }) => lent ?? []),
    )
    return this.#lent.has(disk)
  }

  ledTo(name: string): string | undefined {
    return volumeOf(this.#content.devices.find((one) => one.name === name))
  }

  /** The identities themselves stay with what had them. */
  async release(names: readonly string[]): Promise<void> {
    if (names.length === 0) return
    await this.change((draft) => {
      for (const name of names) draft.release(name)
    })
  }

  /** The same path on another machine is another file. */
  #isHere(machine: string | undefined): boolean {
    const here = this.#draftOptions.machine
    return machine === undefined || here === undefined || machine === here
  }

  async #carryOut(): Promise<void> {
    this.#isWriting = true
    // All that is asked for in this turn goes together.
    await Promise.resolve()
    while (this.#waiting.length > 0) await this.#carryOutAll(this.#waiting.splice(0))
    this.#isWriting = false
  }

  async #carryOutAll(changes: readonly Change[]): Promise<void> {
    const draft = this.#draft()
    const done: (() => void)[] = []
    for (const { run, reject } of changes) {
      try {
        done.push(run(draft))
      } catch (error) {
        reject(error)
      }
    }
    try {
      if (draft.changed) await this.#write(draft.content())
    } catch (error) {
      this.#failed(changes, error)
      return
    }
    for (const resolve of done) resolve()
  }

  /** A change whose content is on disk already succeeds, even if the others of the same write fail. */
  #failed(changes: readonly Change[], error: unknown): void {
    let draft = this.#draft()
    for (const { run, reject } of changes) {
      try {
        const resolve = run(draft)
        if (!draft.changed) resolve()
        else {
          reject(error)
          draft = this.#draft()
        }
      } catch (refusal) {
        reject(refusal)
      }
    }
  }

  #draft(): IdentityDraft {
    return new IdentityDraft(this.#content, this.#draftOptions)
  }

  #read(log: Logger): void {
    const previous = `${this.#path}.previous`
    const found = readContent(this.#path)
    if (found.content) {
      this.#content = found.content
      this.#text = found.text
      return
    }
    const before = readContent(previous)
    if (found.why === undefined && before.why === undefined && !before.content) return
    if (!before.content) {
      const bad = found.why === undefined ? previous : this.#path
      throw new PlexusError('corrupt', {
        op: 'read',
        subject: bad,
        message: `${bad}: ${found.why ?? before.why}, and there is no good copy in ${previous}. New identities would make every LUN another disk to its initiators: restore ${this.#path} from a backup, or remove both files if no initiator knows this target yet`,
      })
    }
    log.warn(
      { event: 'identities-restored' },
      `${this.#path}: ${found.why ?? 'missing'}; going on with the copy before it, ${previous}`,
    )
    this.#content = before.content
  }

  /** On disk before it is in memory. A crash between the two renames leaves the copy before alone, which is complete. */
  async #write(content: IdentityContent): Promise<void> {
    const path = this.#path
    const temporary = `${path}.new`
    const stored = JSON.stringify(content)
    const text = `{"format":"${FORMAT}","version":${VERSION},"crc32c":"${checksum(stored)}","content":${stored}}\n`
    try {
      const file = await open(temporary, 'w', 0o640)
      try {
        await file.writeFile(text)
        await file.sync()
      } finally {
        await file.close()
      }
      // A damaged file must not take the place of the good copy before it.
      if (await this.#isGood()) await rename(path, `${path}.previous`)
      await rename(temporary, path)
      const folder = await open(join(path, '..'), 'r')
      try {
        await folder.sync()
      } finally {
        await folder.close()
      }
    } catch (error) {
      throw toPlexusError(error, 'write', path)
    }
    this.#content = content
    this.#text = text
    this.#lent = undefined
  }

  async #isGood(): Promise<boolean> {
    try {
      return this.#text !== undefined && (await readFile(this.#path, 'utf8')) === this.#text
    } catch {
      return false
    }
  }
}

const isPath = (disk: string | undefined): boolean => disk?.startsWith('file:') === true

function checksum(stored: string): string {
  return crc32c(Buffer.from(stored)).toString(16).padStart(8, '0')
}

/** The content of a store file; neither `content` nor `why` is set when the file does not exist. */
function readContent(path: string): { content?: IdentityContent; text?: string; why?: string } {
  let text: string
  try {
    text = readFileSync(path, 'utf8')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return {}
    return { why: toPlexusError(error, 'read', path).message }
  }
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch {
    return { why: 'it is not JSON' }
  }
  const parsed = fileSchema.safeParse(value)
  if (!parsed.success) return { why: 'it is not an identity file of this version' }
  // Over the values as they stand in the file: parsing by schema may reorder keys.
  const stored = (value as { content: IdentityContent }).content
  if (checksum(JSON.stringify(stored)) !== parsed.data.crc32c)
    return { why: 'its checksum is wrong' }
  return { content: parsed.data.content, text }
}
