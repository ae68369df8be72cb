/**
 * What each device of the configuration was when it was last there: its serial number, model and size. They are what
 * people need when it is missing, and then nobody can be asked. Kept in the state folder; used by `device show`.
 */
import { join } from 'node:path'
import { toPlexusError } from '../base/errors.ts'
import type { Logger } from '../base/log.ts'
import { readStateFile, replaceStateFile } from './state-file.ts'

const FILE_NAME = 'devices.json'

export interface DeviceFacts {
  readonly path: string
  readonly sizeBytes: number
  readonly blockBytes: number
  readonly wwid?: string | undefined
  readonly serial?: string | undefined
  readonly vendor?: string | undefined
  readonly model?: string | undefined
}

export class DeviceMemory {
  readonly #path: string
  readonly #log: Logger
  readonly #known: Map<string, DeviceFacts>
  #writing: Promise<void> = Promise.resolve()

  constructor(dir: string, log: Logger) {
    this.#path = join(dir, FILE_NAME)
    this.#log = log
    const value = readStateFile(this.#path, log)
    const isRecord = typeof value === 'object' && value !== null
    this.#known = new Map(isRecord ? (Object.entries(value) as [string, DeviceFacts][]) : [])
  }

  /** What is known of a device; undefined: it was never there. */
  get(name: string): DeviceFacts | undefined {
    return this.#known.get(name)
  }

  /** Keeps what a device that is there says of itself; `isConfigured`: those of other names are forgotten. */
  keep(name: string, facts: DeviceFacts, isConfigured: (name: string) => boolean): void {
    if (JSON.stringify(this.#known.get(name)) === JSON.stringify(facts)) return
    this.#known.set(name, facts)
    for (const one of [...this.#known.keys()]) if (!isConfigured(one)) this.#known.delete(one)
    this.#writing = this.#writing
      .then(() =>
        replaceStateFile(this.#path, `${JSON.stringify(Object.fromEntries(this.#known))}\n`),
      )
      .catch((error: unknown) => {
        this.#log.warn(
          { err: toPlexusError(error, 'write', this.#path) },
          'devices are not remembered',
        )
      })
  }

  /** Resolves when all that was kept is in the file. */
  async settled(): Promise<void> {
    await this.#writing
  }
}
