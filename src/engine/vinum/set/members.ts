/**
 * Which configuration of a set counts when its devices gather: what each says for the vote of
 * geom/anchor-quorum.ts, and the outcome in words. Used by vinum-set.ts.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import type { CommitId } from '../../geom/anchor.ts'
import { type AnchorCopy, type Choice, chooseMajority } from '../../geom/anchor-quorum.ts'
import { byUuid, type VinumModel, votersOf } from '../model/model.ts'
import type { Member } from './drive.ts'

/** What a member says for the vote; undefined: its configuration cannot be used. */
function copyOf({ uuid, slot, model, label, error }: Member): AnchorCopy | undefined {
  if (error) return undefined
  if (!slot || !model) return { deviceUuid: uuid, generation: 0, payloadCrc: 0, payloadVoters: [] }
  return {
    deviceUuid: uuid,
    generation: slot.generation,
    payloadCrc: slot.payloadCrc,
    payloadVoters: votersOf(model),
    oldVoters: model.votersBefore,
    previous: slot.previous,
    claimedGeneration: slot.damaged ? label.anchor.generation : undefined,
  }
}

export function chooseMember(members: ReadonlyMap<string, Member>): Choice {
  return chooseMajority([...members.values()].flatMap((one) => copyOf(one) ?? []))
}

/** The model of a member that was chosen. */
export function modelOf(members: readonly Member[], uuid: string | undefined): VinumModel {
  const member = members.find((one) => one.uuid === uuid)
  return defined(member?.model, 'the model of a chosen member')
}

/**
 * Members that have missed nothing of the chosen configuration: those that carry it, and those of its voters
 * that a crash has cut off from it or sent ahead of it. Of two commits that follow each other, the later one was
 * relied upon only when all of its voters have it (rule W): so a voter without it was not away, it was just not
 * reached, and its data is as good as the others'.
 */
export function currentMembers(
  members: ReadonlyMap<string, Member>,
  choice: Extract<Choice, { kind: 'complete' | 'incomplete' }>,
  chosen: VinumModel,
): ReadonlySet<string> {
  const current = new Set(choice.members)
  const voters = new Set(votersOf(chosen))
  const before = choice.members.flatMap((uuid) => members.get(uuid)?.slot?.previous ?? [])
  for (const { uuid, slot, label, error } of members.values()) {
    if (!voters.has(uuid) || error) continue
    if (!slot) {
      // It was to join with this commit, which had not reached it yet.
      current.add(uuid)
      continue
    }
    const hasDamagedCopy = slot.damaged && label.anchor.generation === choice.generation
    const isBehind = !slot.damaged && before.some((one) => isSame(one, slot))
    const isAhead = slot.previous !== undefined && isSame(slot.previous, choice)
    if (hasDamagedCopy || isBehind || isAhead) current.add(uuid)
  }
  return current
}

function isSame(a: CommitId, b: CommitId): boolean {
  return a.generation === b.generation && a.payloadCrc === b.payloadCrc
}

/** Why there is nothing to serve yet. */
export function describeChoice(choice: Choice, members: ReadonlyMap<string, Member>): string {
  if (choice.kind === 'none') return 'no drive has a configuration that can be read'
  if (choice.kind === 'split') return 'its drives were used apart from each other'
  if (choice.kind === 'complete') return 'its drives are being looked at'
  const model = modelOf([...members.values()], choice.members[0])
  if (model.drives.length === 0) {
    return 'its configuration was removed, and its drives still carry labels; plexus device clear-label frees them'
  }
  const names = choice.missing.map((uuid) => byUuid(model.drives, uuid)?.name ?? uuid)
  const are = names.length === 1 ? 'drive is' : 'drives are'
  return `${names.length} ${are} missing: ${names.join(', ')}`
}

/** Is there no configuration that anybody could wait for: none at all, or one that was removed? */
export function isEmpty(choice: Choice, members: readonly Member[]): boolean {
  if (choice.kind === 'none') return members.every(({ error }) => !error)
  return choice.kind === 'incomplete' && modelOf(members, choice.members[0]).drives.length === 0
}

/** Not even an operator's word helps. */
export function hopeless(
  choice: Extract<Choice, { kind: 'none' | 'split' }>,
  set: string,
): PlexusError {
  const none = choice.kind === 'none'
  return new PlexusError(none ? 'corrupt' : 'invalid', {
    op: 'assemble',
    subject: set,
    message: none
      ? `${set}: no drive has a configuration that can be read`
      : `${set}: its drives were used apart from each other; disconnect those that shall not count, then assemble again`,
  })
}
