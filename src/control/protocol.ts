/**
 * The language between the daemon and its clients: JSON-RPC 2.0, one line of JSON for each message, over two
 * unix sockets. control.sock carries every method, status.sock those that change nothing; Node cannot read
 * the credentials of a peer, so the mode of the socket file is the policy. Parsing and forming only: the sockets
 * are in rpc-client.ts and daemon/control-server.ts.
 */
import { join } from 'node:path'
import { ERROR_KINDS, type ErrorKind, PlexusError } from '../base/errors.ts'

export const CONTROL_DIR_DEFAULT = '/run/plexus'

/** The two sockets in the directory that the configuration names (`control: { dir: … }`). */
export function socketPaths(dir: string): { readonly control: string; readonly status: string } {
  return { control: join(dir, 'control.sock'), status: join(dir, 'status.sock') }
}

/** What `outputVersion` says of every answer: a new minor version only adds keys. */
export const OUTPUT_MAJOR = 1
export const OUTPUT_MINOR = 0

/** Modes of the socket files: the whole access policy. */
export const CONTROL_SOCKET_MODE = 0o660
export const STATUS_SOCKET_MODE = 0o666
/** Group of control.sock, where the system has one of that name. */
export const CONTROL_GROUP = 'plexus'

export type RequestId = string | number

export interface RpcRequest {
  readonly id: RequestId
  readonly method: string
  readonly params: Readonly<Record<string, unknown>>
}

/** What a failed request says: `data` has the fields of a PlexusError. */
export interface RpcErrorObject {
  readonly code: number
  readonly message: string
  readonly data?: { readonly kind: ErrorKind; readonly subject: string; readonly op: string }
}

/** JSON-RPC 2.0, 5.1; OPERATION is ours, for every PlexusError: its `kind` says the rest. */
export const RPC_CODE = {
  PARSE: -32700,
  INVALID_REQUEST: -32600,
  METHOD_NOT_FOUND: -32601,
  INVALID_PARAMS: -32602,
  INTERNAL: -32603,
  OPERATION: -32000,
} as const

/** Exit codes of the command line. */
export const EXIT = {
  DONE: 0,
  FAILED: 1,
  USAGE: 2,
  UNREACHABLE: 3,
  NOT_FOUND: 4,
  REFUSED: 5,
  NOT_PERMITTED: 6,
  TIMEOUT: 7,
  // status --check
  DEGRADED: 10,
  FAULTED: 11,
  CONFIG_DIFFERS: 12,
} as const

/** What the command line ends with when the daemon answers an error of a kind. */
export const EXIT_OF_KIND: Readonly<Record<ErrorKind, number>> = {
  invalid: EXIT.USAGE,
  'not-found': EXIT.NOT_FOUND,
  exists: EXIT.REFUSED,
  'in-use': EXIT.REFUSED,
  foreign: EXIT.REFUSED,
  permission: EXIT.NOT_PERMITTED,
  gone: EXIT.FAILED,
  io: EXIT.FAILED,
  'no-space': EXIT.FAILED,
  corrupt: EXIT.FAILED,
  timeout: EXIT.TIMEOUT,
  unsupported: EXIT.FAILED,
  aborted: EXIT.FAILED,
  exhausted: EXIT.FAILED,
  protocol: EXIT.FAILED,
}

/** A request that is not one; `code` goes into the answer, with the id where one could be read. */
export class RpcFault extends Error {
  readonly code: number
  readonly id: RequestId | null

  constructor(code: number, message: string, id: RequestId | null = null) {
    super(message)
    this.code = code
    this.id = id
  }
}

function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

function isRequestId(value: unknown): value is RequestId {
  return typeof value === 'string' || (typeof value === 'number' && Number.isFinite(value))
}

/**
 * One line as a request. Batches and requests without an id (notifications) are refused: every change wants
 * an answer. Throws {@link RpcFault}.
 */
export function parseRequest(line: string): RpcRequest {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    throw new RpcFault(RPC_CODE.PARSE, 'a message is one line of JSON')
  }
  if (!isRecord(value)) {
    throw new RpcFault(
      RPC_CODE.INVALID_REQUEST,
      'a message is one JSON object; batches are not taken',
    )
  }
  const { jsonrpc, id, method, params = {} } = value
  const known = isRequestId(id) ? id : null
  const wrong = (what: string): RpcFault => new RpcFault(RPC_CODE.INVALID_REQUEST, what, known)
  if (jsonrpc !== '2.0') throw wrong('"jsonrpc" must be "2.0"')
  if (known === null) throw wrong('"id" must be a text or a number')
  if (typeof method !== 'string') throw wrong('"method" must be a text')
  if (!isRecord(params)) {
    throw new RpcFault(RPC_CODE.INVALID_PARAMS, '"params" must be an object', known)
  }
  return { id: known, method, params }
}

/** One message as a line. Called for requests by the client, for the rest by the server. */
export function encodeMessage(message: object): string {
  return `${JSON.stringify({ jsonrpc: '2.0', ...message })}\n`
}

/** The error object of an operating error. */
export function errorObject(error: PlexusError): RpcErrorObject {
  const { kind, subject, op, message } = error
  return {
    code: kind === 'invalid' ? RPC_CODE.INVALID_PARAMS : RPC_CODE.OPERATION,
    message,
    data: { kind, subject, op },
  }
}

export type ServerMessage =
  | { readonly type: 'result'; readonly id: RequestId; readonly result: unknown }
  | { readonly type: 'error'; readonly id: RequestId | null; readonly error: PlexusError }
  | { readonly type: 'notification'; readonly method: string; readonly params: unknown }

/** Kinds for errors that are not operating errors, so that a client sees one type of error only. */
const KIND_OF_CODE: Readonly<Record<number, ErrorKind>> = {
  [RPC_CODE.METHOD_NOT_FOUND]: 'unsupported',
  [RPC_CODE.INVALID_PARAMS]: 'invalid',
}

/** One line from the daemon. Throws PlexusError `protocol` where it is not a message. */
export function parseServerMessage(line: string): ServerMessage {
  let value: unknown
  try {
    value = JSON.parse(line)
  } catch {
    value = undefined
  }
  if (isRecord(value) && value['jsonrpc'] === '2.0') {
    const { id, method, params, error } = value
    if (typeof method === 'string') return { type: 'notification', method, params }
    if (isRecord(error) && (id === null || isRequestId(id))) {
      return { type: 'error', id, error: readError(error) }
    }
    if ('result' in value && isRequestId(id)) return { type: 'result', id, result: value['result'] }
  }
  throw new PlexusError('protocol', {
    op: 'parse',
    subject: 'control socket',
    message: 'the answer is not from plexusd: something else listens on this socket',
  })
}

function readError(error: Readonly<Record<string, unknown>>): PlexusError {
  const data = isRecord(error['data']) ? error['data'] : {}
  const kind = ERROR_KINDS.find((one) => one === data['kind'])
  return new PlexusError(kind ?? KIND_OF_CODE[Number(error['code'])] ?? 'protocol', {
    op: String(data['op'] ?? 'call'),
    subject: String(data['subject'] ?? 'plexusd'),
    message: String(error['message'] ?? 'plexusd failed without a reason'),
  })
}

/**
 * Cuts a stream of bytes into lines, within a bound. One splitter for each connection; `push` gives the lines
 * that are complete now, one at a time as they are asked for: all of them before the next push. Throws {@link RpcFault}
 * when a line grows beyond the bound: the connection must end then, because what follows cannot be told apart.
 */
export class LineSplitter {
  readonly #maxBytes: number
  /** The beginning of a line; its length is what has been taken, not what is in use. */
  #held = Buffer.alloc(0)
  #heldBytes = 0

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  *push(chunk: Buffer): Generator<string, void, void> {
    let from = 0
    for (let end = chunk.indexOf(10); end >= 0; end = chunk.indexOf(10, from)) {
      const line = this.#whole(chunk.subarray(from, end))
      from = end + 1
      if (line !== '') yield line
    }
    if (from < chunk.length) this.#hold(chunk.subarray(from))
  }

  #whole(rest: Buffer): string {
    if (rest.length === 0 && this.#heldBytes === 0) return ''
    this.#hold(rest)
    const line = this.#held.toString('utf8', 0, this.#heldBytes).trim()
    this.#held = Buffer.alloc(0)
    this.#heldBytes = 0
    return line
  }

  /** However small the parts are in which a line comes, it takes twice its length in memory at most. */
  #hold(part: Buffer): void {
    const bytes = this.#heldBytes + part.length
    if (bytes > this.#maxBytes) {
      throw new RpcFault(RPC_CODE.INVALID_REQUEST, `a line has at most ${this.#maxBytes} bytes`)
    }
    if (bytes > this.#held.length) {
      const larger = Buffer.alloc(Math.min(2 * bytes, this.#maxBytes))
      this.#held.copy(larger, 0, 0, this.#heldBytes)
      this.#held = larger
    }
    part.copy(this.#held, this.#heldBytes)
    this.#heldBytes = bytes
  }
}
