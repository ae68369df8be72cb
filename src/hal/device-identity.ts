/**
 * Who a block device is: world-wide name, serial, vendor and model, from sysfs and, where the kernel does
 * not say, from udev's database. Called by device-probe.ts. Each source is a row; the first that answers
 * wins, the device's own words before derived ones.
 */
import { statSync } from 'node:fs'
import type { DeviceIdentity } from './block-device.ts'
import {
  diskDirOf,
  readAttribute,
  readAttributeBytes,
  splitDeviceNumber,
  sysfsDirOf,
  udevProperties,
} from './sysfs.ts'

export const NO_IDENTITY: DeviceIdentity = {
  wwid: undefined,
  serial: undefined,
  vendor: undefined,
  model: undefined,
}

/** The directory of a disk, and udev's properties of it. */
interface Sources {
  readonly dir: string
  readonly udev: ReadonlyMap<string, string>
}

type Source = (sources: Sources) => string | undefined

const attribute =
  (name: string): Source =>
  ({ dir }) =>
    readAttribute(dir, name)

const property =
  (key: string): Source =>
  ({ udev }) =>
    udev.get(key)?.trim() || undefined

/** A name made of another one, as udev's links in /dev/disk/by-id have them. */
const prefixed =
  (prefix: string, source: Source): Source =>
  (sources) => {
    const value = source(sources)
    return value === undefined ? undefined : `${prefix}${value}`
  }

/** SPC-4, 7.8.15: the unit serial number page as the SCSI driver keeps it; a length at byte 2, then text. */
const unitSerialNumber: Source = ({ dir }) => {
  const page = readAttributeBytes(dir, 'device/vpd_pg80')
  if (!page || page.length < 4) return undefined
  return (
    page
      .toString('latin1', 4, 4 + page.readUInt16BE(2))
      .replaceAll('\0', '')
      .trim() || undefined
  )
}

/** udev writes an NAA name as a number: 0x5000c500a1b2c3d4. */
const udevWwn: Source = (sources) => {
  const text = property('ID_WWN_WITH_EXTENSION')(sources) ?? property('ID_WWN')(sources)
  return text?.startsWith('0x') ? `naa.${text.slice(2)}` : text
}

const SOURCES: Readonly<Record<keyof DeviceIdentity, readonly Source[]>> = {
  wwid: [
    attribute('wwid'), // NVMe namespaces
    attribute('device/wwid'), // SCSI and SATA
    prefixed('dm-uuid-', attribute('dm/uuid')),
    prefixed('md-uuid-', attribute('md/uuid')),
    prefixed('md-uuid-', property('MD_UUID')),
    udevWwn,
  ],
  serial: [
    unitSerialNumber,
    attribute('device/serial'), // NVMe
    attribute('serial'), // virtio
    property('ID_SERIAL_SHORT'),
  ],
  vendor: [attribute('device/vendor'), property('ID_VENDOR')],
  model: [
    attribute('device/model'),
    property('ID_MODEL'),
    attribute('dm/name'),
    attribute('loop/backing_file'), // tells people which loop device it is
  ],
}

/** virtio gives its PCI vendor number, 0x1af4, where others have a name. */
const VENDOR_NUMBER = /^0x[0-9a-f]{4}$/i

/**
 * The identity of the block device at `sysfsDir`. A partition has the words of its disk, with a name and a
 * serial number of its own (`naa.5000…-part2`), so that two partitions never look like two paths to one
 * device.
 */
export function readIdentity(
  sysfsDir: string,
  udev: ReadonlyMap<string, string> = new Map(),
): DeviceIdentity {
  const dir = diskDirOf(sysfsDir)
  const sources = { dir, udev }
  const first = (key: keyof DeviceIdentity) => {
    for (const source of SOURCES[key]) {
      const value = source(sources)
      // The blanks inside a t10 name are part of it; elsewhere they only fill a field.
      if (value !== undefined) return key === 'wwid' ? value : value.replace(/\s+/g, ' ')
    }
    return undefined
  }
  const wwid = first('wwid')
  const vendor = first('vendor')
  const part = dir === sysfsDir ? undefined : readAttribute(sysfsDir, 'partition')
  const own = (text: string | undefined) =>
    text !== undefined && part !== undefined ? `${text}-part${part}` : text
  return {
    wwid: own(wwid),
    serial: own(first('serial')),
    vendor: vendor !== undefined && VENDOR_NUMBER.test(vendor) ? undefined : vendor,
    model: first('model'),
  }
}

/** The world-wide name of the block device at `path`, which need not be open; undefined where there is none. */
export function wwidAt(path: string): string | undefined {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (!stats?.isBlockDevice()) return undefined
  const { major, minor } = splitDeviceNumber(stats.rdev)
  const dir = sysfsDirOf(major, minor)
  return dir && readIdentity(dir, udevProperties(major, minor)).wwid
}
