/**
 * One run under one seed: makes the world, lets a scenario happen in it, and says how it ended. Everything
 * that goes wrong ends here: a violation, an assertion of the engine, an error that nobody caught, a standstill.
 * Used by run.ts and the tests.
 */
import { Violation, World, type WorldOptions } from './world.ts'

export interface Scenario {
  readonly options: WorldOptions
  /** Everything that happens; resolves at the end of the run. */
  play(world: World): Promise<void>
}

export interface SimResult {
  readonly seed: number
  readonly counts: Readonly<World['counts']>
  readonly virtualMs: number
  readonly hash: string
  readonly violation: Violation | undefined
  /** When there is a violation: the end of the trace, and of what concerned the whole world. */
  readonly trace: readonly string[]
  readonly notes: readonly string[]
}

const TRACE_SHOWN = 100
const NOTES_SHOWN = 60

export async function simulate(scenario: Scenario): Promise<SimResult> {
  const world = new World(scenario.options)
  let ended = false
  const crash = (error: unknown): void => {
    if (error instanceof Violation) world.fail(error.message, error.details)
    else {
      const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
      world.fail(`the engine crashed: ${text.split('\n')[0]}`, text.split('\n').slice(1))
    }
  }
  process.on('unhandledRejection', crash)
  process.on('uncaughtException', crash)
  // How long work takes here, and when it lets others pass (base/turns.ts), must not depend on the machine that plays.
  const { now } = performance
  performance.now = () => world.nowMs
  try {
    const play = scenario.play(world).then(() => {
      ended = true
    }, crash)
    const how = await world.scheduler.run(() => ended || world.violation !== undefined)
    if (how !== 'done') {
      world.fail('nothing happens any more, and the scenario has not ended', [
        ...world.outstanding(),
      ])
    }
    if (ended) await play
  } catch (error) {
    crash(error)
  } finally {
    world.abandon()
    performance.now = now
    process.off('unhandledRejection', crash)
    process.off('uncaughtException', crash)
  }
  return {
    seed: world.seed,
    counts: { ...world.counts },
    virtualMs: world.nowMs,
    hash: world.trace.hash,
    violation: world.violation,
    trace: world.violation ? world.trace.lines(TRACE_SHOWN) : [],
    notes: world.violation ? world.trace.notes(NOTES_SHOWN) : [],
  }
}
