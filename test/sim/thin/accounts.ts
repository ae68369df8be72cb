/**
 * The accounts of a thin device at rest: every chunk has a place of its own, what is free and what is in use adds up,
 * and what a start would read from each copy of the map alone is what the device has in memory. Used by thin-play.ts.
 */
import { PlexusError } from '../../../src/base/errors.ts'
import { VIRSTOR_CHUNKS } from '../../../src/base/limits.ts'
import { uuidBytes } from '../../../src/base/random.ts'
import { granulesOf } from '../../../src/engine/virstor/device.ts'
import { MapTable } from '../../../src/engine/virstor/map/chunk-map.ts'
import { MapStore } from '../../../src/engine/virstor/map/map-store.ts'
import type { CopyRecord, VirstorModel } from '../../../src/engine/virstor/model.ts'
import type { VirstorSet } from '../../../src/engine/virstor/virstor-set.ts'

/** What does not add up. The device has nothing to write, and nobody uses it. */
export async function audit(set: VirstorSet): Promise<readonly string[]> {
  const { model, device } = set
  if (!device) return [`it is not served: ${set.problem}`]
  const { table } = device
  // What is being discarded is out of the pool meanwhile.
  await device.io.trimmer.ended()
  const problems = auditSpace(set)
  if (table.isChanged) problems.push('something has changed that no commit has taken')
  for (const { chunk, reason } of table.faults) problems.push(`chunk ${chunk}: ${reason}`)
  const copies = model.copies.filter((copy) => set.carrier(copy).isPresent)
  for (const copy of copies) problems.push(...(await auditCopy(set, model, copy, table)))
  return problems
}

/** The reverse map, the bitmap of what is free, and the entries say the same. */
function auditSpace({ model, device }: VirstorSet): string[] {
  const problems: string[] = []
  if (!device) return problems
  const { table, space } = device
  const holders = new Map<string, number>()
  for (let chunk = 0; chunk < table.chunks; chunk++) {
    const component = table.componentOf(chunk)
    if (component === 0) continue
    const number = table.numberOf(chunk)
    const place = `place ${number} of component ${component}`
    const other = holders.get(place)
    if (other !== undefined) problems.push(`chunks ${other} and ${chunk} are both at ${place}`)
    holders.set(place, chunk)
  }
  let forMap = 0
  for (const { id, chunks } of model.components) {
    for (let number = 0; number < chunks; number++) {
      const place = `place ${number} of component ${id}`
      const owner = table.ownerOf({ component: id, number })
      const holder = holders.get(place) ?? -1
      if (owner === -2) forMap++
      else if (owner !== holder)
        problems.push(`${place}: of chunk ${owner}, and the map has ${holder}`)
      if (space.isFree({ component: id, number }) !== (owner === -1)) {
        problems.push(`${place} is ${owner === -1 ? 'free, and not given' : 'in use, and given'}`)
      }
    }
  }
  const wanted = model.copies.flatMap(({ runs }) => runs).reduce((sum, { count }) => sum + count, 0)
  if (forMap < wanted)
    problems.push(`${forMap} chunks are the map's, and its copies have ${wanted}`)
  if (space.used !== holders.size + forMap) {
    problems.push(`${space.used} chunks are in use: ${holders.size} of data, ${forMap} of the map`)
  }
  return problems
}

/** An entry of the map, for comparing and for people. */
function entryText(table: MapTable, chunk: number): string {
  const component = table.componentOf(chunk)
  const lost = table.isLost(chunk) ? ', the rest is lost' : ''
  if (component === 0) return `unallocated${lost}`
  const granules = Array.from({ length: table.granules }, (_, at) => table.isValid(chunk, at, at))
  const valid = granules.map(Number).join('')
  return `place ${table.numberOf(chunk)} of component ${component}, valid ${valid}${lost}`
}

/** Loads the map as a start does that finds this copy only. */
async function auditCopy(
  set: VirstorSet,
  model: VirstorModel,
  copy: CopyRecord,
  live: MapTable,
): Promise<readonly string[]> {
  const { name, uuid, virtualBytes, chunkBytes, components } = model
  const table = new MapTable({
    chunks: virtualBytes / chunkBytes,
    granules: granulesOf(chunkBytes),
  })
  for (const { id, chunks } of components) table.addComponent(id, chunks)
  for (const { component, runs } of model.copies) {
    for (const run of runs) table.reserve(component, run)
  }
  for (const id of model.lost) table.addComponent(id, VIRSTOR_CHUNKS)
  const subject = `${name}, copy on component ${copy.component}`
  const store = new MapStore({
    subject,
    uuid: uuidBytes(uuid),
    table,
    carriers: [set.carrier(copy)],
    onCarrierFailed: (_id, error) => Promise.reject(error),
    onBroken: () => {},
  })
  try {
    await store.load()
  } catch (error) {
    if (!(error instanceof PlexusError)) throw error
    return [`${subject}: ${error.message}`]
  }
  for (const id of model.lost) for (const chunk of table.chunksOn(id)) table.lose(chunk)
  const problems = table.faults.map(({ chunk, reason }) => `${subject}: chunk ${chunk}: ${reason}`)
  for (let chunk = 0; chunk < live.chunks; chunk++) {
    const [here, there] = [entryText(live, chunk), entryText(table, chunk)]
    if (here !== there) problems.push(`${subject}: chunk ${chunk}: ${there}; in memory: ${here}`)
  }
  return problems
}
