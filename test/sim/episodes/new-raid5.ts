/** A raid5 volume for an episode that needs one. */
import type { Stage } from '../stage.ts'

const KIB = 1024

/** Its name, when its parity is there; undefined: there is no room for it, or the run has ended. */
export async function newRaid5(
  { world, random, adopt, whole }: Stage,
  policy: 'log' | 'intent',
): Promise<string | undefined> {
  const { machine } = world
  const disks = random.shuffle(world.disks.map(({ name }) => name))
  if (!machine || disks.length < 4) return undefined
  const name = `r${world.counts.verbs}`
  const refused = await world.verb('volume', 'create', {
    name,
    raid5: disks.slice(0, random.between(3, Math.min(5, disks.length - 1))),
    stripeSize: String(random.pick([4, 16, 64]) * KIB),
    parity: random.pick(['left-symmetric', 'left-asymmetric']),
    policy,
    size: String(random.between(8, 40) * 64 * KIB),
    wipeSignatures: true,
  })
  if (refused || world.machine !== machine) return undefined
  await adopt(machine)
  return (await whole()) ? name : undefined
}
