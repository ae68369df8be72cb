/** What is reported of devices of FreeBSD's virstor (control/reports.ts). */
import { formatSize } from '../../../base/bytes.ts'
import type { ObjectReport } from '../../../control/reports.ts'
import { absentSet } from '../../metadata/set-report.ts'
import type { FreebsdDevice, ImportedComponent } from './import.ts'
import type { FreebsdLabel } from './label.ts'
import type { ServedDevice } from './served.ts'

const CLASS = { className: 'virstor', uuid: '' } as const

/** The device with its components, or why it is not served. */
export function importedObjects(device: FreebsdDevice): readonly ObjectReport[] {
  const { served, name, label, problem } = device
  if (served) return servedObjects(device, served)
  const status = `${label} on components of FreeBSD is not served: ${problem}.`
  const part = { type: 'virstor', name: label, uuid: '', sizeBytes: 0 }
  return absentSet({ ...CLASS, name, status, action: '' }, [part])
}

function servedObjects(
  device: FreebsdDevice,
  { provider, table }: ServedDevice,
): readonly ObjectReport[] {
  const { components, name: set } = device
  const { name, sizeBytes } = provider
  const { usedBytes, physicalBytes } = spaceOf(components, (index) => table.usedOf(index + 1))
  const report: ObjectReport = {
    ...CLASS,
    type: 'virstor',
    name,
    set,
    state: 'READ-ONLY',
    health: 'HEALTHY',
    sizeBytes,
    note: `thin, ${formatSize(usedBytes)} of ${formatSize(physicalBytes)} used, FreeBSD's format`,
    status: "Read-only, since its components have FreeBSD's format.",
    action: `To make it writable: plexus virstor convert ${name}`,
    facts: {
      chunkBytes: components[0]?.label.chunkBytes,
      physicalBytes,
      usedBytes,
      freeBytes: physicalBytes - usedBytes,
      components: components.length,
    },
  }
  const parts = components.map(({ label, consumer }): ObjectReport => {
    const used = table.usedOf(label.index + 1) - label.reserved
    const carriesMap = label.index === 0
    const carrier = consumer.provider.name
    return {
      ...CLASS,
      type: 'component',
      name: `component ${label.index}`,
      set,
      parent: name,
      state: 'UP',
      sizeBytes: label.chunks * label.chunkBytes,
      note: `${used} of ${label.chunks - label.reserved} chunks used${carriesMap ? ', carries the map' : ''}`,
      device: carrier,
      lastDevice: carrier,
      facts: { usedChunks: used, carriesMap },
    }
  })
  return [report, ...parts]
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
