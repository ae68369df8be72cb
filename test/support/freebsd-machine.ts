/**
 * A machine whose four disks d1 to d4 come from a FreeBSD box with vinum: one volume of each organisation, with known
 * content that is laid out here by the formulas of the format, not by the engine's code.
 */
import { KIB, MIB } from '../../src/base/limits.ts'
import { Machine, pattern } from './engine.ts'
import type { FreebsdImageOptions } from './freebsd-image.ts'
import { writeFreebsdDrive } from './freebsd-image.ts'

const SECTOR = 512
/** 1 MiB in sectors; every subdisk but one has as much. */
const SIZE = MIB / SECTOR
const FIRST = 265

/** Sector at which the n-th subdisk of each drive begins. */
function place(index: number): number {
  return FIRST + index * SIZE
}

function subdisk(
  name: string,
  drive: string,
  index: number,
  plexOffset: number,
  options: { readonly size?: number; readonly state?: string } = {},
): string {
  const [volume, plex] = name.split('.')
  const { size = SIZE, state = 'up' } = options
  return (
    `sd name ${name} drive ${drive} len ${size}s driveoffset ${place(index)}s ` +
    `plex ${volume}.${plex} plexoffset ${plexOffset}s state ${state}`
  )
}

const STRIPE = 64
const R5_STRIPE = 128

/** States other than `up`, by object. */
export type States = Readonly<Record<string, string>>

export function configText(states: States = {}): string {
  const state = (name: string) => states[name] ?? 'up'
  const sd = (name: string, drive: string, index: number, offset: number, size = SIZE) =>
    subdisk(name, drive, index, offset, { size, state: state(name) })
  const lines = [
    ...['cat', 'fast', 'safe', 'wide'].map((name) => `volume ${name} state ${state(name)}`),
    `plex name cat.p0 org concat vol cat state ${state('cat.p0')}`,
    `plex name fast.p0 org striped ${STRIPE}s vol fast state ${state('fast.p0')}`,
    `plex name safe.p0 org concat vol safe state ${state('safe.p0')}`,
    `plex name safe.p1 org concat vol safe state ${state('safe.p1')}`,
    `plex name wide.p0 org raid5 ${R5_STRIPE}s vol wide state ${state('wide.p0')}`,
    sd('cat.p0.s0', 'a1', 0, 0),
    sd('cat.p0.s1', 'a2', 0, SIZE, SIZE / 2),
    ...[0, 1, 2].map((n) => sd(`fast.p0.s${n}`, `a${n + 1}`, 1, n * STRIPE)),
    sd('safe.p0.s0', 'a1', 2, 0),
    sd('safe.p1.s0', 'a2', 2, 0),
    ...[0, 1, 2, 3].map((n) => sd(`wide.p0.s${n}`, `a${n + 1}`, 3, n * R5_STRIPE)),
  ]
  return `${lines.join('\n')}\n`
}

/** What is in each volume. */
export const CONTENT: Readonly<Record<string, Buffer>> = {
  cat: pattern(1, 1.5 * MIB),
  fast: pattern(2, 3 * MIB),
  safe: pattern(3, MIB),
  wide: pattern(4, 3 * MIB),
}

function content(name: string): Buffer {
  const bytes = CONTENT[name]
  if (!bytes) throw new Error(`there is no volume ${name}`)
  return bytes
}

/** Lays the content of all volumes over the media of the four drives. */
function layContent(media: readonly Buffer[]): void {
  const put = (drive: number, index: number, offset: number, bytes: Buffer): void => {
    const medium = media[drive]
    if (medium) bytes.copy(medium, place(index) * SECTOR + offset)
  }
  put(0, 0, 0, content('cat').subarray(0, MIB))
  put(1, 0, 0, content('cat').subarray(MIB))
  for (const drive of [0, 1]) put(drive, 2, 0, content('safe'))
  const unit = STRIPE * SECTOR
  for (let k = 0; k * unit < 3 * MIB; k++) {
    put(k % 3, 1, Math.floor(k / 3) * unit, content('fast').subarray(k * unit, (k + 1) * unit))
  }
  // Left-asymmetric: parity moves from the last column to the left, data fill the others from the left.
  const stripe = R5_STRIPE * SECTOR
  for (let row = 0; row * stripe < MIB; row++) {
    const parity = 3 - (row % 4)
    const sum = Buffer.alloc(stripe)
    for (let d = 0; d < 3; d++) {
      const at = (row * 3 + d) * stripe
      const data = content('wide').subarray(at, at + stripe)
      put(d >= parity ? d + 1 : d, 3, row * stripe, data)
      for (const [index, byte] of data.entries()) sum[index] = (sum[index] ?? 0) ^ byte
    }
    put(parity, 3, row * stripe, sum)
  }
}

export interface FreebsdMachineOptions {
  readonly sizeBytes?: number
  readonly states?: States
  /** Changes of a drive's header or text. */
  readonly drive?: (index: number) => Partial<FreebsdImageOptions>
}

/** Smallest medium on which the subdisks end right before the last block. */
export const TIGHT_BYTES = (place(4) + 1) * SECTOR

/** Not started yet. */
export function freebsdMachine(options: FreebsdMachineOptions = {}): Machine {
  const { sizeBytes = 8 * MIB, states, drive = () => ({}) } = options
  const machine = new Machine({ devices: 4, sizeBytes })
  const media = ['d1', 'd2', 'd3', 'd4'].map((name) => machine.device(name).media)
  for (const [index, medium] of media.entries()) {
    // Whatever was on the disk before vinum.
    for (let at = 0; at < medium.length; at += 64 * KIB) medium.fill(0x5a, at, at + 4 * KIB)
    writeFreebsdDrive(medium, {
      driveName: `a${index + 1}`,
      text: configText(states),
      microseconds: index,
      ...drive(index),
    })
  }
  layContent(media)
  return machine
}
