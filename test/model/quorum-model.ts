/**
 * Every history of a small set of drives, as far as the rules of src/engine/anchor/anchor-quorum.ts decide it. The rules are
 * the shipped ones; what is written down here is the world around them: media with two slots and an anchor, power that
 * goes at any point of any group of writes, drives that fail or are away, a slot that rots.
 */

import type * as quorum from '../../src/engine/anchor/anchor-quorum.ts'
import type {
  Ancestor,
  Chosen,
  Commit,
  CommitId,
  VoterCopy,
} from '../../src/engine/anchor/anchor-quorum.ts'

export type Rules = Pick<
  typeof quorum,
  'baseAfter' | 'baseOf' | 'choose' | 'counts' | 'keptOf' | 'placeOf' | 'standingOf'
>

export interface ModelOptions {
  readonly drives: number
  /** The set has a witness while its drives are even in number. */
  readonly witness: boolean
  readonly boots: number
  /** At most one slot rots in a history. */
  readonly rot: boolean
  /** Voters may fail while a commit is written, and the set goes on without them. */
  readonly failures: boolean
  /** So many times an operator forces a set that waits. */
  readonly force: number
  readonly rules: Rules
  /** No more states than these are looked at in one boot; the rest are counted as left out. */
  readonly maxStates?: number
}

/** A configuration as it is on a medium. */
interface Record extends Commit {
  /** Drives that come back with this commit: it says itself that they lack data. */
  readonly joining: readonly string[]
  /** Drives of the set that are out of service: what they had last, and how old their data is. */
  readonly down: {
    readonly [uuid: string]: { readonly last: CommitId | undefined; readonly data: number }
  }
}

interface Medium {
  readonly slots: readonly [Record | undefined, Record | undefined]
  readonly named: 0 | 1
  /** What the anchor names. */
  readonly anchor: CommitId | undefined
  /** Which writes of the set its data has: a number that grows. */
  readonly data: number
  /** In which line these were made. */
  readonly dataLine: string
}

/** What is true in one line. */
interface Line {
  /** The commits that have all that was relied upon: any other one has lost some. */
  readonly good: readonly string[]
  /** What the data of a drive must be that has missed nothing. */
  readonly data: number
  /** What that was when the line began. */
  readonly fork: number
}

interface State {
  readonly media: { readonly [uuid: string]: Medium }
  readonly lines: { readonly [line: string]: Line }
  readonly hasRotted: boolean
  readonly forced: number
}

interface Node {
  readonly state: State
  readonly from: Node | undefined
  readonly what: string
}

export interface Findings {
  readonly states: number
  readonly transitions: number
  readonly starts: number
  readonly waits: number
  readonly leftOut: number
  /** How it came about, one line for each boot. */
  readonly violation: readonly string[] | undefined
}

export const WITNESS = 'w'
const LINES = 'ABCDEF'
const NAMES = ['x', 'y', 'z', 'u', 'v']

function keyOf({ line, generation, payloadCrc }: CommitId): string {
  return `${line}${generation}.${payloadCrc}`
}

function isSame(a: CommitId | undefined, b: CommitId | undefined): boolean {
  return a !== undefined && b !== undefined && keyOf(a) === keyOf(b)
}

class Violation extends Error {}

type Fate = 'old' | 'torn' | 'new'
/** What the power may leave of a write when it goes. */
const CUT: readonly Fate[] = ['old', 'torn', 'new']

export function explore(options: ModelOptions): Findings {
  const drives = NAMES.slice(0, options.drives)
  const everyone = options.witness ? [...drives, WITNESS] : drives
  const found = { states: 1, transitions: 0, starts: 0, waits: 0, leftOut: 0 }
  let nodes: Node[] = [{ state: firstState(drives, everyone), from: undefined, what: 'created' }]
  const seen = new Set(nodes.map(({ state }) => canonical(state).key))
  for (let boot = 0; boot < options.boots; boot++) {
    const isLast = boot === options.boots - 1
    const next: Node[] = []
    for (const node of nodes) {
      const add = (state: State, what: string): void => {
        found.transitions++
        if (isLast) return
        const { key, value } = canonical(state)
        if (seen.has(key)) return
        if (next.length >= (options.maxStates ?? Number.POSITIVE_INFINITY)) {
          found.leftOut++
          return
        }
        seen.add(key)
        found.states++
        next.push({ state: value(), from: node, what })
      }
      try {
        for (const rotten of rots(node.state, options, everyone)) {
          for (const here of subsets(everyone)) {
            if (here.length === 0) continue
            new Boot(options, drives, rotten, here, isLast, add, found).run()
          }
        }
      } catch (error) {
        if (!(error instanceof Violation)) throw error
        return { ...found, violation: [...pathTo(node), error.message] }
      }
    }
    nodes = next
  }
  return { ...found, violation: undefined }
}

function firstState(drives: readonly string[], everyone: readonly string[]): State {
  const voters = drives.length % 2 === 0 ? everyone : drives
  const id = { line: 'A', generation: 1, payloadCrc: 1 }
  const common = {
    ...id,
    voters,
    before: [],
    follows: undefined,
    ancestors: [],
    down: {},
    joining: [],
  }
  const record: Record = { ...common, relied: id }
  const fresh = (uuid: string): Medium =>
    voters.includes(uuid)
      ? { slots: [record, record], named: 0, anchor: id, data: 1, dataLine: 'A' }
      : { slots: [undefined, undefined], named: 0, anchor: undefined, data: 0, dataLine: 'A' }
  return {
    media: Object.fromEntries(everyone.map((uuid) => [uuid, fresh(uuid)])),
    lines: { A: { good: [keyOf(id)], data: 1, fork: 0 } },
    hasRotted: false,
    forced: 0,
  }
}

function pathTo(node: Node): string[] {
  return [...(node.from ? pathTo(node.from) : []), node.what]
}

function subsets<T>(all: readonly T[]): T[][] {
  return all.reduce<T[][]>((some, one) => some.flatMap((list) => [list, [...list, one]]), [[]])
}

/** Every fate of every one of these. */
function fatesOf(uuids: readonly string[], fates: readonly Fate[]): Map<string, Fate>[] {
  return uuids.reduce<Map<string, Fate>[]>(
    (some, uuid) =>
      some.flatMap((map) =>
        // A note of the witness is the old or the new one.
        fates
          .filter((fate) => uuid !== WITNESS || fate !== 'torn')
          .map((fate) => new Map([...map, [uuid, fate]])),
      ),
    [new Map()],
  )
}

function* rots(state: State, options: ModelOptions, everyone: readonly string[]): Iterable<State> {
  yield state
  if (!options.rot || state.hasRotted) return
  for (const uuid of everyone) {
    if (uuid === WITNESS) continue
    const medium = mediumOf(state, uuid)
    for (const slot of [0, 1] as const) {
      if (!medium.slots[slot]) continue
      const slots = slot === 0 ? [undefined, medium.slots[1]] : [medium.slots[0], undefined]
      yield { ...withMedium(state, uuid, { ...medium, slots: slots as never }), hasRotted: true }
    }
  }
}

function lineOf(state: State, line: string): Line {
  const found = state.lines[line]
  if (!found) throw new Error(`no line ${line}`)
  return found
}

function mediumOf(state: State, uuid: string): Medium {
  const medium = state.media[uuid]
  if (!medium) throw new Error(`no medium ${uuid}`)
  return medium
}

function withMedium(state: State, uuid: string, medium: Medium): State {
  return { ...state, media: { ...state.media, [uuid]: medium } }
}

/** What AnchoredDevice.read finds: a slot that the anchor does not name counts only if it is not newer. */
function read({ slots, named, anchor }: Medium): { named?: Record; other?: Record } {
  const [first, second] = [slots[named], slots[named === 0 ? 1 : 0]]
  const other = second && anchor && second.generation <= anchor.generation ? second : undefined
  return {
    ...(isSame(first, anchor) && first ? { named: first } : {}),
    ...(other ? { other } : {}),
  }
}

function copyOf(uuid: string, medium: Medium): VoterCopy {
  const { named, other } = read(medium)
  const commits = [named ?? [], other ?? []].flat()
  const isClaimed = medium.anchor && !commits.some((one) => isSame(one, medium.anchor))
  const claimed = isClaimed ? medium.anchor : undefined
  return { uuid, commits, claimed, isWitness: uuid === WITNESS }
}

/** One start of the machine with some of the voters, and all that may become of it. */
class Boot {
  readonly #options: ModelOptions
  readonly #drives: readonly string[]
  readonly #state: State
  readonly #here: readonly string[]
  readonly #isLast: boolean
  readonly #add: (state: State, what: string) => void
  readonly #found: { starts: number; waits: number }
  #what: string

  constructor(
    options: ModelOptions,
    drives: readonly string[],
    state: State,
    here: readonly string[],
    isLast: boolean,
    add: (state: State, what: string) => void,
    found: { starts: number; waits: number },
  ) {
    this.#options = options
    this.#drives = drives
    this.#state = state
    this.#here = here
    this.#isLast = isLast
    this.#add = add
    this.#found = found
    this.#what = `boot with ${here.join('')}`
  }

  run(): void {
    const state = this.#state
    const copies = this.#here.map((uuid) => copyOf(uuid, mediumOf(state, uuid)))
    const choice = this.#options.rules.choose(copies)
    this.#what += `: ${describe(choice)}`
    const areAllHere = Object.keys(state.media).every((uuid) => this.#here.includes(uuid))
    if (choice.kind !== 'serve') {
      this.#found.waits++
      if (areAllHere && !state.hasRotted && state.forced === 0)
        this.#fail('an operator must decide')
      if (state.forced >= this.#options.force || !('commit' in choice)) return
      if (choice.members.length === 0 || choice.current.size === 0) return
      this.#assemble(choice, copies, true)
      return
    }
    this.#found.starts++
    this.#check(choice)
    if (!this.#isLast) this.#assemble(choice, copies, false)
  }

  #fail(why: string): never {
    const media = Object.entries(this.#state.media).map(([uuid, medium]) => show(uuid, medium))
    throw new Violation(`${this.#what}: ${why}; ${media.join('; ')}`)
  }

  #check({ commit, current }: Chosen): void {
    const { media } = this.#state
    const { good, data } = lineOf(this.#state, commit.line)
    const { joining } = this.#recordOf(commit)
    if (!good.includes(keyOf(commit))) this.#fail('what was relied upon is lost')
    for (const uuid of current) {
      if (uuid === WITNESS || joining.includes(uuid)) continue
      if (media[uuid]?.data !== data) this.#fail(`${uuid} is not current`)
    }
  }

  /** The first commit after a start: who is here and has missed nothing votes. */
  #assemble(choice: Chosen, copies: readonly VoterCopy[], isForced: boolean): void {
    const { commit, current } = choice
    const line = isForced ? LINES.charAt(this.#state.forced + 1) : undefined
    const base: Base = {
      ...this.#options.rules.baseOf(choice, line),
      voters: commit.voters,
      record: this.#recordOf(commit),
      isServed: false,
    }
    const [first] = current
    const { data } = mediumOf(this.#state, first ?? '')
    // The operator says that this is what there is.
    const { good } = lineOf(this.#state, commit.line)
    const lines =
      line !== undefined
        ? { ...this.#state.lines, [line]: { good: [...good, keyOf(commit)], data, fork: data } }
        : this.#state.lines
    const start: State = { ...this.#state, lines, forced: this.#state.forced + (isForced ? 1 : 0) }
    const up = this.#drives.filter((uuid) => current.has(uuid) && this.#here.includes(uuid))
    this.#commit(
      start,
      base,
      up,
      choice.nextGeneration,
      new Set(),
      2,
      (state, next, generation) => {
        this.#return(state, next, generation, copies)
      },
    )
  }

  #recordOf(id: CommitId): Record {
    const slots = this.#here.flatMap((uuid) => mediumOf(this.#state, uuid).slots)
    const found = slots.find((one) => isSame(one, id))
    if (!found) throw new Error('the choice can be read')
    return found
  }

  /** The second commit: whoever else is here comes back. */
  #return(state: State, base: Base, generation: number, copies: readonly VoterCopy[]): void {
    const returning: string[] = []
    for (const copy of copies) {
      const { uuid } = copy
      if (uuid === WITNESS || base.voters.includes(uuid)) continue
      const down = base.record.down[uuid]
      const standing = this.#options.rules.standingOf(copy, base, down?.last)
      if (standing === 'apart') continue
      const medium = mediumOf(state, uuid)
      if (medium.dataLine !== base.line && medium.data > lineOf(state, base.line).fork) {
        this.#fail(`${uuid} was used apart`)
      }
      if (standing === 'behind' && medium.data !== down?.data) {
        this.#fail(`${uuid} comes back as one whose misses are known`)
      }
      returning.push(uuid)
    }
    const up = this.#drives.filter((uuid) => base.voters.includes(uuid) || returning.includes(uuid))
    this.#commit(state, base, up, generation, new Set(), 1, () => {})
  }

  /** One commit with all that may become of it; `then` when it counts. As ConfigStore. */
  #commit(
    state: State,
    base: Base,
    up: readonly string[],
    generation: number,
    failed: ReadonlySet<string>,
    tries: number,
    then: (state: State, base: Base, generation: number) => void,
  ): void {
    const { rules } = this.#options
    const votes = up.length % 2 === 0 && this.#here.includes(WITNESS) && !failed.has(WITNESS)
    const voters = votes ? [...up, WITNESS] : up
    const leaving = [...new Set(base.before.flat())].filter(
      (uuid) => uuid === WITNESS && !votes && this.#here.includes(uuid) && !failed.has(uuid),
    )
    const targets = [...voters, ...leaving]
    const { follows, relied, before, line, ancestors } = base
    const keep = base.record
    if (up.length === 0 || !rules.counts({ voters, before }, (uuid) => targets.includes(uuid))) {
      this.#add(state, `${this.#what}; too few can be written`)
      return
    }
    const down: { [uuid: string]: { readonly last: CommitId | undefined; readonly data: number } } =
      {}
    for (const uuid of this.#drives) {
      if (up.includes(uuid)) continue
      const isBehind = base.record.joining.includes(uuid) && !base.isServed
      const data = isBehind ? mediumOf(state, uuid).data : lineOf(state, line).data
      down[uuid] = base.record.down[uuid] ?? { last: relied && idOf(relied), data }
    }
    const serial = 1 + highestSerial(state)
    const id = { line, generation, payloadCrc: serial }
    const record: Record = {
      ...{ ...id, voters, before, ancestors, down },
      follows: follows && idOf(follows),
      relied: relied && idOf(relied),
      joining: up.filter(
        (uuid) => base.record.down[uuid] || (base.record.joining.includes(uuid) && !base.isServed),
      ),
    }
    // What is built on something good is good.
    const truth = lineOf(state, line)
    const isGood = truth.good.includes(keyOf(keep))
    const good = isGood ? [...truth.good, keyOf(id)] : truth.good
    const write = (fates: ReadonlyMap<string, Fate>, from: State): State => {
      let next = from
      for (const [uuid, fate] of fates) {
        const keeps = { follows: keep, last: base.record.down[uuid]?.last }
        const medium = commitTo(mediumOf(next, uuid), record, keeps, fate, rules)
        next = withMedium(next, uuid, medium)
      }
      return next
    }
    const begun = { ...state, lines: { ...state.lines, [line]: { ...truth, good } } }
    const name = `${this.#what}; ${line}${generation} {${voters.join('')}}`
    for (const fates of fatesOf(targets, CUT)) {
      this.#add(write(fates, begun), `${name} cut off: ${[...fates].join(' ')}`)
    }
    if (this.#options.failures && tries > 0) {
      for (const bad of subsets(targets)) {
        if (bad.length === 0 || bad.length === targets.length) continue
        const rest = targets.filter((uuid) => !bad.includes(uuid))
        for (const fates of fatesOf(bad, ['old', 'new'])) {
          const all = new Map([...fates, ...rest.map((uuid): [string, Fate] => [uuid, 'new'])])
          const next = write(all, begun)
          this.#what = `${name} fails on ${[...fates].join(' ')}`
          const lost = new Set([...failed, ...bad])
          const left = up.filter((uuid) => !bad.includes(uuid))
          this.#commit(next, base, left, generation + 1, lost, tries - 1, then)
        }
      }
    }
    const written = write(new Map(targets.map((uuid) => [uuid, 'new'])), begun)
    const data = 1 + Math.max(...Object.values(state.lines).map((one) => one.data))
    const lines = { ...written.lines, [line]: { ...truth, good: [keyOf(id)], data } }
    let served: State = { ...written, lines }
    for (const uuid of up) {
      served = withMedium(served, uuid, { ...mediumOf(served, uuid), data, dataLine: line })
    }
    const second: Record = { ...record, relied: id }
    for (const fates of fatesOf(voters, CUT)) {
      let next = served
      for (const [uuid, fate] of fates) {
        const repeat = uuid === WITNESS ? repeatNote : repeatOn
        next = withMedium(next, uuid, repeat(mediumOf(next, uuid), second, fate))
      }
      const isWhole = [...fates.values()].every((fate) => fate === 'new')
      this.#add(next, `${name} counts${isWhole ? '' : `, second copies ${[...fates].join(' ')}`}`)
      this.#what = `${name} counts`
      const after = { ...rules.baseAfter(id, base, voters), voters, record, isServed: true }
      if (isWhole) then(next, after, generation + 1)
    }
  }
}

/** What the next commit is built on. */
interface Base extends quorum.Base {
  readonly voters: readonly string[]
  readonly record: Record
  /** It counted in this run, so that those that joined with it have been given what they lacked. */
  readonly isServed: boolean
}

function idOf({ line, generation, payloadCrc }: CommitId): CommitId {
  return { line, generation, payloadCrc }
}

/** As AnchoredDevice.commit, cut off or not. */
function commitTo(
  medium: Medium,
  record: Record,
  { follows, last }: { readonly follows: CommitId; readonly last: CommitId | undefined },
  fate: Fate,
  rules: Rules,
): Medium {
  if (fate === 'old') return medium
  const { named, other } = read(medium)
  const place = rules.placeOf(named, other, rules.keptOf([named, other], follows, last))
  const target = place === 'other' ? (medium.named === 0 ? 1 : 0) : medium.named
  const slots: [Record | undefined, Record | undefined] = [...medium.slots]
  slots[target] = fate === 'new' ? record : undefined
  if (fate === 'new') return { ...medium, slots, named: target, anchor: idOf(record) }
  if (place !== 'retreat' || !other) return { ...medium, slots }
  return { ...medium, slots, named: target === 0 ? 1 : 0, anchor: idOf(other) }
}

/** As AnchoredDevice.repeat. */
function repeatOn(medium: Medium, record: Record, fate: Fate): Medium {
  if (fate === 'old') return medium
  const slots: [Record | undefined, Record | undefined] = [...medium.slots]
  slots[medium.named === 0 ? 1 : 0] = fate === 'new' ? record : undefined
  return { ...medium, slots }
}

/** As SetWitness.repeat: the note says it of the newest commit. */
function repeatNote(medium: Medium, record: Record, fate: Fate): Medium {
  if (fate !== 'new') return medium
  const slots: [Record | undefined, Record | undefined] = [...medium.slots]
  slots[medium.named] = record
  return { ...medium, slots }
}

function describe(choice: quorum.Choice): string {
  if (choice.kind === 'none' || choice.kind === 'split') return choice.kind
  const { commit, isCertain, current } = choice
  const members = [...current].join('')
  return `${choice.kind} ${keyOf(commit)}${isCertain ? '' : '?'} by ${members}`
}

function show(uuid: string, medium: Medium): string {
  const text = (one: Record | undefined): string =>
    one
      ? `${keyOf(one)}{${one.voters.join('')}|${one.before.map((some) => some.join('')).join('|')}} on ${one.follows ? keyOf(one.follows) : '-'} ` +
        `relied ${one.relied ? keyOf(one.relied) : '-'}`
      : 'bad'
  const [first, second] = [medium.named, medium.named === 0 ? 1 : 0] as const
  return `${uuid} (data ${medium.data}): ${text(medium.slots[first])}, ${text(medium.slots[second])}, anchor ${medium.anchor ? keyOf(medium.anchor) : '-'}`
}

function recordsOf(state: State): Record[] {
  return Object.values(state.media).flatMap(({ slots }) => slots.flatMap((one) => one ?? []))
}

function idsIn(state: State): CommitId[] {
  const anchors = Object.values(state.media).flatMap(({ anchor }) => anchor ?? [])
  const inRecords = recordsOf(state).flatMap((one) => [
    one,
    one.follows ?? [],
    one.relied ?? [],
    Object.values(one.down).flatMap(({ last }) => last ?? []),
  ])
  return [...anchors, ...inRecords.flat()]
}

function highestSerial(state: State): number {
  return Math.max(...idsIn(state).map(({ payloadCrc }) => payloadCrc))
}

function tipOf({ generation, payloadCrc }: CommitId): Ancestor['tip'] {
  return { generation, payloadCrc }
}

/** Histories that differ in their numbers only are the same. */
function canonical(state: State): { key: string; value: () => State } {
  const ids = new Map(idsIn(state).map((id) => [keyOf(id), id]))
  const sorted = [...ids.values()].sort(
    (a, b) => a.generation - b.generation || a.payloadCrc - b.payloadCrc,
  )
  const ends = recordsOf(state).flatMap(({ ancestors }) => ancestors.map((one) => one.generation))
  const numbers = [...new Set([...sorted.map(({ generation }) => generation), ...ends])]
  numbers.sort((a, b) => a - b)
  const generations = new Map(numbers.map((one, index) => [one, index + 1]))
  const serials = new Map(sorted.map((id, index) => [keyOf(id), index + 1]))
  const media = Object.values(state.media)
  const ages = [
    ...Object.values(state.lines).flatMap((one) => [one.data, one.fork]),
    ...media.map(({ data }) => data),
    ...recordsOf(state).flatMap(({ down }) => Object.values(down).map(({ data }) => data)),
  ]
  const data = new Map([...new Set(ages)].sort((a, b) => a - b).map((one, index) => [one, index]))
  const dataOf = (old: number): number => data.get(old) ?? 0
  const renamed = (id: CommitId): CommitId => ({
    line: id.line,
    generation: generations.get(id.generation) ?? 0,
    payloadCrc: serials.get(keyOf(id)) ?? 0,
  })
  const memo = new Map<Record, Record>()
  const record = (one: Record | undefined): Record | undefined => {
    if (!one) return undefined
    const known = memo.get(one)
    if (known) return known
    const made: Record = {
      ...renamed(one),
      voters: one.voters,
      before: one.before,
      joining: one.joining,
      follows: one.follows && renamed(one.follows),
      relied: one.relied && renamed(one.relied),
      ancestors: one.ancestors.map(({ line, generation, tip }) => ({
        line,
        generation: generations.get(generation) ?? 0,
        tip: tip && tipOf(renamed({ line, ...tip })),
      })),
      down: Object.fromEntries(
        Object.entries(one.down).map(([uuid, { last, data: old }]) => [
          uuid,
          { last: last && renamed(last), data: dataOf(old) },
        ]),
      ),
    }
    memo.set(one, made)
    return made
  }
  const entries = Object.entries(state.media).map(([uuid, medium]): [string, Medium] => [
    uuid,
    {
      slots: [record(medium.slots[0]), record(medium.slots[1])],
      named: medium.named,
      anchor: medium.anchor && renamed(medium.anchor),
      data: dataOf(medium.data),
      dataLine: medium.dataLine,
    },
  ])
  const lines = Object.fromEntries(
    Object.entries(state.lines).map(([line, { good, data: now, fork }]): [string, Line] => {
      const kept = [...ids.values()].filter((id) => good.includes(keyOf(id)))
      const names = kept.map((id) => keyOf(renamed(id))).sort()
      return [line, { good: names, data: dataOf(now), fork: dataOf(fork) }]
    }),
  )
  const { hasRotted, forced } = state
  const rest = { hasRotted, forced, lines }
  // Which of its places a slot lies in makes no difference.
  const shown = entries.map(([, medium]) =>
    medium.named === 0
      ? medium
      : { ...medium, slots: [medium.slots[1], medium.slots[0]], named: 0 },
  )
  const key = JSON.stringify([shown, rest])
  return { key, value: () => ({ ...rest, media: Object.fromEntries(entries) }) }
}
