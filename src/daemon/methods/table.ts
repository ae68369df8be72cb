/**
 * Every method that the control sockets offer: the daemon's own rows, and the verbs of the engine's classes.
 * plexusd.ts gives the table to control-server.ts.
 */
import { assert } from '../../base/assert.ts'
import { methodName } from '../../control/daemon-verbs.ts'
import type { Topology } from '../../engine/geom/topology.ts'
import type { Verb } from '../../engine/geom/types.ts'
import { CONFIG_METHODS } from './config.ts'
import type { Method } from './context.ts'
import { DEVICE_METHODS } from './devices.ts'
import { INVENTORY_METHODS } from './inventory.ts'
import { JOB_METHODS } from './jobs.ts'
import { LABEL_METHODS } from './labels.ts'
import { SET_METHODS } from './sets.ts'
import { STATUS_METHODS } from './status.ts'
import { VIRSTOR_METHODS } from './virstor.ts'

/** A class's verb as a method: its answer is an object, whatever it is. */
function verbMethod(verb: Verb): Method {
  return {
    spec: verb.spec,
    async run(parameters, { context }) {
      const answer = await verb.run(parameters, context.topology)
      return typeof answer === 'object' && answer !== null ? answer : { value: answer }
    },
  }
}

/** All methods. Names are unique. */
export function controlMethods(topology: Topology): readonly Method[] {
  const methods = [
    ...STATUS_METHODS,
    ...INVENTORY_METHODS,
    ...DEVICE_METHODS,
    ...LABEL_METHODS,
    ...JOB_METHODS,
    ...CONFIG_METHODS,
    ...SET_METHODS,
    ...VIRSTOR_METHODS,
    ...topology.classes.flatMap(({ verbs }) => verbs.map(verbMethod)),
  ]
  const names = new Set(methods.map(({ spec }) => methodName(spec)))
  assert(names.size === methods.length, 'every method has its own name')
  return methods
}
