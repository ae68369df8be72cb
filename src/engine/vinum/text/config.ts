/**
 * vinum's own text: the file that `vinum create` reads, what `printconfig` writes, and the configuration copies on
 * FreeBSD's drives (docs/vinum.md, 2.1). One object per line. Ours beyond the original: `org raid5 SIZE
 * left-symmetric`, `readpol prefer PLEX | round | least`, `detached` for a plex or subdisk without a parent. Used
 * by the verbs create and printconfig, and by freebsd/format.ts.
 *
 * A wrong word is an error with its place; nothing becomes a default silently (the original takes an unknown
 * suffix for 0 and an unknown state for down).
 */
import type { DriveState, PlexState, SubdiskState, VolumeState } from '../model/model.ts'
import { linesOf } from './tokens.ts'
import { type Draft, type Fields, parseLine, type TextType } from './words.ts'

/** Where the data of FreeBSD's drives begins, behind both copies of the text. */
export const FREEBSD_DATA_OFFSET_BYTES = 135680

/** An object of a type: with all of `Needed`, and with what else the text may say of it. */
type Text<
  T extends TextType,
  Needed extends keyof Fields,
  More extends keyof Fields,
  State extends string,
> = {
  readonly type: T
  readonly line: number
  readonly state: State | undefined
} & { readonly [F in Needed]-?: Exclude<Fields[F], undefined> } & {
  readonly [F in More]: Fields[F] | undefined
}

export type TextDrive = Text<'drive', 'name' | 'device', never, DriveState>
export type TextVolume = Text<'volume', 'name', 'readPolicy' | 'preferredPlex', VolumeState>
/**
 * `volume`: the name, in the text or not; undefined: detached. `stripeBytes`: 0 for concat. Without a parity layout raid5
 * of FreeBSD's drives is left-asymmetric.
 */
export type TextPlex = Text<
  'plex',
  'name' | 'organization' | 'stripeBytes',
  'volume' | 'parityLayout',
  PlexState
>
/**
 * `plex`: the name, in the text or not; undefined: detached. `driveOffsetBytes`: absolute on the device. A size or place
 * that is undefined: as large as fits, where it fits, next in the plex.
 */
export type TextSubdisk = Text<
  'subdisk',
  'name' | 'drive',
  'plex' | 'sizeBytes' | 'driveOffsetBytes' | 'plexOffsetBytes',
  SubdiskState
>
export type TextObject = TextDrive | TextVolume | TextPlex | TextSubdisk

export interface ParseOptions {
  /** Name of the file or drive, for messages. */
  readonly origin: string
  /**
   * user (default): what names no parent belongs to the last volume or plex, and names may be left out. disk: a
   * copy on FreeBSD's drive, where what names no parent is detached, and objects of two types may share a name.
   */
  readonly form?: 'user' | 'disk'
  /** Names that the defaults must not take, beside those in the text. */
  isTaken?(name: string): boolean
  /**
   * Words and states that nobody knows are passed over with a warning, the states as down: a FreeBSD drive from
   * another time shall not lose all its volumes for one word.
   */
  readonly isLenient?: boolean
  /** Takes each warning, a sentence with its place. */
  warn?(text: string): void
}

/**
 * The objects of a text, in its order, with names and parents filled in. Throws PlexusError `invalid` with file,
 * line and column, what is wrong and what would be right. The last line needs no newline (8.18).
 */
export function parseConfigText(text: string, options: ParseOptions): readonly TextObject[] {
  const user = options.form !== 'disk'
  const reading = {
    isLenient: options.isLenient === true,
    warn: (warning: string) => options.warn?.(warning),
  }
  const drafts = linesOf(text, options.origin).map((line) => parseLine(line, reading))
  const names = collectNames(drafts, user)
  /** The first free of NAME0, NAME1, … */
  const numbered = (prefix: string): string => {
    let number = 0
    const isTaken = (one: string) => names.has(one) || options.isTaken?.(one) === true
    while (isTaken(`${prefix}${number}`)) number++
    names.add(`${prefix}${number}`)
    return `${prefix}${number}`
  }
  let lastVolume: string | undefined
  let lastPlex: string | undefined
  return drafts.map((draft): TextObject => {
    const { fields, type } = draft
    const line = draft.line.number
    if (type === 'drive') {
      const name = required(draft, fields.name, 'a name')
      const device = required(draft, fields.device, 'device DEVICE')
      return { type, line, name, device, state: stateOf<DriveState>(draft) }
    }
    if (type === 'volume') {
      const name = required(draft, fields.name, 'a name')
      const { readPolicy, preferredPlex } = fields
      lastVolume = name
      return { type, line, name, readPolicy, preferredPlex, state: stateOf<VolumeState>(draft) }
    }
    if (type === 'plex') {
      const volume = parentOf(draft, fields.volume, user ? lastVolume : undefined)
      const prefix = user && volume !== undefined ? `${volume}.p` : undefined
      const name = fields.name ?? numbered(required(draft, prefix, 'name NAME'))
      lastPlex = name
      const right = 'org concat, org striped SIZE or org raid5 SIZE'
      const organization = required(draft, fields.organization, right)
      const { stripeBytes = 0, parityLayout } = fields
      const state = stateOf<PlexState>(draft)
      return { type, line, name, volume, organization, stripeBytes, parityLayout, state }
    }
    const plex = parentOf(draft, fields.plex, user ? lastPlex : undefined)
    const prefix = user ? `${plex ?? 'gvinumsubdisk.p0'}.s` : undefined
    const name = fields.name ?? numbered(required(draft, prefix, 'name NAME'))
    if (!user) checkDriveOffset(draft)
    const { sizeBytes, driveOffsetBytes, plexOffsetBytes } = fields
    const drive = required(draft, fields.drive, 'drive NAME')
    const sizes = { sizeBytes, driveOffsetBytes, plexOffsetBytes }
    return { type, line, name, drive, plex, ...sizes, state: stateOf<SubdiskState>(draft) }
  })
}

/** All names that the text gives; no two are equal (disk form: within a type). */
function collectNames(drafts: readonly Draft[], user: boolean): Set<string> {
  const lines = new Map<string, number>()
  const names = new Set<string>()
  for (const { type, line, fields, columns } of drafts) {
    if (fields.name === undefined) continue
    const key = user ? fields.name : `${type} ${fields.name}`
    const before = lines.get(key)
    if (before !== undefined) {
      const problem = `the name "${fields.name}" is that of line ${before}`
      throw line.fault(columns.get('name') ?? 1, problem, 'another name')
    }
    lines.set(key, line.number)
    names.add(fields.name)
  }
  return names
}

function required<T>({ type, line, columns }: Draft, value: T | undefined, what: string): T {
  if (value !== undefined) return value
  throw line.fault(columns.get('') ?? 1, `the ${type} is not complete`, what)
}

/** The keyword has checked that it is one of its type. */
function stateOf<S extends string>({ fields }: Draft): S | undefined {
  return fields.state as S | undefined
}

function parentOf(
  { fields, line, columns }: Draft,
  own: string | undefined,
  last: string | undefined,
): string | undefined {
  if (fields.detached && own !== undefined) {
    const column = columns.get('detached') ?? 1
    throw line.fault(column, `"detached" contradicts "${own}"`, 'one of the two')
  }
  return fields.detached ? undefined : (own ?? last)
}

function checkDriveOffset({ line, fields, columns }: Draft): void {
  const offset = fields.driveOffsetBytes
  if (offset === undefined || offset >= FREEBSD_DATA_OFFSET_BYTES) return
  const problem = `the offset ${offset} lies before the data area`
  const right = `0, or ${FREEBSD_DATA_OFFSET_BYTES} and more`
  throw line.fault(columns.get('driveoffset') ?? 1, problem, right)
}
