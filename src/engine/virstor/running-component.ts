/** A component of a device that runs: where its chunks lie, and whether it serves. Used by device.ts. */
import type { PlexusError } from '../../base/errors.ts'
import type { Consumer } from '../geom/consumer.ts'
import type { SetDrive } from '../metadata/set-drive.ts'
import type { ComponentRecord } from './model.ts'
import type { Component } from './runtime.ts'
import type { VirstorSet } from './virstor-set.ts'

class RunningComponent implements Component {
  readonly id: number
  chunks: number
  readonly startBytes: number
  readonly #drive: SetDrive
  /** It has failed a flush, whoever asked for it: nobody knows what of what it has taken is there. */
  #failed: Consumer | undefined

  /** `onFlushFailed`: called when nothing is read from it any more. */
  constructor(
    { id, chunks, startBytes }: ComponentRecord,
    drive: SetDrive,
    onFlushFailed: (id: number, error: PlexusError) => void,
  ) {
    this.id = id
    this.chunks = chunks
    this.startBytes = startBytes
    this.#drive = drive
    drive.flushFailed = (error) => {
      this.#failed = drive.consumer
      onFlushFailed(id, error)
    }
  }

  /** One that is here, and is not called up, has an older state. */
  get consumer(): Consumer | undefined {
    const { consumer, record } = this.#drive
    return record.state === 'up' && consumer !== this.#failed ? consumer : undefined
  }
}

/** The component of a device of `set`; a flush of it that fails is told to the device, while it is one of its own. */
export function componentOf(set: VirstorSet, record: ComponentRecord): RunningComponent {
  const made = new RunningComponent(record, set.driveOf(record), (id, error) => {
    const { device } = set
    // One that has ended told what it owed.
    if (!device || device.space.component(id) !== made) return
    device.io.lost()
    device.committer.suspect(id, error)
  })
  return made
}
