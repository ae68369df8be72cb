/**
 * Checks of who may log in: auth groups, the places that name them (`auth` of a target, `discoveryAuth` of a portal), and
 * what a LUN mask is worth with them (docs/adr/0009-auth-groups-and-names.md). Looks at the plain YAML values, as
 * config-checks.ts does. Called by config.ts once the secrets are read.
 */
import { InitiatorNames, normalizeInitiatorPattern, normalizeIscsiName } from '../iscsi/names.ts'
import { type AuthGroup, groupsFor } from '../target/iscsi/auth.ts'
import {
  AUTH_NONE,
  type Entry,
  entriesOf,
  isRecord,
  namesOf,
  notAName,
  reportDuplicates,
  textsOf,
} from './config-checks.ts'
import { describePlace } from './config-issues.ts'
import type { Secrets } from './config-secrets.ts'
import type { ConfigPath, ConfigSource } from './config-source.ts'

/** A place that names a group, with the group as the login will see it. */
interface Use {
  readonly path: ConfigPath
  readonly group: AuthGroup
}

export function checkAuth(source: ConfigSource, secrets: Secrets): void {
  const entries = entriesOf(source.value, 'auth')
  reportDuplicates(source, entries, 'name')
  for (const entry of entries) checkGroup(source, entry)
  const groups = new Map(
    entries.map((entry, index) => [
      entry.value['name'],
      authGroup(entry, secrets.get(`${index}.chap`)),
    ]),
  )
  for (const portal of entriesOf(source.value, 'portals')) {
    checkUses(source, portal, 'discoveryAuth', groups)
  }
  for (const target of entriesOf(source.value, 'targets')) {
    if (target.value['auth'] === undefined) {
      source.warning(
        target.path,
        `${describePlace(source.value, target.path)} has no "auth": nobody may log in; name an auth group, or write "auth: ${AUTH_NONE}"`,
      )
    }
    checkMask(source, target, checkUses(source, target, 'auth', groups))
  }
}

function checkGroup(source: ConfigSource, group: Entry): void {
  const place = describePlace(source.value, group.path)
  if (group.value['name'] === AUTH_NONE) {
    source.problem(
      [...group.path, 'name'],
      `"${AUTH_NONE}" is a word of its own; name the group otherwise`,
    )
  }
  if (group.value['mutual'] !== undefined && group.value['chap'] === undefined) {
    source.problem(
      [...group.path, 'mutual'],
      `${place}: "mutual" works only together with "chap" (RFC 7143, 9.2.1)`,
    )
  }
  if (group.value['chap'] === undefined && group.value['initiators'] === undefined) {
    source.problem(
      group.path,
      `${place} has neither "chap" nor "initiators"; write "auth: ${AUTH_NONE}" on the target to admit anybody`,
    )
  }
  for (const { path, text } of textsOf(group, 'initiators')) {
    if (normalizeInitiatorPattern(text) === undefined) {
      source.problem(path, `${place}: ${notAName(text)}`)
    }
  }
}

function authGroup(entry: Entry, secret: Buffer | undefined): AuthGroup {
  const { name, chap, initiators } = entry.value
  const user = isRecord(chap) ? String(chap['user']) : ''
  return {
    name: String(name),
    ...(chap === undefined ? {} : { chap: { user, secret: secret ?? Buffer.alloc(0) } }),
    ...(initiators === undefined
      ? {}
      : {
          initiators: new InitiatorNames(
            textsOf(entry, 'initiators').flatMap(
              ({ text }) => normalizeInitiatorPattern(text) ?? [],
            ),
          ),
        }),
  }
}

/** The groups that `key` of a target or portal names, one or a list; what is wrong with them becomes problems. */
function checkUses(
  source: ConfigSource,
  entry: Entry,
  key: 'auth' | 'discoveryAuth',
  groups: ReadonlyMap<unknown, AuthGroup>,
): readonly Use[] {
  const given = entry.value[key]
  const named =
    typeof given === 'string' ? [{ path: [...entry.path, key], text: given }] : textsOf(entry, key)
  const place = describePlace(source.value, entry.path)
  const uses: Use[] = []
  for (const { path, text } of named) {
    const group = groups.get(text)
    if (text === AUTH_NONE && named.length > 1) {
      source.problem(path, `${place}: "${AUTH_NONE}" admits anybody; it stands alone or not at all`)
    } else if (text !== AUTH_NONE && !group) {
      const known = namesOf(entriesOf(source.value, 'auth'))
      source.problem(
        path,
        `${place}: there is no auth group "${text}"${source.didYouMean(text, known)}`,
      )
    } else if (uses.some((one) => one.group.name === text)) {
      source.problem(path, `${place}: auth group "${text}" stands twice`)
    } else if (group) {
      const problem = uses.map((one) => contradiction(one.group, group)).find(Boolean)
      if (problem) source.problem(path, `${place}: ${problem}`)
      uses.push({ path, group })
    }
  }
  return uses
}

/** Why two groups of one place cannot both be meant, or undefined. */
function contradiction(a: AuthGroup, b: AuthGroup): string | undefined {
  if (a.chap && b.chap && a.chap.user === b.chap.user && !a.chap.secret.equals(b.chap.secret)) {
    return `auth groups "${a.name}" and "${b.name}" have different secrets for user "${a.chap.user}"; choose two users`
  }
  const listed = b.initiators?.entries
  const shared = [...(a.initiators?.entries ?? [])].find((name) => listed?.has(name))
  if (shared !== undefined && !a.chap !== !b.chap) {
    const [open, closed] = a.chap ? [b, a] : [a, b]
    return `"${shared}" is in auth group "${open.name}" without CHAP and in "${closed.name}" with it; take it out of one`
  }
  return undefined
}

/** Warns where a LUN mask depends on names that CHAP does not prove. */
function checkMask(source: ConfigSource, target: Entry, uses: readonly Use[]): void {
  const access = target.value['access']
  const auth = target.value['auth']
  if (!isRecord(access) || auth === undefined) return
  const place = describePlace(source.value, target.path)
  const path = [...target.path, 'access']
  const groups = uses.map(({ group }) => group)
  const rows = new Map<string, Set<string>>()
  for (const [initiator, luns] of Object.entries(access)) {
    const name = normalizeIscsiName(initiator)
    if (name === undefined || groups.length === 0) continue
    const speaking = groupsFor(groups, name)
    if (speaking.length === 0) {
      source.warning(
        [...path, initiator],
        `${place}: "${initiator}" has LUNs here, but auth group "${groups.map((one) => one.name).join('", "')}" does not admit it`,
      )
    }
    for (const group of speaking) {
      rows.set(group.name, (rows.get(group.name) ?? new Set()).add(JSON.stringify(luns)))
    }
  }
  if (auth === AUTH_NONE || groups.some((group) => !group.chap)) {
    source.warning(
      path,
      `${place}: "access" goes by the initiator name, which anybody can use where no CHAP is asked for; give each host an auth group with "chap"`,
    )
    return
  }
  for (const [name, different] of rows) {
    if (different.size < 2) continue
    source.warning(
      path,
      `${place}: hosts with different LUNs share auth group "${name}", so each can log in with the name of another; give each a group with a user of its own, and list all of them in "auth"`,
    )
  }
}
