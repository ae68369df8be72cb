/**
 * Makes the changes of a map durable, and the data behind them (docs/adr/0015-virstor.md): flush of the components that
 * were written to, then the records in the journal. One commit at a time; whoever comes meanwhile shares the next one.
 */
import type { Clock, Timer } from '../../../base/clock.ts'
import { operatingError, PlexusError } from '../../../base/errors.ts'
import {
  VIRSTOR_COMMIT_BACKLOG,
  VIRSTOR_COMMIT_ENTRIES,
  VIRSTOR_COMMIT_MS,
} from '../../../base/limits.ts'
import { flush } from '../../../hal/io.ts'
import type { ChangeSet, Committer, Component, Place } from '../runtime.ts'

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
   * What was written to the lost components since their last flush may be lost with their caches. Of each chunk in `set`
   * that is on one of them, granules are invalid again that have become valid since its entry was durable; the place
   * stays. A chunk that was moved keeps what was valid then: who moves it has flushed the new place before. Answers with
   * what is to be durable instead of `set`.
   */
  withdraw(set: ChangeSet, lost: ReadonlySet<number>): ChangeSet
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
   * A component has failed a flush, or has gone with what was in its cache. Resolves when it is out of service,
   * durably, and has no consumer; rejects when that cannot be made durable, and is called again. May wait for a pause of
   * the device, but not for a commit. Before it serves again a commit must have ended that began without it.
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
  /** Are out of service, and not all that had changed by then is committed or withdrawn. */
  readonly #lost = new Set<number>()
  #running: Promise<void> | undefined
  #next: Promise<void> | undefined
  /** Callers that wait for {@link #next}. */
  #callers = 0
  /** Acknowledged writes were lost, and nobody has been told. */
  #owed: PlexusError | undefined
  /** Changes that no commit has taken, about. */
  #pending = 0
  #timer: Timer | undefined
  #isStopped = false

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
    if (this.#isStopped) return
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

  /** It has failed a flush that somebody else asked for: it goes out of service as if a commit had. */
  suspect(id: number, error: PlexusError): void {
    this.#suspects.set(id, error)
    this.commitSoon()
  }

  /** Resolves when a commit has ended that began after this call, to why it failed; tells nobody what was lost. */
  async pass(): Promise<PlexusError | undefined> {
    await this.#running?.catch(operatingError)
    return this.#schedule().then(() => undefined, operatingError)
  }

  /** Has more changed than should wait for a commit at once? */
  get isBehind(): boolean {
    return this.#pending >= VIRSTOR_COMMIT_BACKLOG
  }

  /** Writes that were acknowledged may be lost by something before: the next caller of {@link commit} is told. */
  owe(error: PlexusError): void {
    this.#owed ??= lostError(this.#options.name, error)
  }

  /** What the next device has to tell where this one ends now; undefined: all that was acknowledged is durable. */
  get owes(): PlexusError | undefined {
    const isSettled = this.isClean && this.#touched.size === 0 && this.#suspects.size === 0
    return isSettled ? undefined : (this.#owed ?? endedError(this.#options.name))
  }

  /** Waits for the commit that is under way; none begins by itself any more. */
  async stop(): Promise<void> {
    this.#isStopped = true
    this.#stopTimer()
    await Promise.allSettled([this.#running, this.#next])
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
    // A set has so many records at most: all that had changed by now is taken.
    for (let isMore = true; isMore; ) {
      const set = map.takeChanges()
      isMore = map.isChanged
      await this.#store(set)
    }
    this.#lost.clear()
    const owed = this.#owed
    if (!tells || !owed) return
    this.#owed = undefined
    throw owed
  }

  async #store(taken: ChangeSet): Promise<void> {
    const { map, journal, onReleased } = this.#options
    let set = taken
    try {
      await this.#flush()
      if (this.#lost.size > 0) set = map.withdraw(set, this.#lost)
      if (set.records.length > 0 || set.released.length > 0) {
        map.committed(set, await journal.append(set))
        onReleased(set.released)
      } else map.failed(set)
    } catch (error) {
      // Nothing is lost by that: the changes are in the map, and are tried again.
      map.failed(set)
      this.changed(0)
      throw error
    }
  }

  async #flush(): Promise<void> {
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
    for (const [id, error] of this.#suspects) {
      this.owe(error)
      // Until then nothing may be built on what it has, whatever a later flush says.
      await onComponentFailed(id, error)
    }
    for (const id of this.#suspects.keys()) this.#lost.add(id)
    this.#suspects.clear()
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

function endedError(name: string): PlexusError {
  const message = `virstor ${name}: it was not served any more before a commit had ended`
  return new PlexusError('gone', { op: 'flush', subject: name, message })
}

function lostError(name: string, error: PlexusError): PlexusError {
  return new PlexusError('io', {
    op: 'flush',
    subject: name,
    message: `virstor ${name}: writes that were acknowledged before this flush may be lost; check what is on it: ${error.message}`,
    cause: error,
  })
}
