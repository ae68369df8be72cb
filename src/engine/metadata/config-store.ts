/**
 * The durable configuration of one set of drives, of whatever class: the newest model, and the queue of changes to it. A change is a
 * function from model to model; changes that wait share one commit. A commit writes the next generation to every
 * voter: the drives that are up and, where they are even in number, the witness. A voter that fails it is down, or left
 * out, in the same commit. The quorum is anchor/anchor-quorum.ts.
 * Nothing here touches what runs: a change takes effect when its promise has resolved.
 */
import { assert } from '../../base/assert.ts'
import { crc32c } from '../../base/crc32c.ts'
import { failuresOf, operatingError, PlexusError, Refusals } from '../../base/errors.ts'
import { type Base, baseAfter, counts } from '../anchor/anchor-quorum.ts'
import type { CommitOptions } from '../anchor/anchored-device.ts'
import { byUuid } from './lists.ts'
import { type Codec, type SetModel, votersOf } from './set-model.ts'

const refuse = new Refusals('commit')

export type Change<M> = (model: M) => M

/** Whoever carries a configuration: the label of a drive, the witness. */
export interface Voter {
  readonly device: { readonly path: string }
  /** Bytes of configuration that fit. */
  readonly payloadRoom: number
  commit(generation: number, payload: Buffer, options: CommitOptions): Promise<void>
  /** The commit counts: the second copy says so. */
  repeat(payload: Buffer): Promise<void>
}

interface Waiting<M> {
  change(model: M): M
  readonly keepsRoom: boolean
  resolve(model: M): void
  reject(error: unknown): void
}

export interface ConfigStoreOptions<M extends SetModel> {
  /** Of the set, for messages. */
  readonly name: string
  readonly codec: Codec<M>
  readonly model: M
  /** The first commit has this generation or a higher one. */
  readonly nextGeneration: number
  /** What the first commit is built on. */
  readonly base: Base
  /** A voter that is present; undefined: it cannot be written. */
  voter(uuid: string): Voter | undefined
  /** The witness to name while the drives are even in number; undefined: there is none that can be written. */
  witness(): string | undefined
  /** Marks drives that failed a commit as down, in the model. */
  loseDrives(model: M, driveUuids: Iterable<string>): M
  /** What `after` has to say otherwise, because it is committed on `before` and drives may have been lost meanwhile. */
  amend(before: M, after: M): M
  /** The new model is durable, without the voters that `failed`; runs before the promises of its changes resolve. */
  onCommit(model: M, failed: ReadonlyMap<string, PlexusError>): void
}

export class ConfigStore<M extends SetModel> {
  readonly #options: ConfigStoreOptions<M>
  #model: M
  /** Highest generation that any voter may carry, committed or not: never used twice. */
  #generation: number
  #base: Base
  #waiting: Waiting<M>[] = []
  #running: Promise<void> | undefined

  constructor(options: ConfigStoreOptions<M>) {
    this.#options = options
    this.#model = options.model
    this.#generation = Math.max(options.model.generation, options.nextGeneration - 1)
    this.#base = options.base
  }

  /** The newest durable model. */
  get model(): M {
    return this.#model
  }

  /** A drive that comes back carries this generation, of a commit that failed: none as high is used again. */
  skipTo(generation: number): void {
    this.#generation = Math.max(this.#generation, generation)
  }

  /**
   * Queues a change and resolves to the model when it is durable. Rejects with what `change` throws, and then
   * nothing of it has happened; with `io` when too few voters took it, and then it may or may not be found
   * after a restart; with `no-space` when it does not fit. A change that returns the same model resolves without a
   * commit. With `keepsRoom`, for verbs, room is left for all changes of state that may follow.
   */
  commit(change: Change<M>, { keepsRoom = false } = {}): Promise<M> {
    const result = new Promise<M>((resolve, reject) => {
      this.#waiting.push({ change, keepsRoom, resolve, reject })
    })
    this.#running ??= this.#run()
    return result
  }

  /** Resolves when no change is waiting or under way. */
  async idle(): Promise<void> {
    while (this.#running) await this.#running
  }

  async #run(): Promise<void> {
    // Changes of the same turn of the event loop belong together: two subdisks of one lost drive, for example.
    await Promise.resolve()
    while (this.#waiting.length > 0) {
      const batch = this.#waiting.splice(0)
      const { model, applied } = this.#applyAll(batch)
      if (applied.length === 0) continue
      if (model === this.#model) {
        for (const one of applied) one.resolve(model)
        continue
      }
      const payload = await this.#store(model).catch((error: unknown) => {
        for (const one of applied) one.reject(error)
      })
      if (!payload) continue
      for (const one of applied) one.resolve(this.#model)
      await this.#repeat(payload)
    }
    this.#running = undefined
  }

  #applyAll(batch: readonly Waiting<M>[]): { model: M; applied: Waiting<M>[] } {
    const { codec } = this.#options
    let model = this.#model
    const applied: Waiting<M>[] = []
    for (const one of batch) {
      try {
        const next = one.change(model)
        if (one.keepsRoom)
          this.#checkRoom(next, codec.encode(next).length + codec.stateRoomOf(next))
        model = next
        applied.push(one)
      } catch (error) {
        one.reject(error)
      }
    }
    return { model, applied }
  }

  /** Where a voter does not take it, the next commit will find out. */
  async #repeat(payload: Buffer): Promise<void> {
    const voters = votersOf(this.#model).flatMap((uuid) => this.#options.voter(uuid) ?? [])
    await Promise.all(voters.map((voter) => voter.repeat(payload).catch(operatingError)))
  }

  /** Writes `wanted`, with voters that fail marked down, until all that it names have it. Resolves to the payload. */
  async #store(wanted: M): Promise<Buffer> {
    const { codec, amend, loseDrives, onCommit } = this.#options
    const failed = new Map<string, PlexusError>()
    let next = amend(this.#model, wanted)
    for (;;) {
      const model = this.#withVote(next)
      const payload = codec.encode(model)
      const errors = await this.#write(model, payload)
      for (const [uuid, error] of errors) failed.set(uuid, error)
      if (errors.size > 0) {
        next = amend(this.#model, loseDrives(model, errors.keys()))
        continue
      }
      assert(model.generation > this.#model.generation, 'generations only grow')
      const id = { line: model.line, generation: model.generation, payloadCrc: crc32c(payload) }
      this.#base = baseAfter(id, this.#base, votersOf(model))
      this.#model = model
      onCommit(model, failed)
      return payload
    }
  }

  /** With all that the next commit says for the vote. */
  #withVote(model: M): M {
    const { line, ancestors, before: votersBefore, relied } = this.#base
    const drives = model.drives.map((drive) => {
      const before = byUuid(this.#model.drives, drive.uuid)
      if (drive.state === 'up') return { ...drive, last: undefined }
      // One that could not take the commit of its return has what it had.
      if (before?.state === 'down') return { ...drive, last: before.last }
      // Not the one that this is built on: where that does not count for certain, the drive may not have got it.
      return before && relied ? { ...drive, last: relied } : drive
    })
    const up = drives.filter(({ state }) => state === 'up')
    const witness = up.length % 2 === 0 ? this.#options.witness() : undefined
    const generation = ++this.#generation
    return { ...model, drives, line, ancestors, votersBefore, witness, generation }
  }

  /**
   * Writes a configuration to the voters that it names. Resolves to those that failed: empty, it counts. Throws when
   * too few have it, or when it does not fit; nothing is written where that is known before.
   */
  async #write(model: M, payload: Buffer): Promise<ReadonlyMap<string, PlexusError>> {
    const voters = votersOf(model)
    // Voters that leave the set with this commit carry it, too: they count among those before.
    const { before } = this.#base
    const leaving = before.flat().filter((uuid) => !byUuid(model.drives, uuid))
    const targets = [...new Set([...voters, ...leaving])]
    const isThere = (uuid: string): boolean => this.#options.voter(uuid) !== undefined
    const absent = voters.filter((uuid) => !isThere(uuid))
    const reachable = targets.filter(isThere)
    this.#checkQuorum(before, reachable)
    if (absent.length > 0) return new Map(absent.map((uuid) => [uuid, missingError(uuid)]))
    this.#checkRoom(model, payload.length)
    const { line, follows, relied } = this.#base
    const errors = await failuresOf(reachable, async (uuid) => {
      const voter = this.#options.voter(uuid)
      if (!voter) throw missingError(uuid)
      const last = byUuid(this.#model.drives, uuid)?.last
      await voter.commit(model.generation, payload, { line, follows, relied, last })
    })
    const tooLarge = [...errors.values()].find((error) => error.kind === 'no-space')
    if (tooLarge) throw tooLarge
    const carriers = reachable.filter((uuid) => !errors.has(uuid))
    this.#checkQuorum(before, carriers)
    return new Map([...errors].filter(([uuid]) => voters.includes(uuid)))
  }

  /** Before the first write: a change that does not fit somewhere must be found nowhere after a crash. */
  #checkRoom(model: M, bytes: number): void {
    for (const uuid of [...votersOf(this.#model), ...votersOf(model)]) {
      const voter = this.#options.voter(uuid)
      if (!voter || voter.payloadRoom >= bytes) continue
      throw refuse.noSpace`${voter.device.path}: a configuration of ${bytes} bytes does not fit its place of ${voter.payloadRoom} bytes; use fewer objects, or replace this disk by a larger one`
    }
  }

  /** Throws `io` where fewer than half of those before have a commit: it cannot count. */
  #checkQuorum(before: Base['before'], carriers: readonly string[]): void {
    for (const voters of before) {
      const has = voters.filter((uuid) => carriers.includes(uuid))
      if (counts({ voters: [], before: [voters] }, (uuid) => has.includes(uuid))) continue
      throw new PlexusError('io', {
        op: 'commit',
        subject: this.#options.name,
        message:
          `the configuration could be written to ${has.length} of ${voters.length} drives only, less than half: ` +
          'nothing may change until more of them are back; connect the missing drives',
      })
    }
  }
}

function missingError(uuid: string): PlexusError {
  return refuse.gone`drive ${uuid} is missing`
}
