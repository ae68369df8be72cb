/**
 * Targets as the configuration describes them: portal groups, who may log in and how (auth groups), and the LUN map
 * of each initiator. RFC 7143, 4.2 for the words. A reload updates a TargetNode in place, so that sessions and
 * logins keep their reference. Read by login.ts and text-request.ts, written by the daemon's reconciliation.
 */
import { assert } from '../../base/assert.ts'
import { PlexusError } from '../../base/errors.ts'
import { TEXT_VALUE_BYTES } from '../../base/limits.ts'
import { normalizeIscsiName, targetPortName } from '../../iscsi/names.ts'
import type { DigestChoice } from '../../iscsi/parameters.ts'
import { hasControlCharacter } from '../../iscsi/text.ts'
import type { LunMapping } from '../scsi/types.ts'
import { type Auth, admitsName, checkedGroup } from './auth.ts'
import { KeptAnswers } from './send-targets.ts'

export interface PortalAddress {
  /** IP address, without brackets; 0.0.0.0 and :: listen on every address. */
  readonly host: string
  readonly port: number
  /** `::` takes IPv4 connections, too. */
  readonly dualStack?: boolean
}

/** Sockets that share a portal group tag (RFC 7143, 4.4.1) and their policy. */
export interface PortalGroup {
  /** Name in the configuration; portal groups are the same when their names are. */
  readonly name: string
  /** 1 to 65535, unique. */
  readonly tag: number
  readonly listen: readonly PortalAddress[]
  /** What SendTargets tells instead of `listen`: addresses behind which it is reached, or host names. */
  readonly advertise?: readonly PortalAddress[] | undefined
  /** Digests that an initiator may choose; a list without `None` demands CRC32C. */
  readonly digests: {
    readonly header: readonly DigestChoice[]
    readonly data: readonly DigestChoice[]
  }
  /** Who may ask for the list of targets. It names only targets that the initiator may log in to. */
  readonly discoveryAuth: Auth
}

export interface LunAccess {
  readonly lun: number
  readonly readOnly: boolean
}

export interface TargetInit {
  readonly name: string
  readonly alias: string | undefined
  readonly portalGroups: readonly PortalGroup[]
  readonly auth: Auth
  readonly luns: ReadonlyMap<number, LunMapping>
  /** LUN mask by initiator name: who is not in it sees none. Absent: all see all. */
  readonly access?: ReadonlyMap<string, readonly LunAccess[]>
  /**
   * Relative target port identifier (SPC-5, 4.3.5.2) of the target's port on each portal group, by the group's name: 1 to
   * 65535, unique over all targets of the machine, so that a unit which several targets share has it once for each port.
   */
  readonly portIds?: ReadonlyMap<string, number>
}

/** A SCSI target port: this target on one of its portal groups (RFC 7143, 4.4.1). */
export interface NodePort {
  readonly portalGroup: string
  readonly tag: number
  readonly relativePortId: number
  /** SCSI target port name: `NAME,t,0xTPGT`. */
  readonly name: string
}

/** One target. Its contents change by `update`, its identity and its name never. */
export class TargetNode {
  readonly name: string
  #init: TargetInit

  /** Throws `invalid` where name, auth group or LUN mask cannot be right. */
  constructor(init: TargetInit) {
    this.name = normalizedTargetName(init.name)
    this.#init = checked(this.name, init)
  }

  get alias(): string | undefined {
    return this.#init.alias
  }

  get portalGroups(): readonly PortalGroup[] {
    return this.#init.portalGroups
  }

  get auth(): Auth {
    return this.#init.auth
  }

  /** All LUNs of the target, before any mask. */
  get luns(): ReadonlyMap<number, LunMapping> {
    return this.#init.luns
  }

  get access(): ReadonlyMap<string, readonly LunAccess[]> | undefined {
    return this.#init.access
  }

  /** Replaces everything but the name; then call `changed` of the registry. Throws `invalid` and changes nothing where `init` cannot be right. */
  update(init: TargetInit): void {
    assert(normalizedTargetName(init.name) === this.name, `${this.name} is never renamed`)
    this.#init = checked(this.name, init)
  }

  /** May an initiator of this normalized name try to log in? */
  admits(initiatorName: string): boolean {
    return admitsName(this.#init.auth, initiatorName)
  }

  /** Is the target reached through this portal group? */
  offeredOn(portalGroup: PortalGroup): boolean {
    return this.#init.portalGroups.some((group) => group.name === portalGroup.name)
  }

  /** Its ports, in the order of its portal groups. */
  ports(): readonly NodePort[] {
    return this.#init.portalGroups.map((portalGroup) => this.port(portalGroup))
  }

  /** Its port on a portal group. */
  port({ name: portalGroup, tag }: PortalGroup): NodePort {
    return {
      portalGroup,
      tag,
      relativePortId: this.#init.portIds?.get(portalGroup) ?? tag,
      name: targetPortName(this.name, tag),
    }
  }

  /** The LUNs that an initiator of this normalized name sees; a new map where a mask applies. */
  lunsFor(initiatorName: string): ReadonlyMap<number, LunMapping> {
    const { access } = this.#init
    if (!access) return this.#init.luns
    const seen = new Map<number, LunMapping>()
    for (const { lun, readOnly } of access.get(initiatorName) ?? []) {
      const mapping = this.#init.luns.get(lun)
      if (mapping) seen.set(lun, { ...mapping, readOnly: mapping.readOnly || readOnly })
    }
    return seen
  }
}

/** All targets by name. */
export class TargetRegistry {
  readonly #targets = new Map<string, TargetNode>()
  /** Answers to SendTargets, until something changes. */
  readonly answers = new KeptAnswers()

  /** Targets or portal groups have other contents than before. */
  changed(): void {
    this.answers.drop()
  }

  /** By a name in any case; undefined also for what is no iSCSI name. */
  get(name: string): TargetNode | undefined {
    const normalized = normalizeIscsiName(name)
    return normalized === undefined ? undefined : this.#targets.get(normalized)
  }

  all(): TargetNode[] {
    return [...this.#targets.values()]
  }

  /** Adds a target. Throws `exists` where another object has its name: that one is to be updated. */
  set(target: TargetNode): void {
    const present = this.#targets.get(target.name)
    if (present && present !== target) {
      throw new PlexusError('exists', {
        op: 'add target',
        subject: target.name,
        message: `target ${target.name} exists already; update it instead of adding another`,
      })
    }
    this.#targets.set(target.name, target)
    this.changed()
  }

  /** Takes a target out; its sessions are the caller's to end. */
  remove(name: string): TargetNode | undefined {
    const target = this.get(name)
    if (target) this.#targets.delete(target.name)
    this.changed()
    return target
  }

  /** What discovery through a portal group tells an initiator: the targets there that admit its name. */
  visibleTo(initiatorName: string, portalGroup: PortalGroup): TargetNode[] {
    return this.all().filter(
      (target) => target.offeredOn(portalGroup) && target.admits(initiatorName),
    )
  }
}

function normalizedTargetName(name: string): string {
  const normalized = normalizeIscsiName(name)
  if (normalized === undefined) {
    throw invalidTarget(
      name,
      'the name is no iSCSI name; write iqn.YYYY-MM.reversed.domain:anything, in at most 223 bytes',
    )
  }
  return normalized
}

/** Checks everything but the name; returns it with normalized names of initiators. */
function checked(name: string, init: TargetInit): TargetInit {
  const { alias } = init
  if (alias && (Buffer.byteLength(alias) > TEXT_VALUE_BYTES || hasControlCharacter(alias))) {
    throw invalidTarget(
      name,
      `the alias has more than ${TEXT_VALUE_BYTES} bytes or control characters`,
    )
  }
  const auth = init.auth === 'none' ? init.auth : init.auth.map(checkedGroup)
  if (!init.access) return { ...init, auth }
  const access = new Map<string, readonly LunAccess[]>()
  for (const [initiator, luns] of init.access) {
    const normalized = normalizeIscsiName(initiator)
    if (normalized === undefined) {
      throw invalidTarget(name, `"${initiator}" in access is no iSCSI name`)
    }
    if (access.has(normalized)) throw invalidTarget(name, `${normalized} is twice in access`)
    access.set(normalized, luns)
  }
  return { ...init, auth, access }
}

function invalidTarget(name: string, problem: string): PlexusError {
  return new PlexusError('invalid', {
    op: 'configure target',
    subject: name,
    message: `target ${name}: ${problem}`,
  })
}
