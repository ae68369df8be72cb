/**
 * CHAP secrets of plexus.yaml: read from files of their own, never from the configuration (RFC 7143, 9.2.1
 * and 12.1.3). Called by config.ts after the schema has passed.
 */
import { readFileSync, statSync } from 'node:fs'
import { resolve } from 'node:path'
import { chapCredentialsProblem } from '../iscsi/chap.ts'
import { openToAll } from './config-files.ts'
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
  const groupOf = new Map<string, number>()
  for (const [key, secret] of secrets) {
    if (key.endsWith('.chap')) groupOf.set(secret.toString('hex'), Number.parseInt(key, 10))
  }
  for (const [key, secret] of secrets) {
    const twin = key.endsWith('.mutual') ? groupOf.get(secret.toString('hex')) : undefined
    if (twin === undefined) continue
    const path = ['auth', Number.parseInt(key, 10), 'mutual', 'secretFile']
    const other = describePlace(source.value, ['auth', twin])
    source.problem(
      path,
      `${describePlace(source.value, path)}: this is the secret of "chap" in ${other}; they must differ`,
    )
  }
}

/** The marks by which editors tell encodings apart: initiators would have to send them, too. */
const BYTE_ORDER_MARKS = ['efbbbf', 'fffe', 'feff']

/** What is doubtful in the text of a secret, as a sentence; `isProblem`: nobody could log in with it. */
function encodingFault(secret: Buffer): { isProblem: boolean; text: string } | undefined {
  const hex = secret.toString('hex')
  if (BYTE_ORDER_MARKS.some((mark) => hex.startsWith(mark))) {
    const text =
      'begins with a byte order mark, which would be a part of the secret; save it as UTF-8 without one'
    return { isProblem: true, text }
  }
  if (secret.includes(0x0a) || secret.includes(0x0d) || secret.includes(0x00)) {
    return { isProblem: true, text: 'must hold one line of text' }
  }
  if (/^\s|\s$/.test(secret.toString('latin1'))) {
    return { isProblem: false, text: 'begins or ends with blanks, which are a part of the secret' }
  }
  return undefined
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
  const fault = encodingFault(secret)
  if (fault?.isProblem) source.problem(path, `${place}: ${absolute} ${fault.text}`)
  else if (fault) source.warning(path, `${place}: ${absolute} ${fault.text}`)
  const open = openToAll(absolute)
  // What the file itself permits has been said.
  if (open !== undefined && (mode & OTHERS_MODE) === 0) source.warning(path, `${place}: ${open}`)
  return secret
}

function withoutLineEnd(bytes: Buffer): Buffer {
  let end = bytes.length
  if (end > 0 && bytes[end - 1] === 0x0a) end--
  if (end > 0 && bytes[end - 1] === 0x0d) end--
  return bytes.subarray(0, end)
}
