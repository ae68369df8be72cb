/**
 * The names by which initiators know our logical units and portals, kept for ever: NAA designator and
 * serial number (SPC-5, VPD 83h and 80h) of each device, and the target portal group tag (RFC 7143, 4.4.1)
 * of each portal. A disk that came back with another identity would be another disk to its initiators, so
 * they are made once, at random, and stored: one JSON file with a CRC32C, replaced atomically, with the
 * copy before it beside it. Also kept: which disks were blank of our labels when they were exported as they are
 * (docs/adr/0008-whose-label.md). Used by unit-slots.ts, appliance.ts and export-guard.ts.
 *
 *   {"format":"plexus-identities","version":1,"crc32c":"…","content":{"devices":[…],"portalTags":{…}}}
 */
import { randomBytes } from 'node:crypto'
import {
  closeSync,
  fsyncSync,
  linkSync,
  mkdirSync,
  openSync,
  readFileSync,
  renameSync,
  rmSync,
  writeSync,
} from 'node:fs'
import { join } from 'node:path'
import { z } from 'zod'
import { assert } from '../base/assert.ts'
import { crc32c } from '../base/crc32c.ts'
import { PlexusError, toPlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import type { DeviceIdentity } from '../hal/block-device.ts'
import type { UnitIdentity } from '../target/scsi/types.ts'

const FORMAT = 'plexus-identities'
const VERSION = 1
const FILE_NAME = 'identities.json'

/**
 * NAA type 6h needs an IEEE company id. Ours has the local bit of its first octet set, so that it cannot
 * be one that IEEE registered; the 100 bits behind it are random.
 */
const NAA_PREFIX = '602504c'
const VENDOR_SPECIFIC_HEX_DIGITS = 25

/** T10 vendor and product are the same on all units: ESXi compares them across paths. */
const VENDOR = 'PLEXUS'
const PRODUCT = 'iSCSI Disk'

const PORTAL_TAG_MAX = 0xffff

const contentSchema = z.strictObject({
  devices: z.array(
    z.strictObject({
      /** Name in the configuration that had it last. */
      name: z.string(),
      /** What the device calls itself, if it does: its WWID, else vendor, model and serial number. */
      mark: z.string().optional(),
      naa: z.string().regex(/^6[0-9a-f]{31}$/),
      /** The disk that was exported as it is, without a label of ours: what it carries since is its initiators'. */
      lent: z.string().optional(),
    }),
  ),
  portalTags: z.record(z.string(), z.int().min(1).max(PORTAL_TAG_MAX)),
})
const fileSchema = z.strictObject({
  format: z.literal(FORMAT),
  version: z.literal(VERSION),
  crc32c: z.string(),
  content: contentSchema,
})
type Content = z.infer<typeof contentSchema>
type DeviceRecord = Content['devices'][number]

export class IdentityStore {
  readonly #dir: string
  readonly #revision: string
  readonly #random: (bytes: number) => Buffer
  #content: Content = { devices: [], portalTags: {} }

  private constructor(dir: string, revision: string, random: (bytes: number) => Buffer) {
    this.#dir = dir
    this.#revision = revision
    this.#random = random
  }

  /**
   * Opens the store in `dir`, which is made if absent. `revision` is the INQUIRY revision of all units.
   * Throws `corrupt` when neither the file nor the copy before it can be trusted: going on with new
   * identities would swap the disks under the initiators' feet.
   */
  static open(options: {
    dir: string
    revision: string
    log: Logger
    random?: (bytes: number) => Buffer
  }): IdentityStore {
    const store = new IdentityStore(options.dir, options.revision, options.random ?? randomBytes)
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
   * The identity of the device that the configuration calls `name`. `device` is what the opened device
   * says of itself, undefined while it is missing. A disk with a mark of its own keeps its identity under
   * any name that no other configured device (`configured`) has taken; another disk under an old name gets
   * a new one. New or changed records are on disk when this returns.
   */
  identify(
    name: string,
    device: DeviceIdentity | undefined,
    configured: ReadonlySet<string>,
  ): UnitIdentity {
    const mark = device && markOf(device)
    const record = this.#find(name, mark, configured)
    const next: DeviceRecord = {
      name,
      naa: record?.naa ?? this.#newNaa(),
      ...((mark ?? record?.mark) === undefined ? {} : { mark: mark ?? record?.mark }),
      ...(record?.lent === undefined ? {} : { lent: record.lent }),
    }
    if (!record || record.name !== next.name || record.mark !== next.mark) {
      const others = this.#content.devices
        .filter((one) => one !== record)
        // A name belongs to one record; one that lost its name can still be found by its mark.
        .map((one) => (one.name === name ? { ...one, name: '' } : one))
        .filter((one) => one.name !== '' || one.mark !== undefined)
      this.#write({ ...this.#content, devices: [...others, next] })
    }
    return this.#unitIdentity(next)
  }

  /** Was the disk (`evidenceOf` in export-guard.ts) exported as it is, without a label of ours, and not taken back since? */
  isLent(disk: string): boolean {
    return this.#content.devices.some((one) => one.lent === disk)
  }

  /** Notes it, durably, for the device that was identified as `name`. */
  lend(name: string, disk: string): void {
    if (this.isLent(disk)) return
    const devices = this.#content.devices.map((one) =>
      one.name === name ? { ...one, lent: disk } : one,
    )
    this.#write({ ...this.#content, devices })
  }

  /** The disk is this machine's own from now on. */
  takeBack(disk: string): void {
    if (!this.isLent(disk)) return
    const devices = this.#content.devices.map((one) => {
      const { lent, ...rest } = one
      return lent === disk ? rest : one
    })
    this.#write({ ...this.#content, devices })
  }

  /** The target portal group tag of a portal: the lowest that is free, the first time it is asked for. */
  portalTag(name: string): number {
    const known = this.#content.portalTags
    const existing = Object.hasOwn(known, name) ? known[name] : undefined
    if (existing !== undefined) return existing
    const taken = new Set(Object.values(known))
    let tag = 1
    while (taken.has(tag)) tag++
    assert(tag <= PORTAL_TAG_MAX, `portal group tag ${tag} fits 16 bits`)
    this.#write({ ...this.#content, portalTags: { ...known, [name]: tag } })
    return tag
  }

  #find(
    name: string,
    mark: string | undefined,
    configured: ReadonlySet<string>,
  ): DeviceRecord | undefined {
    const { devices } = this.#content
    const named = devices.find((one) => one.name === name)
    if (named && named.mark === mark) return named
    // The disk itself is known, under a name that nothing has now: it has moved.
    const moved = mark === undefined ? [] : devices.filter((one) => one.mark === mark)
    const free = moved.find((one) => !configured.has(one.name))
    if (free) return free
    const compatible = named && (mark === undefined || named.mark === undefined)
    return compatible ? named : undefined
  }

  #newNaa(): string {
    return NAA_PREFIX + this.#random(13).toString('hex').slice(0, VENDOR_SPECIFIC_HEX_DIGITS)
  }

  #unitIdentity(record: DeviceRecord): UnitIdentity {
    return {
      naa: Buffer.from(record.naa, 'hex'),
      serial: record.naa.slice(NAA_PREFIX.length),
      vendor: VENDOR,
      product: PRODUCT,
      revision: this.#revision,
    }
  }

  #read(log: Logger): void {
    const current = join(this.#dir, FILE_NAME)
    const previous = `${current}.previous`
    const found = readContent(current)
    if (found.content) {
      this.#content = found.content
      return
    }
    const before = readContent(previous)
    if (found.why === undefined && before.why === undefined && !before.content) return
    if (!before.content) {
      const bad = found.why === undefined ? previous : current
      throw new PlexusError('corrupt', {
        op: 'read',
        subject: bad,
        message: `${bad}: ${found.why ?? before.why}, and there is no good copy in ${previous}. New identities would make every LUN another disk to its initiators: restore ${current} from a backup, or remove both files if no initiator knows this target yet`,
      })
    }
    log.warn(
      { event: 'identities-restored' },
      `${current}: ${found.why ?? 'missing'}; going on with the copy before it, ${previous}`,
    )
    this.#content = before.content
  }

  /** On disk before it is in memory: an identity that was shown once must never be forgotten. */
  #write(content: Content): void {
    const path = join(this.#dir, FILE_NAME)
    const temporary = `${path}.new`
    const text = `${JSON.stringify({ format: FORMAT, version: VERSION, crc32c: checksum(content), content })}\n`
    try {
      const file = openSync(temporary, 'w', 0o640)
      try {
        writeSync(file, text)
        fsyncSync(file)
      } finally {
        closeSync(file)
      }
      if (readContent(path).content) {
        const link = `${path}.link`
        rmSync(link, { force: true })
        linkSync(path, link)
        renameSync(link, `${path}.previous`)
      }
      renameSync(temporary, path)
      const folder = openSync(this.#dir, 'r')
      try {
        fsyncSync(folder)
      } finally {
        closeSync(folder)
      }
    } catch (error) {
      throw toPlexusError(error, 'write', path)
    }
    this.#content = content
  }
}

/** What a device calls itself in the world; undefined for image files and nameless devices. */
export function markOf(device: DeviceIdentity): string | undefined {
  if (device.wwid) return device.wwid
  if (!device.serial) return undefined
  return [device.vendor ?? '', device.model ?? '', device.serial].join('/')
}

function checksum(content: Content): string {
  return crc32c(Buffer.from(JSON.stringify(content)))
    .toString(16)
    .padStart(8, '0')
}

/** The content of a store file; neither field is set when the file does not exist. */
function readContent(path: string): { content?: Content; why?: string } {
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
  const stored = (value as { content: Content }).content
  if (checksum(stored) !== parsed.data.crc32c) return { why: 'its checksum is wrong' }
  return { content: parsed.data.content }
}
