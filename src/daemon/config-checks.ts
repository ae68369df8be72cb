/**
 * What the schema of plexus.yaml cannot say: names that must exist or be unique, addresses that collide,
 * LUN masks that name absent LUNs. The checks look at the plain YAML values and skip what has the wrong
 * shape, so that they find their problems beside those of the schema, in one run. Who may log in is checked in
 * config-auth.ts. Called by config.ts.
 */
import { isAbsolute } from 'node:path'
import { normalizeIscsiName } from '../iscsi/names.ts'
import { lookAtProgram } from './config-files.ts'
import { describePlace, valueAt } from './config-issues.ts'
import { type ListenAddress, parseListen } from './config-schema.ts'
import type { ConfigPath, ConfigSource } from './config-source.ts'

export interface Entry {
  readonly path: ConfigPath
  readonly value: Readonly<Record<string, unknown>>
}

/** The words with a meaning of their own where an auth group's name is expected. */
export const AUTH_NONE = 'none'

export function isRecord(value: unknown): value is Readonly<Record<string, unknown>> {
  return typeof value === 'object' && value !== null && !Array.isArray(value)
}

/** The mappings in the list `parent[key]`, with their paths. */
export function entriesOf(parent: unknown, key: string, at: ConfigPath = []): Entry[] {
  const list = isRecord(parent) ? parent[key] : undefined
  if (!Array.isArray(list)) return []
  return list.flatMap((value, index) =>
    isRecord(value) ? [{ path: [...at, key, index], value }] : [],
  )
}

/** The texts in the list `entry[key]`, with their paths. */
export function textsOf(entry: Entry, key: string): { path: ConfigPath; text: string }[] {
  const list = entry.value[key]
  if (!Array.isArray(list)) return []
  return list.flatMap((text, index) =>
    typeof text === 'string' ? [{ path: [...entry.path, key, index], text }] : [],
  )
}

export function namesOf(entries: readonly Entry[]): Set<string> {
  return new Set(
    entries.flatMap(({ value }) => (typeof value['name'] === 'string' ? [value['name']] : [])),
  )
}

/** Reports every entry whose key `field`, as `normal` sees it, was used by an earlier one. */
export function reportDuplicates(
  source: ConfigSource,
  entries: readonly Entry[],
  field: string,
): void {
  const seen = new Set<unknown>()
  for (const { path, value } of entries) {
    const given = value[field]
    if (typeof given !== 'string' && typeof given !== 'number') continue
    // iSCSI names are compared in their normal form (RFC 7143, 4.2.7.2).
    const isTarget = field === 'name' && path[0] === 'targets'
    const normal = isTarget ? (normalizeIscsiName(String(given)) ?? given) : given
    if (seen.has(normal)) {
      source.problem([...path, field], `${describePlace(source.value, path)} is defined twice`)
    }
    seen.add(normal)
  }
}

function checkPortals(source: ConfigSource): void {
  const portals = entriesOf(source.value, 'portals')
  reportDuplicates(source, portals, 'name')
  /** The portal that was the first to listen at a place. */
  const taken = new Map<string, string>()
  for (const portal of portals) {
    const place = describePlace(source.value, portal.path)
    for (const { path, text } of textsOf(portal, 'listen')) {
      const address = parseListen(text)
      if (!address) continue
      const { places, rivals } = listenPlaces(address)
      const other = rivals.map((one) => taken.get(one)).find(Boolean)
      if (other) source.problem(path, `${place}: ${text} is taken by ${other} already`)
      for (const one of places) if (!taken.has(one)) taken.set(one, place)
    }
  }
}

/**
 * The places that an address takes, and those of which none may be taken: two addresses of one port collide when they are
 * equal, or when one means all of its family.
 */
function listenPlaces({ host, port }: ListenAddress): { places: string[]; rivals: string[] } {
  const all = host.includes(':') ? '::' : '0.0.0.0'
  const own = `${host} ${port}`
  const family = `${all} ${port} or one of its family`
  return { places: [own, family], rivals: host === all ? [family] : [own, `${all} ${port}`] }
}

export function notAName(text: string): string {
  return `"${text}" is not an iSCSI name; write iqn.YYYY-MM.reversed.domain:anything`
}

function checkTargets(source: ConfigSource): void {
  const targets = entriesOf(source.value, 'targets')
  const portals = namesOf(entriesOf(source.value, 'portals'))
  const devices = deviceNames(source)
  reportDuplicates(source, targets, 'name')
  for (const target of targets) {
    const place = describePlace(source.value, target.path)
    const name = target.value['name']
    if (typeof name === 'string' && normalizeIscsiName(name) === undefined) {
      source.problem([...target.path, 'name'], notAName(name))
    }
    const seen = new Set<string>()
    for (const { path, text } of textsOf(target, 'portals')) {
      if (!portals.has(text)) {
        source.problem(
          path,
          `${place}: there is no portal "${text}"${source.didYouMean(text, portals)}`,
        )
      } else if (seen.has(text)) source.problem(path, `${place}: portal "${text}" stands twice`)
      seen.add(text)
    }
    checkLuns(source, target, devices)
    checkAccess(source, target)
  }
}

function deviceNames(source: ConfigSource): ReadonlySet<string> {
  const devices = isRecord(source.value) ? source.value['devices'] : undefined
  return new Set(isRecord(devices) ? Object.keys(devices) : [])
}

function checkLuns(source: ConfigSource, target: Entry, known: ReadonlySet<string>): void {
  const luns = entriesOf(target.value, 'luns', target.path)
  reportDuplicates(source, luns, 'lun')
  const mapped = new Set<string>()
  for (const lun of luns) {
    const place = describePlace(source.value, lun.path)
    const backing = backingOf(lun)
    if (!backing) {
      source.problem(lun.path, `${place} needs exactly one of "device" and "volume"`)
      continue
    }
    const { key, name } = backing
    const isDevice = known.has(name)
    if (key === 'device' && !isDevice) {
      const hint = source.didYouMean(name, known)
      source.problem([...lun.path, key], `${place}: there is no device "${name}"${hint}`)
    } else if (key === 'volume' && isDevice) {
      source.problem([...lun.path, key], `${place}: "${name}" is a device; write "device: ${name}"`)
    } else if (mapped.has(name)) {
      source.problem(
        [...lun.path, key],
        `${place}: ${key} "${name}" is mapped in this target already`,
      )
    }
    mapped.add(name)
  }
}

/** What a LUN leads to, where exactly one is named. */
function backingOf(lun: Entry): { key: 'device' | 'volume'; name: string } | undefined {
  const { device, volume } = lun.value
  if (typeof device === 'string' && volume === undefined) return { key: 'device', name: device }
  if (typeof volume === 'string' && device === undefined) return { key: 'volume', name: volume }
  return undefined
}

/** A device or volume is one logical unit, whichever targets map it: its block length is one, too. */
function checkBlockSizes(source: ConfigSource): void {
  const sizes = new Map<string, { size: unknown; place: string }>()
  for (const target of entriesOf(source.value, 'targets')) {
    for (const lun of entriesOf(target.value, 'luns', target.path)) {
      const backing = backingOf(lun)
      if (!backing) continue
      const { key, name } = backing
      const size = lun.value['blockSize']
      const place = describePlace(source.value, lun.path)
      const first = sizes.get(name)
      if (first && first.size !== size) {
        source.problem(
          [...lun.path, 'blockSize'],
          `${place}: ${key} "${name}" has another "blockSize" at ${first.place}; give both the same`,
        )
      }
      if (!first) sizes.set(name, { size, place })
    }
  }
}

/** `label: initiator` that outlives its LUN would speak for a label of this machine's own one day. */
function checkLabels(source: ConfigSource): void {
  const devices = isRecord(source.value) ? source.value['devices'] : undefined
  const mapped = new Set(
    entriesOf(source.value, 'targets').flatMap((target) =>
      entriesOf(target.value, 'luns', target.path).map(({ value }) => value['device']),
    ),
  )
  for (const [name, device] of Object.entries(isRecord(devices) ? devices : {})) {
    if (!isRecord(device) || device['label'] === undefined || mapped.has(name)) continue
    source.problemAtKey(
      ['devices', name, 'label'],
      `device "${name}": "label" is for a device that a LUN names; take it away`,
    )
  }
}

function checkAccess(source: ConfigSource, target: Entry): void {
  const access = target.value['access']
  if (!isRecord(access)) return
  const place = describePlace(source.value, target.path)
  const luns = new Set(
    entriesOf(target.value, 'luns', target.path).map(({ value }) => value['lun']),
  )
  for (const initiator of Object.keys(access)) {
    const path = [...target.path, 'access', initiator]
    const name = normalizeIscsiName(initiator)
    if (name === undefined) source.problemAtKey(path, `${place}: ${notAName(initiator)}`)
    const rows = entriesOf(access, initiator, [...target.path, 'access'])
    reportDuplicates(source, rows, 'lun')
    for (const row of rows) {
      const lun = row.value['lun']
      if (typeof lun === 'number' && !luns.has(lun)) {
        source.problem(
          [...row.path, 'lun'],
          `${describePlace(source.value, row.path)}: there is no lun ${lun} in ${place}`,
        )
      }
    }
  }
}

/** A storage server must start without its hook, too: these are warnings. */
function checkHook(source: ConfigSource): void {
  const path = ['hooks', 'onEvent']
  const file = valueAt(source.value, path)
  if (typeof file !== 'string' || !isAbsolute(file)) return
  const { fault } = lookAtProgram(file)
  if (fault !== undefined) source.warning(path, `"onEvent" is not run: ${fault}`)
}

/** Every check, in no particular order. A row here is all that a new one needs. */
const CHECKS: readonly ((source: ConfigSource) => void)[] = [
  checkPortals,
  checkTargets,
  checkBlockSizes,
  checkLabels,
  checkHook,
]

/** Runs all checks over what could be parsed. */
export function checkConfig(source: ConfigSource): void {
  for (const check of CHECKS) check(source)
}
