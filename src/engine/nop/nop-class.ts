/**
 * The nop class: providers made by verb over any other one, which are slow, hang, fail or tear writes on request
 * (GEOM's NOP, gnop(8)). Nothing of it is on disk: after a restart they are gone. It is also the class to copy:
 * a table of verbs, a geom (nop-geom.ts), the declarations for the command line (src/control/nop-verbs.ts), a
 * row in src/engine/engine.ts.
 */
import { Refusals } from '../../base/errors.ts'
import { NOP_FAIL_KINDS, NOP_FAIL_OPS, NOP_SPECS } from '../../control/nop-verbs.ts'
import { type ObjectList, type ObjectType, SIZE, STATE } from '../../control/reports.ts'
import { listVerbs } from '../geom/listing.ts'
import { checkNameFree } from '../geom/names.ts'
import { IO_OPS } from '../geom/statistics.ts'
import type { Topology } from '../geom/topology.ts'
import type { GeomClass, Verb, VerbParameters } from '../geom/types.ts'
import { Parameters } from '../verbs/parameters.ts'
import { NopGeom } from './nop-geom.ts'

const NAME = /^[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}$/
const DELAY_MS_MAX = 3_600_000

const TYPE: ObjectType = {
  name: 'nop',
  plural: 'nop providers; plexus nop create PROVIDER makes one',
  columns: [
    { label: 'name', key: 'name' },
    STATE,
    { label: 'provider', key: 'device' },
    SIZE,
    { label: 'read-delay-ms', key: 'readDelayMs', kind: 'number' },
    { label: 'write-delay-ms', key: 'writeDelayMs', kind: 'number' },
    { label: 'faults', key: 'faults' },
    { label: 'hangs', key: 'hangs' },
    { label: 'tears', key: 'tears', kind: 'number' },
    { label: 'failed', key: 'failed', kind: 'number' },
    { label: 'torn', key: 'torn', kind: 'number' },
    { label: 'held', key: 'held', kind: 'number', extra: true },
  ],
}
const TYPES = { types: [TYPE] }

export function createNopClass(): GeomClass {
  const geoms = new Map<string, NopGeom>()
  return {
    name: 'nop',
    ...TYPES,
    report: () => [...geoms.values()].map((geom) => geom.report()),
    // Nothing on disk says that a nop belongs there.
    taste: async () => false,
    verbs: verbsOf(geoms),
    async stop() {
      for (const geom of [...geoms.values()]) await geom.wither()
    },
  }
}

function verbsOf(geoms: Map<string, NopGeom>): readonly Verb[] {
  const find = ({ name = '' }: VerbParameters): NopGeom => {
    const geom = geoms.get(String(name))
    if (geom) return geom
    throw new Refusals('find')
      .notFound`there is no nop provider "${name}"; plexus nop list shows all`
  }
  /** A verb that sets something on one geom and answers with it. */
  const setter =
    (set: (geom: NopGeom, given: Parameters) => Promise<void> | void): Verb['run'] =>
    async (parameters) => {
      const geom = find(parameters)
      await set(geom, new Parameters('nop', parameters))
      return answer(geom)
    }
  return [
    { spec: NOP_SPECS.create, run: (parameters, topology) => create(geoms, parameters, topology) },
    { spec: NOP_SPECS.delay, run: setter(setDelay) },
    { spec: NOP_SPECS.fail, run: setter(setFault) },
    { spec: NOP_SPECS.tear, run: setter(setTear) },
    { spec: NOP_SPECS.hang, run: setter(setHang) },
    { spec: NOP_SPECS.clear, run: setter((geom) => geom.clear()) },
    {
      spec: NOP_SPECS.destroy,
      run: (parameters, topology) =>
        topology.change(async () => {
          const geom = find(parameters)
          if (parameters['force'] !== true) refuseOpen(geom)
          const last = answer(geom)
          await geom.wither()
          return last
        }),
    },
    ...listVerbs([{ spec: NOP_SPECS.list, type: TYPE.name }], TYPES, () =>
      [...geoms.values()].map((geom) => geom.report()),
    ),
  ]
}

function create(
  geoms: Map<string, NopGeom>,
  parameters: VerbParameters,
  topology: Topology,
): Promise<ObjectList> {
  return topology.change(async () => {
    const given = new Parameters('nop', parameters)
    const below = topology.find(given.optionalText('provider') ?? '')
    const name = given.optionalText('name') ?? `${below.name}.nop`
    if (!NAME.test(name)) {
      const why = `"${name}" is not a name: letters, digits and . _ : / - are allowed`
      given.fail('invalid', 'name', why)
    }
    checkNameFree(topology, name)
    const geom = new NopGeom(name, topology, () => geoms.delete(name))
    await geom.open(below)
    geoms.set(name, geom)
    await topology.tastePending()
    return answer(geom)
  })
}

function answer(geom: NopGeom): ObjectList {
  return { ...TYPES, objects: [geom.report()] }
}

function refuseOpen(geom: NopGeom): void {
  for (const { access, holder } of geom.provider.consumers) {
    if (access.read === 0 && access.write === 0 && access.exclusive === 0) continue
    const refuse = new Refusals('destroy')
    throw refuse.inUse`${geom.name} is in use by ${holder}; stop that first, or use --force`
  }
}

function setDelay(geom: NopGeom, given: Parameters): void {
  const readMs = given.optionalNumber('read', DELAY_MS_MAX)
  const writeMs = given.optionalNumber('write', DELAY_MS_MAX)
  if (readMs === undefined && writeMs === undefined) {
    given.fail('invalid', 'delay', 'say which delay: --read MS, --write MS')
  }
  geom.faults.delay(readMs, writeMs)
}

function setFault(geom: NopGeom, given: Parameters): void {
  const op =
    given.optionalChoice('op', NOP_FAIL_OPS) ??
    given.fail('invalid', 'fail', `say what to fail: --op ${NOP_FAIL_OPS.join('|')}`)
  const kind = given.optionalChoice('kind', NOP_FAIL_KINDS) ?? 'io'
  const probability = given.optionalNumber('probability', 1) ?? 1
  geom.faults.fail(op, kind, probability, countOf(given))
}

function setHang(geom: NopGeom, given: Parameters): void {
  const op = given.optionalChoice('op', NOP_FAIL_OPS)
  geom.faults.hang(op ? [op] : IO_OPS)
}

function setTear(geom: NopGeom, given: Parameters): void {
  geom.faults.tear(countOf(given) ?? 1, given.flag('succeed'))
}

function countOf(given: Parameters): number | undefined {
  const count = given.optionalNumber('count', Number.MAX_SAFE_INTEGER)
  if (count === undefined || (Number.isInteger(count) && count > 0)) return count
  return given.fail('invalid', 'count', `--count ${count}: must be a whole number from 1`)
}
