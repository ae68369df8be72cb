/** What a raid5 plex does against a crash that cuts off its writes: `log` or `intent` (docs/vinum.md, 7). */
import { hasLog, lacksRing, nextRun, withoutLog } from '../model/log-rings.ts'
import type { PlexRecord } from '../model/model.ts'
import type { Draft } from './draft.ts'

export type CrashPolicy = 'log' | 'intent'

/** What counts now: a log that was asked for does so from its first run on. */
export function policyOf({ logRun = 0 }: PlexRecord): CrashPolicy {
  return logRun > 0 ? 'log' : 'intent'
}

/** Throws `no-space` with the drive that has no room for a log. */
export function setPolicy(
  draft: Draft,
  plex: PlexRecord,
  policy: CrashPolicy,
  options: { readonly isNew: boolean },
): void {
  if (hasLog(plex) === (policy === 'log')) return
  if (policy === 'log') {
    const drives = draft.subdisksOf(plex).map(({ driveUuid }) => driveUuid)
    const full = lacksRing(draft.model, drives)
    if (full)
      throw draft.noSpace`drive ${full.name} has no room for the log of ${plex.name} in the journal area of its label; remove another raid5 volume from it, wait for a growth to end, or use --policy intent`
  }
  // What was written before it had a log is not in one.
  const logRun = options.isNew ? nextRun(plex) : 0
  draft.put('plexes', policy === 'log' ? { ...plex, logRun } : withoutLog(plex))
  draft.step`${policy === 'log' ? 'log' : 'do not log'} the writes of plex ${plex.name}`
  if (policy === 'intent')
    draft.warn`plex ${plex.name}: where the power fails while a drive is missing, what was being written may cost other data of the same rows`
}
