/**
 * The long work of a thin device: from the record in its configuration to a running job (jobs/job.ts), and from its
 * progress and end back to the configuration. What is left to do the map says, so that nothing else has to be remembered: a
 * start counts anew and goes on. virstor-set.ts owns it.
 */
import { PlexusError } from '../../../base/errors.ts'
import type { JobReport } from '../../../control/reports.ts'
import type { Job, JobPlan } from '../../jobs/job.ts'
import type { VirstorDevice } from '../device.ts'
import { isUp, type JobRecord, MAP_COPIES, type VirstorModel } from '../model.ts'
import type { VirstorSet } from '../virstor-set.ts'
import { ChunkMover, type Move } from './chunk-mover.ts'
import { Evacuation } from './evacuation.ts'
import { Rebalancing } from './rebalancing.ts'

/** What a kind of job does. */
interface Work {
  /** Chunks that it moves, about. */
  readonly chunks: number
  /** undefined: nothing is left. */
  next(): Move | undefined
  /** All is moved, and durable. What ends the job durably; it resolves to what is done afterwards. */
  finish(): Promise<void>
}

type WorkMaker = (set: VirstorSet, device: VirstorDevice) => Work

const WORKS: Readonly<Record<JobRecord['kind'], WorkMaker>> = {
  evacuate(set, { table, space }) {
    const { name, components } = set.model
    const ids = components.filter(({ leaving }) => leaving).map(({ id }) => id)
    const evacuation = new Evacuation(name, table, ids)
    return {
      chunks: space.components
        .filter(({ component }) => ids.includes(component.id))
        .reduce((sum, { used, reserved }) => sum + used - reserved, 0),
      next: () => evacuation.next(),
      finish: () => set.dropLeaving(),
    }
  },
  rebalance(set, { table, space }) {
    const rebalancing = new Rebalancing(table, space.components)
    return {
      chunks: rebalancing.chunks,
      next: () => rebalancing.next(),
      async finish() {
        await set.commit((model) => ({ ...model, job: undefined }))
      },
    }
  },
}

export class SetJob {
  readonly #set: VirstorSet
  #running: Job | undefined

  constructor(set: VirstorSet) {
    this.#set = set
  }

  /** Of the job of the configuration; undefined: it has none. There is one at a time. */
  get id(): string | undefined {
    const { model, uuid } = this.#set
    return model.job && `${model.job.kind}-${uuid.slice(0, 8)}`
  }

  get report(): JobReport | undefined {
    return this.#running?.report()
  }

  /** Runs the job of the configuration, unless it runs. */
  start(): void {
    const { device, model, topology } = this.#set
    if (!model.job || !device || this.#running) return
    const job = topology.jobs.start(this.#planOf(model.job, device))
    this.#running = job
    void job.ended.then(() => {
      this.#running = undefined
    })
  }

  /** Before a commit that does not have the job any more. Nothing of it is in flight when it resolves. */
  async endBefore(next: VirstorModel): Promise<void> {
    if (next.job?.kind !== this.#set.model.job?.kind) await this.park()
  }

  /** Ends where it is; a start goes on. */
  async park(): Promise<void> {
    await this.#running?.park()
  }

  #planOf(record: JobRecord, device: VirstorDevice): JobPlan {
    const set = this.#set
    const { name, chunkBytes } = set.model
    const { table: map, space, io, committer } = device
    const { pool } = set.topology
    const mover = new ChunkMover({ name, map, chunkBytes, space, io, committer, pool })
    const work = WORKS[record.kind](set, device)
    // A job has something to do.
    const totalBytes = Math.max(1, work.chunks) * chunkBytes
    const { limitBytesPerSecond: limit } = record
    return {
      id: this.id ?? '',
      kind: record.kind,
      object: name,
      parent: name,
      totalBytes,
      startBytes: 0,
      paused: record.paused,
      ...(limit === undefined ? {} : { limitBytesPerSecond: limit }),
      busy: () => space.components.some(({ component }) => (component.consumer?.inFlight ?? 0) > 0),
      async step(offset, maxBytes, job) {
        // Before chunks take the room that a copy of the map needs in one piece.
        await set.mapCopies.complete()
        const end = Math.min(offset + maxBytes, totalBytes)
        let reached = offset
        while (reached < end) {
          const move = work.next()
          if (!move) {
            job.skip(totalBytes - reached)
            return totalBytes
          }
          job.skip(chunkBytes - (await mover.move(move)))
          reached += chunkBytes
        }
        return reached
      },
      checkpoint: (job) => this.#checkpoint(job),
      async finish() {
        const failure = await committer.pass()
        if (failure) throw failure
        await new Promise<void>((resolve) => io.afterAll(resolve))
        await io.trimmer.ended()
        await work.finish()
      },
      abandon: () => this.#abandon(),
    }
  }

  async #checkpoint({ state, limitBytesPerSecond }: Job): Promise<void> {
    await this.#set.commit((model) => {
      if (!model.job) return model
      return { ...model, job: { ...model.job, paused: state === 'paused', limitBytesPerSecond } }
    })
  }

  /** What has been moved stays where it is; what was to leave takes new chunks again. */
  async #abandon(): Promise<void> {
    const { mapCopies } = this.#set
    await mapCopies.complete()
    await this.#set.commit((model) => ({
      ...model,
      // Those that were made for copies that stay after all are too many.
      copies: model.copies.slice(0, MAP_COPIES),
      components: model.components.map((one) => (one.leaving ? { ...one, leaving: false } : one)),
      job: undefined,
    }))
  }
}

/** The configuration without the components that are leaving. Throws `no-space` when nobody else carries the map. */
export function withoutLeaving(model: VirstorModel): VirstorModel {
  const { name } = model
  const gone = model.components.filter(({ leaving }) => leaving)
  const components = model.components.filter(({ leaving }) => !leaving)
  const copies = model.copies.filter(({ component }) =>
    components.some(({ id }) => id === component),
  )
  const isCarried = copies.some(({ component }) =>
    components.some((one) => one.id === component && isUp(model, one)),
  )
  if (!isCarried) {
    const message = `${name}: no other component has room for the map in one piece, or can carry it; plexus virstor add ${name} DEVICE adds some, then repeat`
    throw new PlexusError('no-space', { op: 'remove', subject: name, message })
  }
  const drives = model.drives.filter(({ uuid }) =>
    gone.every(({ driveUuid }) => driveUuid !== uuid),
  )
  return { ...model, drives, components, copies, job: undefined }
}
