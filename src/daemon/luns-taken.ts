/**
 * Which LUNs a new configuration takes away from initiators that are logged in: a host that loses its disk while it writes
 * has a bad day, so that `config apply` asks for --force. Called by methods/config.ts.
 */
import type { SessionInfo } from '../target/iscsi/session.ts'
import type { Config, TargetConfig } from './config.ts'

interface Shown {
  readonly unit: string
  readonly readOnly: boolean
}

/** What a target shows to an initiator, by LUN. */
function shownTo(target: TargetConfig | undefined, initiator: string): Map<number, Shown> {
  const shown = new Map<number, Shown>()
  for (const { lun, unit, readOnly } of target?.luns ?? []) {
    const row = target?.access?.get(initiator)?.find((one) => one.lun === lun)
    if (target?.access && !row) continue
    shown.set(lun, { unit, readOnly: readOnly || row?.readOnly === true })
  }
  return shown
}

/** One sentence for each LUN that an initiator loses, or may not write any more, or finds another disk behind. */
export function lunsTaken(
  before: Config,
  after: Config,
  sessions: readonly Pick<SessionInfo, 'targetName' | 'initiatorName' | 'remoteAddress'>[],
): readonly string[] {
  const targetsOf = ({ targets }: Config): ReadonlyMap<string, TargetConfig> =>
    new Map(targets.map((one) => [one.name, one]))
  const [old, now] = [targetsOf(before), targetsOf(after)]
  return sessions.flatMap(({ targetName = '', initiatorName, remoteAddress }) => {
    const later = shownTo(now.get(targetName), initiatorName)
    return [...shownTo(old.get(targetName), initiatorName)].flatMap(([lun, { unit, readOnly }]) => {
      const next = later.get(lun)
      const isKept = next?.unit === unit && (readOnly || !next.readOnly)
      const what = next?.unit === unit ? 'the right to write on ' : ''
      return isKept
        ? []
        : [
            `take ${what}LUN ${lun} (${unit}) of ${targetName} from ${initiatorName} at ${remoteAddress}`,
          ]
    })
  })
}
