/** What verbs have set and a restart must not forget, in the state folder. Used by plexusd.ts. */
import { join } from 'node:path'
import type { Logger } from '../base/log.ts'
import { readStateFile, replaceStateFile } from './state-file.ts'

const FILE_NAME = 'settings.json'

export class Settings {
  readonly #path: string
  readonly #jobLimitBytesPerSecond: number | undefined

  constructor(dir: string, log: Logger) {
    this.#path = join(dir, FILE_NAME)
    const value = readStateFile(this.#path, log)
    const limit: unknown =
      typeof value === 'object' && value !== null && 'jobLimitBytesPerSecond' in value
        ? value.jobLimitBytesPerSecond
        : undefined
    this.#jobLimitBytesPerSecond = typeof limit === 'number' && limit > 0 ? limit : undefined
  }

  /** `job limit all`, as it was at the start; undefined: no bound. */
  get jobLimitBytesPerSecond(): number | undefined {
    return this.#jobLimitBytesPerSecond
  }

  /** Resolves when it is durable; rejects with PlexusError. */
  keepJobLimit(jobLimitBytesPerSecond: number | undefined): Promise<void> {
    return replaceStateFile(this.#path, `${JSON.stringify({ jobLimitBytesPerSecond })}\n`)
  }
}
