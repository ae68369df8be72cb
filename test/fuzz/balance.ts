/**
 * What the target has to have back when all attackers have gone: the buffers of the pool, sessions, connections, file
 * descriptors, memory. Counted at the end of each round, while the honest sessions rest.
 */
import { readdirSync } from 'node:fs'
import type { RpcClient } from '../../src/control/rpc-client.ts'
import type { Daemon } from '../support/daemon.ts'
import { sleep } from './attack-context.ts'

/** `.target` of `plexus stat --json`. */
interface TargetCounters {
  readonly pool: {
    readonly totalBytes: number
    readonly freeBytes: number
    readonly leased: number
  }
  readonly connections: number
  readonly sessions: number
  readonly sendQueueBytes: number
}

const LOOK_MS = 50

export class Balance {
  readonly memory: { readonly seconds: number[]; readonly residentBytes: number[] } = {
    seconds: [],
    residentBytes: [],
  }
  readonly #daemon: Daemon
  readonly #control: RpcClient
  readonly #startedMs = performance.now()
  #warmFiles = 0

  constructor(daemon: Daemon, control: RpcClient) {
    this.#daemon = daemon
    this.#control = control
  }

  /** Remembers how many files a warm daemon has open. */
  warm(): void {
    this.#warmFiles = this.#openFiles()
  }

  sampleMemory(): void {
    this.memory.seconds.push((performance.now() - this.#startedMs) / 1000)
    this.memory.residentBytes.push(this.#daemon.residentBytes)
  }

  /**
   * Waits until all has come back but what `honest` resting sessions have. What is missing after `timeoutMs`, in
   * words; undefined: nothing.
   */
  async missing(honest: number, timeoutMs: number): Promise<string | undefined> {
    const deadlineMs = performance.now() + timeoutMs
    for (;;) {
      const missing = await this.#look(honest)
      if (missing === undefined || performance.now() > deadlineMs) return missing
      await sleep(LOOK_MS)
    }
  }

  async #look(honest: number): Promise<string | undefined> {
    const { target } = (await this.#control.call('stat')) as { target?: TargetCounters }
    if (!target) return 'plexus stat --json has no .target: the pool cannot be counted'
    const { pool, connections, sessions, sendQueueBytes } = target
    const heldBytes = pool.totalBytes - pool.freeBytes
    const files = this.#openFiles()
    const missing = [
      pool.leased === 0 && heldBytes === 0
        ? ''
        : `${pool.leased} leases of the pool are out (${heldBytes} of ${pool.totalBytes} bytes)`,
      connections === honest ? '' : `${connections} connections, of ${honest} honest sessions`,
      sessions === honest ? '' : `${sessions} sessions, of which ${honest} are honest`,
      sendQueueBytes === 0 ? '' : `${sendQueueBytes} bytes are in send queues`,
      files <= this.#warmFiles ? '' : `${files} files are open, ${this.#warmFiles} when warm`,
    ].filter((text) => text !== '')
    return missing.length === 0 ? undefined : missing.join('; ')
  }

  #openFiles(): number {
    return readdirSync(`/proc/${this.#daemon.pid}/fd`).length
  }
}
