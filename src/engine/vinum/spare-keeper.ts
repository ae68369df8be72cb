/**
 * Decides when spares do something (docs/vinum.md, 10.2): looks at each set after every commit, and from time to time, and
 * carries out what is due as a verb is carried out: planned on the newest configuration, durable first. What there is to do
 * follows from the configuration alone (model/spare-needs.ts), so that nothing is forgotten over a restart; only how long it
 * has been so begins anew. Also tests spares that stand idle. Part of vinum-class.ts.
 */
import type { Timer } from '../../base/clock.ts'
import { operatingError, PlexusError } from '../../base/errors.ts'
import {
  PAGE_BYTES,
  SPARE_FIRST_TEST_MS,
  SPARE_LOOK_MS,
  SPARE_RETRY_MS,
  SPARE_TEST_MS,
  SPARE_WEAK_READS,
} from '../../base/limits.ts'
import { SPARE_SPECS } from '../../control/spare-verbs.ts'
import type { VerbSpec } from '../../control/verb-spec.ts'
import { flush, readAt, writeAt } from '../../hal/io.ts'
import { withLease } from '../jobs/slices.ts'
import { alignedPart, alignmentOf, freeExtents } from './model/allocation.ts'
import { byUuid, type SubdiskRecord, type VinumModel } from './model/model.ts'
import {
  type NeedFacts,
  type SpareNeed,
  type SpareNeedKind,
  spareNeeds,
} from './model/spare-needs.ts'
import { type SpareState, spareStateOf, sparesOf, withBroken } from './model/spares.ts'
import type { VinumSet } from './set/vinum-set.ts'
import type { Draft } from './verbs/draft.ts'
import { copyBack, putBack, replaceSpare, useSpare } from './verbs/spare-plans.ts'

/** Carries out what `work` does to a draft of the set's configuration, as the verb `spec`. Inside a topology change. */
type CarryOut = (set: VinumSet, spec: VerbSpec, work: (draft: Draft) => void) => Promise<unknown>

const WORK: Readonly<Record<SpareNeedKind, (draft: Draft, subdisk: SubdiskRecord) => void>> = {
  'put-back': putBack,
  'replace-spare': replaceSpare,
  'step-in': useSpare,
  'copy-back': copyBack,
  'copy-away': useSpare,
}
/** After these what is in the place of a column counts as nothing, and all of it has to be filled. */
const UNFILLING: ReadonlySet<SpareNeedKind> = new Set(['put-back', 'replace-spare'])
/** What was tried and given up is not tried again at once: so long after that of the second row, unless a drive has come back. */
const HELD_BY: Readonly<Partial<Record<SpareNeedKind, SpareNeedKind>>> = {
  'step-in': 'put-back',
  'copy-away': 'copy-away',
}

export class SpareKeeper {
  readonly #carryOut: CarryOut
  readonly #sets = new WeakMap<VinumSet, SetSpares>()

  constructor(carryOut: CarryOut) {
    this.#carryOut = carryOut
  }

  /** Something has changed in a set. */
  poke(set: VinumSet): void {
    const known = this.#sets.get(set)
    if (!known && !set.model.pools) return
    const spares = known ?? new SetSpares(set, this.#carryOut)
    this.#sets.set(set, spares)
    spares.poke()
  }
}

class SetSpares {
  readonly #set: VinumSet
  readonly #carryOut: CarryOut
  /** A look is queued: whatever changes before it begins is seen by it. */
  #isPending = false
  /** By need and column: since when it is so. */
  readonly #since = new Map<string, number>()
  /** By need and column: when it was done last, and how many drives had come back by then. */
  readonly #done = new Map<string, { readonly atMs: number; readonly arrivals: number }>()
  /** By column: why nothing could be done, as it was told last. */
  readonly #told = new Map<string, string>()
  readonly #states = new Map<string, SpareState>()
  /** By drive: when it was tested last, or would have been. */
  readonly #tested = new Map<string, number>()
  #due: Timer | undefined
  #looks: Timer | undefined

  constructor(set: VinumSet, carryOut: CarryOut) {
    this.#set = set
    this.#carryOut = carryOut
  }

  readonly poke = (): void => {
    const set = this.#set
    if (!set.assembled || set.failure || !set.model.pools) this.#rest()
    else {
      this.#looks ??= set.clock.every(SPARE_LOOK_MS, this.poke)
      if (this.#isPending) return
      this.#isPending = true
      set.soon('a look at the spares', () => this.#look())
    }
  }

  #rest(): void {
    this.#due?.cancel()
    this.#looks?.cancel()
    this.#looks = undefined
  }

  get #facts(): NeedFacts {
    const { drives } = this.#set
    return {
      isPresent: (uuid) => drives.get(uuid)?.present ?? false,
      isWeak: (uuid) => (drives.get(uuid)?.errors.read ?? 0) >= SPARE_WEAK_READS,
    }
  }

  /** Does the first thing that is due; the commit that it makes is the occasion of the next look. */
  async #look(): Promise<void> {
    this.#isPending = false
    const { model, clock } = this.#set
    this.#tellStates(model)
    const needs = spareNeeds(model, this.#facts)
    this.#forget(needs)
    const nowMs = clock.nowMs()
    let nextMs = Number.POSITIVE_INFINITY
    for (const need of needs) {
      const dueMs = this.#dueMs(need, nowMs)
      if (dueMs > nowMs) nextMs = Math.min(nextMs, dueMs)
      else if (await this.#act(need)) return
    }
    await this.#testOne(nowMs)
    this.#due?.cancel()
    if (nextMs < Number.POSITIVE_INFINITY) {
      this.#due = clock.after(nextMs - nowMs, this.poke)
    }
  }

  /** What is over is not waited for any more. */
  #forget(needs: readonly SpareNeed[]): void {
    const keys = new Set(needs.map(keyOf))
    const columns = new Set(needs.map(({ column }) => column))
    for (const key of this.#since.keys()) if (!keys.has(key)) this.#since.delete(key)
    for (const column of this.#told.keys()) if (!columns.has(column)) this.#told.delete(column)
  }

  #dueMs(need: SpareNeed, nowMs: number): number {
    const key = keyOf(need)
    const sinceMs = this.#since.get(key) ?? nowMs
    this.#since.set(key, sinceMs)
    const before = HELD_BY[need.kind]
    const done = before && this.#done.get(keyOf({ ...need, kind: before }))
    const isHeld = done && done.arrivals === this.#set.arrivals
    return Math.max(sinceMs + need.delaySeconds * 1000, isHeld ? done.atMs + SPARE_RETRY_MS : 0)
  }

  /** False: nothing has changed. What is in the way is told once; the next look may find it gone. */
  async #act(need: SpareNeed): Promise<boolean> {
    const set = this.#set
    const { kind, subdiskUuid, column } = need
    const subdisk = byUuid(set.model.subdisks, subdiskUuid)
    try {
      if (UNFILLING.has(kind)) await this.#markAll(subdisk)
      const spec: VerbSpec = { ...SPARE_SPECS.use, name: kind }
      await this.#carryOut(set, spec, (draft) => {
        // A commit in between may have changed it.
        const found = spareNeeds(draft.model, this.#facts).find(
          (one) => one.subdiskUuid === subdiskUuid && one.kind === kind,
        )
        const newest = byUuid(draft.model.subdisks, subdiskUuid)
        if (!found || !newest) throw overError(column)
        WORK[kind](draft, newest)
      })
      this.#done.set(keyOf(need), { atMs: set.clock.nowMs(), arrivals: set.arrivals })
      this.#since.delete(keyOf(need))
      return true
    } catch (error) {
      if (!(error instanceof PlexusError)) throw error
      const name = subdisk?.name ?? column
      set.log.info({ err: error, subdisk: name, kind }, 'a spare cannot do its work now')
      if (error.kind !== 'aborted' && this.#told.get(column) !== error.message) {
        this.#told.set(column, error.message)
        set.topology.events.emit('warning', 'spare-waits', name, error.message)
      }
      return false
    }
  }

  async #markAll(subdisk: SubdiskRecord | undefined): Promise<void> {
    const map = this.#set.objects.volumeAbove(subdisk?.plexUuid)?.map
    await map?.mark(0, map.sizeBytes)
  }

  /** Events for spares that come into another state, for whatever reason. */
  #tellStates(model: VinumModel): void {
    for (const spare of sparesOf(model)) {
      const { driveUuid, broken } = spare
      const state = spareStateOf(model, spare)
      const before = this.#states.get(driveUuid)
      this.#states.set(driveUuid, state)
      if (before === undefined || before === state) continue
      const name = byUuid(model.drives, driveUuid)?.name ?? driveUuid
      const isBroken = state === 'broken'
      const why = isBroken ? `: ${broken ?? 'its drive is out of service'}` : ''
      const text = `spare ${name} is ${state}${why}`
      const severity = isBroken ? 'critical' : 'info'
      this.#set.topology.events.emit(severity, `spare-${state}`, name, text)
    }
    const there = new Set(sparesOf(model).map(({ driveUuid }) => driveUuid))
    for (const uuid of this.#states.keys()) {
      if (!there.has(uuid)) this.#states.delete(uuid)
    }
  }

  // Tests of idle spares.

  /** Tests one spare, where a test is due. Nothing else can want it meanwhile: what uses spares waits for its turn, too. */
  async #testOne(nowMs: number): Promise<void> {
    const { model, drives } = this.#set
    for (const spare of sparesOf(model)) {
      const { driveUuid } = spare
      const lastMs = this.#tested.get(driveUuid) ?? nowMs + SPARE_FIRST_TEST_MS - SPARE_TEST_MS
      this.#tested.set(driveUuid, lastMs)
      const isIdle = spareStateOf(model, spare) === 'available' && drives.get(driveUuid)?.present
      if (!isIdle || nowMs - lastMs < SPARE_TEST_MS) continue
      this.#tested.set(driveUuid, nowMs)
      return this.#test(driveUuid)
    }
  }

  async #test(driveUuid: string): Promise<void> {
    const set = this.#set
    const reason = await this.#trouble(driveUuid)
    if (reason === undefined) return
    await set.commit((model) => withBroken(model, driveUuid, reason)).catch(operatingError)
  }

  /** Writes a block at the end of the free space of a spare, and reads it. Resolves to why that failed. */
  async #trouble(driveUuid: string): Promise<string | undefined> {
    const { model, drives, topology } = this.#set
    const drive = byUuid(model.drives, driveUuid)
    const consumer = drives.get(driveUuid)?.consumer
    const extent = drive && freeExtents(model, drive).at(-1)
    if (!drive || !consumer || !extent) return undefined
    const { offset, length } = alignedPart(extent, alignmentOf(drive))
    const blockBytes = Math.max(PAGE_BYTES, drive.blockBytes)
    if (length < blockBytes) return undefined
    const at = offset + length - blockBytes
    const text = topology.random.bytes(blockBytes)
    try {
      return await withLease(topology.pool, blockBytes, async (lease) => {
        text.copy(lease.bytes)
        await writeAt(consumer, lease, at)
        await flush(consumer)
        lease.bytes.fill(0)
        await readAt(consumer, lease, at)
        return lease.bytes.equals(text) ? undefined : 'a test reads another thing than it wrote'
      })
    } catch (error) {
      const { kind, message } = operatingError(error)
      // Its return, or the next test, tells more.
      return kind === 'gone' || kind === 'aborted' ? undefined : `a test failed: ${message}`
    }
  }
}

function keyOf({ kind, column }: SpareNeed): string {
  return `${kind} ${column}`
}

function overError(column: string): PlexusError {
  const message = `column ${column} needs it no more`
  return new PlexusError('aborted', { op: 'spare', subject: column, message })
}
