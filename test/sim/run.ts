/**
 * `npm run sim -- [--seed N | --seeds A..B] [--ops K] [--minutes M] [--mixture …] [--jobs J]`: plays the scenario
 * of vinum under one seed, under a range of seeds, or under fresh seeds for some minutes; one line for each. At the
 * first violation it prints what was read, what was allowed, what happened to that block, and how to play it again;
 * exit status 1.
 */
import { fork } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { parseArgs } from 'node:util'
import type { SeedOrder } from './child.ts'
import { MIXTURE_HELP, parseMixture } from './mixture.ts'
import { type Outcome, playSeed, type SeedOptions } from './play-seed.ts'

const { values } = parseArgs({
  options: {
    seed: { type: 'string' },
    seeds: { type: 'string' },
    ops: { type: 'string', default: '2000' },
    minutes: { type: 'string' },
    /** Go on after a violation. */
    all: { type: 'boolean', default: false },
    /** Instead of one that the seed chooses: names of features (mixture.ts) with commas. */
    mixture: { type: 'string' },
    /** No trace, no history: one line for a violation. */
    brief: { type: 'boolean', default: false },
    /** Processes that play at the same time. */
    jobs: { type: 'string', default: '1' },
  },
})

function usage(): never {
  console.error(
    'usage: npm run sim -- [--seed N | --seeds A..B] [--ops K] [--minutes M] [--mixture A,B,…] ' +
      `[--all] [--brief] [--jobs J]\nwhat a mixture is made of: ${MIXTURE_HELP}`,
  )
  process.exit(2)
}

function* seedsOf(): Generator<number> {
  const range = /^(\d+)\.\.(\d+)$/.exec(values.seeds ?? '')
  if (values.seeds !== undefined) {
    if (!range) usage()
    for (let seed = Number(range[1]); seed <= Number(range[2]); seed++) yield seed
  } else if (values.seed !== undefined) yield Number(values.seed)
  else if (values.minutes === undefined) yield randomInt(2 ** 31)
  else for (;;) yield randomInt(2 ** 31)
}

const options: SeedOptions = {
  operations: Number(values.ops),
  mixture: values.mixture,
  brief: values.brief,
}
const minutes = Number(values.minutes ?? '0')
const jobs = Number(values.jobs)
if (![options.operations, minutes, jobs - 1, Number(values.seed ?? 0)].every((n) => n >= 0)) usage()
if (values.mixture !== undefined && !parseMixture(values.mixture)) usage()

type Player = (seed: number) => Promise<Outcome>

/** A process of its own: what nobody catches in a run ends up with the process, and must not be another run's. */
async function forkPlayer(): Promise<Player> {
  const child = fork(new URL('child.js', import.meta.url))
  await once(child, 'spawn')
  child.on('exit', (status, signal) => {
    if (status === 0 || signal === 'SIGTERM') return
    console.error(`a process that plays has ended with ${status ?? signal}`)
    process.exit(1)
  })
  return async (seed) => {
    const order: SeedOrder = { seed, options }
    child.send(order)
    const [outcome] = await once(child, 'message')
    return outcome
  }
}

// Nothing is left to do, and the runs have not ended: that must not look like success.
process.exitCode = 1
const endMs = performance.now() + minutes * 60_000
const seeds = seedsOf()
let [runs, violations, total] = [0, 0, 0]

/** Takes seed after seed, until there is none, the time is over, or a violation is enough. */
async function playSome(play: Player): Promise<void> {
  for (;;) {
    if (minutes > 0 && runs > 0 && performance.now() > endMs) return
    if (violations > 0 && !values.all) return
    const { value: seed, done } = seeds.next()
    if (done) return
    const { lines, operations, isViolation } = await play(seed)
    for (const line of lines) console.log(line)
    runs++
    total += operations
    if (isViolation) violations++
  }
}

if (jobs === 1) await playSome((seed) => playSeed(seed, options))
else {
  const players = await Promise.all(Array.from({ length: jobs }, forkPlayer))
  await Promise.all(players.map(playSome))
}
console.log(`sim: ${runs} seeds, ${total} operations, ${violations} violations`)
process.exit(violations > 0 ? 1 : 0)
