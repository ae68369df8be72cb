/** A thin device `thin` of the whole engine, for tests of its verbs and jobs. */
import { KIB, MIB } from '../../src/base/limits.ts'
import type { VirstorRow } from '../../src/control/virstor-verbs.ts'
import type { Consumer } from '../../src/engine/geom/consumer.ts'
import { Machine, pattern, put } from './engine.ts'

export const CHUNK = 128 * KIB

/** A machine of five disks, with a thin device on those that are named. */
export async function thin(devices: readonly string[], more: object = {}): Promise<Machine> {
  const machine = await new Machine({ devices: 5, sizeBytes: 5 * MIB }).start()
  await machine.run('virstor.create', {
    name: 'thin',
    devices,
    size: '64MiB',
    chunk: '128KiB',
    fullWait: '0',
    ...more,
  })
  return machine
}

export async function row(machine: Machine): Promise<VirstorRow | undefined> {
  const answer = (await machine.run('virstor.list')) as unknown as { devices: VirstorRow[] }
  return answer.devices.find(({ name }) => name === 'thin')
}

export function carriers(machine: Machine): readonly string[] {
  const parts = machine.volume('thin').components
  return parts.filter(({ note }) => /carries the map/.test(note)).map(({ name }) => name)
}

/** What a component says of itself in the status. */
export function noteOf(machine: Machine, name: string): string {
  return machine.volume('thin').components.find((one) => one.name === name)?.note ?? ''
}

/** Writes `count` chunks from chunk `first` on, each of which tells its place. */
export async function fill(device: Consumer, first: number, count: number): Promise<void> {
  for (let chunk = first; chunk < first + count; chunk++) {
    await put(device, chunk * CHUNK, pattern(chunk, CHUNK))
  }
}
