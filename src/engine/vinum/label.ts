/**
 * What the label of a vinum drive says, without taking the drive: its set, its name, the volumes with parts on it.
 * Part of vinum-class.ts; geom/label.ts calls it.
 */
import { attempt } from '../../base/errors.ts'
import type { AnchorTarget } from '../anchor/anchor-ends.ts'
import type { Anchor } from '../anchor/anchor-layout.ts'
import { AnchoredDevice } from '../anchor/anchored-device.ts'
import type { Label } from '../geom/label.ts'
import { freebsdDrive } from './freebsd/format.ts'
import { decodeModel } from './model/codec.ts'
import { byUuid, type VinumModel } from './model/model.ts'

/** The native label that `anchor` announces, else a header of FreeBSD's. `isKnown` says whether a set is one of ours. */
export async function readVinumLabel(
  device: AnchorTarget,
  anchor: Anchor | undefined,
  isKnown: (setUuid: string) => boolean,
): Promise<Label | undefined> {
  if (!anchor) return freebsdLabel(device)
  // Where there is none, or it cannot be used, the label counts all the same.
  const model = await attempt(async () => {
    const slot = await AnchoredDevice.open(device, anchor).read()
    return slot && decodeModel(slot.payload)
  })
  const name = model && byUuid(model.drives, anchor.deviceUuid)?.name
  return {
    text: `${name === undefined ? 'a drive' : `drive ${name}`} of vinum set ${anchor.setUuid}`,
    takeOut: `plexus vinum rm ${name ?? 'DRIVE'}`,
    volumes: model ? volumesOn(model, anchor.deviceUuid) : [],
    known: isKnown(anchor.setUuid),
  }
}

function volumesOn(model: VinumModel, driveUuid: string): readonly string[] {
  const plexes = new Set(
    model.subdisks.filter((one) => one.driveUuid === driveUuid).map((one) => one.plexUuid),
  )
  const volumes = new Set(
    model.plexes.filter(({ uuid }) => plexes.has(uuid)).map((one) => one.volumeUuid),
  )
  return model.volumes.filter(({ uuid }) => volumes.has(uuid)).map(({ name }) => name)
}

async function freebsdLabel(device: AnchorTarget): Promise<Label | undefined> {
  const drive = await freebsdDrive(device)
  if (!drive || drive.removed) return undefined
  const { driveName, hostName, objects } = drive
  const text = `drive ${driveName} of FreeBSD's vinum on host ${hostName}`
  // Its text has the whole configuration; these drives name no set that could be known.
  const here = objects.flatMap((one) =>
    one.type === 'subdisk' && one.drive === driveName ? (one.plex ?? []) : [],
  )
  const volumes = objects.flatMap((one) =>
    one.type === 'plex' && here.includes(one.name) ? (one.volume ?? []) : [],
  )
  return { text, volumes: [...new Set(volumes)], known: false }
}
