/**
 * Negotiation text (RFC 7143, 6.1): `key=value` pairs, each ended by a NUL byte, in the data segments of login and
 * text PDUs. One text may span several PDUs linked by the C bit (6.2), cut at any byte:
 *
 *   | InitiatorName=iqn… 00 SessionType=Nor |  C=1      TextAssembler puts requests together,
 *   | mal 00 TargetName=iqn… 00             |  C=0      TextOutbox cuts answers into PDUs.
 *
 * Called by login and text requests on the target's side and by the initiator's login.
 */
import { isUtf8 } from 'node:buffer'
import { PlexusError } from '../base/errors.ts'
import { TEXT_BYTES, TEXT_KEY_BYTES, TEXT_KEYS, TEXT_PARTS } from '../base/limits.ts'

export type TextPair = readonly [key: string, value: string]

/** Answers that stand for no value (RFC 7143, 6.2). They must never be proposed. */
export const REJECT = 'Reject'
export const NOT_UNDERSTOOD = 'NotUnderstood'
export const IRRELEVANT = 'Irrelevant'
export const RESERVED_VALUES: ReadonlySet<string> = new Set([REJECT, NOT_UNDERSTOOD, IRRELEVANT])

/** Characters of a key name. A leading small letter is let pass here: such a key is simply unknown. */
const KEY_NAME = /^[A-Za-z0-9.\-+@_#]+$/

/** A declaration for people, on which nothing depends: a value that is no text is left out and does not end a login. */
const FOR_PEOPLE = 'InitiatorAlias='

/**
 * The pairs of a complete text in their order. Empty segments (padding between pairs) are skipped, and the NUL of
 * the last pair may be missing, as other targets have it. Throws `protocol` for a segment without `=`, a bad or
 * overlong key name, bytes that are no UTF-8, or control characters in a value, but for an InitiatorAlias, which is
 * left out then; `exhausted` above 128 pairs.
 */
export function decodeText(bytes: Buffer): TextPair[] {
  const pairs: TextPair[] = []
  let at = 0
  while (at < bytes.length) {
    const nul = bytes.indexOf(0, at)
    const end = nul < 0 ? bytes.length : nul
    if (end > at) {
      if (pairs.length === TEXT_KEYS) {
        throw textError('exhausted', `more than ${TEXT_KEYS} keys in one negotiation`)
      }
      const segment = bytes.subarray(at, end)
      if (isText(segment) || !segment.toString('latin1').startsWith(FOR_PEOPLE)) {
        pairs.push(decodePair(segment))
      }
    }
    at = end + 1
  }
  return pairs
}

function isText(segment: Buffer): boolean {
  return isUtf8(segment) && !hasControlCharacter(segment.toString('utf8'))
}

function decodePair(segment: Buffer): TextPair {
  if (!isUtf8(segment)) throw textError('protocol', 'text that is not UTF-8')
  const text = segment.toString('utf8')
  const equals = text.indexOf('=')
  if (equals < 0) throw textError('protocol', `no "=" in ${JSON.stringify(text.slice(0, 80))}`)
  const key = text.slice(0, equals)
  if (key.length > TEXT_KEY_BYTES || !KEY_NAME.test(key)) {
    throw textError('protocol', `bad key name ${JSON.stringify(key.slice(0, 80))}`)
  }
  const value = text.slice(equals + 1)
  if (hasControlCharacter(value)) throw textError('protocol', `control characters in ${key}`)
  return [key, value]
}

/** No text value may hold one: NUL ends it, and the others only serve to garble logs. */
export function hasControlCharacter(text: string): boolean {
  for (let i = 0; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code < 0x20 || code === 0x7f) return true
  }
  return false
}

/** Pairs as text, each with its NUL. */
export function encodeText(pairs: readonly TextPair[]): Buffer {
  return Buffer.from(pairs.map(([key, value]) => `${key}=${value}\0`).join(''), 'utf8')
}

/** Puts the text of several requests together; holds at most TEXT_BYTES. */
export class TextAssembler {
  #parts: Buffer[] = []
  #bytes = 0

  /** True between a part with the C bit and the last one. */
  get pending(): boolean {
    return this.#parts.length > 0
  }

  /**
   * Keeps a copy of one PDU's text; `continued` is its C bit. Throws `exhausted` when the whole grows beyond TEXT_BYTES
   * or TEXT_PARTS, and `protocol` for an empty part that says that more is to come: such parts would never end.
   */
  add(part: Buffer, continued: boolean): void {
    this.#bytes += part.length
    if (this.#bytes > TEXT_BYTES) {
      throw textError('exhausted', `more than ${TEXT_BYTES} bytes of negotiation text`)
    }
    if (this.#parts.length === TEXT_PARTS) {
      throw textError('exhausted', `negotiation text in more than ${TEXT_PARTS} PDUs`)
    }
    if (continued && part.length === 0) {
      throw textError('protocol', 'a PDU without text has the C bit set')
    }
    this.#parts.push(Buffer.from(part))
  }

  /** The whole text; the assembler is empty afterwards. */
  take(): Buffer {
    const text = Buffer.concat(this.#parts)
    this.#parts = []
    this.#bytes = 0
    return text
  }
}

/** One PDU's part of an answer; `continued` is its C bit. */
export interface TextPart {
  readonly text: Buffer
  readonly continued: boolean
}

/** Cuts an answer into parts of at most `partBytes`; the peer fetches each with an empty request. */
export class TextOutbox {
  readonly #partBytes: number
  #rest: Buffer = Buffer.alloc(0)

  constructor(partBytes: number) {
    this.#partBytes = partBytes
  }

  /** True while parts wait that the peer has not fetched. */
  get pending(): boolean {
    return this.#rest.length > 0
  }

  put(text: Buffer): void {
    this.#rest = Buffer.concat([this.#rest, text])
  }

  /** The next part, empty when there is none. */
  next(): TextPart {
    const text = this.#rest.subarray(0, this.#partBytes)
    this.#rest = this.#rest.subarray(text.length)
    return { text, continued: this.#rest.length > 0 }
  }
}

function textError(kind: 'protocol' | 'exhausted', message: string): PlexusError {
  return new PlexusError(kind, { op: 'parse', subject: 'negotiation text', message })
}
