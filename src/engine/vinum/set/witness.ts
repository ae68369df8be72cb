/**
 * The witness of a set: a vote on the machine itself, for sets whose drives are even in number, so that a mirror whose
 * one disk is dead starts by itself. It carries what a commit says for the vote, and no configuration. To the rules of
 * geom/anchor-quorum.ts it is a voter like a drive. Used by vinum-set.ts.
 */
import type { Clock } from '../../../base/clock.ts'
import { crc32c } from '../../../base/crc32c.ts'
import { withinTime } from '../../../base/deadline.ts'
import { PlexusError } from '../../../base/errors.ts'
import { WITNESS_TIMEOUT_MS } from '../../../base/limits.ts'
import { newUuid, type Random } from '../../../base/random.ts'
import {
  type Commit,
  type CommitId,
  isSameCommit,
  type VoterCopy,
} from '../../geom/anchor-quorum.ts'
import type { CommitOptions } from '../../geom/anchored-device.ts'
import { decodeModel } from '../model/codec.ts'
import { type VinumModel, votersOf } from '../model/model.ts'
import type { Voter } from './config-store.ts'

/** A durable note for each set, on a medium that is none of its drives. */
export interface WitnessStore {
  /** For messages: where the notes are. */
  readonly path: string
  /** The note that was written last; undefined: there is none, or it is not the one that was written. */
  read(setUuid: string): Promise<string | undefined>
  /** Durable when it resolves. Throws `io` and its kin. */
  write(setUuid: string, note: string): Promise<void>
}

interface Note {
  readonly id: string
  /** The newest commit, and the one that it is built on. */
  readonly commits: readonly Commit[]
}

export class SetWitness implements Voter {
  readonly payloadRoom = Number.POSITIVE_INFINITY
  readonly device: { readonly path: string }
  readonly #clock: Clock
  readonly #store: WitnessStore
  readonly #setUuid: string
  #note: Note
  /** One write after the other. */
  #writing: Promise<unknown> = Promise.resolve()
  /** Why it could not be written last. */
  failure: PlexusError | undefined

  private constructor(store: WitnessStore, setUuid: string, note: Note, clock: Clock) {
    this.#clock = clock
    this.#store = store
    this.#setUuid = setUuid
    this.#note = note
    this.device = { path: store.path }
  }

  /** A note that is lost or cannot be read makes a new witness: the old one is a voter that is missing. */
  static async open(
    store: WitnessStore,
    setUuid: string,
    { random, clock }: { readonly random: Random; readonly clock: Clock },
  ): Promise<SetWitness> {
    let note: Note = { id: newUuid(random), commits: [] }
    try {
      const text = await answered(clock, store, 'read', store.read(setUuid))
      if (text !== undefined) note = JSON.parse(text) as Note
    } catch (error) {
      if (!(error instanceof PlexusError || error instanceof SyntaxError)) throw error
    }
    return new SetWitness(store, setUuid, note, clock)
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
    const { line = this.#setUuid, follows, relied } = options
    const id: CommitId = { line, generation, payloadCrc: crc32c(payload) }
    const made = commitOf({ ...id, follows, relied }, decodeModel(payload))
    await this.#write(({ commits }) => {
      const kept = commits.find((one) => follows && isSameCommit(one, follows)) ?? commits[0]
      return { id: this.id, commits: kept ? [made, kept] : [made] }
    })
  }

  /** Nothing is lost without: the drives say that it counts. */
  async repeat(): Promise<void> {}

  /** Can it be written? Finds out before it is needed. */
  async probe(): Promise<void> {
    await this.#write((note) => note)
  }

  /** One that does not answer in time has failed; the next write begins when it has ended all the same. */
  async #write(next: (note: Note) => Note): Promise<void> {
    const done = this.#writing.then(() => this.#writeNow(next(this.#note)))
    this.#writing = done.catch(() => {})
    try {
      await answered(this.#clock, this.#store, 'write', done)
      this.failure = undefined
    } catch (error) {
      if (error instanceof PlexusError) this.failure = error
      throw error
    }
  }

  async #writeNow(note: Note): Promise<void> {
    await this.#store.write(this.#setUuid, JSON.stringify(note))
    this.#note = note
  }
}

/** What the store answers. Throws `timeout` where it takes too long. */
async function answered<T>(
  clock: Clock,
  { path }: WitnessStore,
  op: 'read' | 'write',
  work: Promise<T>,
): Promise<T> {
  if (await withinTime(clock, work, WITNESS_TIMEOUT_MS)) return work
  const message = `${path} does not answer for ${WITNESS_TIMEOUT_MS / 1000} s`
  throw new PlexusError('timeout', { op, subject: path, message })
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
  model: VinumModel,
): Commit {
  const { votersBefore: before, ancestors } = model
  const voters = votersOf(model)
  return { line, generation, payloadCrc, follows, relied, voters, before, ancestors }
}
