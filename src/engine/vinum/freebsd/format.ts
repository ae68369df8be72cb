/**
 * A drive of FreeBSD's vinum (docs/vinum.md, 2): recognised, read, and nothing written but the removed magic at
 * the end of a conversion. vinum-class.ts tastes with it; freebsd/assembly.ts makes a model of several drives.
 */
import { PlexusError } from '../../../base/errors.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import { flush, readAt, writeAt } from '../../../hal/io.ts'
import type { AnchorTarget } from '../../anchor/anchor-ends.ts'
import { FREEBSD_DATA_OFFSET_BYTES, parseConfigText, type TextObject } from '../text/config.ts'
import {
  decodeFreebsdHeader,
  FREEBSD_HEADER_BYTES,
  FREEBSD_HEADER_OFFSET_BYTES,
  FREEBSD_TEXT_BYTES,
  FREEBSD_TEXT_OFFSETS_BYTES,
  type FreebsdHeader,
  type FreebsdTime,
  type FreebsdVariant,
  freebsdMagic,
} from './header.ts'

export interface FreebsdDrive {
  /** Where it was found: the name of the provider. */
  readonly device: string
  /** The drive's name is its identity: FreeBSD stores no other. */
  readonly driveName: string
  readonly hostName: string
  readonly birth: FreebsdTime
  readonly lastUpdate: FreebsdTime
  /** Of the medium. */
  readonly sizeBytes: number
  readonly variant: FreebsdVariant
  /** Taken out of its configuration: to be shown, never assembled. */
  readonly removed: boolean
  /** The copy that could be parsed, the first one before the second; undefined: neither. */
  readonly configText: string | undefined
  readonly objects: readonly TextObject[]
  /** Why the first copy, or both, could not be used. */
  readonly problem: PlexusError | undefined
  /** Words and states of the copy that nobody knows: passed over, taken to be down. */
  readonly warnings: readonly string[]
}

/**
 * The FreeBSD drive on a device, or undefined when it is none. Reads 132 KiB at most. Throws when the header
 * cannot be read.
 */
export async function freebsdDrive(device: AnchorTarget): Promise<FreebsdDrive | undefined> {
  const { sizeBytes, logicalBlockBytes } = device.geometry
  // The original works with sectors of 512 bytes only.
  if (logicalBlockBytes !== 512 || sizeBytes <= FREEBSD_DATA_OFFSET_BYTES) return undefined
  const block = allocateAligned(FREEBSD_HEADER_BYTES)
  await readAt(device, block, FREEBSD_HEADER_OFFSET_BYTES)
  const header = decodeFreebsdHeader(block.bytes)
  if (!header || header.driveName === '') return undefined
  const { driveName, hostName, birth, lastUpdate, variant, removed } = header
  const identity = { device: device.path, driveName, hostName, birth, lastUpdate, sizeBytes }
  return { ...identity, variant, removed, ...(await readTexts(device, header)) }
}

async function readTexts(
  device: AnchorTarget,
  header: FreebsdHeader,
): Promise<Pick<FreebsdDrive, 'configText' | 'objects' | 'problem' | 'warnings'>> {
  let problem: PlexusError | undefined
  // A copy that is read whole comes before one with words that nobody knows.
  for (const isLenient of [false, true]) {
    for (const [index, offset] of FREEBSD_TEXT_OFFSETS_BYTES.entries()) {
      try {
        const buffer = allocateAligned(FREEBSD_TEXT_BYTES)
        await readAt(device, buffer, offset)
        const end = buffer.bytes.indexOf(0)
        const length = Math.min(header.configBytes, end < 0 ? FREEBSD_TEXT_BYTES : end)
        const configText = buffer.bytes.toString('latin1', 0, length)
        const warnings: string[] = []
        const objects = parseConfigText(configText, {
          origin: `${device.path}, copy ${index + 1} of the configuration`,
          form: 'disk',
          isLenient,
          warn: (text) => warnings.push(text),
        })
        return { configText, objects, problem, warnings }
      } catch (error) {
        // A torn or unreadable copy: the original never looks at the second one.
        if (!(error instanceof PlexusError)) throw error
        problem ??= error
      }
    }
  }
  return { configText: undefined, objects: [], problem, warnings: [] }
}

/**
 * Marks the drive as removed, durably, so that neither FreeBSD nor Plexus takes it for one of FreeBSD's any more:
 * the last step of a conversion. No other byte changes. Without effect on a device that has no such header.
 */
export async function markFreebsdRemoved(device: AnchorTarget): Promise<void> {
  const block = allocateAligned(FREEBSD_HEADER_BYTES)
  await readAt(device, block, FREEBSD_HEADER_OFFSET_BYTES)
  const header = decodeFreebsdHeader(block.bytes)
  if (!header || header.removed) return
  freebsdMagic(header.variant, true).copy(block.bytes)
  await writeAt(device, block, FREEBSD_HEADER_OFFSET_BYTES)
  await flush(device)
}
