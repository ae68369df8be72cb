/** What every attack of the fuzzer is given. */
import type { Random } from './random.ts'

export interface AttackContext {
  readonly port: number
  /** The target whose data nobody needs. */
  readonly targetName: string
  /** The target of the honest sessions; an attack stays on its last blocks, from `spareBlock` on. */
  readonly sharedTargetName: string
  readonly spareBlock: number
  readonly random: Random
  /** Source address: limits count by it. */
  readonly address: string
}

export const sleep = (ms: number) => new Promise<void>((resolve) => setTimeout(resolve, ms))
