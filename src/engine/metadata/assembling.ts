/**
 * How the devices of a set that gathers become a set in operation: by the vote of its voters (anchor/anchor-quorum.ts), by
 * an operator's force, or as one drive has it. Inside topology changes; used by device-set.ts and the classes.
 */
import { assert, defined } from '../../base/assert.ts'
import { failuresOf, type PlexusError } from '../../base/errors.ts'
import { newUuid } from '../../base/random.ts'
import { flush } from '../../hal/io.ts'
import { baseOf, type Choice, type Chosen, choose } from '../anchor/anchor-quorum.ts'
import { returnMember, tellAssembled, tellIncomplete } from './arrivals.ts'
import type { AnySet } from './device-set.ts'
import { copyOf, describeChoice, hopeless, modelOf } from './members.ts'
import { type Member, reacquireAccess, SetDrive, settleLabel } from './set-drive.ts'
import type { SetModel } from './set-model.ts'
import { fitDrives } from './sizes.ts'

/** What the members of a set and its witness say: which configuration counts. */
export function choiceOf({ members, witness }: AnySet): Choice {
  return choose([...[...members.values()].map(copyOf), ...(witness?.copies ?? [])])
}

/** In words, why a set is not assembled. */
export function describeIncomplete(set: AnySet): string {
  return describeChoice(choiceOf(set), set.members)
}

/** Assembles when everything is there that will come, copies of drives too, and the quorum allows it. */
export async function tryAssemble(set: AnySet): Promise<void> {
  if (set.assembled || !set.topology.complete) return
  const choice = choiceOf(set)
  if (choice.kind === 'serve') await assemble(set, choice)
  else tellIncomplete(set, choice)
}

/** An operator's decision to go on with what is there. Throws `corrupt` or `invalid` when nothing can be. */
export async function assembleByForce(set: AnySet): Promise<void> {
  assert(!set.assembled, 'only a set that gathers is assembled')
  const all = choiceOf(set)
  // The witness may tell of a commit that no drive here has: then the operator goes on with what the drives have.
  const isElsewhere = 'members' in all && all.members.length === 0
  const own = isElsewhere ? choose([...set.members.values()].map(copyOf)) : all
  const choice = usable(set, own)
  const isForced = isElsewhere || choice.kind !== 'serve'
  await assemble(set, choice, isForced ? newUuid(set.topology.random) : undefined)
}

/**
 * An operator's word that the set is right as this drive has it, whatever the others have: they are filled from it.
 * Where the set runs from that drive already, drives that were used apart from it come back that way.
 */
export async function assembleFrom(set: AnySet, uuid: string): Promise<void> {
  const { members, drives, topology } = set
  if (!set.assembled) {
    const member = defined(members.get(uuid), 'the drive that the operator has named')
    await assemble(set, usable(set, choose([copyOf(member)])), newUuid(topology.random))
  }
  for (const member of [...members.values()]) {
    if (!drives.has(member.uuid) || !reacquireAccess(member)) continue
    members.delete(member.uuid)
    await returnMember(set, member, { isWord: true })
  }
}

function usable(set: AnySet, choice: Choice): Chosen {
  if (choice.kind === 'none' || choice.kind === 'split' || choice.members.length === 0) {
    throw hopeless(choice, set)
  }
  return choice
}

/** `newLine`: by an operator's word. */
async function assemble(set: AnySet, choice: Chosen, newLine?: string): Promise<void> {
  const { members, drives } = set
  const { current, nextGeneration } = choice
  if (newLine !== undefined) await set.witness?.renew()
  const chosen = defined(modelOf(members, choice.commit), 'the model of a chosen member')
  // Somebody else may have one by now.
  const here = [...members.values()].filter(
    (member) => reacquireAccess(member) || set.closeSoon(member.consumer),
  )
  members.clear()
  // Before any other flush: what fails is told once.
  const lossy = await flushCaches(set, here)
  for (const member of here) await settleLabel(set.log, member)
  for (const record of chosen.drives) drives.set(record.uuid, new SetDrive(record))
  for (const member of here) {
    const drive = drives.get(member.uuid)
    if (drive && current.has(member.uuid)) drive.take(member.consumer, member.label)
    // The set holds it all the same, and lets go of it where the first commit fails.
    else members.set(member.uuid, member)
  }
  const late = [...members.values()]
  set.open(chosen, baseOf(choice, newLine), nextGeneration)
  await set.prepare(chosen)
  // Who is missing is out of service durably before anything is served. There is a commit in any case
  // (anchor/anchor-quorum.ts, rule S).
  await set.commit((model) => {
    const present = [...drives.values()].filter((drive) => drive.present)
    const devices = new Map(present.map((drive) => [drive.record.uuid, drive.device]))
    return set.atStart(chosen, set.withDrives(set.withLosses({ ...model }), devices), lossy)
  })
  // With its second copies, durably: the image of a drive from before this start is older from now on, whatever is cut off.
  await set.certain()
  await set.reshape()
  for (const member of late) {
    members.delete(member.uuid)
    await returnMember(set, member)
  }
  // What assembling has written may have failed on too many drives, without its having thrown.
  if (set.failure) throw set.failure
  set.started()
  await fitDrives(set)
  await set.witness?.watch()
  tellAssembled(set)
}

/**
 * A daemon that was killed has left acknowledged writes in the caches of drives: they are durable before anything is served.
 * Resolves to the drives, by UUID, that failed it and may have lost some, with why.
 */
async function flushCaches(
  set: AnySet,
  here: readonly Member<SetModel>[],
): Promise<ReadonlyMap<string, PlexusError>> {
  const failed = [...(await failuresOf(here, ({ consumer }) => flush(consumer)))]
  for (const [{ consumer }, err] of failed) {
    set.log.error({ err, device: consumer.provider.name }, 'a flush failed before the start')
  }
  return new Map(failed.map(([{ uuid }, err]) => [uuid, err]))
}
