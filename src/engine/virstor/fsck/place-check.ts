/**
 * Who has which place: the map, its reverse, and the count of what is free, against each other in memory, some thousand
 * places in a turn of the event loop. Requests go on: a place may be on its way from one to the other, and whoever holds it
 * meanwhile says so.
 */
import { VIRSTOR_DISCARD_CHUNKS } from '../../../base/limits.ts'
import { nextTurn } from '../../../base/turns.ts'
import type { VirstorDevice } from '../device.ts'
import type { ComponentSpace } from '../io/space.ts'
import { BAD_COMPONENT } from '../map/chunk-map.ts'
import { FREE, MAP } from '../map/owners.ts'
import type { Place } from '../runtime.ts'
import type { Findings } from './findings.ts'

const RESTART = 'stop the device and assemble it: a start makes this anew from the map on disk'

export class PlaceCheck {
  readonly #device: VirstorDevice
  readonly #findings: Findings
  readonly #nameOf: (component: number) => string
  readonly #isGivenUp: (component: number) => boolean

  constructor(
    device: VirstorDevice,
    findings: Findings,
    options: { nameOf(component: number): string; isGivenUp(component: number): boolean },
  ) {
    this.#device = device
    this.#findings = findings
    this.#nameOf = options.nameOf
    this.#isGivenUp = options.isGivenUp
  }

  async run(): Promise<void> {
    const { table, space } = this.#device
    await inPieces(table.chunks, (chunk) => this.#checkChunk(chunk))
    for (const one of space.components) {
      const { id } = one.component
      await inPieces(one.total, (number) => {
        // It may go from the device meanwhile.
        if (space.component(id)) this.#checkPlace({ component: id, number })
      })
      this.#checkCount(one)
    }
    this.#tellFaults()
  }

  #checkChunk(chunk: number): void {
    const { table, space } = this.#device
    const component = table.componentOf(chunk)
    if (component === 0 || component === BAD_COMPONENT) return
    const number = table.numberOf(chunk)
    const on = space.component(component)
    if (!on || number >= on.chunks) {
      this.#tell(component, `chunk ${chunk} has place ${number}, which does not exist`)
      return
    }
    const owner = table.ownerOf({ component, number })
    if (owner === chunk) return
    const whose = owner === FREE ? 'nobody' : owner === MAP ? 'the map' : `chunk ${owner}`
    this.#tell(component, `chunk ${chunk} has place ${number}, which is also that of ${whose}`)
  }

  #checkPlace(place: Place): void {
    const { table, space } = this.#device
    const { component, number } = place
    const owner = table.ownerOf(place)
    if (space.isFree(place)) {
      if (owner !== FREE) this.#tell(component, `place ${number} is in use, and counts as free`)
      return
    }
    const hasOwner =
      owner === MAP ||
      (owner !== FREE && table.componentOf(owner) === component && table.numberOf(owner) === number)
    // A component that is being given up goes with its places.
    if (hasOwner || this.#isGivenUp(component) || this.#isOnItsWay(place)) return
    this.#findings.add({
      area: 'places',
      severity: 'warning',
      object: this.#nameOf(component),
      message: `place ${number} is neither free nor does a chunk have it`,
      action: RESTART,
    })
  }

  /** Between two owners: who has let go of it, or is about to take it, holds it. */
  #isOnItsWay(place: Place): boolean {
    const { table, space, io } = this.#device
    return (
      table.isReleased(place) ||
      io.isDraining(place) ||
      io.trimmer.holds(place) ||
      isSame(place, space.moving)
    )
  }

  #checkCount(one: ComponentSpace): void {
    const counted = one.countFree()
    if (counted === one.free) return
    this.#tell(one.component.id, `${counted} places are free, and ${one.free} are counted`)
  }

  /** Found at the start, and out of service since. */
  #tellFaults(): void {
    const { table } = this.#device
    for (const { chunk, entry, reason } of table.faults) {
      this.#findings.add({
        area: 'entries',
        severity: 'critical',
        object: entry.component === 0 ? 'map' : this.#nameOf(entry.component),
        message: `chunk ${chunk} is out of service: ${reason}`,
        action: 'restore this part of the device from a backup',
      })
    }
  }

  #tell(component: number, message: string): void {
    this.#findings.add({
      area: 'places',
      severity: 'critical',
      object: this.#nameOf(component),
      message,
      action: RESTART,
    })
  }
}

function isSame(place: Place, other: Place | undefined): boolean {
  return place.component === other?.component && place.number === other.number
}

/** Numbers from 0 to below `count`, some thousand in a turn of the event loop. */
async function inPieces(count: number, look: (number: number) => void): Promise<void> {
  for (let from = 0; from < count; from += VIRSTOR_DISCARD_CHUNKS) {
    const end = Math.min(from + VIRSTOR_DISCARD_CHUNKS, count)
    for (let number = from; number < end; number++) look(number)
    await nextTurn()
  }
}
