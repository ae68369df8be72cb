/**
 * Reads and checks a configuration in a thread of its own: parsing one with thousands of targets takes seconds, during
 * which initiators must be served. For everything that a running daemon reads; the start and `--check`, which serve
 * nobody yet, call config.ts themselves.
 */
import { MessageChannel, type MessagePort, receiveMessageOnPort, Worker } from 'node:worker_threads'
import { type ErrorKind, PlexusError } from '../base/errors.ts'
import { nextTurn } from '../base/turns.ts'
import { type Config, ConfigError, type CredentialsConfig } from './config.ts'
import type { Problem } from './config-source.ts'

export interface ConfigQuestion {
  /** Absolute. */
  readonly file: string
  /** What is checked in place of the file's content. */
  readonly text: string | undefined
}

/** The lists that may be long. */
export type ConfigLists = Pick<Config, 'auth' | 'devices' | 'units' | 'targets'>

export interface ConfigPiece {
  /** A key of {@link ConfigLists}. */
  readonly list: string
  readonly rows: readonly unknown[]
}

/** What the worker says when all pieces have been sent. */
export type ConfigAnswer =
  | { readonly rest: Omit<Config, keyof ConfigLists> }
  | { readonly problems: readonly Problem[] }
  | { readonly error: { kind: ErrorKind; op: string; subject: string; message: string } }

const WORKER_URL = new URL('./config-worker.js', import.meta.url)

/** As `loadConfig`, or, with a text, as `parseConfig`. */
export async function readConfig(file: string, text?: string): Promise<Config> {
  const question: ConfigQuestion = { file, text }
  const { port1: pieces, port2: port } = new MessageChannel()
  try {
    const answer = await new Promise<ConfigAnswer>((resolve, reject) => {
      const worker = new Worker(WORKER_URL, {
        name: 'plexus-config',
        workerData: { question, port },
        transferList: [port],
      })
      worker.once('message', resolve)
      worker.once('error', reject)
      // After an answer this does nothing.
      worker.once('exit', () => reject(new Error(`the thread that reads ${file} has ended`)))
    })
    if ('rest' in answer) return withBuffers({ ...answer.rest, ...(await listsOf(pieces)) })
    if ('problems' in answer) throw new ConfigError(file, answer.problems)
    throw new PlexusError(answer.error.kind, answer.error)
  } finally {
    pieces.close()
  }
}

/** Puts the pieces together, one in each turn of the event loop. */
async function listsOf(pieces: MessagePort): Promise<ConfigLists> {
  const lists = new Map<string, unknown[]>()
  for (let next = receive(pieces); next; next = receive(pieces)) {
    const rows = lists.get(next.list)
    if (rows) rows.push(...next.rows)
    else lists.set(next.list, [...next.rows])
    await nextTurn()
  }
  const none = { auth: [], devices: [], units: [], targets: [] }
  return { ...none, ...Object.fromEntries(lists) } as ConfigLists
}

function receive(pieces: MessagePort): ConfigPiece | undefined {
  return receiveMessageOnPort(pieces)?.message as ConfigPiece | undefined
}

/** A Buffer comes out of a thread as a plain Uint8Array. */
function withBuffers(config: Config): Config {
  const credentials = (one: CredentialsConfig | undefined): CredentialsConfig | undefined =>
    one && { ...one, secret: Buffer.from(one.secret) }
  return {
    ...config,
    auth: config.auth.map((group) => ({
      ...group,
      chap: credentials(group.chap),
      mutual: credentials(group.mutual),
    })),
  }
}
