#!/usr/bin/env node
/**
 * `npm run bench`: compares Plexus with the bare device, tgt and istgt on one device of this machine,
 * in interleaved rounds; `npm run bench -- engine`, `fairness` and `reload` are the benchmarks of the files of those names. See bench/README.md for the
 * options and docs/performance.md for the method.
 */
import { loadavg } from 'node:os'
import { Command, Option } from 'commander'
import { parseSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'
import { type Case, DEFAULT_CASES, DIGEST_CASES, parseCases, QUICK_CASES } from './cases.ts'
import { buildLoad, type Digests, runFio, runLoad, type Sample } from './client.ts'
import { benchEngine } from './engine.ts'
import {
  type BenchDevice,
  findProgram,
  machineLines,
  makeLoopDevice,
  requirePrograms,
  run,
  Teardown,
  temporaryDirectory,
  useDevice,
} from './environment.ts'
import { benchFairness } from './fairness.ts'
import { GATE_TARGETS, GRADES, type Grade, gateCases, judge, renderVerdicts } from './gate.ts'
import { memoryOf, PEERS, type Server } from './peers.ts'
import { benchReload } from './reload.ts'
import {
  type CaseResult,
  clientWarnings,
  makeRows,
  renderCases,
  renderDigests,
  renderMemory,
} from './report.ts'

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly tests?: string
  readonly targets?: string
  readonly device?: string
  readonly yes: boolean
  readonly directory: string
  readonly size: string
  readonly engine?: string
  readonly digests: boolean
  readonly quick: boolean
  readonly gate?: Grade
  readonly json: boolean
}

/** Whoever is measured: the device itself or a server, by one kind of client. */
interface Contestant {
  readonly name: string
  readonly buffered: boolean
  measure(test: Case): Promise<Sample>
}

const ALL_TARGETS = 'raw,plexus,tgt-aio,tgt-rdwr,istgt'
/** Other work on the machine above this load average makes the figures doubtful. */
const QUIET_LOAD = 0.7

function note(text: string): void {
  process.stderr.write(`${text}\n`)
}

function positive(text: string): number {
  const value = Number(text)
  if (Number.isFinite(value) && value > 0) return value
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: text,
    message: `"${text}" is not a number above 0`,
  })
}

function parseOptions(argv: readonly string[]): Options {
  const program = new Command('bench')
    .description('Compares Plexus with the bare device, tgt and istgt on this machine.')
    .option('--rounds <n>', 'rounds; each runs every target once', positive)
    .option('--seconds <s>', 'measured time of one run', positive)
    .option('--tests <list>', `test cases (default: ${DEFAULT_CASES})`)
    .option('--targets <list>', `contestants (default: ${ALL_TARGETS})`)
    .option('--device <path>', 'use this block device; its content is DESTROYED')
    .option('--yes', 'yes, overwrite --device', false)
    .option('--directory <path>', 'where the image behind the loop device is made', '/dev/shm')
    .option('--size <size>', 'of the loop device', '4GiB')
    .option('--engine <name>', 'I/O engine of Plexus: io_uring or threads')
    .option('--digests', 'also measure what header and data CRC32C cost Plexus', false)
    .option('--quick', 'few cases, short runs: shows that it works, not how fast', false)
    .addOption(new Option('--gate <grade>', 'exit 1 when a goal is missed').choices(GRADES))
    .option('--json', 'print one JSON object instead of tables', false)
    .parse([...argv])
  const given = program.opts<Partial<Options>>()
  const defaults = given.quick ? { rounds: 2, seconds: 1 } : { rounds: 5, seconds: 2 }
  return { ...defaults, ...given } as Options
}

function names(list: string): readonly string[] {
  const all = list.split(/[\s,;]+/).filter((name) => name !== '')
  const unknown = all.find((name) => name !== 'raw' && !Object.hasOwn(PEERS, name))
  if (unknown === undefined && all.length > 0) return all
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: list,
    message: `"${unknown ?? list}" is not a target; known are raw, ${Object.keys(PEERS).join(', ')}`,
  })
}

/** Runs A B C A B C for each case, so that drift of the machine hits all contestants alike. */
async function measureAll(
  tests: readonly Case[],
  contestants: readonly Contestant[],
  options: Options,
  device: BenchDevice,
  signal: AbortSignal,
): Promise<readonly CaseResult[]> {
  const results: CaseResult[] = []
  for (const test of tests) {
    const samples = new Map<string, Sample[]>(contestants.map(({ name }) => [name, []]))
    for (let round = 0; round < options.rounds; round++) {
      for (const contestant of contestants) {
        signal.throwIfAborted()
        const sample = await contestant.measure(test)
        samples.get(contestant.name)?.push(sample)
        note(
          `${test.name} round ${round + 1}/${options.rounds} ${contestant.name}: ${sample.iops.toFixed(0)} IOPS, ${sample.meanUs.toFixed(0)} us`,
        )
        // What lies dirty in the page cache would be written out while the next one is measured.
        if (contestant.buffered) await run(findProgram('sync') ?? 'sync', [device.path], { signal })
      }
    }
    results.push({ test, samples })
  }
  return results
}

async function bench(options: Options, teardown: Teardown, signal: AbortSignal): Promise<number> {
  const targets = names(options.targets ?? (options.gate ? GATE_TARGETS : ALL_TARGETS))
  const chosen = targets.flatMap((name) => PEERS[name] ?? [])
  await requirePrograms(['fio', 'gcc', 'losetup', ...chosen.flatMap((peer) => peer.programs)])
  const load = await buildLoad()
  const head = machineLines()
  const busy = loadavg()[0] ?? 0
  if (busy > QUIET_LOAD) {
    head.push(
      `warning: load average ${busy.toFixed(2)}: other work runs here; do not trust the figures`,
    )
    note(head.at(-1) ?? '')
  }

  note('bench: preparing the device')
  const device = options.device
    ? useDevice(options.device, options.yes)
    : await makeLoopDevice(options.directory, parseSize(options.size), teardown, signal)
  const cases = options.gate
    ? gateCases(device.medium)
    : options.quick
      ? QUICK_CASES
      : DEFAULT_CASES
  const tests = parseCases(options.tests ?? cases)

  const directory = await temporaryDirectory(teardown)
  const servers: Server[] = []
  for (const name of targets) {
    const peer = PEERS[name]
    if (!peer) continue
    note(`bench: starting ${name}`)
    const engine = options.engine === undefined ? {} : { engine: options.engine }
    servers.push(await peer.start({ device: device.path, directory, teardown, signal, ...engine }))
  }
  const before = servers.map((server) => memoryOf(server.pid))
  head.push(`device:  ${device.text}`, ...servers.map((server) => `target:  ${server.version}`))
  if (targets.includes('raw'))
    head.push(`raw:     ${(await run('fio', ['--version'])).trim()}, io_uring, O_DIRECT`)
  head.push(`rounds:  ${options.rounds} of ${options.seconds} s each, interleaved; medians`)

  const contestants = targets.map((name): Contestant => {
    const server = servers.find((one) => one.name === name)
    const buffered = PEERS[name]?.buffered ?? false
    if (!server)
      return {
        name,
        buffered,
        measure: (test) => runFio(device.path, test, options.seconds, signal),
      }
    const { url, pid } = server
    return {
      name,
      buffered,
      measure: (test) =>
        runLoad(load, { url, test, seconds: options.seconds, serverPid: pid, signal }),
    }
  })
  const results = await measureAll(tests, contestants, options, device, signal)
  const bases = ['tgt-aio', 'raw'].filter((name) => targets.includes(name))
  const rows = makeRows(results, bases)

  const digestResults: CaseResult[] = []
  const plexus = servers.find((server) => server.name === 'plexus')
  if (options.digests && plexus) {
    const kinds: readonly Digests[] = ['none', 'header', 'both']
    const clients = kinds.map(
      (digests): Contestant => ({
        name: digests,
        buffered: false,
        measure: (test) =>
          runLoad(load, {
            url: plexus.url,
            test,
            seconds: options.seconds,
            serverPid: plexus.pid,
            digests,
            raw: true,
            signal,
          }),
      }),
    )
    const digestTests = parseCases(options.tests ?? (options.quick ? QUICK_CASES : DIGEST_CASES))
    digestResults.push(...(await measureAll(digestTests, clients, options, device, signal)))
  }
  const digestRows = makeRows(digestResults, ['none'])
  const memory = servers.map((server, i) => {
    const after = memoryOf(server.pid)
    return { target: server.name, before: before[i] ?? after, after }
  })
  const verdicts = options.gate ? judge(rows, options.gate, device.medium) : []
  const warnings = clientWarnings([...rows, ...digestRows])

  if (options.json) {
    const report = { head, rows, digests: digestRows, memory, verdicts, warnings }
    process.stdout.write(`${JSON.stringify(report, undefined, 2)}\n`)
  } else {
    const parts = [`${head.join('\n')}\n`, renderCases(results, rows, bases), renderMemory(memory)]
    if (digestRows.length > 0) parts.push(renderDigests(digestRows))
    if (warnings.length > 0) parts.push(`${warnings.join('\n')}\n`)
    if (options.gate) parts.push(renderVerdicts(verdicts, options.gate))
    process.stdout.write(parts.join('\n'))
  }
  if (!options.gate) return 0
  return verdicts.length > 0 && verdicts.every((verdict) => verdict.passed) ? 0 : 1
}

/** Benchmarks of their own: `npm run bench -- NAME`. */
const COMMANDS: Readonly<
  Record<string, (argv: readonly string[], signal: AbortSignal) => Promise<number>>
> = { engine: benchEngine, fairness: benchFairness, reload: benchReload }

const teardown = new Teardown()
const interrupt = new AbortController()
for (const signal of ['SIGINT', 'SIGTERM', 'SIGHUP'] as const) {
  process.on(signal, () => interrupt.abort(new Error(`interrupted by ${signal}`)))
}
try {
  const [first, ...rest] = process.argv.slice(2)
  const command = COMMANDS[first ?? '']
  process.exitCode = command
    ? await command(rest, interrupt.signal)
    : await bench(parseOptions(process.argv), teardown, interrupt.signal)
} catch (error) {
  note(`bench: ${interrupt.signal.aborted ? 'interrupted' : (error as Error).message}`)
  process.exitCode = interrupt.signal.aborted ? 130 : 1
} finally {
  await teardown.run()
}
