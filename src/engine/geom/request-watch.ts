/**
 * The requests under way to one disk, and how long it has not answered (as the timeout of the kernel's SCSI layer,
 * 30 s for each request). When it does not answer the oldest one in time, its geom calls the disk down and
 * {@link RequestWatch.giveUp} ends all of them towards whoever waits; their memory stays the disk's
 * (BufferPool.keep) until it returns them. There is one timer for a disk, and only while it has something to do.
 *
 * Requests wait in line for a disk that is slow, so what counts is the time for which a request has been the oldest,
 * not its age. It is counted in looks: a process that was stopped for a while finds nothing overdue.
 */
import type { Clock, Timer } from '../../base/clock.ts'
import { PlexusError } from '../../base/errors.ts'
import { ANSWER_LOOK_MS } from '../../base/limits.ts'
import type { BufferPool, IoOp } from '../../hal/block-device.ts'
import type { Bio } from './bio.ts'

/** Apart, since they may take longer: a flush waits for the cache, a discard for all of its blocks. */
const KINDS: Readonly<Record<IoOp, { readonly list: 0 | 1 | 2; readonly times: number }>> = {
  read: { list: 0, times: 1 },
  write: { list: 0, times: 1 },
  flush: { list: 1, times: 2 },
  discard: { list: 2, times: 4 },
  'write-zeroes': { list: 2, times: 4 },
}

interface List {
  /** Oldest first. */
  readonly requests: Set<Bio>
  /** What was the first one at the last look, and the looks at which it was. */
  seen: Bio | undefined
  looks: number
}

interface Surroundings {
  readonly clock: Clock
  readonly pool: BufferPool
}

export class RequestWatch {
  limitMs: number
  readonly #name: string
  readonly #around: Surroundings
  readonly #onOverdue: (reason: PlexusError) => void
  readonly #lists: readonly List[] = [0, 1, 2].map(() => ({
    requests: new Set(),
    seen: undefined,
    looks: 0,
  }))
  #timer: Timer | undefined

  /**
   * For a disk that has to answer a read or a write within `limitMs` (a flush in twice, a discard in four times that).
   * `onOverdue` is called at each look at which it has not.
   */
  constructor(
    limitMs: number,
    name: string,
    around: Surroundings,
    onOverdue: (reason: PlexusError) => void,
  ) {
    this.limitMs = limitMs
    this.#name = name
    this.#around = around
    this.#onOverdue = onOverdue
  }

  add(bio: Bio): void {
    this.#requestsLike(bio).add(bio)
    this.#timer ??= this.#around.clock.after(ANSWER_LOOK_MS, () => this.#look())
  }

  remove(bio: Bio): void {
    this.#requestsLike(bio).delete(bio)
  }

  #requestsLike({ op }: Bio): Set<Bio> {
    return (this.#lists[KINDS[op].list] as List).requests
  }

  /** Ends all requests with `reason`. The disk still has their memory. */
  giveUp(reason: PlexusError): void {
    for (const { requests } of this.#lists) {
      for (const bio of requests) bio.giveUp(reason, bio.data && this.#around.pool.keep(bio.data))
    }
  }

  #look(): void {
    this.#timer = undefined
    for (const list of this.#lists) {
      const [first] = list.requests
      if (!first || first !== list.seen) list.looks = 0
      list.seen = first
      if (!first) continue
      this.#timer ??= this.#around.clock.after(ANSWER_LOOK_MS, () => this.#look())
      const allowedMs = this.limitMs * KINDS[first.op].times
      if (list.looks++ * ANSWER_LOOK_MS < allowedMs) continue
      const message = `${this.#name}: no answer for ${allowedMs / 1000} s; check the disk, its cabling and the kernel log`
      this.#onOverdue(new PlexusError('gone', { op: first.op, subject: this.#name, message }))
    }
  }
}
