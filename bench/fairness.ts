/**
 * `npm run bench -- fairness`: what is left to an honest session of 4 KiB random reads at queue depth 8 while eight
 * other sessions flood the target with cheap requests, as a share of its rate alone. tgt and istgt stand beside Plexus
 * where they are installed. Called by bench.ts; the flooders are flood.c.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { parseSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'
import { parseCase } from './cases.ts'
import { buildFlood, buildLoad, type FloodKind, runFlood, runLoad, WARMUP_S } from './client.ts'
import {
  findProgram,
  machineLines,
  makeLoopDevice,
  requirePrograms,
  Teardown,
  temporaryDirectory,
} from './environment.ts'
import { PEERS, type Server } from './peers.ts'
import { table } from './report.ts'
import { median, pairedRatio } from './statistics.ts'

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly targets: string
  readonly directory: string
  readonly size: string
  readonly gate: boolean
  readonly json: boolean
}

const FLOODS: readonly { readonly kind: FloodKind; readonly text: string }[] = [
  { kind: 'nop', text: 'NOP-Out with 1 KiB of data' },
  { kind: 'inquiry', text: 'INQUIRY' },
  { kind: 'text', text: 'Text' },
  { kind: 'sendtargets', text: 'SendTargets with 300 targets' },
]
/** The peers are compared where the request is one that they answer alike. */
const PEER_FLOODS: ReadonlySet<FloodKind> = new Set(['nop', 'inquiry'])
const HONEST = parseCase('rr4k8')
const FLOODERS = 8
const DEPTH = 32
const OTHER_TARGETS = 299
/** The goal: the honest session keeps a fifth of its rate. */
export const SHARE_MIN = 0.2
/** The flood begins before the honest session and ends after it. */
const AROUND_S = 0.5

export interface FairnessRow {
  readonly target: string
  readonly flood: string
  readonly aloneIops: number
  readonly besideIops: number
  readonly share: number
  readonly slowestMs: number
  readonly floodPerSecond: number
}

/** The rows of Plexus that miss the goal. */
export function unfairRows(rows: readonly FairnessRow[]): readonly FairnessRow[] {
  return rows.filter(({ target, share }) => target === 'plexus' && !(share >= SHARE_MIN))
}

export function renderFairness(rows: readonly FairnessRow[]): string {
  const lines = rows.map((row) => [
    `${row.target} ${row.flood}`,
    row.aloneIops.toFixed(0),
    row.besideIops.toFixed(0),
    `${(row.share * 100).toFixed(1)} %`,
    row.slowestMs.toFixed(1),
    row.floodPerSecond.toFixed(0),
  ])
  const header = ['fairness', 'IOPS alone', 'beside', 'share', 'slowest ms', 'flood/s']
  return `${table(header, lines)}\n`
}

function parseOptions(argv: readonly string[]): Options {
  const program = new Command('bench fairness')
    .description('What floods of other sessions leave to an honest one.')
    .option('--rounds <n>', 'each measures alone and beside each flood', Number, 3)
    .option('--seconds <s>', 'measured time of one run', Number, 2)
    .option('--targets <list>', 'default: plexus and those peers that are installed', '')
    .option('--directory <path>', 'where the image behind the loop device is made', '/dev/shm')
    .option('--size <size>', 'of the loop device', '256MiB')
    .option('--gate', 'exit 1 when Plexus misses the goal', false)
    .option('--json', 'print one JSON object instead of a table', false)
    .parse([...argv], { from: 'user' })
  const options = program.opts<Options>()
  if (options.rounds >= 1 && options.seconds > 0) return options
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: 'bench fairness',
    message: '--rounds is a number from 1, --seconds one above 0',
  })
}

/** Plexus, and the peers whose programs are there. */
function contestants(list: string): readonly string[] {
  const wanted = list.split(/[\s,;]+/).filter((name) => name !== '')
  const unknown = wanted.find((name) => !Object.hasOwn(PEERS, name))
  if (unknown !== undefined) {
    throw new PlexusError('invalid', {
      op: 'parse',
      subject: unknown,
      message: `"${unknown}" is not a target; known are ${Object.keys(PEERS).join(', ')}`,
    })
  }
  if (wanted.length > 0) return wanted
  return ['plexus', 'tgt-aio', 'istgt'].filter((name) =>
    PEERS[name]?.programs.every((program) => findProgram(program) !== undefined),
  )
}

async function fairness(
  options: Options,
  teardown: Teardown,
  signal: AbortSignal,
): Promise<number> {
  const names = contestants(options.targets)
  const programs = names.flatMap((name) => PEERS[name]?.programs ?? [])
  await requirePrograms(['fio', 'gcc', 'losetup', ...programs])
  const [load, flood] = [await buildLoad(), await buildFlood()]
  const head = machineLines()
  const size = parseSize(options.size)
  const device = await makeLoopDevice(options.directory, size, teardown, signal)
  const directory = await temporaryDirectory(teardown)
  const moreTargets = Array.from({ length: OTHER_TARGETS }, (_, i) => ({
    name: `other-${i}`,
    luns: [],
  }))
  const rows: FairnessRow[] = []
  for (const name of names) {
    const server = await PEERS[name]?.start({
      device: device.path,
      directory,
      teardown,
      signal,
      moreTargets,
    })
    if (!server) continue
    head.push(`target:  ${server.version}`)
    for (const { kind, text } of FLOODS) {
      if (name !== 'plexus' && !PEER_FLOODS.has(kind)) continue
      rows.push(await measure({ server, kind, text, load, flood, options, signal }))
      process.stderr.write(`${renderFairness(rows.slice(-1))}`)
    }
  }
  head.push(
    `honest:  4 KiB random reads, queue depth 8, ${options.rounds} rounds of ${options.seconds} s, alone and beside each flood in turn`,
    `flood:   ${FLOODERS} sessions, ${DEPTH} requests outstanding each, 1 of Text and SendTargets; flood/s is what all of them get together`,
    'repeat:  npm run bench -- fairness --gate',
  )
  const unfair = unfairRows(rows)
  if (options.json) {
    process.stdout.write(`${JSON.stringify({ head, rows, goal: SHARE_MIN }, undefined, 2)}\n`)
  } else {
    const verdict =
      unfair.length === 0
        ? `every flood leaves the honest session ${SHARE_MIN * 100} % of its rate or more`
        : `below ${SHARE_MIN * 100} %: ${unfair.map((row) => row.flood).join(', ')}`
    process.stdout.write(`${head.join('\n')}\n\n${renderFairness(rows)}\n${verdict}\n`)
  }
  return options.gate && unfair.length > 0 ? 1 : 0
}

async function measure(on: {
  readonly server: Server
  readonly kind: FloodKind
  readonly text: string
  readonly load: string
  readonly flood: string
  readonly options: Options
  readonly signal: AbortSignal
}): Promise<FairnessRow> {
  const { server, kind, load, flood, options, signal } = on
  const { seconds } = options
  const { url, pid } = server
  const honest = () =>
    runLoad(load, { url, test: HONEST, seconds, serverPid: pid, raw: true, signal })
  const [alone, beside, floods, slowest]: number[][] = [[], [], [], []]
  for (let round = 0; round < options.rounds; round++) {
    alone?.push((await honest()).iops)
    const flooded = runFlood(flood, {
      url,
      kind,
      sessions: FLOODERS,
      depth: DEPTH,
      seconds: seconds + WARMUP_S + 2 * AROUND_S,
      signal,
    })
    // Its failure is reported below, after the load has ended.
    flooded.catch(() => {})
    await sleep(AROUND_S * 1000, undefined, { signal })
    const sample = await honest()
    beside?.push(sample.iops)
    slowest?.push(sample.maxUs / 1000)
    floods?.push(await flooded)
  }
  return {
    target: server.name,
    flood: on.text,
    aloneIops: median(alone ?? []),
    besideIops: median(beside ?? []),
    share: pairedRatio(beside ?? [], alone ?? []),
    slowestMs: Math.max(...(slowest ?? [])),
    floodPerSecond: median(floods ?? []),
  }
}

/** The benchmark with its options; the exit status. */
export async function benchFairness(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const teardown = new Teardown()
  try {
    return await fairness(parseOptions(argv), teardown, signal)
  } finally {
    await teardown.run()
  }
}
