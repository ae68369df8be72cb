/**
 * What a nop geom does to the next request: pure but for the random numbers that it is given. Set by the verbs
 * of nop-class.ts, asked by nop-geom.ts for each request.
 */
import { assert } from '../../base/assert.ts'
import type { Random } from '../../base/random.ts'
import type { NopFailKind, NopFailOp } from '../../control/nop-verbs.ts'
import type { Facts } from '../../control/reports.ts'
import type { IoOp } from '../../hal/block-device.ts'

interface Fault {
  readonly op: NopFailOp
  readonly kind: NopFailKind
  readonly probability: number
  /** undefined: until clear. */
  left: number | undefined
}

export interface Verdict {
  /** Infinity: until {@link FaultPlan.clear}. */
  readonly delayMs: number
  /** Fail with it, and do nothing. */
  readonly fail: NopFailKind | undefined
  /** Store only so many bytes of a write. */
  readonly storedBytes: number | undefined
  /** A torn write is reported as done. */
  readonly isSilent: boolean
}

export class FaultPlan {
  readonly #random: Random
  #readDelayMs = 0
  #writeDelayMs = 0
  #faults: Fault[] = []
  #hangs: readonly IoOp[] = []
  #tears: { left: number; readonly isSilent: boolean }[] = []
  #failed = 0
  #torn = 0

  constructor(random: Random) {
    this.#random = random
  }

  get facts(): Facts {
    return {
      readDelayMs: this.#readDelayMs,
      writeDelayMs: this.#writeDelayMs,
      faults: this.#faults.map(faultText).join(', '),
      hangs: this.#hangs.join(', '),
      tears: this.#tears.reduce((sum, tear) => sum + tear.left, 0),
      failed: this.#failed,
      torn: this.#torn,
    }
  }

  /** Milliseconds for what follows; undefined leaves it as it is. */
  delay(readMs: number | undefined, writeMs: number | undefined): void {
    this.#readDelayMs = readMs ?? this.#readDelayMs
    this.#writeDelayMs = writeMs ?? this.#writeDelayMs
  }

  /** `count` requests, or all until {@link clear}, fail with `probability` each. */
  fail(op: NopFailOp, kind: NopFailKind, probability: number, count: number | undefined): void {
    assert(probability >= 0 && probability <= 1, 'a probability lies between 0 and 1')
    this.#faults.push({ op, kind, probability, left: count })
  }

  /** Nothing of these kinds goes on. */
  hang(ops: readonly IoOp[]): void {
    this.#hangs = [...new Set([...this.#hangs, ...ops])]
  }

  tear(count: number, isSilent: boolean): void {
    this.#tears.push({ left: count, isSilent })
  }

  clear(): void {
    this.delay(0, 0)
    this.#faults = []
    this.#hangs = []
    this.#tears = []
  }

  /** Decides on one request and counts it. `blockBytes`: writes are torn between blocks only. */
  judge(op: IoOp, length: number, blockBytes: number): Verdict {
    const usualMs = op === 'read' ? this.#readDelayMs : op === 'flush' ? 0 : this.#writeDelayMs
    const delayMs = this.#hangs.includes(op) ? Number.POSITIVE_INFINITY : usualMs
    const fail = this.#takeFault(op)
    const tear = fail === undefined && op === 'write' ? this.#takeTear() : undefined
    const storedBytes = tear && Math.floor((this.#fraction() * length) / blockBytes) * blockBytes
    return { delayMs, fail, storedBytes, isSilent: tear?.isSilent ?? false }
  }

  #takeFault(op: IoOp): NopFailKind | undefined {
    for (const fault of this.#faults) {
      if (fault.op !== op) continue
      if (fault.probability < 1 && this.#fraction() >= fault.probability) continue
      if (fault.left !== undefined && --fault.left === 0) {
        this.#faults = this.#faults.filter((one) => one !== fault)
      }
      this.#failed++
      return fault.kind
    }
    return undefined
  }

  #takeTear(): { readonly isSilent: boolean } | undefined {
    const tear = this.#tears[0]
    if (!tear) return undefined
    if (--tear.left === 0) this.#tears.shift()
    this.#torn++
    return tear
  }

  /** At least 0, below 1. */
  #fraction(): number {
    return this.#random.bytes(4).readUInt32LE(0) / 2 ** 32
  }
}

/** `write io with probability 0.5, 3 left`. */
function faultText({ op, kind, probability, left }: Fault): string {
  const how = probability < 1 ? ` with probability ${probability}` : ''
  return `${op} ${kind}${how}${left === undefined ? '' : `, ${left} left`}`
}
