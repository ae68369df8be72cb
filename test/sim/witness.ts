/**
 * The folder in which the engine's sets keep their witnesses: it outlives the machine as the disks do, and has trouble of
 * its own. Part of the world (world.ts); trouble is made by episodes/witness.ts.
 */
import { PlexusError } from '../../src/base/errors.ts'
import type { WitnessStore } from '../../src/engine/metadata/witness.ts'
import type { SimRandom } from './random.ts'

const MEAN_MS = 2

/** What it needs of the world. */
interface Time {
  /** Resolves after some time; never, when the power goes first. */
  pause(ms: number): Promise<void>
}

export class SimWitness implements WitnessStore {
  readonly path = '/state/witness'
  /** `hung`: nothing is answered. */
  trouble: 'none' | 'unwritable' | 'hung' = 'none'
  #notes = new Map<string, string>()
  readonly #time: Time
  readonly #random: SimRandom

  constructor(time: Time, random: SimRandom) {
    this.#time = time
    this.#random = random
  }

  async read(setUuid: string): Promise<string | undefined> {
    await this.#answer()
    return this.#notes.get(setUuid)
  }

  async write(setUuid: string, note: string): Promise<void> {
    const early = this.#random.chance(0.5)
    // A power cut finds the old note or the new one.
    if (early && this.trouble === 'none') this.#notes.set(setUuid, note)
    await this.#answer()
    if (this.trouble === 'unwritable') {
      const message = 'the folder is read-only'
      throw new PlexusError('io', { op: 'write', subject: this.path, message })
    }
    this.#notes.set(setUuid, note)
  }

  /** All notes are gone, as the daemon sees it also when the folder was put back from a backup. */
  lose(): void {
    this.#notes.clear()
  }

  /** For {@link restore}. */
  image(): ReadonlyMap<string, string> {
    return new Map(this.#notes)
  }

  /** Old notes that nobody knows to be old: what the daemon must not let happen. */
  restore(image: ReadonlyMap<string, string>): void {
    this.#notes = new Map(image)
  }

  async #answer(): Promise<void> {
    await this.#time.pause(this.#random.exponential(MEAN_MS))
    while (this.trouble === 'hung') await this.#time.pause(1000)
  }
}
