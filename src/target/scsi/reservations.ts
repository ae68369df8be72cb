/**
 * RESERVE(6) and RELEASE(6) (SPC-2, 7.21 and 7.22): the whole unit, one holder. What a reservation keeps others from
 * is the device server's part, by the rows' `allow.reserved`. One object per logical unit; persistent reservations are another matter.
 */
import type { Nexus, Reservations } from './types.ts'

export class UnitReservations implements Reservations {
  #holder: Nexus | undefined

  get holder(): Nexus | undefined {
    return this.#holder
  }

  reserve(nexus: Nexus): boolean {
    if (this.#holder !== undefined && this.#holder !== nexus) return false
    this.#holder = nexus
    return true
  }

  release(nexus: Nexus): void {
    if (this.#holder === nexus) this.#holder = undefined
  }

  clear(nexus?: Nexus): void {
    if (nexus === undefined || this.#holder === nexus) this.#holder = undefined
  }
}
