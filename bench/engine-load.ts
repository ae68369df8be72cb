/**
 * The load of the engine benchmark: requests in a closed loop, straight into a device or a provider of this
 * process, and what they cost it. Called by engine.ts.
 */
import { performance } from 'node:perf_hooks'
import { defined } from '../src/base/assert.ts'
import type { PlexusError } from '../src/base/errors.ts'
import type { AlignedBuffer, BufferPool, IoOp, IoRequest, Lease } from '../src/hal/block-device.ts'
import type { Submitter } from '../src/hal/io.ts'
import type { Case, LoadKind } from './cases.ts'

/** One stream of requests to one device: `depth` of them are under way at any time. */
export interface Lane {
  readonly target: Submitter
  /** Requests lie in the first bytes of the target, as many as this. */
  readonly spanBytes: number
  readonly bytes: number
  readonly depth: number
}

export interface EngineSample {
  readonly opsPerSecond: number
  readonly bytesPerSecond: number
  /** From the submission to the completion, by Little's law. */
  readonly meanUs: number
  /** CPU time of this process, all threads; the kernel's own threads are not in it. */
  readonly cpuUsPerOp: number
}

export interface LoadTimes {
  readonly warmUpMs: number
  readonly measuredMs: number
}

/** Does this kind read, and does it jump about? The mix of bench.ts is not for comparing classes. */
const KINDS: Readonly<Partial<Record<LoadKind, { readonly op: IoOp; readonly random: boolean }>>> =
  {
    rr: { op: 'read', random: true },
    rw: { op: 'write', random: true },
    sr: { op: 'read', random: false },
    sw: { op: 'write', random: false },
  }

/** Can {@link runLanes} do it? */
export function isEngineCase({ kind, sessions }: Case): boolean {
  return KINDS[kind] !== undefined && sessions === 1
}

/** Any start will do; the same one, so that every contestant gets the same addresses. */
const SEED = 0x2545f491

/** Of the blocks of a lane that are asked for once each, one lies so far behind the one before. */
const STRIDE = (Math.sqrt(5) - 1) / 2

/** The addresses of one lane, in the order of submission. */
class Addresses {
  readonly #random: boolean
  readonly #bytes: number
  readonly #blocks: number
  readonly #step: number
  #state = SEED
  #next = 0

  /** `once`: each block comes once before one comes again, also in no order. */
  constructor(random: boolean, { bytes, spanBytes }: Lane, once = false) {
    this.#random = random && !once
    this.#bytes = bytes
    this.#blocks = Math.floor(spanBytes / bytes)
    this.#step = random ? stride(this.#blocks) : 1
  }

  get blocks(): number {
    return this.#blocks
  }

  next(): number {
    if (this.#random) {
      this.#state = (Math.imul(this.#state, 1664525) + 1013904223) >>> 0
      return Math.floor((this.#state / 2 ** 32) * this.#blocks) * this.#bytes
    }
    const block = this.#next
    this.#next = (block + this.#step) % this.#blocks
    return block * this.#bytes
  }
}

function stride(blocks: number): number {
  let step = Math.max(1, Math.floor(blocks * STRIDE))
  while (commonDivisor(step, blocks) > 1) step++
  return step
}

function commonDivisor(a: number, b: number): number {
  return b === 0 ? a : commonDivisor(b, a % b)
}

/** What all requests of a run share. */
interface Run {
  /** Requests that are still to be started. */
  left: number
  finished: number
  underWay: number
  stopping: boolean
  error: PlexusError | undefined
  idle: () => void
}

/** One of the requests that are under way, used again and again. */
class Worker implements IoRequest {
  readonly op: IoOp
  readonly length: number
  readonly data: AlignedBuffer
  readonly dataOffset = 0
  readonly fua = false
  readonly cause = 'initiator'
  offset = 0
  readonly #target: Submitter
  readonly #addresses: Addresses
  readonly #run: Run

  constructor(op: IoOp, lane: Lane, addresses: Addresses, data: AlignedBuffer, run: Run) {
    this.op = op
    this.length = lane.bytes
    this.data = data
    this.#target = lane.target
    this.#addresses = addresses
    this.#run = run
  }

  start(): void {
    this.#run.left--
    this.#run.underWay++
    this.offset = this.#addresses.next()
    this.#target.submit(this)
  }

  complete(error: PlexusError | undefined): void {
    const run = this.#run
    run.underWay--
    run.finished++
    if (error) {
      run.error ??= error
      run.stopping = true
    }
    if (!run.stopping && run.left > 0) this.start()
    else if (run.underWay === 0) run.idle()
  }
}

function newRun(left: number): Run {
  const none = { finished: 0, underWay: 0, stopping: false, error: undefined, idle: () => {} }
  return { ...none, left }
}

/**
 * Asks for each block of a lane once, and again after `prepare` until the measured time is used up; what `prepare` takes does not
 * count. Rejects as {@link runLanes}.
 */
export async function runPasses(
  test: Case,
  lane: Lane,
  pool: BufferPool,
  { measuredMs }: LoadTimes,
  prepare: () => Promise<void>,
): Promise<EngineSample> {
  const { op, random } = defined(KINDS[test.kind], `the kind of ${test.name}`)
  const sum = { operations: 0, ms: 0, cpuUs: 0 }
  const leases = Array.from({ length: lane.depth }, () => {
    return defined(pool.lease(lane.bytes), 'a buffer of the pool')
  })
  while (sum.ms < measuredMs) {
    await prepare()
    const addresses = new Addresses(random, lane, true)
    const run = newRun(addresses.blocks)
    const workers = leases.map((lease) => new Worker(op, lane, addresses, lease, run))
    const ended = new Promise<void>((resolve) => {
      run.idle = resolve
    })
    const before = read(run)
    for (const worker of workers.slice(0, addresses.blocks)) worker.start()
    await ended
    const after = read(run)
    if (run.error) throw run.error
    sum.operations += run.finished
    sum.ms += after.atMs - before.atMs
    sum.cpuUs += after.cpuUs - before.cpuUs
  }
  for (const lease of leases) lease.release()
  const opsPerSecond = (sum.operations / sum.ms) * 1000
  return {
    opsPerSecond,
    bytesPerSecond: opsPerSecond * lane.bytes,
    meanUs: (lane.depth * sum.ms * 1000) / sum.operations,
    cpuUsPerOp: sum.cpuUs / sum.operations,
  }
}

/**
 * Runs all lanes at once and measures after the warm-up. Everything has ended when this resolves; rejects with
 * the first error of a request.
 */
export async function runLanes(
  test: Case,
  lanes: readonly Lane[],
  pool: BufferPool,
  times: LoadTimes,
): Promise<EngineSample> {
  const { op, random } = defined(KINDS[test.kind], `the kind of ${test.name}`)
  const run = newRun(Number.POSITIVE_INFINITY)
  const leases: Lease[] = []
  const workers = lanes.flatMap((lane) => {
    const addresses = new Addresses(random, lane)
    return Array.from({ length: lane.depth }, () => {
      const lease = defined(pool.lease(lane.bytes), 'a buffer of the pool')
      leases.push(lease)
      return new Worker(op, lane, addresses, lease, run)
    })
  })
  const ended = new Promise<void>((resolve) => {
    run.idle = resolve
  })
  for (const worker of workers) worker.start()
  await pause(times.warmUpMs)
  const before = read(run)
  await pause(times.measuredMs)
  const after = read(run)
  run.stopping = true
  await ended
  for (const lease of leases) lease.release()
  if (run.error) throw run.error
  const operations = Math.max(1, after.finished - before.finished)
  const seconds = (after.atMs - before.atMs) / 1000
  const bytes = lanes[0]?.bytes ?? 0
  return {
    opsPerSecond: operations / seconds,
    bytesPerSecond: (operations * bytes) / seconds,
    meanUs: (workers.length * seconds * 1e6) / operations,
    cpuUsPerOp: (after.cpuUs - before.cpuUs) / operations,
  }
}

function read(run: Run): { finished: number; cpuUs: number; atMs: number } {
  const { user, system } = process.cpuUsage()
  return { finished: run.finished, cpuUs: user + system, atMs: performance.now() }
}

/** A pause that keeps the process alive. */
function pause(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms))
}
