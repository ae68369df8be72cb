/** The thread that config-thread.ts starts: reads and checks one configuration and hands it back as plain data. */
import { parentPort, workerData } from 'node:worker_threads'
import { PlexusError } from '../base/errors.ts'
import { ConfigError, loadConfig, parseConfig } from './config.ts'
import type { ConfigAnswer, ConfigQuestion } from './config-thread.ts'

function answer({ file, text }: ConfigQuestion): ConfigAnswer {
  try {
    return { config: text === undefined ? loadConfig(file) : parseConfig(text, file) }
  } catch (error) {
    if (error instanceof ConfigError) return { problems: error.problems }
    if (!(error instanceof PlexusError)) throw error
    const { kind, op, subject, message } = error
    return { error: { kind, op, subject, message } }
  }
}

parentPort?.postMessage(answer(workerData as ConfigQuestion))
