/**
 * The running objects of a native set, kept like its model: `refresh` gives them new records when only states
 * and cursors have changed, `reshape` makes, changes and ends them after a verb, with the requests of a changed
 * volume held for a moment. vinum-set.ts owns it.
 */
import { defined } from '../../../base/assert.ts'
import { type PlexusError, Refusals } from '../../../base/errors.ts'
import { RangeSet } from '../../../base/range-set.ts'
import type { Bio } from '../../geom/bio.ts'
import type { Provider } from '../../geom/provider.ts'
import type { RememberedIntent } from '../../intent/write-intent-bitmap.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import { PlacedSubdisk } from '../io/subdisk.ts'
import { hasLog, isMisplaced } from '../model/log-rings.ts'
import { isRedundant } from '../model/map-slots.ts'
import {
  byUuid,
  type PlexRecord,
  plexesOf,
  subdisksOf,
  type VinumModel,
  type VolumeRecord,
} from '../model/model.ts'
import { lastCopyLost } from '../model/state-rules.ts'
import { bareName, nameTaken } from '../naming.ts'
import type { Plex } from '../runtime.ts'
import { readIntent } from './intent-store.ts'
import { SetJobs } from './jobs.ts'
import { makePlex } from './make-plex.ts'
import type { VinumSet } from './vinum-set.ts'
import { RunningVolume } from './volume.ts'

const refuse = new Refusals('use')

export class SetObjects {
  readonly subdisks = new Map<string, PlacedSubdisk>()
  readonly plexes = new Map<string, Plex>()
  readonly volumes = new Map<string, RunningVolume>()
  readonly jobs: SetJobs
  /** The model as these objects know it: what memory knows already included. */
  present: VinumModel
  readonly #set: VinumSet
  readonly #byProvider = new Map<Provider, RunningVolume>()
  /** Of plexes: what makes another object necessary when it changes. */
  readonly #shapes = new Map<string, string>()
  /** Plexes with a window that is in neither layout: their volumes are not offered. */
  readonly #torn = new Set<string>()
  /** Read at assembly, used when the volumes are made. */
  #remembered = new Map<string, RememberedIntent>()

  constructor(set: VinumSet) {
    this.#set = set
    this.present = set.model
    this.jobs = new SetJobs(set)
  }

  get providers(): readonly Provider[] {
    return [...this.#byProvider.keys()]
  }

  start(request: Bio, provider: Provider): void {
    const volume = this.#byProvider.get(provider)
    if (volume) volume.io.start(request)
    else queueMicrotask(() => request.complete(provider.error ?? endedError(provider.name)))
  }

  /**
   * What the drives remember of writes under way when the set was last served. Resolves to the subdisks that are of an
   * older time than the others, by UUID.
   */
  async loadMaps(model: VinumModel): Promise<readonly string[]> {
    for (const volume of model.volumes) {
      if (!isRedundant(model, volume.uuid)) continue
      const remembered = await readIntent(this.#set, model, volume)
      this.#remembered.set(volume.uuid, remembered)
    }
    return [...this.#remembered.values()].flatMap(({ outdated }) => outdated)
  }

  /** What the maps remember is in doubt, but for plexes whose logs were replayed. */
  doubtMaps(model: VinumModel, replayed: ReadonlySet<string>): void {
    for (const [uuid, { bits }] of this.#remembered) {
      const isSettled = plexesOf(model, uuid).every(
        (plex) => replayed.has(plex.uuid) && !plex.mapDoubts,
      )
      if (!isSettled) this.#set.lost.doubt(model, uuid, bits.ranges())
    }
  }

  /** New records for what is there; nothing is made or ended. */
  refresh(model: VinumModel): void {
    this.present = model
    for (const record of model.subdisks) {
      const subdisk = this.subdisks.get(record.uuid)
      if (!subdisk) continue
      const wasServing = subdisk.record.state === 'up' || subdisk.record.state === 'reviving'
      const isServing = record.state === 'up' || record.state === 'reviving'
      if (wasServing && !isServing) subdisk.departures++
      subdisk.record = record
      subdisk.drive = this.#drive(record.driveUuid)
      if (record.state !== 'reviving') subdisk.missing = undefined
    }
    for (const record of model.plexes) {
      const plex = this.plexes.get(record.uuid)
      if (plex) plex.record = record
      plex?.log?.failGone()
      if (plex?.subdisks.some((one) => isMisplaced(one.record))) plex.log?.renew()
    }
    for (const record of model.volumes) {
      const volume = this.volumes.get(record.uuid)
      if (volume) volume.record = record
    }
  }

  /**
   * Makes the objects those of the configuration, with what memory knows already: who is out of service there is not
   * read again until it is durable. Inside a topology change, outside the commit queue.
   */
  async reshape(): Promise<void> {
    const model = this.#set.present
    for (const record of model.subdisks) {
      if (this.subdisks.has(record.uuid)) continue
      this.subdisks.set(record.uuid, new PlacedSubdisk(record, this.#drive(record.driveUuid)))
    }
    this.refresh(model)
    for (const record of model.plexes) this.#shapePlex(model, record)
    for (const [uuid, volume] of this.volumes) {
      if (!byUuid(model.volumes, uuid)) await this.#endVolume(uuid, volume)
    }
    await this.#finishWindows(model)
    for (const { uuid } of model.volumes) await this.#shapeVolume(model, uuid)
    for (const uuid of this.plexes.keys()) {
      if (byUuid(model.plexes, uuid)) continue
      this.plexes.delete(uuid)
      this.#shapes.delete(uuid)
    }
    for (const uuid of this.subdisks.keys()) {
      if (!byUuid(model.subdisks, uuid)) this.subdisks.delete(uuid)
    }
  }

  /** A crash in a growth may have left a window that only its backup has: it is written before anybody reads. */
  async #finishWindows(model: VinumModel): Promise<void> {
    for (const { uuid, name, growth } of model.plexes) {
      const plex = this.plexes.get(uuid)
      if (!plex || !growth?.backup || this.jobs.isRunning(uuid)) continue
      try {
        await this.jobs.finishWindow(plex)
        this.#torn.delete(uuid)
      } catch (error) {
        this.#torn.add(uuid)
        this.#set.topology.events.emit(
          'critical',
          'growth-stuck',
          name,
          `plex ${name} stopped in the middle of a window of its growth, which cannot be written now: ${String(error)}`,
        )
      }
    }
  }

  #drive(uuid: string): SetDrive {
    const drive = defined(this.#set.drives.get(uuid), `drive ${uuid} of the model`)
    drive.flushFailed ??= (error) => this.#flushFailed(drive, error)
    return drive
  }

  /**
   * A drive that fails a flush may have lost what any subdisk on it had acknowledged, of whatever volume: those with
   * another copy leave at once, before an old content of theirs is read. For the others the next flush of their volume
   * has the error, whoever has asked for this one.
   */
  #flushFailed(drive: SetDrive, error: PlexusError): void {
    // The loss of a drive is told of by its device.
    if (error.kind === 'gone') return
    const leaving: PlacedSubdisk[] = []
    for (const subdisk of this.subdisks.values()) {
      const { plexUuid, uuid } = subdisk.record
      if (subdisk.drive !== drive || plexUuid === undefined || !subdisk.writable) continue
      const together = [...leaving.map(({ record }) => record.uuid), uuid]
      if (lastCopyLost(this.present, together) === undefined) leaving.push(subdisk)
      else this.volumeAbove(plexUuid)?.io.loseCache()
    }
    if (leaving.length === 0) return
    this.#set.host.demote(leaving, error).catch((failure: unknown) => {
      this.#set.log.error({ err: failure, drive: drive.record.name }, 'a demotion failed')
    })
  }

  /**
   * A drive is gone, with its cache. Where that took the last copy, acknowledged writes may be lost; and when it is
   * back, what was not flushed may be in one copy or column and not in another.
   */
  loseCache(drive: SetDrive): void {
    for (const subdisk of this.subdisks.values()) {
      if (subdisk.drive !== drive || subdisk.record.state !== 'down') continue
      const volume = this.volumeAbove(subdisk.record.plexUuid)
      if (!volume?.io.loseCache() || !volume.map) continue
      volume.map.markAllUnsynced()
      this.#set.lost.doubt(this.present, volume.record.uuid, volume.map.marked)
      for (const plex of volume.plexes) void plex.log?.doubted().catch(() => {})
    }
  }

  /** The volume of a plex, by its UUID. */
  volumeAbove(plexUuid: string | undefined): RunningVolume | undefined {
    return this.#set.volumeOf(byUuid(this.present.plexes, plexUuid)?.volumeUuid)
  }

  #shapePlex(model: VinumModel, record: PlexRecord): void {
    const records = subdisksOf(model, record.uuid)
    const { organization, stripeBytes, parityLayout } = record
    const shape = JSON.stringify([
      organization,
      stripeBytes,
      parityLayout,
      hasLog(record),
      records.map((one) => [one.uuid, one.sizeBytes, one.plexOffsetBytes]),
    ])
    if (this.#shapes.get(record.uuid) === shape) return
    const subdisks = records.map(({ uuid }) => defined(this.subdisks.get(uuid), `subdisk ${uuid}`))
    const plex = makePlex({ host: this.#set.host, record, subdisks })
    // More columns make no parity right.
    if (plex.doubt) {
      const { doubt } = this.plexes.get(record.uuid) ?? {}
      plex.doubt = doubt ?? new RangeSet(this.#set.lost.doubtOf(record.uuid))
    }
    plex.awaitsReplay = this.#set.lateReplays.has(record.uuid)
    this.plexes.set(record.uuid, plex)
    if (record.logRun === 0) plex.log?.renew()
    this.#shapes.set(record.uuid, shape)
  }

  async #shapeVolume(model: VinumModel, uuid: string): Promise<void> {
    const record = defined(byUuid(model.volumes, uuid), `volume ${uuid}`)
    const plexes = plexesOf(model, uuid).map((one) =>
      defined(this.plexes.get(one.uuid), `plex ${one.name}`),
    )
    let volume = this.volumes.get(uuid)
    const isNew = !volume
    if (!volume) {
      if (plexes.some((plex) => this.#torn.has(plex.record.uuid))) return
      volume = new RunningVolume(this.#set, record, plexes, this.#nameFor(record))
      this.volumes.set(uuid, volume)
      this.#byProvider.set(volume.provider, volume)
    } else if (bareName(volume.provider.name) !== record.name) {
      this.#set.topology.renameProvider(volume.provider, this.#nameFor(record))
    }
    const redundant = isRedundant(model, uuid)
    if (!isNew && volume.isShaped(record, plexes, redundant)) return
    await volume.reshape(record, plexes, redundant, this.#remembered.get(uuid))
    this.#remembered.delete(uuid)
  }

  #nameFor(record: VolumeRecord): string {
    const name = this.#set.options.nameFor(this.#set, record)
    if (name !== record.name) {
      const { status, action } = nameTaken(name)
      const text = `volume ${name}: ${status} ${action}`
      this.#set.topology.events.emit('warning', 'name-taken', name, text)
    }
    return name
  }

  async #endVolume(uuid: string, volume: RunningVolume): Promise<void> {
    const { name } = volume.record
    this.volumes.delete(uuid)
    await this.#set.topology.orphan(volume.provider, endedError(name))
    await volume.stop()
    this.#byProvider.delete(volume.provider)
  }

  /** For the end: no request is in flight any more; marks that need not stay go. */
  async stop(): Promise<void> {
    for (const volume of this.volumes.values()) await volume.stop()
  }
}

function endedError(name: string): PlexusError {
  return refuse.gone`volume ${name} is no more`
}
