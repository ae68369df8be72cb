/**
 * The thread that config-thread.ts starts: reads and checks one configuration and hands it back as plain data, long lists
 * in pieces, since taking a message apart is the receiver's work.
 */
import { type MessagePort, parentPort, workerData } from 'node:worker_threads'
import { PlexusError } from '../base/errors.ts'
import { CONFIG_PIECE_ROWS } from '../base/limits.ts'
import { type Config, ConfigError, loadConfig, parseConfig } from './config.ts'
import type { ConfigAnswer, ConfigLists, ConfigPiece, ConfigQuestion } from './config-thread.ts'

function load({ file, text }: ConfigQuestion, port: MessagePort): ConfigAnswer {
  try {
    return inPieces(text === undefined ? loadConfig(file) : parseConfig(text, file), port)
  } catch (error) {
    if (error instanceof ConfigError) return { problems: error.problems }
    if (!(error instanceof PlexusError)) throw error
    const { kind, op, subject, message } = error
    return { error: { kind, op, subject, message } }
  }
}

function inPieces(config: Config, port: MessagePort): ConfigAnswer {
  const { auth, devices, units, targets, ...rest } = config
  const lists: ConfigLists = { auth, devices, units, targets }
  for (const [list, rows] of Object.entries(lists)) {
    for (let at = 0; at < rows.length; at += CONFIG_PIECE_ROWS) {
      const piece: ConfigPiece = { list, rows: rows.slice(at, at + CONFIG_PIECE_ROWS) }
      port.postMessage(piece)
    }
  }
  return { rest }
}

const { question, port } = workerData as { question: ConfigQuestion; port: MessagePort }
parentPort?.postMessage(load(question, port))
