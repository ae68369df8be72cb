/** The power goes at each write of a piece of work in turn: what a start finds after that. */
import type { Machine } from './engine.ts'

/** Turns of the event loop in which second copies and the like are written after the work has ended. */
const LATE_TURNS = 20

/**
 * Runs `work` on a machine of `make` again and again; each time the power goes before one more write of any device, until
 * the work gets to its end. Gives each machine, started again, with the number of the write that is missing.
 */
export async function* cutAtEachWrite(
  make: () => Promise<Machine>,
  work: (machine: Machine) => Promise<unknown>,
): AsyncGenerator<{ readonly machine: Machine; readonly cutAt: number }> {
  for (let cutAt = 1; ; cutAt++) {
    const machine = await make()
    let writes = 0
    const isCut = new Promise<boolean>((resolve) => {
      for (const device of machine.devices.values()) {
        const { change } = device
        device.change = (...parameters) => {
          if (++writes === cutAt) {
            machine.cut()
            resolve(true)
          }
          change.apply(device, parameters)
        }
      }
    })
    const hasEnded = work(machine).then(async () => {
      for (let turn = 0; turn < LATE_TURNS; turn++) await new Promise(setImmediate)
      return false
    })
    if (!(await Promise.race([isCut, hasEnded]))) return
    await machine.start()
    yield { machine, cutAt }
  }
}
