/** A thin device `thin` of the whole engine, for tests of its verbs and jobs. */
import { KIB, MIB } from '../../src/base/limits.ts'
import type { JobReport } from '../../src/control/reports.ts'
import type { Consumer } from '../../src/engine/geom/consumer.ts'
import type { Job } from '../../src/engine/jobs/job.ts'
import { get, Machine, pattern, put } from './engine.ts'

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

export interface Row {
  readonly sizeBytes: number
  readonly freeBytes: number
  readonly usedBytes: number
  readonly physicalBytes: number
  /** It warns with so much free, or less. */
  readonly warnBytes: number
  readonly isLow: boolean
}

/** What the list says of it; undefined: there is none. */
export async function row(machine: Machine, device = 'thin'): Promise<Row | undefined> {
  const found = (await machine.list('virstor.list')).find(({ name }) => name === device)
  if (!found) return undefined
  const { freeBytes, usedBytes, physicalBytes, warnBytes, isLow } = found.facts
  return {
    sizeBytes: found.sizeBytes,
    freeBytes: Number(freeBytes),
    usedBytes: Number(usedBytes),
    physicalBytes: Number(physicalBytes),
    warnBytes: Number(warnBytes),
    isLow: isLow === true,
  }
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

/** The chunks from 0 on that are not as {@link fill} has written them. */
export async function wrong(machine: Machine, count: number): Promise<readonly number[]> {
  const device = machine.open('thin')
  const found: number[] = []
  for (let chunk = 0; chunk < count; chunk++) {
    const bytes = await get(device, chunk * CHUNK, CHUNK)
    if (!bytes.equals(pattern(chunk, CHUNK))) found.push(chunk)
  }
  await device.close()
  return found
}

/** Runs a verb that begins a job, and resolves to the job, which rests in the middle. */
export async function halfWay(machine: Machine, verb: string, more: object = {}): Promise<Job> {
  const { jobs } = machine.topology
  // One chunk after the other.
  jobs.limitBytesPerSecond = 10 * CHUNK
  const [report] = (await machine.run(`virstor.${verb}`, { name: 'thin', ...more })).jobs
  const job = jobs.get(report?.id ?? '')
  while (job.doneBytes < 2 * CHUNK) await new Promise((resolve) => setTimeout(resolve, 5))
  await job.pause()
  jobs.limitBytesPerSecond = undefined
  return job
}

/** Resumes a job, and resolves to how it ended. */
export async function goOn(machine: Machine, job: Job): Promise<JobReport | undefined> {
  job.resume()
  while (job.state === 'paused') await new Promise(setImmediate)
  return (await machine.jobsDone()).at(-1)
}
