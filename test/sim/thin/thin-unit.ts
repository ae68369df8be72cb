/**
 * A thin device as its user sees it (unit.ts). What nobody has written reads as zeroes, never as what its disks held
 * before; a write may find no space, and does not wait for ever; and what was acknowledged and not flushed is
 * lost with the process, which has the map of it in memory.
 */
import type { PlexusError } from '../../../src/base/errors.ts'
import type { Provider } from '../../../src/engine/geom/provider.ts'
import { ZERO } from '../answers.ts'
import { type Operation, Unit } from '../unit.ts'
import type { World } from '../world.ts'

/** Disks that hang, and ranges that others hold, come before the wait for space. */
const WAIT_SLACK_MS = 300_000

export class ThinUnit extends Unit {
  readonly #fullWaitMs: number

  /** `fullWaitMs`: how long a write waits for space. */
  constructor(world: World, name: string, uuid: string, provider: Provider, fullWaitMs: number) {
    super(world, name, uuid, provider, ZERO)
    this.#fullWaitMs = fullWaitMs
  }

  override get mayFail(): boolean {
    return super.mayFail
  }

  /** While components come and go, what was not flushed may be lost at any moment; the next flush has to say so. */
  override set mayFail(value: boolean) {
    super.mayFail = value
    if (this.oracle.isDoubtful && !value) this.oracle.cut(false)
    this.oracle.isDoubtful = value
  }

  override afterKill(): void {
    this.oracle.cut(false)
    super.afterKill()
  }

  override afterCacheLost(): void {}

  protected override mayEnd(error: PlexusError, operation: Operation): boolean {
    return (
      super.mayEnd(error, operation) ||
      this.#isFull(error, operation) ||
      this.#isLost(error, operation)
    )
  }

  /** A medium error: part of it was given up, now or when it began. */
  #isLost({ kind }: PlexusError, { offset, length, mayBeLost }: Operation): boolean {
    return kind === 'corrupt' && (mayBeLost || this.oracle.mayBeLost(offset, length))
  }

  /** `exhausted`: to be sent again, as others wait already. A discard of a part of what is lost is a write. */
  #isFull({ kind }: PlexusError, { op, startMs, mayBeLost }: Operation): boolean {
    const isKind = kind === 'no-space' || kind === 'exhausted'
    const waitedMs = this.world.nowMs - startMs
    return isKind && (op === 'write' || mayBeLost) && waitedMs <= this.#fullWaitMs + WAIT_SLACK_MS
  }
}
