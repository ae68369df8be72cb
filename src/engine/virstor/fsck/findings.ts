/** What `virstor fsck` has found. */
import type { PlexusError } from '../../../base/errors.ts'
import { VIRSTOR_FSCK_FINDINGS } from '../../../base/limits.ts'
import type { FsckFinding } from '../../../control/virstor-verbs.ts'

interface Found {
  /** Part of what is checked: what one repair is about. */
  readonly area: string
  readonly severity: FsckFinding['severity']
  readonly object: string
  readonly message: string
  /** What `--repair` does about it; absent: it does nothing, and `action` says what to do. */
  readonly repair?: string
  readonly action?: string
}

export class Findings {
  /** For messages: the device. */
  readonly #name: string
  readonly #list: (Found & { repaired: boolean })[] = []
  #count = 0
  #failure: PlexusError | undefined

  constructor(name: string) {
    this.#name = name
  }

  /** How many there are: more than {@link VIRSTOR_FSCK_FINDINGS} are only counted. */
  get count(): number {
    return this.#count
  }

  add(found: Found): void {
    this.#count++
    if (this.#list.length < VIRSTOR_FSCK_FINDINGS) this.#list.push({ ...found, repaired: false })
  }

  has(area: string): boolean {
    return this.#list.some((one) => one.area === area)
  }

  markRepaired(isMeant: (found: Found) => boolean): void {
    for (const one of this.#list) if (isMeant(one)) one.repaired = true
  }

  /** A repair could not be written. */
  failed(error: PlexusError): void {
    this.#failure ??= error
  }

  report(): readonly FsckFinding[] {
    return this.#list.map(({ severity, object, message, repair, action, repaired }) => ({
      severity,
      object,
      message,
      repaired,
      action: repaired ? '' : this.#actionOf(repair, action),
    }))
  }

  #actionOf(repair: string | undefined, action: string | undefined): string {
    if (repair === undefined) return action ?? ''
    if (this.#failure) return `the repair failed: ${this.#failure.message}; look at the disk`
    return `plexus virstor fsck ${this.#name} --repair: ${repair}`
  }
}
