/** What `plexus status` and `plexus virstor list` say of devices of FreeBSD's virstor. */
import { formatSize } from '../../../base/bytes.ts'
import type { ProblemReport, VolumeReport } from '../../../control/reports.ts'
import type { VirstorRow } from '../../../control/virstor-verbs.ts'
import type { FreebsdDevice, ImportedComponent } from './import.ts'
import type { FreebsdLabel } from './label.ts'
import type { ServedDevice } from './served.ts'

const NO_ERRORS = { read: 0, write: 0, parity: 0 }

/** Those that are served. */
export function importedVolumes(devices: readonly FreebsdDevice[]): readonly VolumeReport[] {
  return devices.flatMap((device) => (device.served ? volumeReport(device, device.served) : []))
}

function volumeReport(device: FreebsdDevice, { provider, table }: ServedDevice): VolumeReport {
  const { components } = device
  const { name, sizeBytes } = provider
  const { usedBytes, physicalBytes } = spaceOf(components, (index) => table.usedOf(index + 1))
  return {
    name,
    uuid: '',
    className: 'virstor',
    set: device.name,
    state: 'UP',
    health: 'HEALTHY',
    sizeBytes,
    layout: `thin, ${formatSize(usedBytes)} of ${formatSize(physicalBytes)} used, FreeBSD's format`,
    status: "Read-only, since its components have FreeBSD's format.",
    action: `To make it writable: plexus virstor convert ${name}`,
    errors: NO_ERRORS,
    process: undefined,
    doubt: undefined,
    components: components.map(({ label, consumer }) => {
      const used = table.usedOf(label.index + 1) - label.reserved
      const carries = label.index === 0 ? ', carries the map' : ''
      return {
        type: 'component',
        name: `component ${label.index}`,
        uuid: '',
        state: 'up',
        sizeBytes: label.chunks * label.chunkBytes,
        errors: NO_ERRORS,
        note: `${used} of ${label.chunks - label.reserved} chunks used${carries}`,
        device: consumer.provider.name,
        children: [],
      }
    }),
    exported: [],
  }
}

function spaceOf(
  components: readonly ImportedComponent[],
  usedOf: (index: number) => number,
): { readonly usedBytes: number; readonly physicalBytes: number } {
  const sum = (chunksOf: (label: FreebsdLabel) => number): number =>
    components.reduce((bytes, { label }) => bytes + chunksOf(label) * label.chunkBytes, 0)
  return {
    usedBytes: sum(({ index, reserved }) => usedOf(index) - reserved),
    physicalBytes: sum(({ chunks, reserved }) => chunks - reserved),
  }
}

export function importedProblems(devices: readonly FreebsdDevice[]): readonly ProblemReport[] {
  return devices.flatMap((device) => {
    if (device.served) return []
    const { name, label, problem } = device
    const message = `${label} on components of FreeBSD is not served: ${problem}.`
    return [{ object: name, health: 'FAULTED', message, action: '', volumes: [label] }]
  })
}

export function importedRows(devices: readonly FreebsdDevice[]): readonly VirstorRow[] {
  return devices.flatMap(({ served, components }) => {
    const [first] = components
    if (!served || !first) return []
    const { usedBytes, physicalBytes } = spaceOf(components, (index) =>
      served.table.usedOf(index + 1),
    )
    return [
      {
        name: served.provider.name,
        state: 'READ-ONLY',
        sizeBytes: served.provider.sizeBytes,
        chunkBytes: first.label.chunkBytes,
        physicalBytes,
        usedBytes,
        freeBytes: physicalBytes - usedBytes,
        warnBytes: 0,
        isLow: false,
        components: components.length,
      },
    ]
  })
}
