/** What several methods need to know: the objects of all classes, and which LUNs lead where. */
import type { ExportReport, Health, ObjectReport } from '../../control/reports.ts'
import { objectsOf } from '../../engine/geom/listing.ts'
import type { SessionInfo } from '../../target/iscsi/session.ts'
import type { TargetConfig } from '../config.ts'
import type { ControlContext } from './context.ts'

/** A LUN with the provider that it leads to. */
export interface ExportFact extends ExportReport {
  readonly provider: string
  readonly readOnly: boolean
}

/** The last part of an iSCSI name, by which people know a host: `esx1` of `iqn.1998-01.com.vmware:esx1`. */
export function shortInitiator(name: string): string {
  const at = name.lastIndexOf(':')
  return at < 0 || at === name.length - 1 ? name : name.slice(at + 1)
}

/** The hosts that are logged in to each target, by its name. */
export function hostsByTarget(context: ControlContext): ReadonlyMap<string, readonly string[]> {
  const hosts = new Map<string, string[]>()
  for (const { targetName, initiatorName } of context.sessions()) {
    if (targetName === undefined) continue
    const known = hosts.get(targetName)
    if (known) known.push(shortInitiator(initiatorName))
    else hosts.set(targetName, [shortInitiator(initiatorName)])
  }
  return hosts
}

/** All LUNs of the configuration that runs, with the hosts that are logged in and see them. */
export function exportFacts(context: ControlContext): readonly ExportFact[] {
  return context.config().targets.flatMap((target) =>
    target.luns.map(({ lun, unit, readOnly }) => ({
      target: target.name,
      lun,
      provider: unit,
      readOnly,
      sessions: context.initiatorsOf(target, lun).map(shortInitiator),
    })),
  )
}

/** Of the sessions of a target, the initiators to whom its mask shows the LUN. */
export function initiatorsOf(
  sessions: readonly Pick<SessionInfo, 'targetName' | 'initiatorName'>[],
  { name, access }: TargetConfig,
  lun: number,
): readonly string[] {
  return sessions
    .filter(({ targetName }) => targetName === name)
    .map(({ initiatorName }) => initiatorName)
    .filter((one) => !access || access.get(one)?.some((row) => row.lun === lun))
}

/** The objects of all classes, with the LUNs that lead to them. */
export function objectsIn(context: ControlContext): readonly ObjectReport[] {
  const exports = new Map<string, ExportReport[]>()
  for (const { provider, target, lun, sessions } of exportFacts(context)) {
    const known = exports.get(provider)
    if (known) known.push({ target, lun, sessions })
    else exports.set(provider, [{ target, lun, sessions }])
  }
  return objectsOf(context.topology.classes).map((one) =>
    one.health === undefined ? one : { ...one, exported: exports.get(one.name) ?? [] },
  )
}

const BY_SEVERITY: readonly Health[] = ['HEALTHY', 'DEGRADED', 'FAULTED']

/** The worst of several; HEALTHY when there are none. */
export function worstHealth(all: readonly Health[]): Health {
  return BY_SEVERITY.findLast((one) => all.includes(one)) ?? 'HEALTHY'
}
