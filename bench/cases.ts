/**
 * The benchmark's test cases: their short names (`rr4k32x4`), the default matrix and the quick one.
 * Called by bench.ts and soak.ts.
 */
import { formatSize, parseSize } from '../src/base/bytes.ts'
import { PlexusError } from '../src/base/errors.ts'

/** Random read and write, 70 % reads mix, sequential read and write. */
export type LoadKind = 'rr' | 'rw' | 'mix' | 'sr' | 'sw'

export interface Case {
  readonly name: string
  readonly kind: LoadKind
  readonly bytes: number
  /** Requests in flight per session. */
  readonly depth: number
  readonly sessions: number
}

const KIND_TEXT: Readonly<Record<LoadKind, string>> = {
  rr: 'random read',
  rw: 'random write',
  mix: 'random 70/30 mix',
  sr: 'sequential read',
  sw: 'sequential write',
}

export const DEFAULT_CASES =
  'rr4k1,rw4k1,mix4k1,rr4k8,rw4k8,mix4k8,rr4k32,rw4k32,mix4k32,rr4k32x4,rw4k32x4,sr128k8,sw128k8,sr1m4,sw1m4'
export const QUICK_CASES = 'rr4k1,rr4k32,rw4k32,sr128k8'
export const DIGEST_CASES = 'rr4k32,rw4k32,sr128k8,sw128k8,sr1m4,sw1m4'

const NAME = /^(rr|rw|mix|sr|sw)(\d+[km])(\d+)(?:x(\d+))?$/

/**
 * A case by its name: kind, request size with k or m, queue depth, and `x` with the number of
 * sessions when there are several: `rr4k32`, `sw1m4`, `rr4k32x4`. Throws `invalid`.
 */
export function parseCase(name: string): Case {
  const match = NAME.exec(name)
  const bytes = match ? parseSize(match[2] ?? '') : 0
  const depth = Number(match?.[3])
  const sessions = Number(match?.[4] ?? 1)
  const right =
    bytes >= 512 &&
    bytes % 512 === 0 &&
    depth >= 1 &&
    depth <= 1024 &&
    sessions >= 1 &&
    sessions <= 64
  if (!match || !right) {
    throw new PlexusError('invalid', {
      op: 'parse',
      subject: name,
      message: `"${name}" is not a test case; write kind (rr, rw, mix, sr, sw), size and queue depth as in rr4k32, with x4 for four sessions`,
    })
  }
  return { name, kind: match[1] as LoadKind, bytes, depth, sessions }
}

/** Cases of a list separated by commas, spaces or semicolons, without repetitions. */
export function parseCases(list: string): readonly Case[] {
  const names = list.split(/[\s,;]+/).filter((name) => name !== '')
  return [...new Set(names)].map(parseCase)
}

/** `4 KiB random read, queue depth 32, 4 sessions`. */
export function describeCase(test: Case): string {
  const sessions = test.sessions === 1 ? '' : `, ${test.sessions} sessions`
  return `${formatSize(test.bytes)} ${KIND_TEXT[test.kind]}, queue depth ${test.depth}${sessions}`
}
