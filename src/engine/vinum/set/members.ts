/**
 * Which configuration of a set counts when its devices gather: what each says for the vote of
 * geom/anchor-quorum.ts, and the outcome in words. Used by vinum-set.ts.
 */
import { defined } from '../../../base/assert.ts'
import { PlexusError } from '../../../base/errors.ts'
import { type CommitId, isSameCommit } from '../../geom/anchor-codec.ts'
import {
  type AnchorCopy,
  type Choice,
  type CommitCopy,
  chooseMajority,
  followedBy,
  goesOverNewest,
  type Side,
} from '../../geom/anchor-quorum.ts'
import type { Slot } from '../../geom/anchored-device.ts'
import { byUuid, type VinumModel, votersOf } from '../model/model.ts'
import type { StoreStart } from './config-store.ts'
import type { Member } from './drive.ts'

/** What a member says for the vote; undefined: its configuration cannot be used. */
function copyOf({ uuid, slot, model, olderModel, label, error }: Member): AnchorCopy | undefined {
  if (error) return undefined
  if (!slot || !model) return { deviceUuid: uuid, generation: 0, payloadCrc: 0, payloadVoters: [] }
  return {
    ...commitCopy(slot, model),
    deviceUuid: uuid,
    older: slot.older && olderModel && commitCopy(slot.older, olderModel),
    claimed: slot.damaged ? label.anchor : undefined,
  }
}

function commitCopy({ generation, payloadCrc, previous }: Slot, model: VinumModel): CommitCopy {
  const { votersBefore: oldVoters } = model
  return { generation, payloadCrc, previous, payloadVoters: votersOf(model), oldVoters }
}

/** The generation that a damaged copy has lost; 0: none. */
function claimOf({ slot, label }: Member): number {
  return slot?.damaged ? label.anchor.generation : 0
}

/** A choice that a set is assembled by: the incomplete one by an operator's word. */
export type Assembled = Extract<Choice, { kind: 'complete' | 'incomplete' }>

export function chooseMember(members: ReadonlyMap<string, Member>): Choice {
  return chooseMajority([...members.values()].flatMap((one) => copyOf(one) ?? []))
}

/** The configuration that was chosen: the newest of a member of the choice, or the one before it. */
export function modelOf(members: ReadonlyMap<string, Member>, choice: Side): VinumModel {
  const member = members.get(defined(choice.members[0], 'a member of the choice'))
  const isNewest = member?.slot && isSameCommit(member.slot, choice)
  return defined(isNewest ? member.model : member?.olderModel, 'the model of a chosen member')
}

/**
 * Members that have missed nothing of the chosen configuration: those that carry it, and those of its voters
 * that a crash has cut off from it, sent ahead of it or left beside it. Of two commits that follow each other, the
 * later one was relied upon only when all of its voters have it (rule W): so a voter without it was not away, it was
 * just not reached, and its data is as good as the others'. Were it taken for one that was away, raid5 would compute
 * its column from parity in doubt (sim seed 723).
 */
export function currentMembers(
  members: ReadonlyMap<string, Member>,
  choice: Assembled,
  chosen: VinumModel,
): ReadonlySet<string> {
  const claims = [...members.values()].map(claimOf)
  const highest = Math.max(0, ...claims)
  if (choice.kind === 'incomplete' && highest > choice.generation) {
    // By an operator's word: who has lost something newer was there when the others were not.
    const last = [...members.values()].filter((member) => claimOf(member) === highest)
    return new Set(last.map(({ uuid }) => uuid))
  }
  const current = new Set(choice.members)
  const voters = new Set(votersOf(chosen))
  // The choice and what it follows, two steps back.
  const slots = [...members.values()].flatMap(({ slot }) => [slot, slot?.older])
  const followed = [choice, ...choice.previous]
  const line = slots.flatMap((one) => (one?.previous && isIn(followed, one) ? one.previous : []))
  line.push(...followed)
  for (const { uuid, slot, label, error } of members.values()) {
    if (!voters.has(uuid) || error) continue
    // Without one it was to join with this commit, which had not reached it yet.
    const own = slot && [slot, slot.previous, slot.older, slot.older?.previous]
    const hasDamagedCopy = slot?.damaged && isSameCommit(label.anchor, choice)
    if (!own || hasDamagedCopy || own.some((one) => isIn(line, one))) current.add(uuid)
  }
  return current
}

function isIn(line: readonly CommitId[], commit: CommitId | undefined): boolean {
  return commit !== undefined && line.some((one) => isSameCommit(one, commit))
}

/** How the commits of a set begin that is assembled by this choice with these devices. */
export function startAfter(choice: Assembled, members: readonly Member[]): StoreStart {
  const isComplete = choice.kind === 'complete'
  const judged = { ...choice, refuted: isComplete && choice.refuted }
  const over = members.filter(({ slot }) => slot && goesOverNewest(slot, judged))
  return {
    nextGeneration: choice.nextGeneration,
    cutOff: isComplete && !choice.settled ? choice : undefined,
    overNewest: new Set(over.map(({ uuid }) => uuid)),
    current: followedBy(judged),
  }
}

/** Why there is nothing to serve yet. */
export function describeChoice(choice: Choice, members: ReadonlyMap<string, Member>): string {
  if (choice.kind === 'none') return 'no drive has a configuration that can be read'
  if (choice.kind === 'split') return 'its drives were used apart from each other'
  if (choice.kind === 'complete') return 'its drives are being looked at'
  const model = modelOf(members, choice)
  if (model.drives.length === 0) {
    return 'its configuration was removed, and its drives still carry labels; plexus device clear-label DEVICE frees each'
  }
  if (choice.missing.length === 0) {
    return (
      'crashes in a row have cut off its last changes, and what its drives carry does not tell which one counts; the ' +
      `newest one is ${choice.generation}, on ${choice.members.length} of ${members.size} drives`
    )
  }
  const names = choice.missing.map((uuid) => byUuid(model.drives, uuid)?.name ?? uuid)
  const are = names.length === 1 ? 'drive is' : 'drives are'
  return `${names.length} ${are} missing: ${names.join(', ')}`
}

/** What there is to do, before the verb. */
export function adviceOn(choice: Choice): string {
  const isHere = choice.kind === 'incomplete' && choice.missing.length === 0
  return isHere ? 'To go on with that one' : 'Connect them, or go on without them'
}

/** Is there no configuration that anybody could wait for: none at all, or one that was removed? */
export function isEmpty(choice: Choice, members: ReadonlyMap<string, Member>): boolean {
  if (choice.kind === 'none') return [...members.values()].every(({ error }) => !error)
  return choice.kind === 'incomplete' && modelOf(members, choice).drives.length === 0
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
