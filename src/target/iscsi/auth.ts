/**
 * Who may log in, and by which proof (docs/adr/0009-auth-groups-and-names.md): auth groups, the groups that speak for an
 * initiator name, and whether what a session once proved would still admit it. Pure. Called by the login, by discovery
 * and after each change of the configuration.
 */
import { PlexusError } from '../../base/errors.ts'
import {
  type ChapAccount,
  type ChapCredentials,
  chapCredentialsProblem,
  sameSecret,
} from '../../iscsi/chap.ts'
import type { InitiatorNames } from '../../iscsi/names.ts'

/** Who is let in. Every condition that is given must hold. */
export interface AuthGroup {
  readonly name: string
  /** The initiator proves this; without it no CHAP is asked for. */
  readonly chap?: ChapCredentials
  /** The target proves this to an initiator that asks (mutual CHAP). */
  readonly mutual?: ChapCredentials
  /** Absent: any name that no other group of the target lists. */
  readonly initiators?: InitiatorNames
}

/** Groups, one of which must let an initiator in: with none of them nobody may log in. `none` lets anybody in. */
export type Auth = readonly AuthGroup[] | 'none'

/** What an initiator proved at its login. */
export interface Proof {
  readonly user: string
  readonly secret: Buffer
  /** Number of the CHAP algorithm. */
  readonly algorithm: number
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
  for (const credentials of [group.chap, group.mutual]) {
    const problem = credentials && chapCredentialsProblem(credentials)
    if (problem) return `auth group "${group.name}": ${problem}`
  }
  if (group.chap && group.mutual && sameSecret(group.chap, group.mutual)) {
    return `auth group "${group.name}" has one secret for both directions; choose two (RFC 7143, 9.2.1)`
  }
  return undefined
}

/** The group itself. Throws `invalid` where {@link authGroupProblem} has something to say. */
export function checkedGroup(group: AuthGroup): AuthGroup {
  const message = authGroupProblem(group)
  if (!message) return group
  throw new PlexusError('invalid', { op: 'configure auth', subject: group.name, message })
}

/** How closely a group names an initiator: not at all, as any that nobody lists, by a pattern, or by its name. */
const CLOSENESS = { NOT: 0, ANY: 1, PATTERN: 2, NAME: 3 } as const

function closeness({ initiators }: AuthGroup, name: string): number {
  if (!initiators) return CLOSENESS.ANY
  if (initiators.entries.has(name)) return CLOSENESS.NAME
  return initiators.fitsPattern(name) ? CLOSENESS.PATTERN : CLOSENESS.NOT
}

/**
 * The groups that speak for a normalized name: those that name it most closely, and among them, where one demands CHAP,
 * only those that do. So a name that belongs to one group cannot be used with the secret of another, or with none.
 */
export function groupsFor(groups: readonly AuthGroup[], initiatorName: string): AuthGroup[] {
  const ranked = groups.map((group) => ({ group, rank: closeness(group, initiatorName) }))
  const best = Math.max(CLOSENESS.ANY, ...ranked.map(({ rank }) => rank))
  const closest = ranked.flatMap(({ group, rank }) => (rank === best ? [group] : []))
  const proving = closest.filter((group) => group.chap)
  return proving.length > 0 ? proving : closest
}

/** May an initiator of this normalized name try to log in? Its proof is another matter. */
export function admitsName(auth: Auth, initiatorName: string): boolean {
  return auth === 'none' || groupsFor(auth, initiatorName).length > 0
}

/** What an initiator of this name has to prove: one of these, or nothing where there are none. */
export function accountsFor(auth: Auth, initiatorName: string): readonly ChapAccount[] {
  if (auth === 'none') return []
  return groupsFor(auth, initiatorName).flatMap(({ chap, mutual }) =>
    chap ? [{ chap, mutual }] : [],
  )
}

/** Would an initiator of this name with this proof be admitted? */
export function admits(auth: Auth, initiatorName: string, proof: Proof | undefined): boolean {
  if (auth === 'none') return true
  return groupsFor(auth, initiatorName).some(
    ({ chap }) =>
      !chap ||
      (proof !== undefined &&
        chap.user === proof.user &&
        sameSecret(chap, proof) &&
        (chap.algorithms?.includes(proof.algorithm) ?? true)),
  )
}

/** Did two logins prove the same? Only then may the later one reinstate the session of the other. */
export function sameProof(a: Proof | undefined, b: Proof | undefined): boolean {
  return a === undefined || b === undefined ? a === b : a.user === b.user && sameSecret(a, b)
}
