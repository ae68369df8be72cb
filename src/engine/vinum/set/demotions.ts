/**
 * Taking subdisks out of service: at once in memory, then durably, before the write that they missed is
 * acknowledged; never the last good copy (runtime.ts, rules 1 and 2). Part of a set (vinum-set.ts).
 */
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import { demoteSubdisks, returnDrives } from '../model/membership.ts'
import { byUuid, type SubdiskRecord, type VinumModel, volumeAbove } from '../model/model.ts'
import { withBroken } from '../model/spares.ts'
import { lastCopyLost } from '../model/state-rules.ts'
import type { Subdisk } from '../runtime.ts'
import type { VinumSet } from './vinum-set.ts'

export class Demotions {
  readonly #set: VinumSet
  /** Out of service in memory, until the commit that says so. */
  readonly #pending = new Map<string, Promise<void>>()

  constructor(set: VinumSet) {
    this.#set = set
  }

  /** UUIDs of the subdisks that are out of service in memory only, so far. */
  get pending(): readonly string[] {
    return [...this.#pending.keys()]
  }

  /** VinumHost.demote. */
  demote(subdisks: readonly Subdisk[], error: PlexusError): Promise<void> {
    const waits: Promise<void>[] = []
    const fresh: string[] = []
    for (const { record } of subdisks) {
      const pending = this.#pending.get(record.uuid)
      if (pending) waits.push(pending)
      else fresh.push(record.uuid)
    }
    const present = this.#set.present
    const known: SubdiskRecord[] = []
    for (const uuid of fresh) {
      const record = byUuid(present.subdisks, uuid)
      if (!record) continue
      // Complete when its drive was lost, and nobody else had the data: only who has it now may go on without it.
      const isServed = volumeAbove(present, record)?.state === 'up'
      if (record.state === 'down' && !isServed) {
        return Promise.reject(lastCopyError(record.name, error))
      }
      known.push(record)
    }
    const serving = known.filter(({ state }) => state !== 'stale').map(({ uuid }) => uuid)
    // What is away comes back complete: with it this may be the last copy, though nothing is served now.
    const devices = new Map(present.drives.map(({ uuid, device }) => [uuid, device]))
    const whenAllReturn = returnDrives(present, devices)
    const lost = lastCopyLost(present, serving) ?? lastCopyLost(whenAllReturn, serving)
    if (lost !== undefined) return Promise.reject(lastCopyError(lost, error))
    // Also who is stale in memory already, because its drive is lost: by the time of the commit more may be lost,
    // and this one would count as complete.
    if (known.length > 0) waits.push(this.#demote(known, serving, error))
    return Promise.all(waits).then(() => {})
  }

  #demote(
    records: readonly SubdiskRecord[],
    serving: readonly string[],
    error: PlexusError,
  ): Promise<void> {
    const uuids = records.map(({ uuid }) => uuid)
    const work = this.#set
      // First who missed the write: then whoever has it is complete, also when it is lost by now.
      .commit((model) =>
        this.#set.withLosses(demoteSubdisks(this.#breakSpares(model, records, error), uuids)),
      )
      .then(
        () => this.#demoted(uuids, serving, error),
        (failure: unknown) => {
          throw toPlexusError(failure, 'demote', this.#set.name)
        },
      )
    // Nobody may wait for it: a failure is the waiting writes' business, and the set knows of it.
    work.catch(() => {})
    for (const uuid of uuids) this.#pending.set(uuid, work)
    this.#set.refresh()
    return work
  }

  /** A spare that fails a write is broken. That it is gone tells nothing of it. */
  #breakSpares(
    model: VinumModel,
    records: readonly SubdiskRecord[],
    { kind, message }: PlexusError,
  ): VinumModel {
    if (kind === 'gone' || kind === 'aborted') return model
    return records
      .filter(({ state }) => state === 'up' || state === 'reviving')
      .filter(({ driveUuid }) => this.#set.drives.get(driveUuid)?.present)
      .reduce((next, { driveUuid }) => withBroken(next, driveUuid, message), model)
  }

  #demoted(uuids: readonly string[], serving: readonly string[], error: PlexusError): void {
    for (const uuid of uuids) this.#pending.delete(uuid)
    // A job may have taken it up again in the same commit.
    this.#set.refresh()
    for (const uuid of serving) {
      const record = byUuid(this.#set.model.subdisks, uuid)
      if (!record) continue
      this.#set.topology.events.emit(
        'critical',
        'subdisk-stale',
        record.name,
        `subdisk ${record.name} is out of service: ${error.message}`,
      )
    }
  }
}

function lastCopyError(what: string, cause: PlexusError): PlexusError {
  const message = `${what} has no other good copy: ${cause.message}`
  return new PlexusError('io', { op: 'write', subject: what, message, cause })
}
