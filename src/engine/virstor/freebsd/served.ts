/**
 * A device of FreeBSD's virstor in operation: offered read-only, on the I/O path of the native one, with a map that nobody
 * changes. What has no chunk reads as zeroes. Made by import.ts.
 */
import { PlexusError } from '../../../base/errors.ts'
import type { Extent } from '../../../hal/block-device.ts'
import type { Consumer } from '../../geom/consumer.ts'
import type { Provider } from '../../geom/provider.ts'
import type { Topology } from '../../geom/topology.ts'
import type { Geom } from '../../geom/types.ts'
import { GroupCommitter } from '../io/committer.ts'
import { VirstorIo } from '../io/device-io.ts'
import { Runs } from '../io/runs.ts'
import { Space } from '../io/space.ts'
import type { MapTable } from '../map/chunk-map.ts'
import type { FreebsdLabel } from './label.ts'

interface Below {
  readonly label: FreebsdLabel
  readonly consumer: Consumer
}

export class ServedDevice {
  readonly table: MapTable
  readonly io: VirstorIo
  readonly provider: Provider
  readonly #chunkBytes: number

  /** Throws `exists` where the name is taken. */
  constructor(
    geom: Geom & { readonly topology: Topology },
    name: string,
    components: readonly Below[],
    table: MapTable,
  ) {
    const { topology } = geom
    const [{ virtualBytes, chunkBytes, id }] = components.map(({ label }) => label) as [
      FreebsdLabel,
    ]
    this.table = table
    this.#chunkBytes = chunkBytes
    const space = new Space({
      components: components.map(({ label, consumer }) => {
        return { id: label.index + 1, chunks: label.chunks, startBytes: 0, consumer }
      }),
      policy: 'sequential',
      chunkWatermark: 0,
      percentWatermark: 0,
      componentWatermark: 0,
      onWatermark: () => {},
    })
    const committer = new GroupCommitter({
      name,
      map: table,
      journal: { append: () => Promise.reject(readOnly(name)) },
      clock: topology.clock,
      component: (one) => space.component(one),
      onComponentFailed: (_id, error) => Promise.reject(error),
      onReleased: () => {},
    })
    const { clock } = topology
    this.io = new VirstorIo({
      name,
      map: table,
      chunkBytes,
      space,
      committer,
      clock,
      fullWaitMs: 0,
    })
    const consumers = components.map(({ consumer }) => consumer)
    const logicalBlockBytes = consumers[0]?.geometry.logicalBlockBytes ?? 0
    const serial = `${name}-${id.toString(16).padStart(8, '0')}`
    this.provider = topology.makeProvider(geom, {
      name,
      geometry: {
        sizeBytes: virtualBytes,
        logicalBlockBytes,
        physicalBlockBytes: Math.max(...consumers.map((one) => one.geometry.physicalBlockBytes)),
        alignmentOffsetBytes: 0,
        ioMinBytes: 0,
        ioOptBytes: chunkBytes,
        maxTransferBytes: 0,
      },
      identity: { wwid: undefined, serial, vendor: 'PLEXUS', model: 'virstor device' },
      features: {
        volatileWriteCache: false,
        rotational: consumers.some(({ features }) => features.rotational),
        readOnly: true,
        discardGranularityBytes: 0,
        discardAlignmentBytes: 0,
        discardMaxBytes: 0,
        discardZeroes: false,
        writeZeroes: false,
      },
    })
  }

  /** Nothing is in flight afterwards, and nothing comes. */
  async stop(): Promise<void> {
    this.io.stop()
    await this.io.pause()
    await this.io.committer.stop()
  }

  extentAt(offset: number, length: number): Extent {
    const runs = new Runs(this.table, this.#chunkBytes)
    runs.valid(offset, offset + length)
    return { allocated: !runs.isHole, length: runs.length }
  }
}

function readOnly(subject: string): PlexusError {
  const message = `${subject} has FreeBSD's format, and is read-only until plexus virstor convert ${subject}`
  return new PlexusError('permission', { op: 'write', subject, message })
}
