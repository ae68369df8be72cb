/**
 * `vinum convert` carried out: the checks and the writes whose order freebsd/convert.ts explains. Called by
 * vinum-class.ts inside a topology change; the native set assembles afterwards from what was written.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError, toPlexusError } from '../../../base/errors.ts'
import { payloadRoom } from '../../geom/anchor-layout.ts'
import { AnchoredDevice } from '../../geom/anchored-device.ts'
import type { Consumer } from '../../geom/consumer.ts'
import { encodeModel } from '../model/codec.ts'
import { type PlexRecord, plexesOf, subdisksOf, type VinumModel } from '../model/model.ts'
import { checkModel } from '../model/model-check.ts'
import { type ConversionPlan, planConversion } from './convert.ts'
import { markFreebsdRemoved } from './format.ts'
import type { FreebsdSet } from './set.ts'

export interface Conversion {
  readonly plan: ConversionPlan
  /** Generation 1 of the native set. */
  readonly model: VinumModel
  readonly payload: Buffer
}

/**
 * What a conversion would write. Throws when drives are missing or are not of one set, when something is not up or
 * not sound, when a volume is open, and when there is no room; then nothing may be written.
 */
export function prepareConversion(set: FreebsdSet, setUuid: string): Conversion {
  const { strangers } = set
  if (strangers.length > 0) {
    const why =
      `drive ${strangers.join(', ')} carries subdisks that the newest configuration does not have, and that ` +
      'would be lost; disconnect it, then convert again'
    throw refusal('invalid', strangers.join(', '), why)
  }
  const plan = planConversion(set.model)
  checkClean(set.model)
  for (const { name, consumers } of set.providers) {
    if (consumers.size === 0) continue
    throw refusal('in-use', name, `volume ${name} is in use; take its LUNs away first`)
  }
  const model = { ...plan.model, setUuid, line: setUuid, generation: 1 }
  checkModel(model)
  const payload = encodeModel(model)
  for (const [uuid, { slots }] of plan.layouts) {
    if (payload.length <= Math.min(...slots.map(payloadRoom))) continue
    const { name } = defined(set.drives.get(uuid), 'the drive of a layout').record
    const why = `drive ${name} has no room for a configuration of ${payload.length} bytes; copy the data to new volumes instead`
    throw refusal('no-space', name, why)
  }
  return { plan, model, payload }
}

/** raid5 first. */
const byParity = (a: PlexRecord, b: PlexRecord): number =>
  Number(b.organization === 'raid5') - Number(a.organization === 'raid5')

/** A copy that is not up now would become a native one that is not; FreeBSD can still mend it, or it is copied off. */
function checkClean(model: VinumModel): void {
  for (const volume of model.volumes) {
    const [raid5, other] = [...plexesOf(model, volume.uuid)].sort(byParity)
    if (raid5?.organization === 'raid5' && other) {
      const why =
        `volume ${volume.name} has the raid5 plex ${raid5.name} and other plexes, which no native volume has; let FreeBSD remove ` +
        'them, or copy the volume to a new one'
      throw refusal('unsupported', volume.name, why)
    }
    const parts = plexesOf(model, volume.uuid).flatMap((plex) => [
      { type: 'plex', ...plex },
      ...subdisksOf(model, plex.uuid).map((one) => ({ type: 'subdisk', ...one })),
    ])
    const bad = [...parts, { type: 'volume', ...volume }].find(({ state }) => state !== 'up')
    if (!bad) continue
    const why =
      `${bad.type} ${bad.name} is ${bad.state}: convert only what is whole; let FreeBSD bring it up to date, or ` +
      `copy volume ${volume.name} to a new one`
    throw refusal('invalid', bad.name, why)
  }
}

/**
 * Writes it. Resolves to what went wrong without harm. Rejects when not even one drive could be marked at the end:
 * then the drives are FreeBSD's as before, and it may be tried again.
 */
export async function writeConversion(
  set: FreebsdSet,
  { plan, model, payload }: Conversion,
): Promise<readonly string[]> {
  const drives = [...plan.layouts].map(([uuid, layout]) => {
    const { consumer, record } = defined(set.drives.get(uuid), 'a drive that is converted')
    return { uuid, layout, record, consumer: defined(consumer, `the device of ${record.name}`) }
  })
  for (const [index, { consumer }] of drives.entries()) {
    try {
      consumer.changeAccess({ read: 0, write: 1, exclusive: 0 })
    } catch (error) {
      for (const one of drives.slice(0, index)) closeForWriting(one.consumer)
      throw error
    }
  }
  try {
    const identity = { setUuid: model.setUuid, className: set.className }
    const labels = await all(
      drives.map(({ consumer, uuid, layout }) => {
        const options = { ...identity, deviceUuid: uuid, layout, keepSlots: true }
        return AnchoredDevice.format(consumer, options)
      }),
    )
    await all(labels.map((label) => label.commit(model.generation, payload)))
    const failed: { readonly name: string; readonly error: PlexusError }[] = []
    for (const { consumer, record } of drives) {
      try {
        await markFreebsdRemoved(consumer)
      } catch (error) {
        failed.push({ name: record.name, error: toPlexusError(error, 'convert', record.name) })
      }
    }
    const [first] = failed
    if (first && failed.length === drives.length) throw first.error
    // One mark is enough: whoever finds it knows that the others were to follow (vinum-class.ts).
    return failed.map(
      ({ name, error }) => `drive ${name} still has FreeBSD's header: ${error.message}`,
    )
  } finally {
    for (const { consumer } of drives) closeForWriting(consumer)
  }
}

/** When all have ended: what they gave, or the first error. Nothing is under way any more in either case. */
async function all<T>(work: readonly Promise<T>[]): Promise<readonly T[]> {
  const results = await Promise.allSettled(work)
  return results.map((result) => {
    if (result.status === 'rejected') throw result.reason
    return result.value
  })
}

function closeForWriting(consumer: Consumer): void {
  consumer.changeAccess({ read: 0, write: -1, exclusive: 0 })
}

function refusal(
  kind: ConstructorParameters<typeof PlexusError>[0],
  subject: string,
  message: string,
): PlexusError {
  return new PlexusError(kind, { op: 'convert', subject, message })
}
