/** What spares do for a volume, and what to type next: a part of advice.ts. */
import { formatDuration } from '../../control/duration.ts'
import type { Situation } from './advice.ts'
import { byUuid, type SubdiskRecord, subdisksBelow } from './model/model.ts'
import { spareNeeds } from './model/spare-needs.ts'
import { sparedOf, spareFor } from './model/spares.ts'

/** `Spare s1 stands for drive d3.`, or which one is about to step in. Empty: nothing of that kind. */
export function spareText(situation: Situation): string {
  return [...spared(situation).map((one) => standsText(situation, one)), stepInText(situation)]
    .filter(Boolean)
    .join(' ')
}

/** Of a volume that lacks nothing: how its spares become free. */
export function spareAction(situation: Situation): string {
  const { model, volume, drives } = situation
  const home = byUuid(model.drives, spared(situation)[0]?.origin?.driveUuid)
  if (!home) return ''
  if (home.state === 'up' && drives.get(home.uuid)?.present) {
    return `To free the spare: plexus spare copy-back ${volume.name}`
  }
  return `Connect drive ${home.name} again, or replace it: plexus volume replace ${volume.name} ${home.name} NEW-DEVICE`
}

function spared({ model, volume }: Situation): readonly SubdiskRecord[] {
  return sparedOf(model, volume).filter(({ origin, state }) => origin && state === 'up')
}

function standsText({ model }: Situation, { driveUuid, origin, move }: SubdiskRecord): string {
  if (move) return ''
  const [spare, home] = [driveUuid, origin?.driveUuid].map(
    (uuid) => byUuid(model.drives, uuid)?.name,
  )
  return `Spare ${spare} stands for drive ${home}.`
}

function stepInText({ model, volume, drives }: Situation): string {
  const facts = {
    isPresent: (uuid: string) => drives.get(uuid)?.present ?? false,
    isRotational: (uuid: string) => drives.get(uuid)?.consumer?.features.rotational,
    isWeak: () => false,
  }
  const below = new Set(subdisksBelow(model, volume.uuid).map(({ uuid }) => uuid))
  const need = spareNeeds(model, facts).find(
    ({ kind, subdiskUuid }) => kind === 'step-in' && below.has(subdiskUuid),
  )
  const subdisk = byUuid(model.subdisks, need?.subdiskUuid)
  if (!need || !subdisk) return ''
  const choice = spareFor(model, subdisk, facts)
  if (!('drive' in choice)) return `No spare steps in: ${choice.why}.`
  return `Spare ${choice.drive.name} steps in when that has lasted ${formatDuration(need.delaySeconds)}.`
}
