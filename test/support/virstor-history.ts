/**
 * What each block of a device may read as while requests overlap, and after a crash: any value of a change that no other
 * one has replaced for certain. Times are counted in events of the test.
 */
export interface Change {
  readonly value: number
  readonly startedAt: number
  /** Infinity: not acknowledged; it may have happened, or may happen yet. */
  endedAt: number
  durable: boolean
}

export class BlockHistory {
  readonly #blocks: Change[][]
  #now = 1

  /** All zeroes at first, durably. */
  constructor(blocks: number) {
    const zero = { value: 0, startedAt: 0, endedAt: 0, durable: true }
    this.#blocks = Array.from({ length: blocks }, () => [zero])
  }

  now(): number {
    return this.#now++
  }

  begin(first: number, count: number, value: number): Change {
    const endedAt = Number.POSITIVE_INFINITY
    const change = { value, startedAt: this.now(), endedAt, durable: false }
    for (let block = first; block < first + count; block++) this.#blocks[block]?.push(change)
    return change
  }

  /** It is acknowledged. */
  end(change: Change, durable: boolean): void {
    change.endedAt = this.now()
    change.durable = durable
  }

  /** A flush that began at `startedAt` is acknowledged. */
  flushed(startedAt: number): void {
    for (const changes of this.#blocks) {
      for (const change of changes) if (change.endedAt < startedAt) change.durable = true
    }
  }

  /** It was told that acknowledged changes may be lost. */
  lost(): void {
    for (const changes of this.#blocks) {
      for (const change of changes) if (!change.durable) change.endedAt = Number.POSITIVE_INFINITY
    }
  }

  /** What is wrong with the bytes of a read between two times; undefined: nothing. */
  checkRead(
    first: number,
    bytes: Buffer,
    startedAt: number,
    blockBytes: number,
  ): string | undefined {
    return this.#check(first, bytes, blockBytes, (change) => change.endedAt < startedAt)
  }

  checkCrash(bytes: Buffer, blockBytes: number): string | undefined {
    return this.#check(0, bytes, blockBytes, (change) => change.durable)
  }

  #check(
    first: number,
    bytes: Buffer,
    blockBytes: number,
    isCertain: (change: Change) => boolean,
  ): string | undefined {
    for (let at = 0; at < bytes.length; at += blockBytes) {
      const block = first + at / blockBytes
      const value = bytes[at] as number
      if (!bytes.subarray(at, at + blockBytes).every((byte) => byte === value)) {
        return `block ${block} is a mixture`
      }
      const changes = this.#blocks[block] ?? []
      const certain = changes.filter(isCertain)
      const allowed = changes.filter(
        (change) => !certain.some((later) => change.endedAt < later.startedAt),
      )
      if (allowed.some((change) => change.value === value)) continue
      return `block ${block} has ${value}, not ${allowed.map((change) => change.value)}`
    }
    return undefined
  }
}
