/**
 * Whose is the label on a device that a LUN exports as it is: an initiator's, which runs Plexus or vinum on its LUN, or
 * this machine's own, of a set whose data initiators would write over? docs/adr/0008-whose-label.md has the rule. Asked
 * by device-slots.ts (who takes the device), unit-slots.ts (is it served) and `--check`.
 *
 *   no label                                          served; that it was blank is remembered
 *   its set is known here from other devices          not served
 *   remembered as blank, or `label: initiator`        served
 *   anything else, or it cannot be read               not served
 */
import { realpathSync, statSync } from 'node:fs'
import type { Clock } from '../base/clock.ts'
import { withinTime } from '../base/deadline.ts'
import { PlexusError } from '../base/errors.ts'
import { LABEL_READ_MS } from '../base/limits.ts'
import type { Logger } from '../base/log.ts'
import type { AnchorTarget } from '../engine/anchor/anchor-ends.ts'
import { type Label, readLabel } from '../engine/geom/label.ts'
import type { GeomClass } from '../engine/geom/types.ts'
import type { BlockDevice, DeviceIdentity } from '../hal/block-device.ts'
import type { DeviceConfig } from './config.ts'
import { type IdentityDraft, markOf } from './identity-draft.ts'
import type { IdentityStore } from './identity-store.ts'

/** A device that must not be served as it is: `message` says what is on it, `action` what to type. */
export class ExportRefused extends PlexusError {
  readonly action: string

  constructor(device: string, why: string, action: string, cause?: unknown) {
    super('foreign', {
      op: 'export',
      subject: device,
      message: `device ${device} is not exported: ${why}`,
      cause,
    })
    this.action = action
  }
}

export interface ExportGuardOptions {
  readonly classes: readonly GeomClass[]
  readonly identities: Pick<IdentityStore, 'isLent' | 'change'>
  readonly clock: Clock
  readonly log: Logger
}

export class ExportGuard {
  readonly #options: ExportGuardOptions

  constructor(options: ExportGuardOptions) {
    this.#options = options
  }

  /**
   * Does a device that has just opened belong to a set of this machine, so that the LUN that names it is a mistake? Then
   * its set may have it: it would otherwise run with a drive less until somebody looks.
   */
  async belongsHere(config: DeviceConfig, device: BlockDevice): Promise<boolean> {
    if (this.#isInitiators(config, device.identity)) return false
    try {
      return (await this.#labelOn(device))?.known === true
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      return false
    }
  }

  /** A device that no LUN names is this machine's own: what is put on it from now on says nothing of initiators. */
  async takeBack(config: DeviceConfig, identity: DeviceIdentity): Promise<void> {
    const { identities } = this.#options
    const disk = evidenceOf(config.path, identity)
    if (disk === undefined || !identities.isLent(disk)) return
    await identities.change((draft) => draft.takeBack(disk))
  }

  /** Throws {@link ExportRefused} when initiators must not have the device. True: it carries no label. */
  async check(
    config: DeviceConfig,
    device: AnchorTarget & Pick<BlockDevice, 'identity'>,
  ): Promise<boolean> {
    const isInitiators = this.#isInitiators(config, device.identity)
    let label: Label | undefined
    try {
      label = await this.#labelOn(device)
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      if (isInitiators) return false
      throw unreadable(config, error)
    }
    if (!label) return true
    if (label.known) throw ownLabel(config, label)
    if (!isInitiators) throw doubtfulLabel(config, label)
    return false
  }

  /** Notes in the draft that the device, identified under its name, had no label when it was exported. */
  lend(draft: IdentityDraft, config: DeviceConfig, identity: DeviceIdentity): void {
    const disk = evidenceOf(config.path, identity)
    if (disk !== undefined && !this.#options.identities.isLent(disk)) draft.lend(config.name, disk)
  }

  /** One disk that hangs must not keep the others from being served. */
  async #labelOn(device: AnchorTarget): Promise<Label | undefined> {
    const { classes, clock } = this.#options
    let label: Label | undefined
    const read = readLabel(device, classes).then((found) => {
      label = found
    })
    if (await withinTime(clock, read, LABEL_READ_MS)) return label
    throw new PlexusError('timeout', {
      op: 'read',
      subject: device.path,
      message: `${device.path} did not answer within ${LABEL_READ_MS / 1000} s`,
    })
  }

  #isInitiators(config: DeviceConfig, identity: DeviceIdentity): boolean {
    if (config.label === 'initiator') return true
    const disk = evidenceOf(config.path, identity)
    return disk !== undefined && this.#options.identities.isLent(disk)
  }
}

/**
 * What tells a disk from every other, whatever it is called: its own mark, or the true path of an image file. undefined
 * for a nameless device, whose path may be another disk's after the next start.
 */
function evidenceOf(path: string, identity: DeviceIdentity): string | undefined {
  const mark = markOf(identity)
  if (mark !== undefined) return mark
  try {
    return statSync(path).isFile() ? `file:${realpathSync(path)}` : undefined
  } catch {
    return undefined
  }
}

/** What is on it, and which LUN to write instead. */
function carries({ text, volumes }: Label): string {
  if (volumes.length === 0) return `it carries ${text}`
  return `it carries ${text}, with data of volume ${volumes.join(', ')}`
}

function mapInstead({ volumes }: Label): string {
  return `Map the volume instead (volume: ${volumes[0] ?? 'NAME'})`
}

function ownLabel({ name }: DeviceConfig, label: Label): ExportRefused {
  const { takeOut } = label
  const out = takeOut === undefined ? '' : `, or take the drive out of its set (${takeOut})`
  return new ExportRefused(
    name,
    `${carries(label)}; other devices of this machine belong to this set, and initiators would write over it`,
    `${mapInstead(label)}${out}; a label that no set uses: plexus device clear-label ${name}`,
  )
}

function doubtfulLabel({ name, path }: DeviceConfig, label: Label): ExportRefused {
  return new ExportRefused(
    name,
    `${carries(label)}, and nothing shows that an initiator put it there`,
    `${mapInstead(label)}, or clear the label (plexus device clear-label ${name}), or, if it is an initiator's, say so in the configuration: ${name}: { path: ${path}, label: initiator }`,
  )
}

function unreadable({ name }: DeviceConfig, cause: PlexusError): ExportRefused {
  return new ExportRefused(
    name,
    `it cannot be seen whether it carries a label: ${cause.message}`,
    'It is tried again from time to time; replace the disk if it does not recover',
    cause,
  )
}
