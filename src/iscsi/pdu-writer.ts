/**
 * Collects PDUs for one stream and hands them over in few, large pieces. No sockets: `send` takes the
 * pieces. Headers and short data are copied into staging buffers, so that all answers of one batch leave
 * in one write; long data stays where it is and is referenced until it has left. Digests (CRC32C, RFC
 * 7143, 11.2.1) are added here.
 */
import { assert } from '../base/assert.ts'
import { crc32c } from '../base/crc32c.ts'
import { BHS_BYTES, DIGEST_BYTES, padBytes } from './pdu.ts'

/** Data up to this length is copied behind its header: cheaper than one more piece. */
const COPY_BYTES_MAX = 8 * 1024
/** Staging buffers that a stream keeps for reuse. */
const STAGING_KEPT = 4

/** Memory that is lent to the writer: a lease of the buffer pool. */
export interface Held {
  readonly bytes: Buffer
  release(): void
}

/** What one flush hands over. `sent` must be called once the kernel has taken (or lost) all pieces. */
export interface Batch {
  readonly pieces: Buffer[]
  readonly bytes: number
  /** Of these, copies in staging buffers; the rest lies in leases. */
  readonly copiedBytes: number
  sent(): void
}

export class PduWriter {
  headerDigest = false
  dataDigest = false
  /** Size of the next staging buffers; a multiple of 4 above a header with its digest. */
  stagingBytes: number
  readonly #send: (batch: Batch) => void
  readonly #idle: Buffer[] = []
  #staging: Buffer | undefined
  /** The bytes of the staging buffer that are in no piece yet: [#from, #to). */
  #from = 0
  #to = 0
  #pieces: Buffer[] = []
  #stagings: Buffer[] = []
  #leases: Held[] = []
  #bytes = 0
  #leasedBytes = 0
  /** Batches that are on their way: their pieces point into the staging buffers. */
  #underway = 0

  constructor(send: (batch: Batch) => void, stagingBytes: number) {
    this.#send = send
    this.stagingBytes = stagingBytes
  }

  /** Bytes that wait for `flush`. */
  get pendingBytes(): number {
    return this.#bytes
  }

  /**
   * Space for one header of 48 bytes in the returned buffer at {@link headerAt}; it must be followed by exactly one of
   * `end`, `endWith` or `endWithLease` once the header is filled in.
   */
  begin(): Buffer {
    if (this.#bytes === 0 && this.#underway === 0) {
      this.#from = 0
      this.#to = 0
    }
    if (this.#staging === undefined || this.#to + BHS_BYTES + DIGEST_BYTES > this.#staging.length)
      this.#renew()
    return this.#staging as Buffer
  }

  get headerAt(): number {
    return this.#to
  }

  /** Ends a PDU without data. */
  end(): void {
    this.#endHeader()
  }

  /** Ends a PDU whose data segment is `data[start..start+length)`; the bytes are copied. */
  endWith(data: Buffer, start: number, length: number): void {
    this.#endHeader()
    this.#copy(data, start, length)
    this.#endData(data, start, length)
  }

  /**
   * Ends a PDU whose data segment is `lease.bytes[start..start+length)`. The lease is not released before
   * `release` was called and the bytes have left; returns true where they were copied.
   */
  endWithLease(lease: Held, start: number, length: number): boolean {
    this.#endHeader()
    const copied = length <= COPY_BYTES_MAX
    if (copied) {
      this.#copy(lease.bytes, start, length)
    } else {
      this.#cut()
      this.#pieces.push(lease.bytes.subarray(start, start + length))
      this.#bytes += length
      this.#leasedBytes += length
    }
    this.#endData(lease.bytes, start, length)
    return copied
  }

  /** Releases the lease when everything that was written so far has left. */
  release(lease: Held): void {
    this.#leases.push(lease)
  }

  /** Hands over what has been collected, if anything. */
  flush(): void {
    if (this.#bytes === 0) {
      assert(this.#leases.length === 0, 'leases without bytes')
      return
    }
    this.#cut()
    const stagings = this.#stagings
    const leases = this.#leases
    let done = false
    const batch: Batch = {
      pieces: this.#pieces,
      bytes: this.#bytes,
      copiedBytes: this.#bytes - this.#leasedBytes,
      sent: () => {
        if (done) return
        done = true
        this.#underway--
        for (const lease of leases) lease.release()
        for (const staging of stagings) this.#keep(staging)
      },
    }
    // A staging buffer that still has much room is shared by the next batch, which then owns it.
    if (this.#staging !== undefined && this.#to > this.#staging.length / 2) {
      stagings.push(this.#staging)
      this.#staging = undefined
    }
    this.#underway++
    this.#pieces = []
    this.#stagings = []
    this.#leases = []
    this.#bytes = 0
    this.#leasedBytes = 0
    this.#send(batch)
  }

  #endHeader(): void {
    const at = this.#to
    const staging = this.#staging as Buffer
    this.#to = at + BHS_BYTES
    this.#bytes += BHS_BYTES
    if (this.headerDigest) {
      staging.writeUInt32LE(crc32c(staging.subarray(at, at + BHS_BYTES)), this.#to)
      this.#to += DIGEST_BYTES
      this.#bytes += DIGEST_BYTES
    }
  }

  #endData(data: Buffer, start: number, length: number): void {
    if (length === 0) return
    const pad = padBytes(length)
    if (pad === 0 && !this.dataDigest) return
    if (this.#to + 3 + DIGEST_BYTES > (this.#staging as Buffer).length) this.#renew()
    const staging = this.#staging as Buffer
    staging.fill(0, this.#to, this.#to + pad)
    let crc = 0
    if (this.dataDigest) {
      crc = crc32c(data.subarray(start, start + length))
      if (pad > 0) crc = crc32c(staging.subarray(this.#to, this.#to + pad), crc)
    }
    this.#to += pad
    this.#bytes += pad
    if (this.dataDigest) {
      staging.writeUInt32LE(crc, this.#to)
      this.#to += DIGEST_BYTES
      this.#bytes += DIGEST_BYTES
    }
  }

  #copy(data: Buffer, start: number, length: number): void {
    let at = start
    const end = start + length
    while (at < end) {
      if (this.#to === (this.#staging as Buffer).length) this.#renew()
      const staging = this.#staging as Buffer
      const take = Math.min(end - at, staging.length - this.#to)
      data.copy(staging, this.#to, at, at + take)
      this.#to += take
      at += take
    }
    this.#bytes += length
  }

  /** Makes a piece of what the staging buffer has collected since the last one. */
  #cut(): void {
    if (this.#to === this.#from) return
    this.#pieces.push((this.#staging as Buffer).subarray(this.#from, this.#to))
    this.#from = this.#to
  }

  #renew(): void {
    this.#cut()
    if (this.#staging !== undefined) this.#stagings.push(this.#staging)
    this.#staging = this.#idle.pop() ?? Buffer.allocUnsafeSlow(this.stagingBytes)
    this.#from = 0
    this.#to = 0
  }

  #keep(staging: Buffer): void {
    if (staging.length === this.stagingBytes && this.#idle.length < STAGING_KEPT) {
      this.#idle.push(staging)
    }
  }
}
