/**
 * A volume with a pool of spares on devices in memory, under a clock that moves when it is told to: a raid5 volume or a
 * mirror `v` on d1, d2 (and d3), the spares s1 and s2 on d7 and d8, and another mirror, which keeps the majority.
 */
import type { ObjectReport } from '../../src/control/reports.ts'
import type { Consumer } from '../../src/engine/geom/consumer.ts'
import { Machine, type MachineOptions, pattern, put } from './engine.ts'
import { ManualClock } from './manual-clock.ts'
import type { MemoryDevice } from './memory-device.ts'

export type Layout = 'raid5' | 'mirror'
export const LAYOUTS: readonly Layout[] = ['raid5', 'mirror']

const DATA_BYTES = 2 * 1024 * 1024

export class SpareRig {
  readonly clock = new ManualClock()
  readonly machine: Machine
  readonly layout: Layout

  constructor(layout: Layout, options: Partial<MachineOptions> = {}) {
    this.layout = layout
    this.machine = new Machine({ devices: 9, ...options, clock: this.clock })
  }

  /** `pool`: options of the pool. */
  async start(
    pool: Readonly<Record<string, string>> = {},
    spares: readonly string[] = ['d7', 'd8'],
  ): Promise<this> {
    const { machine } = this
    await machine.start()
    await machine.run('volume.create', { name: 'other', mirror: ['d4', 'd5', 'd6'], size: '64KiB' })
    const raid5 = { raid5: ['d1', 'd2', 'd3'], stripeSize: '64KiB', size: '4MiB' }
    const layout = this.layout === 'raid5' ? raid5 : { mirror: ['d1', 'd2'], size: '4MiB' }
    await machine.run('volume.create', { name: 'v', ...layout })
    await this.quiet()
    await machine.run('spare.create', { pool: 'p', devices: spares, ...pool })
    await machine.run('volume.set', { name: 'v', sparePool: 'p' })
    await put(machine.open('v'), 0, this.content)
    await this.quiet()
    return this
  }

  get content(): Buffer {
    return pattern(1, DATA_BYTES)
  }

  get volume(): Consumer {
    return this.machine.open('v')
  }

  /** Time goes on until it is so; throws when it is not after an hour of nothing else. */
  async until(what: string, isSo: () => boolean, mostMs = 3_600_000): Promise<void> {
    for (let ms = 0; !isSo(); ms += 100) {
      if (ms > mostMs) throw new Error(`it never comes to this: ${what}; ${this.states()}`)
      await this.pass(100)
    }
  }

  /** Some time goes by, and what it brings about has ended. */
  async pass(ms: number): Promise<void> {
    this.clock.advance(ms)
    for (let turn = 0; turn < 8; turn++) await new Promise((resolve) => setImmediate(resolve))
    await this.machine.topology.quiet()
  }

  /** No job is at work, and nothing is about to begin at once. */
  async quiet(): Promise<void> {
    for (let calm = 0; calm < 3; ) {
      await this.pass(100)
      const isAtWork = this.machine.topology.jobs.list().some(({ state }) => state === 'running')
      calm = isAtWork ? 0 : calm + 1
    }
  }

  /** Jobs stand still after their first step, so that something can happen meanwhile. */
  holdJobs(): void {
    this.machine.topology.jobs.limitBytesPerSecond = 1
  }

  letJobs(): void {
    this.machine.topology.jobs.limitBytesPerSecond = undefined
  }

  device(name: string): MemoryDevice {
    return this.machine.device(name)
  }

  /** All objects of a type, as they are reported. */
  objects(type: string): readonly ObjectReport[] {
    const all = this.machine.topology.classes.flatMap((one) => one.report?.() ?? [])
    return all.filter((one) => one.type === type)
  }

  /** A column of v with its drive. */
  column(number: number): ObjectReport {
    const name = this.layout === 'raid5' ? `v.p0.s${number}` : `v.p${number}.s0`
    const found = this.objects('subdisk').find((one) => one.name === name)
    if (!found) throw new Error(`there is no ${name}`)
    return found
  }

  /** Where the first column lies, on the device of its drive. */
  place(number = 0): { offset: number; length: number } {
    const { facts, sizeBytes } = this.column(number)
    return { offset: Number(facts['driveOffsetBytes']), length: sizeBytes }
  }

  spare(name: string): string {
    return this.objects('spare').find((one) => one.name === name)?.state ?? 'NONE'
  }

  /** `d7 REVIVING, spares RESERVED AVAILABLE`: the first column, and d7 and d8. */
  states(): string {
    const { drive, state } = this.column(0)
    return `${drive} ${state}, spares ${this.spare('d7')} ${this.spare('d8')}`
  }

  /** What events of this name said. */
  said(event: string): readonly string[] {
    return this.machine.topology.events.history
      .filter((one) => one.event === event)
      .map(({ message }) => message)
  }
}
