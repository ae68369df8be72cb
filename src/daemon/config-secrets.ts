/**
 * CHAP secrets of plexus.yaml: read from files of their own, never from the configuration (RFC 7143, 9.2.1
 * and 12.1.3). Called by config.ts after the schema has passed.
 */
import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { chapCredentialsProblem } from '../iscsi/chap.ts'
import { describePlace, valueAt } from './config-issues.ts'
import type { ConfigPath, ConfigSource } from './config-source.ts'

/** Readable, writable or executable by others than owner and group. */
const OTHERS_MODE = 0o007

/** Secrets by `N.chap` and `N.mutual`, N being the place of the group in the list. */
export type Secrets = ReadonlyMap<string, Buffer>

/**
 * Reads every secret that the `auth` list names; what is wrong with one becomes a problem at its
 * `secretFile`. Relative paths start at `baseDir`. Looks at the plain YAML values, so that it works
 * beside errors of the schema.
 */
export function readSecrets(source: ConfigSource, baseDir: string): Secrets {
  const secrets = new Map<string, Buffer>()
  const groups = valueAt(source.value, ['auth'])
  for (const index of Array.isArray(groups) ? groups.keys() : []) {
    for (const role of ['chap', 'mutual']) {
      const path = ['auth', index, role, 'secretFile']
      const file = valueAt(source.value, path)
      const secret =
        typeof file === 'string' ? readSecret(source, path, resolve(baseDir, file)) : undefined
      if (!secret) continue
      secrets.set(`${index}.${role}`, secret)
      const user = valueAt(source.value, ['auth', index, role, 'user'])
      const wrong = typeof user === 'string' && chapCredentialsProblem({ user, secret })
      if (wrong) source.problem(path, `${describePlace(source.value, path)}: ${wrong}`)
    }
  }
  checkDirections(source, secrets)
  return secrets
}

/** RFC 7143, 9.2.1: a secret never serves both directions, or a peer could reflect challenges. */
function checkDirections(source: ConfigSource, secrets: Secrets): void {
  for (const [key, secret] of secrets) {
    const [index, role] = key.split('.')
    if (role !== 'mutual') continue
    const twin = [...secrets].find(([other, one]) => other.endsWith('.chap') && one.equals(secret))
    if (!twin) continue
    const path = ['auth', Number(index), 'mutual', 'secretFile']
    const other = describePlace(source.value, ['auth', Number.parseInt(twin[0], 10)])
    source.problem(
      path,
      `${describePlace(source.value, path)}: this is the secret of "chap" in ${other}; they must differ`,
    )
  }
}

/** The secret in `absolute` without its line end; what is wrong becomes a problem at `path`. */
function readSecret(source: ConfigSource, path: ConfigPath, absolute: string): Buffer | undefined {
  const place = describePlace(source.value, path)
  let bytes: Buffer
  let mode: number
  try {
    const stat = statSync(absolute)
    if (!stat.isFile()) {
      source.problem(path, `${place}: ${absolute} is not a file`)
      return undefined
    }
    mode = stat.mode
    bytes = readFileSync(absolute)
  } catch (error) {
    const why = error instanceof Error ? error.message : String(error)
    source.problem(path, `${place}: the secret cannot be read: ${why}`)
    return undefined
  }
  if ((mode & OTHERS_MODE) !== 0) {
    source.problem(
      path,
      `${place}: ${absolute} is open to every user (mode ${(mode & 0o777).toString(8)}); run: chmod 640 ${absolute}`,
    )
  }
  const secret = withoutLineEnd(bytes)
  if (secret.includes(0x0a) || secret.includes(0x00)) {
    source.problem(path, `${place}: ${absolute} must hold one line of text`)
  }
  return secret
}

function withoutLineEnd(bytes: Buffer): Buffer {
  let end = bytes.length
  if (end > 0 && bytes[end - 1] === 0x0a) end--
  if (end > 0 && bytes[end - 1] === 0x0d) end--
  return bytes.subarray(0, end)
}
