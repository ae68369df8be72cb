/**
 * The durable configuration of one native set: the newest model, and the queue of changes to it. A change is a
 * function from model to model; changes that wait share one commit. A commit writes the next generation to every
 * drive that is up; a drive that fails it is down in the same commit. spec/vinum.md, 9; the quorum is geom/anchor-quorum.ts.
 *
 * Used by vinum-set.ts. Nothing here touches volumes: a change takes effect when its promise has resolved.
 */
import { assert } from '../../../base/assert.ts'
import { crc32c } from '../../../base/crc32c.ts'
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import type { CommitId } from '../../geom/anchor-codec.ts'
import { commitAllowed, votersAfter } from '../../geom/anchor-quorum.ts'
import type { AnchoredDevice } from '../../geom/anchored-device.ts'
import { encodeModel } from '../model/codec.ts'
import { keepOldPlaces } from '../model/membership.ts'
import { byUuid, type VinumModel, votersOf } from '../model/model.ts'

export type Change = (model: VinumModel) => VinumModel

interface Waiting {
  readonly change: Change
  resolve(model: VinumModel): void
  reject(error: unknown): void
}

/** Of a configuration that may not have been relied upon: the voters before it. */
export interface CutOff {
  readonly oldVoters: readonly string[]
}

/** Where the commits begin: at what was read from the drives. */
export interface StoreStart {
  /** The first commit has this generation or a higher one. */
  readonly nextGeneration: number
  /**
   * The model was assembled from a choice that is not settled (geom/anchor-quorum.ts): the first commit must also
   * reach half of the voters before it.
   */
  readonly cutOff?: CutOff | undefined
  /** Drives whose newest slot the first commit goes over (rule K). */
  readonly overNewest?: ReadonlySet<string> | undefined
  /** What the first commit follows; undefined: nothing. */
  readonly current?: CommitId | undefined
}

export interface ConfigStoreOptions extends StoreStart {
  readonly model: VinumModel
  /** The label of a drive that is present; undefined: it cannot be written. */
  label(driveUuid: string): AnchoredDevice | undefined
  /** Marks drives that failed a commit as down, in the model. */
  loseDrives(model: VinumModel, driveUuids: Iterable<string>): VinumModel
  /** The new model is durable; runs before the promises of its changes resolve. */
  onCommit(model: VinumModel, failed: ReadonlyMap<string, PlexusError>): void
}

export class ConfigStore {
  readonly #options: ConfigStoreOptions
  #model: VinumModel
  /** Highest generation that any drive may carry, committed or not: never used twice. */
  #generation: number
  /** Until the first commit counts. */
  #cutOff: CutOff | undefined
  /** Drives whose newest slot has nothing that was relied upon: the next commit goes over it. */
  readonly #overNewest: Set<string>
  /** What the set carries. */
  #current: CommitId | undefined
  #waiting: Waiting[] = []
  #running: Promise<void> | undefined

  constructor(options: ConfigStoreOptions) {
    this.#options = options
    this.#model = options.model
    this.#generation = Math.max(options.model.generation, options.nextGeneration - 1)
    this.#cutOff = options.cutOff
    this.#overNewest = new Set(options.overNewest)
    this.#current = options.current
  }

  /** The newest durable model. */
  get model(): VinumModel {
    return this.#model
  }

  /**
   * Queues a change and resolves to the model when it is durable. Rejects with what `change` throws, and then
   * nothing of it has happened; with `io` when too few drives took it, and then it may or may not be found
   * after a restart. A change that returns the same model resolves without a commit.
   */
  commit(change: Change): Promise<VinumModel> {
    const result = new Promise<VinumModel>((resolve, reject) => {
      this.#waiting.push({ change, resolve, reject })
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

  #applyAll(batch: readonly Waiting[]): { model: VinumModel; applied: Waiting[] } {
    let model = this.#model
    const applied: Waiting[] = []
    for (const one of batch) {
      try {
        model = one.change(model)
        applied.push(one)
      } catch (error) {
        one.reject(error)
      }
    }
    return { model, applied }
  }

  /** Where a drive does not take it, the next commit will find out. */
  async #repeat(payload: Buffer): Promise<void> {
    const labels = votersOf(this.#model).flatMap((uuid) => this.#options.label(uuid) ?? [])
    await Promise.all(
      labels.map(async (label) => {
        try {
          await label.repeat(payload)
        } catch (error) {
          if (!(error instanceof PlexusError)) throw error
        }
      }),
    )
  }

  /** Writes `wanted`, with drives that fail marked down, until all that are up in it have it. Resolves to the payload. */
  async #store(wanted: VinumModel): Promise<Buffer> {
    const voters = votersOf(this.#model)
    // What was cut off may not have counted: until a commit does, nobody forgets whom the one before it named.
    const votersBefore = this.#cutOff ? votersAfter(voters, this.#cutOff.oldVoters) : voters
    const failed = new Map<string, PlexusError>()
    let model = keepOldPlaces(this.#model, wanted)
    let payload: Buffer
    for (;;) {
      model = { ...model, generation: ++this.#generation, votersBefore }
      payload = encodeModel(model)
      const errors = await this.#write(model, payload, voters)
      if (errors.size === 0) break
      for (const [uuid, error] of errors) failed.set(uuid, error)
      model = keepOldPlaces(this.#model, this.#options.loseDrives(model, errors.keys()))
    }
    assert(model.generation > this.#model.generation, 'generations only grow')
    this.#model = model
    this.#cutOff = undefined
    this.#overNewest.clear()
    this.#current = { generation: model.generation, payloadCrc: crc32c(payload) }
    this.#options.onCommit(model, failed)
    return payload
  }

  /**
   * Writes a configuration to the drives that it calls up. Resolves to those that failed: empty, it counts.
   * Throws when too few have it, or when it does not fit.
   */
  async #write(
    model: VinumModel,
    payload: Buffer,
    votersBefore: readonly string[],
  ): Promise<ReadonlyMap<string, PlexusError>> {
    const voters = votersOf(model)
    // Drives that leave the set with this commit carry it, too: they count among those before.
    const leaving = votersBefore.filter((uuid) => !byUuid(model.drives, uuid))
    this.#checkRoom([...leaving, ...voters], payload.length)
    const refused = await this.#writeAll(leaving, model.generation, payload)
    // Those that voted before come first: a commit that only new drives carry must not look like one that counts.
    const old = voters.filter((uuid) => votersBefore.includes(uuid))
    const errors = await this.#writeAll(old, model.generation, payload)
    const carriers = [...leaving, ...old].filter((uuid) => !refused.has(uuid) && !errors.has(uuid))
    const tooLarge = [...errors.values()].find((error) => error.kind === 'no-space')
    if (tooLarge) throw tooLarge
    if (carriers.length * 2 < votersBefore.length) throw quorumError(votersBefore, carriers)
    if (errors.size > 0) return errors
    if (this.#cutOff) {
      for (const old of [this.#cutOff.oldVoters, model.votersBefore]) {
        if (!commitAllowed(old, carriers, [])) throw quorumError(old, carriers)
      }
    }
    const joining = voters.filter((uuid) => !votersBefore.includes(uuid))
    const late = await this.#writeAll(joining, model.generation, payload)
    if (late.size > 0) return late
    assert(
      commitAllowed(votersBefore, [...carriers, ...joining], voters),
      'a commit that counts has its quorum',
    )
    return errors
  }

  /** Before the first write: a change that does not fit somewhere must be found nowhere after a crash. */
  #checkRoom(uuids: readonly string[], bytes: number): void {
    for (const uuid of uuids) {
      const label = this.#options.label(uuid)
      if (!label || label.payloadRoom >= bytes) continue
      throw new PlexusError('no-space', {
        op: 'commit',
        subject: label.device.path,
        message:
          `${label.device.path}: a configuration of ${bytes} bytes does not fit its place of ${label.payloadRoom} ` +
          'bytes; use fewer objects, or replace this disk by a larger one',
      })
    }
  }

  async #writeAll(
    voters: readonly string[],
    generation: number,
    payload: Buffer,
  ): Promise<Map<string, PlexusError>> {
    const errors = new Map<string, PlexusError>()
    await Promise.all(
      voters.map(async (uuid) => {
        try {
          const label = this.#options.label(uuid)
          if (!label) throw missingError(uuid)
          const overNewest = this.#overNewest.has(uuid)
          await label.commit(generation, payload, { overNewest, follows: this.#current })
          this.#overNewest.add(uuid)
        } catch (error) {
          if (!(error instanceof PlexusError)) throw error
          errors.set(uuid, toPlexusError(error, 'commit', uuid))
        }
      }),
    )
    return errors
  }
}

function missingError(uuid: string): PlexusError {
  return new PlexusError('gone', {
    op: 'commit',
    subject: uuid,
    message: `drive ${uuid} is missing`,
  })
}

function quorumError(before: readonly string[], reached: readonly string[]): PlexusError {
  return new PlexusError('io', {
    op: 'commit',
    subject: 'vinum',
    message:
      `the configuration could be written to ${reached.length} of ${before.length} drives only, less than half: ` +
      'nothing may change until more of them are back; connect the missing drives',
  })
}
