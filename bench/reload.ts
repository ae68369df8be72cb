/**
 * `npm run bench -- reload`: the longest pause of a session that reads 4 KiB at queue depth 1 while a configuration of
 * 3,000 targets is applied again: unchanged, and with 250 devices and targets more. Called by bench.ts.
 */
import { readFileSync, truncateSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { Command } from 'commander'
import { parseSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'
import { MIB } from '../src/base/limits.ts'
import { socketPaths } from '../src/control/protocol.ts'
import { RpcClient } from '../src/control/rpc-client.ts'
import { parseCase } from './cases.ts'
import { buildLoad, runLoad, WARMUP_S } from './client.ts'
import {
  machineLines,
  makeLoopDevice,
  requirePrograms,
  Teardown,
  temporaryDirectory,
} from './environment.ts'
import { PEERS, type PlexusConfig, targetConfig } from './peers.ts'
import { table } from './report.ts'
import { median } from './statistics.ts'

interface Options {
  readonly rounds: number
  readonly seconds: number
  readonly directory: string
  readonly gate: boolean
  readonly json: boolean
}

const READER = parseCase('rr4k1')
const TARGETS = 3000
const NEW_DEVICES = 250
/** The goal. */
export const PAUSE_MAX_MS = 50
/** The reader is at work when the reload begins. */
const BEFORE_S = 1
const RELOAD_TIMEOUT_MS = 120_000

export interface ReloadRow {
  readonly reload: string
  /** The most that a reload took, by the answer to `config apply`; 0 where there was none. */
  readonly tookMs: number
  /** Of each round: the longest time without any completion. */
  readonly pausesMs: readonly number[]
}

/** The rows whose median misses the goal: a single pause may be the machine's, as those without a reload show. */
export function longPauses(rows: readonly ReloadRow[]): readonly ReloadRow[] {
  return rows.filter(({ tookMs, pausesMs }) => tookMs > 0 && !(median(pausesMs) <= PAUSE_MAX_MS))
}

export function renderReloads(rows: readonly ReloadRow[]): string {
  const lines = rows.map(({ reload, tookMs, pausesMs }) => [
    reload,
    tookMs === 0 ? '-' : tookMs.toFixed(0),
    median(pausesMs).toFixed(1),
    Math.max(...pausesMs).toFixed(1),
  ])
  return `${table(['reload', 'took ms', 'longest pause ms', 'in the worst round'], lines)}\n`
}

function parseOptions(argv: readonly string[]): Options {
  const program = new Command('bench reload')
    .description('How long a reload of 3,000 targets stops a reading session.')
    .option('--rounds <n>', 'of each reload', Number, 3)
    .option(
      '--seconds <s>',
      'reading time around one reload; the reload must end within',
      Number,
      8,
    )
    .option('--directory <path>', 'where the images are made', '/dev/shm')
    .option('--gate', 'exit 1 when the goal is missed', false)
    .option('--json', 'print one JSON object instead of a table', false)
    .parse([...argv], { from: 'user' })
  const options = program.opts<Options>()
  if (options.rounds >= 1 && options.seconds > BEFORE_S) return options
  throw new PlexusError('invalid', {
    op: 'parse',
    subject: 'bench reload',
    message: `--rounds is a number from 1, --seconds one above ${BEFORE_S}`,
  })
}

async function reload(options: Options, teardown: Teardown, signal: AbortSignal): Promise<number> {
  await requirePrograms(['fio', 'gcc', 'losetup', 'setpriv'])
  const load = await buildLoad()
  const head = machineLines()
  const device = await makeLoopDevice(options.directory, parseSize('256MiB'), teardown, signal)
  const directory = await temporaryDirectory(teardown)
  const luns = [{ lun: 0, device: 'disk' }]
  const moreTargets = Array.from({ length: TARGETS - 1 }, (_, i) => ({ name: `other-${i}`, luns }))
  const server = await PEERS['plexus']?.start({
    device: device.path,
    directory,
    teardown,
    signal,
    moreTargets,
  })
  const { url = '', pid = 0, version, configPath = '', controlDir = '' } = server ?? {}
  const control = await RpcClient.connect(socketPaths(controlDir).control)
  teardown.add('closing the control connection', async () => control.close())

  const text = readFileSync(configPath, 'utf8')
  const longer = withDevices(JSON.parse(text) as PlexusConfig, directory)
  const apply = async (file: string): Promise<number> => {
    writeFileSync(configPath, file)
    const startedMs = performance.now()
    await control.call('config.apply', { force: true }, { timeoutMs: RELOAD_TIMEOUT_MS })
    return performance.now() - startedMs
  }
  const around = async (what: string, act: () => Promise<number>): Promise<ReloadRow> => {
    const { seconds } = options
    const reading = runLoad(load, { url, test: READER, seconds, serverPid: pid, raw: true, signal })
    // Its failure is reported below, after the reload has ended.
    reading.catch(() => {})
    await sleep((WARMUP_S + BEFORE_S) * 1000, undefined, { signal })
    const tookMs = await act()
    const { gapUs } = await reading
    if (tookMs > (seconds - BEFORE_S) * 1000) {
      process.stderr.write(`bench: a reload took ${tookMs.toFixed(0)} ms: use more --seconds\n`)
    }
    const row = { reload: what, tookMs, pausesMs: [gapUs / 1000] }
    process.stderr.write(renderReloads([row]))
    return row
  }

  const rows: ReloadRow[] = []
  for (let round = 0; round < options.rounds; round++) {
    rows.push(await around('none', async () => 0))
    rows.push(await around('unchanged', () => apply(text)))
    rows.push(
      await around(`${NEW_DEVICES} devices more`, () => apply(`${JSON.stringify(longer)}\n`)),
    )
    await apply(text)
  }
  const merged = [...new Set(rows.map((row) => row.reload))].map((name): ReloadRow => {
    const all = rows.filter((row) => row.reload === name)
    return {
      reload: name,
      tookMs: Math.max(...all.map(({ tookMs }) => tookMs)),
      pausesMs: all.flatMap(({ pausesMs }) => pausesMs),
    }
  })
  head.push(
    `target:  ${version}, ${TARGETS} targets`,
    `reader:  4 KiB random reads, queue depth 1, ${options.seconds} s around each reload; median of ${options.rounds} rounds`,
    'repeat:  npm run bench -- reload --gate',
  )
  const long = longPauses(merged)
  if (options.json) {
    process.stdout.write(
      `${JSON.stringify({ head, rows: merged, goal: PAUSE_MAX_MS }, undefined, 2)}\n`,
    )
  } else {
    const verdict =
      long.length === 0
        ? `no reload stops the reader for more than ${PAUSE_MAX_MS} ms`
        : `above ${PAUSE_MAX_MS} ms: ${long.map((row) => row.reload).join(', ')}`
    process.stdout.write(`${head.join('\n')}\n\n${renderReloads(merged)}\n${verdict}\n`)
  }
  return options.gate && long.length > 0 ? 1 : 0
}

/** The configuration with more devices, image files in `directory`, and a target for each. */
function withDevices(config: PlexusConfig, directory: string): PlexusConfig {
  const names = Array.from({ length: NEW_DEVICES }, (_, i) => `new-${i}`)
  const images = names.map((name) => {
    const path = join(directory, `${name}.img`)
    writeFileSync(path, '')
    truncateSync(path, MIB)
    return [name, path] as const
  })
  const targets = names.map((name) => targetConfig({ name, luns: [{ lun: 0, device: name }] }))
  return {
    ...config,
    devices: { ...config.devices, ...Object.fromEntries(images) },
    targets: [...config.targets, ...targets],
  }
}

/** The benchmark with its options; the exit status. */
export async function benchReload(argv: readonly string[], signal: AbortSignal): Promise<number> {
  const teardown = new Teardown()
  try {
    return await reload(parseOptions(argv), teardown, signal)
  } finally {
    await teardown.run()
  }
}
