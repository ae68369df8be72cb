/**
 * Makes the changes of a map durable, and the data behind them (docs/adr/0015-virstor.md): flush of the components that
 * were written to, then the records in the journal. One commit at a time; whoever comes meanwhile shares the next one.
 */
import type { Clock, Timer } from '../../../base/clock.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_COMMIT_ENTRIES, VIRSTOR_COMMIT_MS } from '../../../base/limits.ts'
import { flush } from '../../../hal/io.ts'
import type { ChangeSet, Committer, Component, MapRecord, Place } from '../runtime.ts'

/** The map as a commit sees it. */
export interface CommitMap {
  readonly isChanged: boolean
  /** What has changed since the last call. */
  takeChanges(): ChangeSet
  /** The journal has them; up to `sequence` it counts. */
  committed(set: ChangeSet, sequence: number): void
  /** They are not durable: they are among the next changes again, where nothing newer is. */
  failed(set: ChangeSet): void
  /**
   * They never become durable: the data behind them may be lost with the cache of their component, which is out of
   * service. When it comes back, what was durable before counts.
   */
  dropped(records: readonly MapRecord[]): void
}

export interface CommitJournal {
  /** Resolves to the sequence number when the records are durable, or rejects with PlexusError. */
  append(set: ChangeSet): Promise<number>
}

export interface GroupCommitterOptions {
  /** Of the device, for messages. */
  readonly name: string
  readonly map: CommitMap
  readonly journal: CommitJournal
  readonly clock: Clock
  /** By id; undefined: unknown. */
  readonly component: (id: number) => Component | undefined
  /**
   * A component has failed a flush. Resolves when it is out of service, durably; rejects when that cannot be made
   * durable. May wait for a pause of the device, but not for a commit.
   */
  readonly onComponentFailed: (id: number, error: PlexusError) => Promise<void>
  /** The durable map refers to these no more. */
  readonly onReleased: (places: readonly Place[]) => void
}

export class GroupCommitter implements Committer {
  readonly #options: GroupCommitterOptions
  /** Ids of components whose caches hold something since their last flush. */
  readonly #touched = new Set<number>()
  /** Failed a flush, and are not out of service yet for certain. */
  readonly #suspects = new Map<number, PlexusError>()
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  /** Callers that wait for {@link #next}. */
  #callers = 0
  /** Acknowledged writes were lost, and nobody has been told. */
  #owed: PlexusError | undefined
  /** Changes that no commit has taken, about. */
  #pending = 0
  #timer: Timer | undefined

  constructor(options: GroupCommitterOptions) {
    this.#options = options
  }

  /** All changes of the map are durable, and nothing is to be told: data that is durable counts. */
  get isClean(): boolean {
    return !this.#options.map.isChanged && !this.#running && !this.#owed
  }

  /** A write to the component has ended, and is not durable by itself. Before its granules become valid. */
  touched(id: number): void {
    this.#touched.add(id)
  }

  /** So many entries of the map have changed: they are durable after {@link VIRSTOR_COMMIT_MS} at the latest. */
  changed(entries: number): void {
    this.#pending += entries
    if (this.#pending >= VIRSTOR_COMMIT_ENTRIES) this.commitSoon()
    else this.#timer ??= this.#options.clock.after(VIRSTOR_COMMIT_MS, () => this.commitSoon())
  }

  /** All who share a commit that finds writes lost are told. */
  commit(): Promise<void> {
    this.#callers++
    return this.#schedule()
  }

  /** Commits, and tells nobody: what was lost is owed to the next caller of {@link commit}. */
  commitSoon(): void {
    this.#stopTimer()
    if (this.#next) return
    this.#schedule().catch((error: unknown) => {
      operatingError(error)
    })
  }

  /** Waits for the commit that is under way; none begins by itself any more. */
  async stop(): Promise<void> {
    this.#stopTimer()
    await Promise.allSettled([this.#running, this.#next])
    this.#stopTimer()
  }

  #schedule(): Promise<void> {
    if (this.#next) return this.#next
    const before = this.#running ?? Promise.resolve()
    const begin = (): Promise<void> => {
      this.#running = this.#next
      this.#next = undefined
      const callers = this.#callers
      this.#callers = 0
      return this.#commit(callers > 0).finally(() => {
        this.#running = undefined
      })
    }
    this.#next = before.then(begin, begin)
    return this.#next
  }

  async #commit(tells: boolean): Promise<void> {
    const { map } = this.#options
    this.#stopTimer()
    this.#pending = 0
    const set = map.takeChanges()
    try {
      await this.#store(set)
    } catch (error) {
      // Nothing is lost by that: the changes are in the map, and are tried again.
      map.failed(set)
      this.changed(0)
      throw error
    }
    const owed = this.#owed
    if (!tells || !owed) return
    this.#owed = undefined
    throw owed
  }

  async #store(set: ChangeSet): Promise<void> {
    const { map, journal, onReleased } = this.#options
    const lost = await this.#flush()
    const isLost = ({ component }: MapRecord): boolean => lost.has(component)
    const dropped = lost.size > 0 ? set.records.filter(isLost) : []
    // A chunk that was at one of the places may be in a record that is dropped: then the place is still its own.
    const kept =
      dropped.length === 0
        ? set
        : { records: set.records.filter((record) => !isLost(record)), released: [] }
    if (kept.records.length > 0 || kept.released.length > 0) {
      map.committed(kept, await journal.append(kept))
    }
    if (dropped.length > 0) map.dropped(dropped)
    if (kept.released.length > 0) onReleased(kept.released)
  }

  /** Answers with the components that are out of service since they failed. */
  async #flush(): Promise<ReadonlySet<number>> {
    const { name, component, onComponentFailed } = this.#options
    const touched = [...this.#touched]
    this.#touched.clear()
    await Promise.all(
      touched.map(async (id) => {
        const consumer = component(id)?.consumer
        if (!consumer) this.#suspects.set(id, awayError(name, id))
        else if (consumer.features.volatileWriteCache) {
          await flush(consumer).catch((error: unknown) => {
            this.#suspects.set(id, operatingError(error))
          })
        }
      }),
    )
    const lost = new Set<number>()
    for (const [id, error] of this.#suspects) {
      this.#owed ??= lostError(name, error)
      // Until then nothing may be built on what it has, whatever a later flush says.
      await onComponentFailed(id, error)
      this.#suspects.delete(id)
      lost.add(id)
    }
    return lost
  }

  #stopTimer(): void {
    this.#timer?.cancel()
    this.#timer = undefined
  }
}

function awayError(name: string, id: number): PlexusError {
  return new PlexusError('gone', {
    op: 'flush',
    subject: name,
    message: `virstor ${name}: component ${id} went away with writes in its cache`,
  })
}

function lostError(name: string, error: PlexusError): PlexusError {
  return new PlexusError('io', {
    op: 'flush',
    subject: name,
    message: `virstor ${name}: writes that were acknowledged before this flush may be lost; check what is on it: ${error.message}`,
    cause: error,
  })
}
