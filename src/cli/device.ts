/** `plexus device show`. */
import type { DeviceDetails } from '../control/daemon-reports.ts'
import type { Invocation } from './invocation.ts'
import { renderRecord } from './render.ts'

export function renderDevice(device: DeviceDetails, { flags }: Invocation): string {
  const { holders, contents } = device
  return renderRecord(
    [
      ['device', device.name],
      ['path', device.path],
      ['state', device.state],
      ['reason', device.reason],
      ['size', device.sizeBytes, 'size'],
      ['logical block', device.blockBytes, 'number'],
      ['physical block', device.physicalBlockBytes, 'number'],
      ['vendor', device.vendor],
      ['model', device.model],
      ['serial', device.serial],
      ['wwid', device.wwid],
      ['rotational', device.rotational],
      ['read-only', device.readOnly],
      ['write cache', device.volatileWriteCache],
      ['discard', device.discard],
      ['used by', holders.length > 0 ? holders.join(', ') : 'nobody'],
      ['contents', contents === '' ? 'blank' : contents],
    ],
    flags.exact,
  )
}
