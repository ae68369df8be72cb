/** The labels of all components: are they there, and do they have the configuration that is served? */
import { operatingError, type PlexusError } from '../../../base/errors.ts'
import { allocateAligned } from '../../../hal/aligned-pool.ts'
import { readAt } from '../../../hal/io.ts'
import { decodeAnchor } from '../../anchor/anchor-codec.ts'
import { findLabel, readFront } from '../../anchor/anchor-find.ts'
import { AnchoredDevice } from '../../anchor/anchored-device.ts'
import type { Consumer } from '../../geom/consumer.ts'
import type { SetDrive } from '../../metadata/set-drive.ts'
import type { VirstorSet } from '../virstor-set.ts'
import type { Findings } from './findings.ts'

/** How often a label is read while commits go on. */
const LOOKS = 5

export class LabelCheck {
  readonly #set: VirstorSet
  readonly #findings: Findings
  readonly #repairs: boolean
  components = 0

  constructor(set: VirstorSet, findings: Findings, { repairs }: { readonly repairs: boolean }) {
    this.#set = set
    this.#findings = findings
    this.#repairs = repairs
  }

  async run(): Promise<void> {
    const set = this.#set
    // It may fail, or be stopped, meanwhile.
    if (!set.assembled) return
    for (const drive of set.model.components.map((component) => set.driveOf(component))) {
      if (!this.#isComponent(drive)) continue
      this.components++
      if (drive.consumer && drive.record.state === 'up') {
        await this.#checkLabel(drive, drive.consumer)
        continue
      }
      this.#findings.add({
        area: 'component',
        severity: 'warning',
        object: drive.record.name,
        message: drive.present
          ? 'it has an older state than the others, and is not used'
          : 'it is missing: what lies there cannot be read or written',
        action: 'connect the right disk',
      })
    }
    if (!this.#repairs || !this.#findings.has('label') || !set.assembled) return
    try {
      for (const { label } of set.drives.values()) await label?.settle()
      await set.commit((model) => ({ ...model }))
      await set.idle()
      this.#findings.markRepaired(({ area }) => area === 'label')
    } catch (error) {
      this.#findings.failed(operatingError(error))
    }
  }

  /** A component may be removed while labels are read. */
  #isComponent({ record }: SetDrive): boolean {
    const set = this.#set
    return set.assembled && set.model.components.some(({ driveUuid }) => driveUuid === record.uuid)
  }

  async #checkLabel(drive: SetDrive, consumer: Consumer): Promise<void> {
    const { name } = drive.record
    for (let look = 0; look < LOOKS; look++) {
      await this.#set.idle()
      if (!this.#isComponent(drive)) return
      const { generation } = this.#set.model
      const problem = await problemOf(consumer, generation).catch(operatingError)
      if (!problem) return
      // A commit may have changed it while it was read, and be under way still.
      await this.#set.idle()
      if (!this.#isComponent(drive)) return
      if (this.#set.model.generation !== generation) continue
      const isError = 'kind' in problem
      this.#findings.add({
        area: isError || problem.action === undefined ? 'label' : 'end of label',
        severity: 'warning',
        object: name,
        message: `its label ${isError ? `cannot be read: ${problem.message}` : problem.text}`,
        ...(isError || problem.action === undefined
          ? { repair: 'the configuration is written to all components again' }
          : { action: problem.action.replaceAll('NAME', consumer.provider.name) }),
      })
      return
    }
  }
}

/** What is the matter with a label; without an action, writing the configuration again mends it. */
async function problemOf(
  consumer: Consumer,
  generation: number,
): Promise<{ readonly text: string; readonly action?: string } | PlexusError | undefined> {
  const found = await findLabel(consumer)
  if (!found) return { text: 'is not there any more', action: 'see what has written over NAME' }
  if (found.problem) return found.problem
  if (!(await hasEnd(consumer))) return { text: 'has no anchor in the last block' }
  if (!(await readFront(consumer))) return { text: 'has no front copy' }
  const slot = await AnchoredDevice.open(consumer, found.anchor).read()
  if (slot?.generation === generation && !slot.damaged) return undefined
  return { text: `has generation ${slot?.generation ?? 0} of the configuration, not ${generation}` }
}

async function hasEnd(consumer: Consumer): Promise<boolean> {
  const { sizeBytes, logicalBlockBytes } = consumer.geometry
  const block = allocateAligned(logicalBlockBytes)
  await readAt(consumer, block, sizeBytes - logicalBlockBytes)
  return decodeAnchor(block.bytes, consumer.path) !== undefined
}
