/** What becomes of a configuration when drives go, come back or grow: pure. Each gives the same object when nothing changes. */
import type { DriveRecord } from '../metadata/set-model.ts'
import { chunksIn, driveOf, isUp, type VirstorModel } from './model.ts'

export function drivesDown(model: VirstorModel, lost: ReadonlySet<string>): VirstorModel {
  return eachDrive(model, (one) => {
    return lost.has(one.uuid) && one.state === 'up' ? { ...one, state: 'down' } : one
  })
}

/** `devices`: where the drives are, by UUID. */
export function drivesUp(model: VirstorModel, devices: ReadonlyMap<string, string>): VirstorModel {
  return eachDrive(model, (one) => {
    const device = devices.get(one.uuid)
    if (device === undefined || (one.state === 'up' && one.device === device)) return one
    return { ...one, state: 'up', device }
  })
}

function eachDrive(model: VirstorModel, change: (one: DriveRecord) => DriveRecord): VirstorModel {
  const drives = model.drives.map(change)
  return drives.every((one, index) => one === model.drives[index]) ? model : { ...model, drives }
}

/** A drive that has grown gives its component more chunks, by the commit that says so. */
export function withGrownDrives(before: VirstorModel, after: VirstorModel): VirstorModel {
  const components = after.components.map((one) => {
    const [was, drive] = [driveOf(before, one), driveOf(after, one)]
    return was && drive && was.dataEndBytes < drive.dataEndBytes
      ? { ...one, chunks: chunksIn(drive, one, after) }
      : one
  })
  const isSame = components.every((one, index) => one === after.components[index])
  return isSame ? after : { ...after, components }
}

/** Without copies of the map whose components are down, unless that are all. */
export function withoutCopiesAway(model: VirstorModel): VirstorModel {
  const copies = model.copies.filter((copy) => {
    const component = model.components.find(({ id }) => id === copy.component)
    return component !== undefined && isUp(model, component)
  })
  const stays = copies.length === 0 || copies.length === model.copies.length
  return stays ? model : { ...model, copies }
}
