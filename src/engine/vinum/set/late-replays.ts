/**
 * Plexes with a log of which too much was missing at the start: they serve nothing, and what was being written at the crash is
 * written again when enough of them has come back (replay.ts). Part of a set (vinum-set.ts).
 */
import { hasLog } from '../model/log-rings.ts'
import { byUuid, subdisksOf, type VinumModel } from '../model/model.ts'
import { afterReplay, type Replayed, replayLogs } from './replay.ts'
import type { VinumSet } from './vinum-set.ts'

export class LateReplays {
  readonly #set: VinumSet
  /** By plex: its subdisks that were out of service at the start or since then. */
  readonly #waiting = new Map<string, Set<string>>()

  constructor(set: VinumSet) {
    this.#set = set
  }

  /** At the start; `outdated`: subdisks that are about to go out of service. */
  begin({ waiting }: Replayed, model: VinumModel, outdated: readonly string[]): void {
    this.#waiting.clear()
    for (const uuid of waiting) this.#waiting.set(uuid, new Set(outdated))
    this.committed(model)
  }

  has(plexUuid: string): boolean {
    return this.#waiting.has(plexUuid)
  }

  /** Who is out of service now, whatever becomes of it. */
  committed(model: VinumModel): void {
    for (const [plex, out] of this.#waiting) {
      for (const { uuid, state } of subdisksOf(model, plex)) if (state === 'stale') out.add(uuid)
    }
  }

  /** Replays what can be replayed by now. Inside a topology change, outside the commit queue. */
  async run(): Promise<void> {
    const set = this.#set
    for (const [uuid, out] of this.#waiting) {
      const { model } = set
      const plex = byUuid(model.plexes, uuid)
      if (!plex || !hasLog(plex)) {
        this.#end(uuid)
        continue
      }
      // By an operator's word other content counts than that of the crash: the log has nothing to say about it.
      const isGivenUp = subdisksOf(model, uuid).some(
        (one) => one.state === 'up' && out.has(one.uuid),
      )
      const replayed = isGivenUp
        ? { plexes: new Set([uuid]), settled: NONE, missed: NONE, waiting: NONE }
        : await replayLogs(set, model, [plex], [])
      if (!replayed.plexes.has(uuid)) continue
      if (replayed.settled.has(uuid)) set.lost.undoubt(plex)
      await set.commit((now) => afterReplay(now, replayed))
      this.#end(uuid)
    }
  }

  #end(uuid: string): void {
    this.#waiting.delete(uuid)
    const plex = this.#set.objects.plexes.get(uuid)
    if (plex) plex.awaitsReplay = false
  }
}

const NONE: ReadonlySet<string> = new Set()
