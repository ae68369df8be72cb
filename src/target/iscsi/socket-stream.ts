/**
 * An accepted TCP connection as a stream of bytes: reads land in the buffer that the owner names
 * (net's `onread`), writes are batches of pieces that leave in one writev. Called by portal.ts (accept)
 * and connection.ts (everything else).
 *
 * `onread` needs to be given when the Socket is made, which net.Server does not offer in Node 20. So the
 * accepted handle moves into a Socket of our own; where that is not possible, the same bytes come as
 * 'data' events and are copied once more (docs/adr/0004-receive-buffers.md).
 */
import net from 'node:net'
import { type TcpProgress, tcpProgress } from '../../hal/libc.ts'
import type { Batch } from '../../iscsi/pdu-writer.ts'

export interface StreamOwner {
  /** Where the next bytes shall be read to. */
  nextBuffer(): Buffer
  /** `count` bytes are at the start of the last `nextBuffer`. False: read no more for now. */
  received(count: number): boolean
  /** Bytes that came by the fallback way. */
  push(from: Buffer, start: number, end: number): boolean
  /** All sent bytes that waited have left. */
  drained(): void
  /** The connection is over; called once. All batches have been given back. */
  closed(error: Error | undefined): void
}

/** What of node:net's internals the handle's move relies on. */
interface WithHandle {
  _handle: { readonly fd?: number } | null
}

/** Memory in the send queues of all streams that share it: copies of answers, not leases. */
export interface SendQueues {
  copiedBytes: number
}

export class SocketStream {
  readonly remoteAddress: string
  readonly remotePort: number
  readonly localAddress: string
  readonly localPort: number
  readonly #socket: net.Socket
  readonly #owner: StreamOwner
  readonly #queues: SendQueues
  /** Of the socket; -1: unknown. */
  readonly #fd: number
  readonly #batches = new Set<Batch>()
  /** Bytes handed to the socket that have not left. */
  queuedBytes = 0
  #closed = false

  /** Takes over a socket that was accepted with `pauseOnConnect`. */
  constructor(accepted: net.Socket, owner: StreamOwner, queues: SendQueues) {
    this.#owner = owner
    this.#queues = queues
    this.#fd = (accepted as unknown as WithHandle)._handle?.fd ?? -1
    this.remoteAddress = accepted.remoteAddress ?? '?'
    this.remotePort = accepted.remotePort ?? 0
    this.localAddress = accepted.localAddress ?? '?'
    this.localPort = accepted.localPort ?? 0
    this.#socket = this.#adopt(accepted)
    this.#socket.setNoDelay(true)
    let failure: Error | undefined
    this.#socket.on('error', (error) => {
      failure = error
    })
    this.#socket.on('end', () => this.destroy())
    this.#socket.on('close', () => {
      if (this.#closed) return
      this.#closed = true
      for (const batch of this.#batches) this.#left(batch)
      owner.closed(failure)
    })
  }

  #adopt(accepted: net.Socket): net.Socket {
    const holder = accepted as unknown as WithHandle
    const handle = holder._handle
    if (handle === null || typeof handle !== 'object') return this.#listenForData(accepted)
    holder._handle = null
    const socket = new net.Socket({
      handle,
      readable: true,
      writable: true,
      onread: {
        buffer: () => this.#owner.nextBuffer() as Uint8Array,
        callback: (count: number) => this.#owner.received(count),
      },
    } as unknown as net.SocketConstructorOpts)
    // The empty shell: destroying it only tells the server's count of connections.
    accepted.destroy()
    return socket
  }

  #listenForData(accepted: net.Socket): net.Socket {
    accepted.on('data', (chunk: Buffer) => {
      if (!this.#owner.push(chunk, 0, chunk.length)) accepted.pause()
    })
    accepted.resume()
    return accepted
  }

  get isClosed(): boolean {
    return this.#closed || this.#socket.destroyed
  }

  /** Sends all pieces of a batch in order, and calls its `sent` when they have left or never will. */
  send(batch: Batch): void {
    const socket = this.#socket
    if (this.isClosed || !socket.writable) {
      batch.sent()
      return
    }
    this.#batches.add(batch)
    this.queuedBytes += batch.bytes
    this.#queues.copiedBytes += batch.copiedBytes
    const done = (): void => {
      if (this.#left(batch)) this.#owner.drained()
    }
    const pieces = batch.pieces
    const last = pieces.length - 1
    if (last === 0) {
      socket.write(pieces[0] as Buffer, done)
      return
    }
    socket.cork()
    for (let i = 0; i < last; i++) socket.write(pieces[i] as Buffer)
    socket.write(pieces[last] as Buffer, done)
    socket.uncork()
  }

  /** A batch is out of the queue, sent or lost. False: it was before. */
  #left(batch: Batch): boolean {
    if (!this.#batches.delete(batch)) return false
    this.queuedBytes -= batch.bytes
    this.#queues.copiedBytes -= batch.copiedBytes
    batch.sent()
    return true
  }

  /** What the peer has taken so far. Where the kernel does not say, what has left the queue counts as taken. */
  progress(): TcpProgress {
    const waits = this.queuedBytes > 0
    const known = this.isClosed || this.#fd < 0 ? undefined : tcpProgress(this.#fd)
    if (!known) return { acknowledgedBytes: -this.queuedBytes, waits }
    return { ...known, waits: known.waits || waits }
  }

  /** Reads on, after `received` or `push` said not to. */
  resume(): void {
    if (!this.isClosed) this.#socket.resume()
  }

  /** Sends what is queued, then closes. */
  end(): void {
    if (!this.isClosed) this.#socket.end()
  }

  destroy(): void {
    this.#socket.destroy()
  }
}
