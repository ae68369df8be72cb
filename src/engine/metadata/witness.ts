/**
 * The witness of a set: a vote on the machine itself, for sets whose drives are even in number, so that a mirror whose
 * one disk is dead starts by itself. It carries what a commit says for the vote, and no configuration. To the rules of
 * anchor/anchor-quorum.ts it is a voter like a drive.
 */
import type { Clock, Timer } from '../../base/clock.ts'
import { crc32c } from '../../base/crc32c.ts'
import { withinTime } from '../../base/deadline.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import { WITNESS_PROBE_MS, WITNESS_WRITE_MS } from '../../base/limits.ts'
import type { Logger } from '../../base/log.ts'
import { newUuid } from '../../base/random.ts'
import {
  type Commit,
  type CommitId,
  isSameCommit,
  type VoterCopy,
} from '../anchor/anchor-quorum.ts'
import type { CommitOptions } from '../anchor/anchored-device.ts'
import type { Topology } from '../geom/topology.ts'
import type { Change, Voter } from './config-store.ts'
import { list, maybe, record, text, whole } from './fields.ts'
import { type Codec, SET, type SetModel, votersOf } from './set-model.ts'

/** A durable note for each set, on a medium that is none of its drives. */
export interface WitnessStore {
  /** For messages: where the notes are. */
  readonly path: string
  /** The note that was written last; undefined: there is none, or it is not the one that was written. */
  read(setUuid: string): Promise<string | undefined>
  /** Durable when it resolves, and never before a write that was asked for earlier. Throws `io` and its kin. */
  write(setUuid: string, note: string): Promise<void>
}

const COMMIT_ID = { line: text, generation: whole, payloadCrc: whole }
const COMMIT = {
  ...COMMIT_ID,
  voters: list(text),
  before: list(list(text)),
  follows: maybe(record(COMMIT_ID)),
  relied: maybe(record(COMMIT_ID)),
  ancestors: SET.ancestors,
}
/** `commits`: the newest one, and the one that it is built on. */
const NOTE = record({ id: text, commits: list(record(COMMIT)) })
type Note = ReturnType<typeof NOTE>

/** What a witness asks of its set. */
export interface WitnessedSet<M extends SetModel> {
  readonly uuid: string
  readonly name: string
  readonly topology: Topology
  readonly clock: Clock
  readonly log: Logger
  readonly codec: Codec<M>
  readonly assembled: boolean
  readonly failure: PlexusError | undefined
  readonly model: M
  commit(change: Change<M>): Promise<M>
}

export class SetWitness<M extends SetModel> implements Voter {
  readonly payloadRoom = Number.POSITIVE_INFINITY
  readonly device: { readonly path: string }
  readonly #set: WitnessedSet<M>
  readonly #store: WitnessStore
  /** As it is on the medium, or on its way there. */
  #note: Note
  #isRead = false
  /** The next look at it. */
  #next: Timer | undefined
  /** A call of the store has not ended in time, and may still end. */
  #hangs = false
  /** Why it could not be written last. */
  failure: PlexusError | undefined

  constructor(set: WitnessedSet<M>, store: WitnessStore) {
    this.#set = set
    this.#store = store
    this.#note = { id: newUuid(set.topology.random), commits: [] }
    this.device = { path: store.path }
  }

  /** A note that is lost or cannot be read makes a new witness: the old one is a voter that is missing. */
  async read(): Promise<void> {
    if (this.#isRead) return
    this.#isRead = true
    try {
      const note = await this.#inTime('read', this.#store.read(this.#set.uuid))
      if (note !== undefined) this.#note = NOTE(JSON.parse(note), 'note')
    } catch (error) {
      if (!(error instanceof PlexusError || error instanceof SyntaxError)) throw error
    }
  }

  /**
   * By an operator's word the set begins a new line, of which this witness may never hear: what it knows would contradict
   * that line at each start. It is as if it were lost. One that cannot be written has said so.
   */
  async renew(): Promise<void> {
    this.#note = { id: newUuid(this.#set.topology.random), commits: [] }
    await this.#write().catch(operatingError)
  }

  get id(): string {
    return this.#note.id
  }

  /** What it says when drives gather; one that knows nothing has nothing to say. */
  get copies(): readonly VoterCopy[] {
    const { id: uuid, commits } = this.#note
    return commits.length > 0 ? [{ uuid, commits, isWitness: true }] : []
  }

  async commit(generation: number, payload: Buffer, options: CommitOptions): Promise<void> {
    const { line = this.#set.uuid, follows, relied } = options
    const id: CommitId = { line, generation, payloadCrc: crc32c(payload) }
    const made = commitOf({ ...id, follows, relied }, this.#set.codec.decode(payload))
    const before = this.#note
    const { commits } = before
    const kept = commits.find((one) => follows && isSameCommit(one, follows)) ?? commits[0]
    this.#note = { id: this.id, commits: kept ? [made, kept] : [made] }
    try {
      await this.#write()
    } catch (error) {
      // It may be found there all the same, as on a drive that fails a write: a commit that does not count.
      this.#note = before
      throw error
    }
  }

  /** As the second copy on a drive: that the newest commit counts is known, also when only half of the drives is left. */
  async repeat(payload: Buffer): Promise<void> {
    const [made, ...older] = this.#note.commits
    if (!made || made.payloadCrc !== crc32c(payload)) return
    const { line, generation, payloadCrc } = made
    const relied = { line, generation, payloadCrc }
    this.#note = { id: this.id, commits: [{ ...made, relied }, ...older] }
    await this.#write()
  }

  /**
   * Looks now, and every now and then, whether it can be written, before it is needed. One that comes back votes from the
   * next commit on, which is made.
   */
  async watch(): Promise<void> {
    await this.read()
    const set = this.#set
    if (!set.assembled || set.failure) return
    this.#next?.cancel()
    this.#next = set.clock.after(WITNESS_PROBE_MS, () => {
      this.watch().catch((error: unknown) => {
        set.log.error({ err: error }, 'the witness could not be looked at')
      })
    })
    const had = this.failure
    await this.#write().catch(operatingError)
    const isNamed = set.model.witness !== undefined
    if (this.failure ? isNamed : had) await set.commit((model) => ({ ...model }))
  }

  async #write(): Promise<void> {
    const had = this.failure
    try {
      // What waits behind a write that hangs would hang with it.
      if (this.#hangs) throw this.#lateError('write')
      await this.#inTime('write', this.#store.write(this.#set.uuid, JSON.stringify(this.#note)))
      this.failure = undefined
    } catch (error) {
      this.failure = operatingError(error)
      if (!had) this.#tellLost(this.failure)
      throw error
    }
  }

  /** A folder on a network, or a file system that is frozen, may not answer for hours. The late end changes nothing. */
  async #inTime<T>(op: string, work: Promise<T>): Promise<T> {
    if (await withinTime(this.#set.clock, work, WITNESS_WRITE_MS)) return work
    this.#hangs = true
    const ended = (): void => {
      this.#hangs = false
    }
    work.then(ended, ended)
    throw this.#lateError(op)
  }

  #lateError(op: string): PlexusError {
    const { path } = this.#store
    const message = `${path}: ${op} has not ended within ${WITNESS_WRITE_MS / 1000} s`
    return new PlexusError('timeout', { op, subject: path, message })
  }

  #tellLost(error: PlexusError): void {
    const { name, topology } = this.#set
    const text =
      `${name} has no witness: ${error.message}. It is served, but after the loss of half of its drives it would not start ` +
      'by itself; make the folder writable again'
    topology.events.emit('warning', 'witness-lost', name, text)
  }
}

/** What a slot and its payload say for the vote. */
export function commitOf(
  {
    line,
    generation,
    payloadCrc,
    follows,
    relied,
  }: Omit<Commit, 'voters' | 'before' | 'ancestors'>,
  model: SetModel,
): Commit {
  const { votersBefore: before, ancestors } = model
  const voters = votersOf(model)
  return { line, generation, payloadCrc, follows, relied, voters, before, ancestors }
}
