/**
 * What the identity store (identity-store.ts) remembers, and the rules by which a device, a portal or a port finds what
 * was made for it or gets something new. A draft is a copy of the content that a change works on; nothing of it counts
 * before the store has it on disk.
 */
import { z } from 'zod'
import { PlexusError } from '../base/errors.ts'
import type { DeviceIdentity } from '../hal/block-device.ts'
import type { UnitIdentity } from '../target/scsi/types.ts'

/**
 * NAA type 6h needs an IEEE company id. Ours has the local bit of its first octet set, so that it cannot
 * be one that IEEE registered; the 100 bits behind it are random.
 */
const NAA_PREFIX = '602504c'
const VENDOR_SPECIFIC_HEX_DIGITS = 25

/** T10 vendor and product are the same on all units: ESXi compares them across paths. */
const VENDOR = 'PLEXUS'
const PRODUCT = 'iSCSI Disk'

/** Portal group tags (RFC 7143, 4.4.1) and relative target port identifiers (SPC-5, 4.3.5.2) have 16 bits, without 0. */
const NUMBER_MAX = 0xffff
const numbers = z.record(z.string(), z.int().min(1).max(NUMBER_MAX))

export const contentSchema = z.strictObject({
  devices: z.array(
    z.strictObject({
      /** Name in the configuration that had it last. */
      name: z.string(),
      /** What the device calls itself, if it does: its WWID, else vendor, model and serial number. */
      mark: z.string().optional(),
      naa: z.string().regex(/^6[0-9a-f]{31}$/),
      /** The disk that was exported as it is, without a label of ours: what it carries since is its initiators'. */
      lent: z.string().optional(),
      /** The machine that served it last (machine-id.ts). */
      machine: z.string().optional(),
    }),
  ),
  /** By the name of the portal. */
  portalTags: numbers,
  /** By target name and portal name, a blank between. */
  portIds: numbers.optional(),
})
export type IdentityContent = z.infer<typeof contentSchema>
export type DeviceRecord = IdentityContent['devices'][number]

/**
 * `state.movedFrom` and `copiedFrom`: what to do with identities that another machine has made
 * (docs/adr/0010-state-of-another-machine.md).
 */
export interface Origin {
  /** The disks of that machine are here now: they keep their identities. */
  readonly movedFrom: string | undefined
  /** That machine still has its disks: what is here gets new identities. */
  readonly copiedFrom: string | undefined
}

const NO_ORIGIN: Origin = { movedFrom: undefined, copiedFrom: undefined }

/** The names that are configured: whatever can say whether it has one. */
interface Names {
  has(name: string): boolean
}

export interface DraftOptions {
  readonly revision: string
  readonly random: (bytes: number) => Buffer
  /** This machine; undefined where it has no name of its own. */
  readonly machine: string | undefined
}

export class IdentityDraft {
  /** Something differs from the content that the draft was made of. */
  changed = false
  readonly #options: DraftOptions
  readonly #records: Set<DeviceRecord>
  readonly #byName: Map<string, DeviceRecord>
  readonly #byMark = new Map<string, Set<DeviceRecord>>()
  readonly #portalTags: Map<string, number>
  readonly #portIds: Map<string, number>

  constructor(content: IdentityContent, options: DraftOptions) {
    this.#options = options
    this.#records = new Set(content.devices)
    this.#byName = new Map(content.devices.map((one) => [one.name, one]))
    for (const one of content.devices) this.#index(one)
    this.#portalTags = new Map(Object.entries(content.portalTags))
    this.#portIds = new Map(Object.entries(content.portIds ?? {}))
  }

  content(): IdentityContent {
    return {
      devices: [...this.#records],
      portalTags: Object.fromEntries(this.#portalTags),
      portIds: Object.fromEntries(this.#portIds),
    }
  }

  /**
   * The identity of the device that the configuration calls `name`. `device` is what the opened device
   * says of itself, undefined while it is missing. A disk with a mark of its own keeps its identity under
   * any name that no other configured device (`configured`) has taken; another disk under an old name gets
   * a new one. Throws `foreign` for a device without a mark whose record is another machine's.
   */
  identify(
    name: string,
    device: DeviceIdentity | undefined,
    configured: Names,
    origin: Origin = NO_ORIGIN,
  ): UnitIdentity {
    const mark = device && markOf(device)
    let record = this.#find(name, mark, configured)
    if (record && this.#isForeign(record, device, mark)) {
      if (record.machine === origin.copiedFrom) record = undefined
      else if (record.machine !== origin.movedFrom)
        throw new ForeignIdentity([name], record.machine)
    }
    const isHere = device !== undefined || record?.mark === undefined
    const next: DeviceRecord = {
      name,
      ...defined('mark', mark ?? record?.mark),
      naa: record?.naa ?? this.#newNaa(),
      ...defined('lent', record?.lent),
      ...defined('machine', (isHere ? this.#options.machine : undefined) ?? record?.machine),
    }
    if (
      record?.name !== next.name ||
      record.mark !== next.mark ||
      record.machine !== next.machine
    ) {
      this.#replace(record, next)
    }
    return this.#unitIdentity(next)
  }

  /** As {@link identify} for many devices that are not open yet; names all that are foreign in one error. */
  identifyAll(
    names: readonly string[],
    configured: Names,
    origin: Origin,
  ): ReadonlyMap<string, UnitIdentity> {
    const found = new Map<string, UnitIdentity>()
    const refused: ForeignIdentity[] = []
    for (const name of names) {
      try {
        found.set(name, this.identify(name, undefined, configured, origin))
      } catch (error) {
        if (!(error instanceof ForeignIdentity)) throw error
        refused.push(error)
      }
    }
    const [first] = refused
    if (!first) return found
    const same = refused.filter(({ machine }) => machine === first.machine)
    const all = new ForeignIdentity(
      same.flatMap((one) => one.names),
      first.machine,
    )
    const { op, subject } = all
    throw new PlexusError('foreign', { op, subject, message: `${all.message}. ${all.action}` })
  }

  /** Notes that a disk (`evidenceOf` in export-guard.ts) was exported without a label of ours, for the device identified as `name`. */
  lend(name: string, disk: string): void {
    const record = this.#byName.get(name)
    if (record && record.lent !== disk) this.#replace(record, { ...record, lent: disk })
  }

  /** The name leads to what it led to no more. The identity stays with the volume, which is found by its mark. */
  release(name: string): void {
    const record = this.#byName.get(name)
    if (record) this.#replace(record, { ...record, name: '' })
  }

  /** The disk is this machine's own from now on. */
  takeBack(disk: string): void {
    for (const record of [...this.#records]) {
      const { lent, ...rest } = record
      if (lent === disk) this.#replace(record, rest)
    }
  }

  /** Target portal group tags by portal name: for each new portal the lowest that is free. */
  portalTags(portals: readonly string[]): ReadonlyMap<string, number> {
    return this.#allot(this.#portalTags, portals)
  }

  /** Relative target port identifiers, unique over all targets, by target name and portal name with a blank between. */
  portIds(ports: readonly string[]): ReadonlyMap<string, number> {
    return this.#allot(this.#portIds, ports)
  }

  #allot(table: Map<string, number>, wanted: readonly string[]): ReadonlyMap<string, number> {
    const fresh = wanted.filter((key) => !table.has(key))
    if (table.size + fresh.length > NUMBER_MAX) {
      // All numbers have been given out once: those of ports that are gone are free again.
      const kept = new Set(wanted)
      for (const key of [...table.keys()]) if (!kept.has(key)) table.delete(key)
    }
    const taken = new Set(table.values())
    let number = 1
    for (const key of fresh) {
      while (taken.has(number)) number++
      if (number > NUMBER_MAX) throw exhausted(key)
      taken.add(number)
      table.set(key, number)
      this.changed = true
    }
    return new Map(table)
  }

  /**
   * Was the record made by another machine, and is its name all that leads to it? Names are the same on a copy of the
   * machine; what a disk calls itself is not.
   */
  #isForeign(
    record: DeviceRecord,
    device: DeviceIdentity | undefined,
    mark: string | undefined,
  ): boolean {
    const { machine } = this.#options
    if (machine === undefined || record.machine === undefined) return false
    const isKnown = record.mark !== undefined && (device === undefined || record.mark === mark)
    return record.machine !== machine && !isKnown
  }

  #find(name: string, mark: string | undefined, configured: Names): DeviceRecord | undefined {
    const named = this.#byName.get(name)
    if (named && named.mark === mark) return named
    // The disk itself is known, under a name that nothing has now: it has moved.
    const moved = mark === undefined ? [] : (this.#byMark.get(mark) ?? [])
    for (const one of moved) if (!configured.has(one.name)) return one
    const compatible = named && (mark === undefined || named.mark === undefined)
    return compatible ? named : undefined
  }

  #replace(record: DeviceRecord | undefined, next: DeviceRecord): void {
    this.changed = true
    if (record) this.#remove(record)
    const loser = this.#byName.get(next.name)
    if (loser) {
      // A name belongs to one record; one that lost its name can still be found by its mark.
      this.#remove(loser)
      if (loser.mark !== undefined) this.#add({ ...loser, name: '' })
    }
    this.#add(next)
  }

  #add(record: DeviceRecord): void {
    this.#records.add(record)
    if (record.name !== '') this.#byName.set(record.name, record)
    this.#index(record)
  }

  #index(record: DeviceRecord): void {
    if (record.mark === undefined) return
    const same = this.#byMark.get(record.mark)
    if (same) same.add(record)
    else this.#byMark.set(record.mark, new Set([record]))
  }

  #remove(record: DeviceRecord): void {
    this.#records.delete(record)
    if (this.#byName.get(record.name) === record) this.#byName.delete(record.name)
    if (record.mark !== undefined) this.#byMark.get(record.mark)?.delete(record)
  }

  #newNaa(): string {
    return (
      NAA_PREFIX + this.#options.random(13).toString('hex').slice(0, VENDOR_SPECIFIC_HEX_DIGITS)
    )
  }

  #unitIdentity(record: DeviceRecord): UnitIdentity {
    return {
      naa: Buffer.from(record.naa, 'hex'),
      serial: record.naa.slice(NAA_PREFIX.length),
      vendor: VENDOR,
      product: PRODUCT,
      revision: this.#options.revision,
    }
  }
}

/** What a device calls itself in the world; undefined for image files and nameless devices. */
export function markOf(device: DeviceIdentity): string | undefined {
  if (device.wwid) return device.wwid
  if (!device.serial) return undefined
  return [device.vendor ?? '', device.model ?? '', device.serial].join('/')
}

/** The UUID of the volume whose identity it is (wwidOf in engine/geom/names.ts); undefined: a device. */
export function volumeOf(record: DeviceRecord | undefined): string | undefined {
  return /^uuid\.(.+)$/.exec(record?.mark ?? '')?.[1]
}

/** A field of a record, left out where it has no value. */
function defined<K extends string>(key: K, value: string | undefined): { [P in K]?: string } {
  return value === undefined ? {} : ({ [key]: value } as { [P in K]: string })
}

/** Another machine served `names`, and nothing shows that the disks are the same. */
export class ForeignIdentity extends PlexusError {
  readonly names: readonly string[]
  readonly machine: string
  /** What to type. */
  readonly action: string

  constructor(names: readonly string[], machine = 'unknown') {
    super('foreign', {
      op: 'identify',
      subject: names[0] ?? '',
      message: `the identity of ${names.join(', ')} is from another machine (${machine}), and the device has no name of its own to show that it is the same disk; if it is another one, the multipathing of initiators joins the two and destroys their data`,
    })
    this.names = names
    this.machine = machine
    this.action = `If the disks have moved here with the state folder, write state: { movedFrom: ${machine} } into the configuration; if that machine still has them, state: { copiedFrom: ${machine} } makes new identities here`
  }
}

function exhausted(key: string): PlexusError {
  return new PlexusError('exhausted', {
    op: 'number',
    subject: key,
    message: `there is no number left for "${key}": there are ${NUMBER_MAX} in all; take targets or portals out of the configuration`,
  })
}
