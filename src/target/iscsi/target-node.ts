/**
 * Targets as the configuration describes them: portal groups, who may log in and how (auth groups), and the LUN map
 * of each initiator. RFC 7143, 4.2 for the words. A reload updates a TargetNode in place, so that sessions and
 * logins keep their reference. Read by login.ts and text-request.ts, written by the daemon's reconciliation.
 */
import { assert } from '../../base/assert.ts'
import { PlexusError } from '../../base/errors.ts'
import { TEXT_VALUE_BYTES } from '../../base/limits.ts'
import { type ChapCredentials, chapCredentialsProblem, sameSecret } from '../../iscsi/chap.ts'
import {
  matchesInitiatorPattern,
  normalizeInitiatorPattern,
  normalizeIscsiName,
} from '../../iscsi/names.ts'
import type { DigestChoice } from '../../iscsi/parameters.ts'
import { hasControlCharacter } from '../../iscsi/text.ts'
import type { LunMapping } from '../scsi/types.ts'

export interface PortalAddress {
  /** IP address, without brackets; 0.0.0.0 and :: listen on every address. */
  readonly host: string
  readonly port: number
}

/** Sockets that share a portal group tag (RFC 7143, 4.4.1) and their policy. */
export interface PortalGroup {
  /** Name in the configuration; portal groups are the same when their names are. */
  readonly name: string
  /** 1 to 65535, unique. */
  readonly tag: number
  readonly listen: readonly PortalAddress[]
  /** Digests that an initiator may choose; a list without `None` demands CRC32C. */
  readonly digests: {
    readonly header: readonly DigestChoice[]
    readonly data: readonly DigestChoice[]
  }
  /** Who may ask for the list of targets. It names only targets that the initiator may log in to. */
  readonly discoveryAuth: AuthGroup | 'none'
}

/** Who is let in. Every condition that is given must hold. */
export interface AuthGroup {
  readonly name: string
  /** The initiator proves this; without it no CHAP is asked for. */
  readonly chap?: ChapCredentials
  /** The target proves this to an initiator that asks (mutual CHAP). */
  readonly mutual?: ChapCredentials
  /** Initiator names, exact or with `*`. Absent: any name. */
  readonly initiators?: readonly string[]
}

/** `none` lets anybody in; undefined, which is what a target without auth has, nobody. */
export type Auth = AuthGroup | 'none' | undefined

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

/**
 * What is wrong with an auth group, or undefined. A group with a problem must not be used: with a secret missing it
 * would let in more than its author meant. The configuration reports it with its position.
 */
export function authGroupProblem(group: AuthGroup): string | undefined {
  if (group.mutual && !group.chap) {
    return `auth group "${group.name}" has mutual without chap; the target proves itself only to initiators that did`
  }
  if (!group.chap && !group.initiators) {
    return `auth group "${group.name}" has neither chap nor initiators; write "auth: none" on a target to admit anybody`
  }
  const badPattern = group.initiators?.find((name) => normalizeInitiatorPattern(name) === undefined)
  if (badPattern !== undefined) {
    return `auth group "${group.name}": "${badPattern}" is neither an iSCSI name nor a pattern of one`
  }
  for (const credentials of [group.chap, group.mutual]) {
    const problem = credentials && chapCredentialsProblem(credentials)
    if (problem) return `auth group "${group.name}": ${problem}`
  }
  if (group.chap && group.mutual && sameSecret(group.chap, group.mutual)) {
    return `auth group "${group.name}" has one secret for both directions; choose two (RFC 7143, 9.2.1)`
  }
  return undefined
}

/** Does the group's list of initiators let this normalized name in? CHAP is another matter. */
export function admitsName(auth: Auth, initiatorName: string): boolean {
  if (auth === undefined) return false
  if (auth === 'none' || auth.initiators === undefined) return true
  return auth.initiators.some((entry) => {
    const pattern = normalizeInitiatorPattern(entry)
    return pattern !== undefined && matchesInitiatorPattern(pattern, initiatorName)
  })
}

/** One target. Its contents change by `update`, its identity and its name never. */
export class TargetNode {
  readonly name: string
  #init: TargetInit
  #access: ReadonlyMap<string, readonly LunAccess[]> | undefined

  /** Throws `invalid` where name, auth group or LUN mask cannot be right. */
  constructor(init: TargetInit) {
    this.name = normalizedTargetName(init.name)
    this.#init = init
    this.#access = checked(this.name, init)
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
    return this.#access
  }

  /** Replaces everything but the name. Throws `invalid` and changes nothing where `init` cannot be right. */
  update(init: TargetInit): void {
    assert(normalizedTargetName(init.name) === this.name, `${this.name} is never renamed`)
    this.#access = checked(this.name, init)
    this.#init = init
  }

  /** May an initiator of this normalized name try to log in? */
  admits(initiatorName: string): boolean {
    return admitsName(this.#init.auth, initiatorName)
  }

  /** Is the target reached through this portal group? */
  offeredOn(portalGroup: PortalGroup): boolean {
    return this.#init.portalGroups.some((group) => group.name === portalGroup.name)
  }

  /** The LUNs that an initiator of this normalized name sees; a new map where a mask applies. */
  lunsFor(initiatorName: string): ReadonlyMap<number, LunMapping> {
    if (!this.#access) return this.#init.luns
    const seen = new Map<number, LunMapping>()
    for (const { lun, readOnly } of this.#access.get(initiatorName) ?? []) {
      const mapping = this.#init.luns.get(lun)
      if (mapping) seen.set(lun, { ...mapping, readOnly: mapping.readOnly || readOnly })
    }
    return seen
  }
}

/** All targets by name. */
export class TargetRegistry {
  readonly #targets = new Map<string, TargetNode>()

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
  }

  /** Takes a target out; its sessions are the caller's to end. */
  remove(name: string): TargetNode | undefined {
    const target = this.get(name)
    if (target) this.#targets.delete(target.name)
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

/** Checks everything but the name; returns the LUN mask with normalized names. */
function checked(name: string, init: TargetInit): TargetNode['access'] {
  const { alias } = init
  if (alias && (Buffer.byteLength(alias) > TEXT_VALUE_BYTES || hasControlCharacter(alias))) {
    throw invalidTarget(
      name,
      `the alias has more than ${TEXT_VALUE_BYTES} bytes or control characters`,
    )
  }
  if (init.auth !== undefined && init.auth !== 'none') {
    const problem = authGroupProblem(init.auth)
    if (problem) throw invalidTarget(name, problem)
  }
  if (!init.access) return undefined
  const access = new Map<string, readonly LunAccess[]>()
  for (const [initiator, luns] of init.access) {
    const normalized = normalizeIscsiName(initiator)
    if (normalized === undefined) {
      throw invalidTarget(name, `"${initiator}" in access is no iSCSI name`)
    }
    if (access.has(normalized)) throw invalidTarget(name, `${normalized} is twice in access`)
    access.set(normalized, luns)
  }
  return access
}

function invalidTarget(name: string, problem: string): PlexusError {
  return new PlexusError('invalid', {
    op: 'configure target',
    subject: name,
    message: `target ${name}: ${problem}`,
  })
}
