/** What an episode (episodes/) needs of the play that it is part of. Made by vinum-play.ts. */
import type { Faults } from './faults.ts'
import type { SimRandom } from './random.ts'
import type { Machine, World } from './world.ts'

export interface Stage {
  readonly world: World
  readonly random: SimRandom
  readonly faults: Faults
  /** Takes all trouble away: everything is whole and at rest. undefined: the run has ended. */
  whole(): Promise<Machine | undefined>
  /** Powers up, with what is plugged in, and opens the volumes that are there. */
  boot(): Promise<Machine>
  /** Takes volumes under the oracle that are new. */
  adopt(machine: Machine): Promise<void>
  /** Users work until they have sent that many requests; those that are under way go on. */
  work(operations: number): Promise<void>
  /** Every block of every volume is read. */
  readAll(): Promise<void>
  /** The machine stops: in order, killed, or without power. */
  end(how?: 'cut' | 'kill' | 'shutdown'): Promise<void>
}
