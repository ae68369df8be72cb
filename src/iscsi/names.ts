/**
 * iSCSI names and port names (RFC 7143, 4.2.7 and 4.4.1): the types iqn., eui. and naa., their
 * comparison form, the patterns of access lists, and the SCSI port names made of a name and an ISID or a portal
 * group tag. Called by login, discovery, configuration and session code; pure functions.
 */
import { assert } from '../base/assert.ts'
import { PlexusError } from '../base/errors.ts'
import { ISCSI_NAME_BYTES } from '../base/limits.ts'

/** Length of an ISID in the login PDU. */
export const ISID_BYTES = 6

/**
 * `iqn.`, year and month in which the domain was owned, the domain reversed, and an optional string after a colon.
 * The RFC allows letters, digits, dash, dot and colon, in any script. Underscores are accepted as well: Windows puts
 * host names into its names and does not replace them.
 */
const IQN =
  /^iqn\.\d{4}-(?:0[1-9]|1[0-2])\.[\p{L}\p{N}][\p{L}\p{N}\p{M}._-]*(?::[\p{L}\p{N}\p{M}.:_-]*)?$/u
const EUI = /^eui\.[0-9a-f]{16}$/
const NAA = /^naa\.(?:[0-9a-f]{16}|[0-9a-f]{32})$/
/** Characters of a name with wildcards; the types are not told apart. */
const PATTERN = /^[\p{L}\p{N}\p{M}.:_*-]+$/u

/**
 * The comparison form of an iSCSI name (lower case, Unicode NFKC, as the stringprep profile of RFC 3722 asks), or
 * undefined where the text is no iSCSI name: unknown type, forbidden characters, more than 223 bytes of UTF-8.
 */
export function normalizeIscsiName(text: string): string | undefined {
  // Normalizing costs time and can lengthen the text: the limit is checked on both sides of it.
  if (Buffer.byteLength(text) > ISCSI_NAME_BYTES) return undefined
  const name = fold(text)
  if (Buffer.byteLength(name) > ISCSI_NAME_BYTES) return undefined
  return IQN.test(name) || EUI.test(name) || NAA.test(name) ? name : undefined
}

/**
 * The comparison form of an access list's entry: an iSCSI name, or a pattern in which every `*` stands for any
 * characters; undefined where it can match no name.
 */
export function normalizeInitiatorPattern(text: string): string | undefined {
  if (!text.includes('*')) return normalizeIscsiName(text)
  if (Buffer.byteLength(text) > ISCSI_NAME_BYTES) return undefined
  const pattern = fold(text)
  return PATTERN.test(pattern) ? pattern : undefined
}

/** A pattern in the comparison form, taken apart at its `*`. */
interface Pattern {
  readonly first: string
  readonly between: readonly string[]
  readonly last: string
}

/**
 * The entries of an access list, brought into their comparison form once: every login and every change of the configuration
 * asks for each session and target.
 */
export class InitiatorNames {
  /** Names and patterns. */
  readonly entries: ReadonlySet<string>
  readonly #patterns: readonly Pattern[]

  /** Throws `invalid` where an entry is neither a name nor a pattern. */
  constructor(entries: readonly string[]) {
    this.entries = new Set(entries.map(normalizedEntry))
    this.#patterns = [...this.entries].filter((entry) => entry.includes('*')).map(patternOf)
  }

  /** Does a normalized name fit a pattern? Linear in the name for each piece between two `*`. */
  fitsPattern(name: string): boolean {
    return this.#patterns.some((pattern) => fits(pattern, name))
  }
}

function normalizedEntry(entry: string): string {
  const normal = normalizeInitiatorPattern(entry)
  if (normal !== undefined) return normal
  throw new PlexusError('invalid', {
    op: 'configure auth',
    subject: entry,
    message: `"${entry}" is neither an iSCSI name nor a pattern of one`,
  })
}

function patternOf(entry: string): Pattern {
  const [first = '', ...between] = entry.split('*')
  const last = between.pop() ?? ''
  return { first, between, last }
}

function fits({ first, between, last }: Pattern, name: string): boolean {
  if (!name.startsWith(first) || !name.endsWith(last)) return false
  if (name.length < first.length + last.length) return false
  let at = first.length
  const end = name.length - last.length
  for (const piece of between) {
    const found = name.indexOf(piece, at)
    if (found < 0 || found + piece.length > end) return false
    at = found + piece.length
  }
  return true
}

/** An ISID as 12 hexadecimal digits with a leading 0x, as port names and logs have it. */
export function formatIsid(isid: Buffer): string {
  assert(isid.length === ISID_BYTES, `an ISID has ${ISID_BYTES} bytes, not ${isid.length}`)
  return `0x${isid.toString('hex')}`
}

/** SCSI initiator port name: `NAME,i,0xISID`. */
export function initiatorPortName(initiatorName: string, isid: Buffer): string {
  return `${initiatorName},i,${formatIsid(isid)}`
}

/** SCSI target port name: `NAME,t,0xTPGT`, the portal group tag with four digits. */
export function targetPortName(targetName: string, portalGroupTag: number): string {
  assert(
    Number.isInteger(portalGroupTag) && portalGroupTag >= 0 && portalGroupTag <= 0xffff,
    `a portal group tag is 0 to 65535, not ${portalGroupTag}`,
  )
  return `${targetName},t,0x${portalGroupTag.toString(16).padStart(4, '0')}`
}

function fold(text: string): string {
  return text.normalize('NFKC').toLowerCase()
}
