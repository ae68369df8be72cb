/**
 * A flood in a thread of its own, so that the honest sessions do not wait for the flooders' share of the fuzzer's
 * event loop. Started by {@link floodInThread}.
 */
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { FLOODS, type FloodOutcome } from './floods.ts'

/** Where in the shared memory stand the flag that ends the flood, and the count of answers. */
const OVER = 0
const ANSWERS = 1

interface FloodData {
  readonly name: string
  readonly port: number
  readonly targetName: string
  readonly statusPath: string
  readonly shared: Int32Array
}

export interface FloodOptions extends Omit<FloodData, 'shared'> {
  readonly isOver: () => boolean
}

const LOOK_MS = 20

/** Runs the flood of that name until `isOver`. */
export async function floodInThread(
  options: FloodOptions,
): Promise<FloodOutcome & { readonly answers: number }> {
  const { isOver, ...rest } = options
  const shared = new Int32Array(new SharedArrayBuffer(8))
  const data: FloodData = { ...rest, shared }
  const worker = new Worker(new URL(import.meta.url), { workerData: data })
  const timer = setInterval(() => {
    if (isOver()) Atomics.store(shared, OVER, 1)
  }, LOOK_MS)
  try {
    const outcome = await new Promise<FloodOutcome>((resolve, reject) => {
      worker.once('message', resolve)
      worker.once('error', reject)
    })
    return { ...outcome, answers: Atomics.load(shared, ANSWERS) }
  } finally {
    clearInterval(timer)
    await worker.terminate()
  }
}

if (!isMainThread && parentPort) {
  const { name, shared, ...rest } = workerData as FloodData
  const outcome = await FLOODS.find((flood) => flood.name === name)?.run({
    ...rest,
    isOver: () => Atomics.load(shared, OVER) === 1,
    answered: () => Atomics.add(shared, ANSWERS, 1),
  })
  parentPort.postMessage(outcome)
}
