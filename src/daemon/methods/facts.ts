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

/** All LUNs of the configuration that runs, with the hosts that are logged in to their targets. */
export function exportFacts(context: ControlContext): readonly ExportFact[] {
  const sessions = context.sessions()
  return context.config().targets.flatMap((target) => {
    const names = sessions
      .filter((one) => one.targetName === target.name)
      .map((one) => shortInitiator(one.initiatorName))
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
export function classReports(context: ControlContext): ClassReport {
  const reports = context.topology.classes.flatMap((one) => one.report?.() ?? [])
  const facts = exportFacts(context)
  const withExports = (volume: VolumeReport): VolumeReport => ({
    ...volume,
    exported: facts
      .filter(({ provider }) => provider === volume.name)
      .map(({ target, lun, sessions }) => ({ target, lun, sessions })),
  })
  return {
    volumes: reports.flatMap(({ volumes }) => volumes).map(withExports),
    drives: reports.flatMap(({ drives }) => drives),
  }
}

const BY_SEVERITY: readonly Health[] = ['HEALTHY', 'DEGRADED', 'FAULTED']

/** The worst of several; HEALTHY when there are none. */
export function worstHealth(all: readonly Health[]): Health {
  return BY_SEVERITY.findLast((one) => all.includes(one)) ?? 'HEALTHY'
}
