/** What several methods need to know: the objects of all classes, and which LUNs lead where. */
import type { ExportReport, Health, VolumeReport } from '../../control/reports.ts'
import type { ClassReport } from '../../engine/geom/types.ts'
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

/** All LUNs of the configuration that runs, with the hosts that are logged in to their targets. */
export function exportFacts(context: ControlContext): readonly ExportFact[] {
  const hosts = hostsByTarget(context)
  return context.config().targets.flatMap((target) => {
    const names = hosts.get(target.name) ?? []
    return target.luns.map(({ lun, unit, readOnly }) => ({
      target: target.name,
      lun,
      provider: unit,
      readOnly,
      sessions: names,
    }))
  })
}

/** Volumes and drives of all classes, with the LUNs that lead to the volumes. */
export function classReports(context: ControlContext): Required<ClassReport> {
  const reports = context.topology.classes.flatMap((one) => one.report?.() ?? [])
  const exports = new Map<string, ExportReport[]>()
  for (const { provider, target, lun, sessions } of exportFacts(context)) {
    const known = exports.get(provider)
    if (known) known.push({ target, lun, sessions })
    else exports.set(provider, [{ target, lun, sessions }])
  }
  const withExports = (volume: VolumeReport): VolumeReport => ({
    ...volume,
    exported: exports.get(volume.name) ?? [],
  })
  return {
    volumes: reports.flatMap(({ volumes }) => volumes).map(withExports),
    drives: reports.flatMap(({ drives }) => drives),
    problems: reports.flatMap(({ problems }) => problems ?? []),
  }
}

const BY_SEVERITY: readonly Health[] = ['HEALTHY', 'DEGRADED', 'FAULTED']

/** The worst of several; HEALTHY when there are none. */
export function worstHealth(all: readonly Health[]): Health {
  return BY_SEVERITY.findLast((one) => all.includes(one)) ?? 'HEALTHY'
}
