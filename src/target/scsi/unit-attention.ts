/**
 * What a logical unit has to tell each I_T nexus (SAM-5, 5.14): unit attention conditions in order of precedence, without
 * duplicates and bounded, and one deferred error. Owned by logical-unit.ts.
 */
import { UNIT_ATTENTIONS } from '../../base/limits.ts'
import { ASC } from './sense.ts'
import type { AscCode, DeferredError, LogicalUnit, Nexus } from './types.ts'

interface NexusState {
  readonly nexus: Nexus
  readonly attentions: AscCode[]
  deferredError: DeferredError | undefined
}

/** 29/xx, power on and resets, come before everything else (SAM-5, 5.3.3). */
function isReset(code: AscCode): boolean {
  return code >>> 8 === 0x29
}

/**
 * The next unit attention to tell a nexus, taken. What one unit tells of the list of LUNs is told for all of them (LUICLR of VPD 86h).
 */
export function tellUnitAttention(unit: LogicalUnit, nexus: Nexus): AscCode | undefined {
  const code = unit.takeUnitAttention(nexus)
  if (code === ASC.REPORTED_LUNS_DATA_HAS_CHANGED) forgetLunsChanged(nexus)
  return code
}

/** The nexus has read the list of its LUNs, or knows of the change: no unit need tell it (SAM-5, 5.14). */
export function forgetLunsChanged(nexus: Nexus): void {
  for (const { unit } of nexus.luns.values()) {
    unit.clearUnitAttention(ASC.REPORTED_LUNS_DATA_HAS_CHANGED, nexus)
  }
}

export class UnitAttentions {
  readonly #byNexus = new Map<number, NexusState>()
  /** Attentions and deferred errors of all nexuses, so that the common case costs one comparison. */
  #pending = 0

  attach(nexus: Nexus): boolean {
    if (this.#byNexus.has(nexus.id)) return false
    this.#byNexus.set(nexus.id, { nexus, attentions: [], deferredError: undefined })
    return true
  }

  isAttached(nexus: Nexus): boolean {
    return this.#byNexus.has(nexus.id)
  }

  detach(nexus: Nexus): void {
    const state = this.#byNexus.get(nexus.id)
    if (!state) return
    this.#pending -= state.attentions.length + (state.deferredError ? 1 : 0)
    this.#byNexus.delete(nexus.id)
  }

  establish(code: AscCode, nexus: Nexus): void {
    const state = this.#byNexus.get(nexus.id)
    if (state) this.#add(state, code)
  }

  establishForAll(code: AscCode, except?: Nexus): void {
    for (const state of this.#byNexus.values()) {
      if (state.nexus !== except) this.#add(state, code)
    }
  }

  has(nexus: Nexus): boolean {
    return this.#pending > 0 && (this.#byNexus.get(nexus.id)?.attentions.length ?? 0) > 0
  }

  take(nexus: Nexus): AscCode | undefined {
    if (this.#pending === 0) return undefined
    const code = this.#byNexus.get(nexus.id)?.attentions.shift()
    if (code !== undefined) this.#pending--
    return code
  }

  /** As `take`, but only 29/xx. */
  takeReset(nexus: Nexus): AscCode | undefined {
    if (this.#pending === 0) return undefined
    const first = this.#byNexus.get(nexus.id)?.attentions[0]
    return first !== undefined && isReset(first) ? this.take(nexus) : undefined
  }

  clear(code: AscCode, nexus: Nexus): void {
    const list = this.#byNexus.get(nexus.id)?.attentions ?? []
    const at = list.indexOf(code)
    if (at === -1) return
    list.splice(at, 1)
    this.#pending--
  }

  /** Keeps the first of several deferred errors: that is where the initiator has to begin to look. */
  defer(nexus: Nexus, deferred: DeferredError): void {
    const state = this.#byNexus.get(nexus.id)
    if (!state || state.deferredError) return
    state.deferredError = deferred
    this.#pending++
  }

  takeDeferred(nexus: Nexus): DeferredError | undefined {
    if (this.#pending === 0) return undefined
    const state = this.#byNexus.get(nexus.id)
    const deferred = state?.deferredError
    if (!state || !deferred) return undefined
    state.deferredError = undefined
    this.#pending--
    return deferred
  }

  /** Resets come first, the rest in order of arrival; beyond the bound the newest of the rest is lost. */
  #add(state: NexusState, code: AscCode): void {
    const list = state.attentions
    if (list.includes(code)) return
    if (isReset(code)) {
      const at = list.findIndex((other) => !isReset(other))
      list.splice(at === -1 ? list.length : at, 0, code)
    } else {
      list.push(code)
    }
    this.#pending++
    if (list.length > UNIT_ATTENTIONS) {
      list.pop()
      this.#pending--
    }
  }
}
