/**
 * The words of vinum's text (docs/vinum.md, 2.1): one table of line types, each with its keywords, and the reader of
 * one line. Called by text/config.ts, which completes names and parents.
 */
import { nameFault } from '../../geom/names.ts'
import {
  DRIVE_STATES,
  PARITY_LAYOUTS,
  type ParityLayout,
  PLEX_STATES,
  READ_POLICIES,
  type ReadPolicy,
  SUBDISK_STATES,
  VOLUME_STATES,
} from '../model/model.ts'
import { hasParity, isStriped, ORGANIZATIONS, type Organization } from '../model/plex-kinds.ts'
import { sizeOf, type TextLine, type Token } from './tokens.ts'

export type TextType = 'drive' | 'volume' | 'plex' | 'subdisk'

/** What the words of a line have said so far. */
export interface Fields {
  name?: string
  drive?: string
  /** Without a leading `/dev/`. */
  device?: string
  /** One of those of its type. */
  state?: string
  volume?: string
  plex?: string
  detached?: true
  readPolicy?: ReadPolicy | undefined
  /** Name of the plex, for `prefer`. */
  preferredPlex?: string
  organization?: Organization
  stripeBytes?: number
  parityLayout?: ParityLayout
  autosize?: true
  sizeBytes?: number
  driveOffsetBytes?: number
  plexOffsetBytes?: number
}

/** Takes the words that follow a keyword. */
type Keyword = (fields: Fields, line: TextLine, reading: Reading) => void

/** How a text is read. */
export interface Reading {
  /** Words and states that nobody knows are passed over with a warning. */
  readonly isLenient: boolean
  /** Takes what the admin should know: a sentence with its place. */
  warn(text: string): void
}

function name(field: 'name' | 'drive' | 'volume' | 'plex' | 'preferredPlex'): Keyword {
  return (fields, line) => {
    const token = line.take('a name')
    fields[field] = checkedName(line, token)
  }
}

function checkedName(line: TextLine, token: Token): string {
  const problem = nameFault(token.text)
  if (problem === undefined) return token.text
  throw line.fault(token.column, `"${token.text}" cannot be a name`, `another one: ${problem}`)
}

function oneOf<T extends string>(line: TextLine, what: string, choices: readonly T[]): T {
  const token = line.take(choices.join(' or '))
  const found = choices.find((one) => one === token.text)
  if (found === undefined) throw line.unknown(token, what, choices)
  return found
}

/** Else it is not a word but damage. */
const WORD = /^[a-z_]+$/

/** vinum of FreeBSD 3 and 4 had states that later ones do not have (`init`, `empty`, `crashed`): on disk they mean down. */
function state(choices: readonly string[]): Keyword {
  return (fields, line, { isLenient, warn }) => {
    const token = line.peek()
    if (!isLenient || !token || choices.includes(token.text) || !WORD.test(token.text)) {
      fields.state = oneOf(line, 'state', choices)
      return
    }
    line.take('')
    fields.state = 'down'
    warn(`${line.place(token.column)}: unknown state "${token.text}": taken to be down`)
  }
}

/** A word that other vinums know, and that is taken without effect. */
function ignored(why: string): Keyword {
  return (_fields, line, { warn }) => warn(`${line.place(line.at)}: ${why}`)
}

const device: Keyword = (fields, line) => {
  const token = line.take('a device')
  fields.device = token.text.replace(/^\/dev\//, '')
  if (fields.device === '') throw line.fault(token.column, 'the device is empty', 'its name')
}

/** The word for each read policy. */
export const READ_POLICY_WORDS = {
  'round-robin': 'round',
  'least-queue': 'least',
  prefer: 'prefer',
} as const

const readPolicy: Keyword = (fields, line) => {
  const word = oneOf(line, 'read policy', Object.values(READ_POLICY_WORDS))
  fields.readPolicy = READ_POLICIES.find((one) => READ_POLICY_WORDS[one] === word)
  if (word === 'prefer') fields.preferredPlex = checkedName(line, line.take('a name'))
}

const organization: Keyword = (fields, line) => {
  const org = oneOf(line, 'organisation', ORGANIZATIONS)
  fields.organization = org
  if (!isStriped({ organization: org })) return
  const token = line.take('the size of a stripe, such as 256k')
  fields.stripeBytes = sizeOf(line, token)
  if (fields.stripeBytes === 0 || fields.stripeBytes % 512 !== 0) {
    throw line.fault(token.column, `a stripe of ${token.text} cannot be`, 'a multiple of 512 bytes')
  }
  const layout = PARITY_LAYOUTS.find((one) => one === line.peek()?.text)
  if (!hasParity({ organization: org }) || layout === undefined) return
  line.take('')
  fields.parityLayout = layout
}

const detached: Keyword = (fields) => {
  fields.detached = true
}

const length: Keyword = (fields, line) => {
  const token = line.take('a size')
  const bytes = /^-\d+s?$/.test(token.text) ? 0 : sizeOf(line, token)
  if (bytes === 0) fields.autosize = true
  else fields.sizeBytes = bytes
}

const driveOffset: Keyword = (fields, line) => {
  const bytes = sizeOf(line, line.take('an offset'))
  if (bytes !== 0) fields.driveOffsetBytes = bytes
}

const plexOffset: Keyword = (fields, line) => {
  fields.plexOffsetBytes = sizeOf(line, line.take('an offset'))
}

const SUBDISK_WORDS: Readonly<Record<string, Keyword>> = {
  name: name('name'),
  drive: name('drive'),
  plex: name('plex'),
  len: length,
  length,
  size: length,
  driveoffset: driveOffset,
  plexoffset: plexOffset,
  state: state(SUBDISK_STATES),
  detached,
  retryerrors: ignored('retryerrors has no effect: a failed request goes to the other copy'),
}

interface LineType {
  readonly type: TextType
  /** The name may stand alone, without the word `name`. */
  readonly bareName: boolean
  readonly words: Readonly<Record<string, Keyword>>
}

const SUBDISK: LineType = { type: 'subdisk', bareName: false, words: SUBDISK_WORDS }

/** The first word of a line, and the words that may follow it. */
const LINE_TYPES: Readonly<Record<string, LineType>> = {
  drive: {
    type: 'drive',
    bareName: true,
    words: {
      name: name('name'),
      device,
      state: state(DRIVE_STATES),
      hotspare: ignored('hotspare has no effect: this is an ordinary drive without subdisks'),
    },
  },
  volume: {
    type: 'volume',
    bareName: true,
    words: {
      name: name('name'),
      state: state(VOLUME_STATES),
      readpol: readPolicy,
      setupstate: ignored('setupstate has no effect: new copies are always synchronised'),
    },
  },
  plex: {
    type: 'plex',
    bareName: false,
    words: {
      name: name('name'),
      org: organization,
      vol: name('volume'),
      volume: name('volume'),
      state: state(PLEX_STATES),
      detached,
    },
  },
  sd: SUBDISK,
  subdisk: SUBDISK,
}

/** A line read; names and parents are not complete yet. */
export interface Draft {
  readonly type: TextType
  readonly line: TextLine
  readonly fields: Fields
  readonly columns: ReadonlyMap<string, number>
}

/** Reads one line. Throws `invalid` with its place. */
export function parseLine(line: TextLine, reading: Reading): Draft {
  const first = line.take('an object')
  const row = Object.hasOwn(LINE_TYPES, first.text) ? LINE_TYPES[first.text] : undefined
  if (!row) throw line.unknown(first, 'object', Object.keys(LINE_TYPES))
  const fields: Fields = {}
  const columns = new Map([['', first.column]])
  for (let token = line.peek(); token; token = line.peek()) {
    line.take('')
    const keyword = Object.hasOwn(row.words, token.text) ? row.words[token.text] : undefined
    if (!keyword && row.bareName && fields.name === undefined) {
      fields.name = checkedName(line, token)
      columns.set('name', token.column)
      continue
    }
    if (!keyword && reading.isLenient && WORD.test(token.text)) {
      reading.warn(`${line.place(token.column)}: unknown word "${token.text}" is passed over`)
      continue
    }
    if (!keyword) throw line.unknown(token, `word of a ${row.type}`, Object.keys(row.words))
    if (columns.has(token.text)) {
      throw line.fault(token.column, `"${token.text}" stands twice`, 'it once')
    }
    // Errors that show only later point at the value.
    const value = keyword === detached ? token : (line.peek() ?? token)
    columns.set(token.text, value.column)
    keyword(fields, line, reading)
  }
  return { type: row.type, line, fields, columns }
}
