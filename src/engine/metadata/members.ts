/**
 * Which configuration of a set counts when its devices gather: what each says for the vote of
 * anchor/anchor-quorum.ts, and the outcome in words.
 */
import { PlexusError } from '../../base/errors.ts'
import {
  type Choice,
  type Chosen,
  type CommitId,
  isSameCommit,
  type VoterCopy,
} from '../anchor/anchor-quorum.ts'
import { byUuid } from './lists.ts'
import type { Member } from './set-drive.ts'
import type { SetModel } from './set-model.ts'
import { commitOf } from './witness.ts'

type Members = ReadonlyMap<string, Member<SetModel>>

/** A set that gathers. */
export interface Gathering {
  readonly className: string
  readonly name: string
  readonly members: Members
}

/** What a member says for the vote. Of one whose configuration cannot be used its anchor tells which one that was. */
export function copyOf({
  uuid,
  slot,
  model,
  olderModel,
  label,
  error,
}: Member<SetModel>): VoterCopy {
  const { anchor } = label
  const newest = slot && model && !error ? [commitOf(slot, model)] : []
  const older = slot?.older && olderModel ? [commitOf(slot.older, olderModel)] : []
  const isLost = anchor.generation > 0 && (slot?.damaged === true || newest.length === 0)
  return { uuid, commits: [...newest, ...older], claimed: isLost ? anchor : undefined }
}

/** The configuration of a commit, as a member has it. */
export function modelOf<M extends SetModel>(
  members: ReadonlyMap<string, Member<M>>,
  id: CommitId,
): M | undefined {
  for (const { slot, model, olderModel } of members.values()) {
    if (slot && isSameCommit(slot, id)) return model
    if (slot?.older && isSameCommit(slot.older, id)) return olderModel
  }
  return undefined
}

/** Why there is nothing to serve yet. */
export function describeChoice(choice: Choice, members: Members): string {
  if (choice.kind === 'none') return 'no drive has a configuration that can be read'
  if (choice.kind === 'split') {
    const sides = choice.heads.map((head) => namesOf(carriersOf(members, head)).join(' and '))
    return `its drives were used apart from each other: ${sides.join(' against ')}`
  }
  const { kind, commit } = choice
  if (kind === 'serve') return 'its drives are being looked at'
  // What only the witness has tells no names.
  const model =
    modelOf(members, commit) ?? [...members.values()].find((one) => one.model !== undefined)?.model
  if (model?.drives.length === 0) {
    return 'its configuration was removed, and its drives still carry labels; plexus device clear-label DEVICE frees each'
  }
  const missing = driveNames(choice.missing, model)
  const are = missing.length === 1 ? 'drive is' : 'drives are'
  const absent = `${missing.length} ${are} missing: ${missing.join(', ')}`
  if (kind === 'missing' && missing.length > 0) {
    const enough = driveNames(enoughOf(choice), model)
    if (enough.length === 0 || enough.length === missing.length) return absent
    return `${absent}; with ${enough.join(' and ')} it is served`
  }
  return (
    (kind === 'damaged'
      ? 'a drive cannot read its newest configuration, which may be the one that counts'
      : 'crashes in a row have cut off its last changes, and what its drives carry does not tell which one counts') +
    (missing.length > 0 ? `; ${absent}` : '')
  )
}

/** What there is to do. */
export function adviceOn(choice: Choice, { className, members }: Gathering): string {
  if (choice.kind === 'split') {
    const ways = choice.heads.map((head) => {
      const [name = 'DRIVE'] = namesOf(carriersOf(members, head))
      return `plexus ${className} assemble --from ${name}`
    })
    return `Say which of them is right; what only the others have is lost: ${ways.join(', or ')}`
  }
  const isHere = choice.kind !== 'none' && choice.missing.length === 0
  const what = isHere ? 'To go on with what there is' : 'Connect them, or go on without them'
  return `${what}: plexus ${className} assemble --force`
}

/** Of the voters that are missing as few as the quorum needs; first those that may have what is newest. */
function enoughOf({ commit, missing, isCertain }: Chosen): readonly string[] {
  const quorums = isCertain ? [commit.voters] : [commit.voters, ...commit.before]
  const enough: string[] = []
  const lacks = (some: readonly string[]): boolean =>
    some.filter((uuid) => !missing.includes(uuid) || enough.includes(uuid)).length * 2 <=
    some.length
  const gain = (uuid: string): number =>
    quorums.filter((some) => lacks(some) && some.includes(uuid)).length
  while (quorums.some(lacks)) {
    const left = missing.filter((uuid) => !enough.includes(uuid) && gain(uuid) > 0)
    const [best] = left.sort((a, b) => gain(b) - gain(a))
    if (best === undefined) break
    enough.push(best)
  }
  return enough
}

/** Names of drives; the witness is nothing that could be connected. */
function driveNames(uuids: readonly string[], model: SetModel | undefined): readonly string[] {
  return uuids.flatMap((uuid) => byUuid(model?.drives ?? [], uuid)?.name ?? [])
}

function carriersOf(members: Members, head: CommitId): readonly Member<SetModel>[] {
  return [...members.values()].filter((member) => {
    const { commits, claimed } = copyOf(member)
    return [...commits, ...(claimed ? [claimed] : [])].some((one) => isSameCommit(one, head))
  })
}

function namesOf(members: readonly Member<SetModel>[]): readonly string[] {
  return members.map(({ consumer }) => consumer.provider.name)
}

/** Is there no configuration that anybody could wait for: none at all, or one that was removed? */
export function isEmpty(choice: Choice, members: Members): boolean {
  if (choice.kind === 'none') return [...members.values()].every(({ error }) => !error)
  return choice.kind !== 'split' && modelOf(members, choice.commit)?.drives.length === 0
}

/** Not even an operator's word helps. */
export function hopeless(choice: Choice, set: Gathering): PlexusError {
  const { name, members } = set
  const isSplit = choice.kind === 'split'
  const why = isSplit
    ? `${describeChoice(choice, members)}. ${adviceOn(choice, set)}`
    : 'no drive has a configuration that can be read'
  return new PlexusError(isSplit ? 'invalid' : 'corrupt', {
    op: 'assemble',
    subject: name,
    message: `${name}: ${why}`,
  })
}
