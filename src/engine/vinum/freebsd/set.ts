/**
 * The drives of FreeBSD's vinum that are connected, as one geom: assembled as FreeBSD itself would do it, and served
 * read-only. No byte is written on them here: the set opens its providers for reading, exclusively, so that nobody
 * else writes either. `vinum convert` makes native drives of them (freebsd/convert.ts). docs/vinum.md, 3.
 *
 *   gathering   until the topology is complete, or while the drives contradict each other
 *   assembled   each drive that comes makes the model anew; who goes is down, and its text counts on, so that a drive
 *               which it calls stale is not taken for good as soon as it is alone
 *
 * FreeBSD's drives name no set: all of them are one, as there. Made by vinum-class.ts.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { Logger } from '../../../base/log.ts'
import type { Bio } from '../../geom/bio.ts'
import type { Consumer } from '../../geom/consumer.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { Geom } from '../../geom/types.ts'
import { SetDrive } from '../../metadata/set-drive.ts'
import { PlacedSubdisk } from '../io/subdisk.ts'
import { loseDrives } from '../model/membership.ts'
import type { VinumModel, VolumeRecord } from '../model/model.ts'
import type { VinumHost } from '../runtime.ts'
import { hostOf } from '../set/host.ts'
import { assembleFreebsd } from './assembly.ts'
import type { FreebsdDrive } from './format.ts'
import { FreebsdVolume, faultOf, shapeOf } from './volume.ts'

/** A drive that has been here since the start of the set. */
export interface ImportedDrive {
  readonly info: FreebsdDrive
  /** undefined: its device is gone. */
  readonly consumer: Consumer | undefined
  /** The native set of a conversion that was cut off: what the drive's anchor says. */
  readonly nativeSet: string | undefined
}

export class FreebsdSet implements Geom {
  readonly className = 'vinum'
  readonly name = 'vinum-freebsd'
  readonly topology: Topology
  readonly log: Logger
  readonly host: VinumHost
  /** Of the model, by UUID: with or without a device. */
  readonly drives = new Map<string, SetDrive>()
  readonly subdisks = new Map<string, PlacedSubdisk>()
  readonly #volumes = new Map<string, FreebsdVolume>()
  /** Why a volume of the model is not offered, by its UUID. */
  readonly faults = new Map<string, string>()
  /** Why it is not assembled. */
  problem = 'the other drives are being looked at'
  #known: readonly ImportedDrive[] = []
  #model: VinumModel | undefined
  /** Drives have come that the model does not know of, or gone that it could not be made with. */
  #changed = false
  /** Said last: said once. */
  #said = ''

  constructor(topology: Topology) {
    this.topology = topology
    this.log = topology.log.child({ part: 'vinum', set: 'freebsd' })
    // A drive that could not read a sector stays: it has what it has, and nothing is missed.
    this.host = hostOf(this, {
      demote: ([first], error) => readOnly(first?.record.name ?? this.name, error),
      changeLost: (plex) => readOnly(plex.record.name),
      isLosing: () => false,
      putInDoubt: (plex) => readOnly(plex.record.name),
      logHost: ({ record: { name } }) => {
        throw new Error(`plex ${name} is FreeBSD's, which has no log`)
      },
    })
  }

  get providers(): readonly Provider[] {
    return [...this.#volumes.values()].map(({ provider }) => provider)
  }

  get consumers(): readonly Consumer[] {
    return this.#known.flatMap(({ consumer }) => consumer ?? [])
  }

  /** Every drive that was here, also those that are gone by now. */
  get known(): readonly ImportedDrive[] {
    return this.#known
  }

  get assembled(): boolean {
    return this.#model !== undefined
  }

  /** What is served. Only of an assembled set. */
  get model(): VinumModel {
    return defined(this.#model, 'the configuration of an assembled set')
  }

  volumeOf(uuid: string | undefined): FreebsdVolume | undefined {
    return this.#volumes.get(uuid ?? '')
  }

  /** The name under which a volume is offered; undefined while it is not. */
  offeredAs(volumeUuid: string): string | undefined {
    return this.volumeOf(volumeUuid)?.provider.name
  }

  // Devices that come and go: inside a topology change.

  /** A device with a valid header of FreeBSD's. True when the set holds it; {@link assemble} takes it into account. */
  async join(
    provider: Provider,
    info: FreebsdDrive,
    nativeSet: string | undefined,
  ): Promise<boolean> {
    const before = this.#known.find((one) => one.info.driveName === info.driveName)
    if (this.#model && before?.consumer) {
      const text =
        `${provider.name} carries FreeBSD's drive ${info.driveName}, which is present on ` +
        `${before.consumer.provider.name}: it is a copy, or belongs to another machine, and is left alone`
      this.topology.events.emit('critical', 'duplicate-drive', provider.name, text)
      return false
    }
    const access = { read: 1, write: 0, exclusive: 1 }
    const holder = `FreeBSD vinum drive ${info.driveName}`
    const consumer = this.topology.attach(provider, this, holder, access)
    const others = this.#known.filter((one) => one !== before || one.consumer !== undefined)
    this.#known = [...others, { info, consumer, nativeSet }]
    this.#changed = true
    return true
  }

  /**
   * Makes the model of all drives, and offers its volumes: when drives have come since it was last made. Where they
   * contradict each other, it says so.
   */
  async assemble(): Promise<void> {
    if (!this.#changed) return
    this.#changed = false
    let model: VinumModel
    try {
      model = assembleFreebsd(this.#known.map(({ info }) => info))
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      this.problem = error.message
      this.#say('set-incomplete', `the drives of FreeBSD are not served: ${error.message}`)
      return
    }
    this.#takeDrives(model)
    this.#model = this.#withFreeNames(withoutMissing(model, this.drives))
    await this.#shape()
    this.#tellStrangers()
    const { volumes, drives } = this.model
    this.#say(
      'set-assembled',
      `FreeBSD's drives are assembled: ${volumes.length} volumes on ${drives.length} drives, read-only; ` +
        'to make them writable: plexus vinum convert',
    )
  }

  #takeDrives(model: VinumModel): void {
    const wanted = new Set(model.drives.map(({ uuid }) => uuid))
    for (const uuid of this.drives.keys()) if (!wanted.has(uuid)) this.drives.delete(uuid)
    for (const [index, record] of model.drives.entries()) {
      const drive = this.drives.get(record.uuid) ?? new SetDrive(record)
      drive.record = record
      drive.consumer = this.#known[index]?.consumer
      if (drive.consumer) drive.goneSince = undefined
      this.drives.set(record.uuid, drive)
    }
  }

  /** A volume whose name is something else's is offered under another one. */
  #withFreeNames(model: VinumModel): VinumModel {
    const { providers } = this.topology
    const own = new Set(model.volumes.map(({ name }) => name))
    const isFree = (name: string, uuid: string): boolean => {
      const holder = providers.get(name)
      return holder === undefined || holder === this.#volumes.get(uuid)?.provider
    }
    const volumes = model.volumes.map((volume) => {
      const { uuid, name } = volume
      const other = `${name}.freebsd`
      return isFree(name, uuid) || own.has(other) || !isFree(other, uuid)
        ? volume
        : { ...volume, name: other }
    })
    return { ...model, volumes }
  }

  /** Makes the running objects those of the model. */
  async #shape(): Promise<void> {
    const { model } = this
    for (const [uuid, volume] of this.#volumes) {
      const record = model.volumes.find((one) => one.uuid === uuid)
      const stays = record && record.name === volume.provider.name && !faultOf(model, record)
      if (!stays || shapeOf(model, record) !== volume.shape) await this.#end(uuid, volume)
    }
    const wanted = new Set(model.subdisks.map(({ uuid }) => uuid))
    for (const uuid of this.subdisks.keys()) if (!wanted.has(uuid)) this.subdisks.delete(uuid)
    this.#refreshSubdisks()
    this.faults.clear()
    for (const record of model.volumes) {
      const volume = this.#volumes.get(record.uuid)
      if (volume) await volume.refresh(model, record)
      else this.#offer(model, record)
    }
  }

  #refreshSubdisks(): void {
    for (const record of this.model.subdisks) {
      const drive = defined(this.drives.get(record.driveUuid), `the drive of ${record.name}`)
      const subdisk = this.subdisks.get(record.uuid) ?? new PlacedSubdisk(record, drive)
      subdisk.record = record
      subdisk.drive = drive
      this.subdisks.set(record.uuid, subdisk)
    }
  }

  #offer(model: VinumModel, record: VolumeRecord): void {
    const taken = this.topology.providers.has(record.name)
    const why = taken ? `${record.name} is something else's name` : faultOf(model, record)
    if (why === undefined) {
      this.#volumes.set(record.uuid, new FreebsdVolume(this, model, record, this.subdisks))
      return
    }
    this.faults.set(record.uuid, why)
    const text = `volume ${record.name} of FreeBSD's drives is not served: ${why}`
    this.topology.events.emit('critical', 'volume-not-served', record.name, text)
  }

  async #end(uuid: string, volume: FreebsdVolume): Promise<void> {
    await this.topology.orphan(volume.provider, this.#endedError(volume.provider.name))
    await volume.stop()
    this.#volumes.delete(uuid)
  }

  /** Drives whose own text has subdisks on them that nobody knows of: of another machine, or long out of use. */
  get strangers(): readonly string[] {
    const names = new Set(this.model.subdisks.map(({ name }) => name))
    return this.#known.flatMap(({ info }) => {
      const own = info.objects.filter(
        (one) => one.type === 'subdisk' && one.drive === info.driveName,
      )
      return own.every(({ name }) => names.has(name)) ? [] : [info.driveName]
    })
  }

  #tellStrangers(): void {
    for (const { info } of this.#known) {
      for (const text of info.warnings) {
        this.topology.events.emit('warning', 'foreign-text', info.driveName, text)
      }
    }
    for (const name of this.strangers) {
      const text =
        `FreeBSD's drive ${name} carries subdisks that the newest configuration does not have: it belongs to ` +
        'another machine, or was taken out; to reach them, connect the drives of that machine alone'
      this.topology.events.emit('warning', 'foreign-drive', name, text)
    }
  }

  /** Geom: the provider below a drive serves no more. */
  async orphan(consumer: Consumer, reason: PlexusError): Promise<void> {
    const gone = this.#known.find((one) => one.consumer === consumer)
    if (!gone) return
    const left = { ...gone, consumer: undefined }
    const others = this.#known.filter((one) => one !== gone)
    // One that was never served with says nothing for the others.
    this.#known = this.#model ? this.#known.map((one) => (one === gone ? left : one)) : others
    consumer.close().catch((err: unknown) => {
      this.log.error({ err }, 'a consumer failed to close')
    })
    const { driveName } = gone.info
    const text = `FreeBSD's drive ${driveName} is gone: ${reason.message}`
    const { time } = this.topology.events.emit('critical', 'drive-down', driveName, text)
    if (!this.#model) {
      this.#changed = others.length > 0
      if (this.topology.complete) await this.assemble()
      return
    }
    for (const drive of this.drives.values()) {
      if (drive.consumer !== consumer) continue
      drive.drop()
      drive.goneSince = time
    }
    this.#model = withoutMissing(this.model, this.drives)
    await this.#shape()
  }

  // Geom.

  start(request: Bio, provider: Provider): void {
    for (const volume of this.#volumes.values()) {
      if (volume.provider !== provider) continue
      volume.io.start(request)
      return
    }
    queueMicrotask(() => request.complete(provider.error ?? this.#endedError(provider.name)))
  }

  /** Geom: orphans the volumes and lets the devices go. */
  async wither(): Promise<void> {
    for (const [uuid, volume] of [...this.#volumes]) await this.#end(uuid, volume)
    for (const consumer of this.consumers) await consumer.close()
    this.#known = []
    this.#model = undefined
    this.drives.clear()
    this.subdisks.clear()
  }

  #endedError(name: string): PlexusError {
    const message = `volume ${name} of FreeBSD's drives is no more, or is about to come back in another form`
    return new PlexusError('gone', { op: 'use', subject: name, message })
  }

  #say(event: 'set-assembled' | 'set-incomplete', message: string): void {
    if (this.#said === message) return
    this.#said = message
    const severity = event === 'set-assembled' ? 'info' : 'critical'
    this.topology.events.emit(severity, event, this.name, message)
  }
}

/** With every drive down that is not there. */
function withoutMissing(model: VinumModel, drives: ReadonlyMap<string, SetDrive>): VinumModel {
  return loseDrives(
    model,
    [...drives].flatMap(([uuid, { present }]) => (present ? [] : [uuid])),
  )
}

function readOnly(subject: string, cause?: PlexusError): Promise<never> {
  const message = 'drives of FreeBSD are read-only until plexus vinum convert'
  return Promise.reject(new PlexusError('permission', { op: 'demote', subject, message, cause }))
}
