/**
 * Brings the drives of an assembled set to the size that their media have now: what has grown is taken into use
 * (AnchoredDevice.resize, then the configuration), what has shrunk has lost its end and goes out of service. Inside
 * topology changes; called by device-set.ts, arrivals.ts and the verb `device resize`.
 */
import { formatSize } from '../../base/bytes.ts'
import { operatingError, PlexusError, Refusals } from '../../base/errors.ts'
import type { Consumer } from '../geom/consumer.ts'
import { noteLabel } from '../geom/provider.ts'
import { loseDevice } from './arrivals.ts'
import type { AnySet } from './device-set.ts'
import { byUuid, replaceRecord } from './lists.ts'
import type { SetDrive } from './set-drive.ts'

/** All drives that are here. What cannot be done now is told, and may be repeated: `plexus device resize`. */
export async function fitDrives(set: AnySet): Promise<void> {
  for (const drive of [...set.drives.values()]) {
    const failure = await fitDrive(set, drive).catch(operatingError)
    const { name } = drive.record
    if (failure) set.topology.events.emit('warning', 'drive-grown', name, failure.message)
  }
}

/** Throws why the new size cannot be used now. */
async function fitDrive(set: AnySet, drive: SetDrive): Promise<void> {
  const { label, consumer, present, record } = drive
  if (!label || !consumer || !present) return
  const { provider } = consumer
  if (label.anchor.mediaBytes < provider.sizeBytes) {
    noteLabel(provider, label.anchor)
    set.checkResize(drive)
    await label.resize()
    noteLabel(provider, label.anchor)
  }
  const { mediaBytes, dataEndBytes } = label.anchor
  if (dataEndBytes <= record.dataEndBytes) return
  await set.commit((model) => {
    const found = byUuid(model.drives, record.uuid)
    if (!found) return model
    const grown = { ...found, mediaBytes, dataEndBytes }
    return { ...model, drives: replaceRecord(model.drives, grown) }
  })
  const more = formatSize(dataEndBytes - record.dataEndBytes)
  const text = `drive ${record.name} has grown by ${more}`
  set.topology.events.emit('info', 'drive-grown', record.name, text)
}

/** The verb `device resize`; see GeomClass. */
export async function resizeDrive(set: AnySet, drive: SetDrive, dryRun: boolean): Promise<string> {
  const { record, label, consumer } = drive
  const now = consumer?.provider.sizeBytes ?? 0
  if (
    !label ||
    (label.anchor.mediaBytes === now && label.anchor.dataEndBytes <= record.dataEndBytes)
  ) {
    const message = `drive ${record.name} uses all of its disk: ${formatSize(now)}`
    throw new PlexusError('invalid', { op: 'resize', subject: record.name, message })
  }
  set.checkResize(drive)
  const { mediaBytes } = label.anchor
  if (!dryRun) await fitDrive(set, drive)
  return `resize drive ${record.name} from ${formatSize(mediaBytes)} to ${formatSize(now)}`
}

/** The device of a drive, or of a member that waits, has another size. */
export async function sizeChanged(set: AnySet, consumer: Consumer): Promise<void> {
  const { provider } = consumer
  const drive = [...set.drives.values()].find((one) => one.consumer === consumer)
  const mediaBytes = drive?.label?.anchor.mediaBytes
  if (drive && mediaBytes !== undefined) {
    if (provider.sizeBytes >= mediaBytes) return fitDrives(set)
    const { name, sizeBytes } = provider
    const reason = new Refusals('use')
      .gone`${name} has shrunk from ${formatSize(mediaBytes)} to ${formatSize(sizeBytes)}, and its end is lost; give it its size back, or replace the drive`
    await loseDevice(set, drive, reason)
  } else if (!(await set.release(consumer, false))) return
  set.topology.tasteAgain(provider)
  await set.topology.tastePending()
}
