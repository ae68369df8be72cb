/**
 * `npm run bench -- engine`: what the classes of the engine cost against the bare device, in this process, without
 * iSCSI. Contestants take turns in rounds on the same medium; see bench/README.md for the options, docs/performance.md
 * for the method. Called by bench.ts.
 */
import { readFileSync, writeFileSync } from 'node:fs'
import { loadavg } from 'node:os'
import { Command } from 'commander'
import { defined } from '../src/base/assert.ts'
import { alignDown, parseSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'
import { MIB } from '../src/base/limits.ts'
import { type Case, parseCases } from './cases.ts'
import {
  CONTESTANTS,
  type ContestantName,
  checkEngineCases,
  DATA_COLUMNS,
  ENGINE_CASES,
  ENGINE_QUICK_CASES,
  MEDIA,
  type Medium,
  parseNames,
  sharesOf,
} from './engine-cases.ts'
import { type EngineSample, type LoadTimes, runLanes, runPasses } from './engine-load.ts'
import { measureMap, renderMap } from './engine-map.ts'
import {
  type EngineResult,
  engineRows,
  engineVerdicts,
  renderEngineVerdicts,
  renderJobs,
  renderMedium,
  renderXor,
  replaceReport,
} from './engine-report.ts'
import { makeWorld, type World } from './engine-world.ts'
import { measureXor } from './engine-xor.ts'
import { findProgram, machineLines, Teardown } from './environment.ts'

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly tests?: string
  readonly targets: string
  readonly media: string
  readonly directory: string
  readonly size: string
  readonly quick: boolean
  readonly gate: boolean
  readonly json: boolean
  readonly update?: string
}

/** Before each measurement, for the caches. */
const WARM_UP_SHARE = 0.2
/** Of each variant of the XOR in each round. */
const XOR_MS = 50

function positive(text: string): number {
  const value = Number(text)
  if (Number.isFinite(value) && value > 0) return value
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: text,
    message: `"${text}" is not a number above 0`,
  })
}

function parseOptions(args: readonly string[]): Options {
  const program = new Command('bench engine')
    .description('Compares volumes of the engine with the bare device, in one process.')
    .option('--rounds <n>', 'rounds; each runs every contestant once', positive)
    .option('--seconds <s>', 'measured time of one run', positive)
    .option('--tests <list>', `test cases (default: ${ENGINE_CASES})`)
    .option('--targets <list>', 'contestants', CONTESTANTS.join(','))
    .option('--media <list>', 'what the devices are: loop needs root', MEDIA.join(','))
    .option('--directory <path>', 'where the images behind the loop devices are made', '/dev/shm')
    .option('--size <size>', 'of each volume', '256MiB')
    .option('--quick', 'few cases, short runs: shows that it works, not how fast', false)
    .option('--gate', 'exit 1 when a goal is missed', false)
    .option('--json', 'print one JSON object instead of tables', false)
    .option('--update <file>', 'write the tables into this document, between its marks')
    .parse([...args], { from: 'user' })
  const given = program.opts<Partial<Options>>()
  const defaults = given.quick ? { rounds: 2, seconds: 0.2 } : { rounds: 5, seconds: 0.3 }
  return { ...defaults, ...given } as Options
}

function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

/** Runs A B C A B C for each case, so that drift of the machine hits all contestants alike. */
async function measureCase(
  world: World,
  test: Case,
  names: readonly ContestantName[],
  rounds: number,
  times: LoadTimes,
  signal: AbortSignal,
): Promise<EngineResult> {
  const samples = new Map<ContestantName, EngineSample[]>()
  // The first round is for the compiler: what has never run costs ten times as much.
  for (let round = 0; round <= rounds; round++) {
    for (const name of names) {
      const shares = sharesOf(test, name)
      if (!shares) continue
      signal.throwIfAborted()
      const spanBytes = alignDown(world.spanBytes / shares.disks, MIB)
      const lanes = world.targets(name).map((target) => ({ target, spanBytes, ...shares.share }))
      const sample =
        name === 'first'
          ? await runPasses(test, defined(lanes[0], 'the thin device'), world.pool, times, () =>
              world.emptyThin(),
            )
          : await runLanes(test, lanes, world.pool, times)
      if (round === 0) continue
      const before = samples.get(name)
      if (before) before.push(sample)
      else samples.set(name, [sample])
      const rate = (sample.bytesPerSecond / 1e6).toFixed(0)
      note(
        `${world.medium} ${test.name} round ${round}/${rounds} ${name}: ${rate} MB/s, ${sample.cpuUsPerOp.toFixed(2)} us of CPU`,
      )
    }
  }
  return { medium: world.medium, test, samples }
}

function checkMachine(media: readonly Medium[]): void {
  if (!media.includes('loop')) return
  const problems: string[] = []
  if (process.getuid?.() !== 0) problems.push('loop devices need root')
  if (findProgram('losetup') === undefined)
    problems.push('losetup is missing (apt-get install util-linux)')
  if (problems.length === 0) return
  throw new PlexusError('unsupported', {
    op: 'start',
    subject: 'bench',
    message: `${problems.join(', and ')}; without loop devices: --media paced,null`,
  })
}

/** Runs the benchmark and prints. Returns the exit status. */
export async function benchEngine(args: readonly string[], signal: AbortSignal): Promise<number> {
  const options = parseOptions(args)
  const media = parseNames(options.media, MEDIA)
  const names = parseNames(options.targets, CONTESTANTS)
  const quickOrAll = options.quick ? ENGINE_QUICK_CASES : ENGINE_CASES
  const tests = checkEngineCases(parseCases(options.tests ?? quickOrAll))
  checkMachine(media)
  const spanBytes = parseSize(options.size)
  if (spanBytes < DATA_COLUMNS * MIB || spanBytes % (DATA_COLUMNS * MIB) !== 0) {
    throw new PlexusError('invalid', {
      op: 'parse',
      subject: options.size,
      message: `--size ${options.size}: write a multiple of ${DATA_COLUMNS} MiB`,
    })
  }
  const head = [
    ...machineLines(),
    `load:    ${loadavg()[0]?.toFixed(2)} at the start; much above 0 says that other work disturbs`,
    `rounds:  ${options.rounds} of ${options.seconds} s each, interleaved; medians of the quotients of one round`,
  ]
  const measuredMs = options.seconds * 1000
  const times = { measuredMs, warmUpMs: measuredMs * WARM_UP_SHARE }

  const results: EngineResult[] = []
  const texts = new Map<Medium, string>()
  for (const medium of media) {
    const teardown = new Teardown()
    try {
      note(`bench: preparing the devices: ${medium}`)
      const { directory } = options
      const world = await makeWorld({ medium, spanBytes, directory, teardown })
      texts.set(medium, `${world.text}\n${renderJobs(world.jobs)}`)
      for (const test of tests) {
        results.push(await measureCase(world, test, names, options.rounds, times, signal))
      }
    } finally {
      await teardown.run()
    }
  }
  const xor = measureXor(options.rounds, XOR_MS)
  if (!options.quick) note('bench: the map of a thin device of 100 TiB')
  const map = options.quick ? undefined : await measureMap(options.directory)
  const rows = engineRows(results)
  const verdicts = engineVerdicts(results, rows)
  const report = [
    `${head.join('\n')}\n`,
    ...media.map((medium) => renderMedium(medium, texts.get(medium) ?? '', results, rows)),
    renderXor(xor),
    ...(map ? [renderMap(map)] : []),
    renderEngineVerdicts(verdicts),
  ].join('\n')
  if (options.json) {
    const goals = verdicts.map(({ goal, ...rest }) => {
      const { contestant, base, wanted, sense } = goal
      return { ...rest, contestant, base, wanted, sense }
    })
    process.stdout.write(`${JSON.stringify({ head, rows, xor, map, goals }, undefined, 2)}\n`)
  } else process.stdout.write(report)
  if (options.update !== undefined) {
    writeFileSync(options.update, replaceReport(readFileSync(options.update, 'utf8'), report))
  }
  if (!options.gate) return 0
  return verdicts.length > 0 && verdicts.every(({ reached }) => reached) ? 0 : 1
}
