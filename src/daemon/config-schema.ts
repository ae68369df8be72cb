/**
 * The shape of plexus.yaml, as a zod schema: the one place that names the keys, their defaults and their
 * bounds. The editor schema config/plexus.schema.json is generated from it (`npm run schema`). What one
 * key alone cannot tell (names that must exist, duplicates, secrets) is in config-checks.ts. Used by
 * config.ts.
 */
import { isIP, SocketAddress } from 'node:net'
import { isAbsolute } from 'node:path'
import { z } from 'zod'
import { parseSize } from '../base/bytes.ts'
import {
  COMMAND_WINDOW,
  COMMAND_WINDOW_MIN,
  DEVICE_TIMEOUT_MS,
  DEVICE_TIMEOUT_MS_MAX,
  DEVICE_TIMEOUT_MS_MIN,
  DISCOVERY_SESSIONS_DEFAULT,
  DISCOVERY_SESSIONS_MAX,
  LOGINS_PENDING_DEFAULT,
  LOGINS_PENDING_MAX,
  LOGINS_PENDING_MIN,
  LUNS_PER_TARGET,
  POOL_BYTES_DEFAULT,
  POOL_BYTES_MAX,
  POOL_BYTES_MIN,
  POOL_CHUNK_BYTES,
  SESSIONS_DEFAULT,
  SESSIONS_MAX,
} from '../base/limits.ts'
import { plainAddress } from '../base/network.ts'
import { parseDuration } from '../control/duration.ts'

export const ISCSI_PORT = 3260
export const STATE_DIR_DEFAULT = '/var/lib/plexus'

/** A network address to listen on, in its shortest form. */
export interface ListenAddress {
  readonly host: string
  readonly port: number
  /** `::` takes IPv4 connections, too: no portal listens on an IPv4 address with its port. */
  readonly dualStack?: boolean
}

/** `10.0.0.1:3260`, `[fd00::5]:3260`, `[fe80::1%eth0]`, or either without the port; undefined for anything else. */
export function parseListen(text: string): ListenAddress | undefined {
  const match = /^(?:\[([0-9a-fA-F:.]+)(%[\w.-]{1,15})?\]|([0-9.]+))(?::(\d{1,5}))?$/.exec(text)
  const host = match?.[1] ?? match?.[3]
  const zone = match?.[2] ?? ''
  const port = match?.[4] === undefined ? ISCSI_PORT : Number(match[4])
  const family = match?.[1] === undefined ? 4 : 6
  if (host === undefined || isIP(host) !== family || port < 1 || port > 65535) return undefined
  const shortest =
    family === 4 ? host : plainAddress(new SocketAddress({ address: host, family: 'ipv6' }).address)
  // A link-local address means an interface, and no other address does.
  if (isLinkLocal(shortest) !== (zone !== '')) return undefined
  return { host: shortest + zone, port }
}

function isLinkLocal(host: string): boolean {
  return /^fe[89ab][0-9a-f]:/i.test(host)
}

const HOST_NAME =
  /^(?=.{1,253}$)(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)*[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?$/i

/** An address for initiators: as {@link parseListen} without a zone, or a host name with or without a port. */
export function parseAdvertise(text: string): ListenAddress | undefined {
  const address = parseListen(text)
  if (address) return address.host.includes('%') ? undefined : address
  const [host = '', port = String(ISCSI_PORT), ...rest] = text.split(':')
  const isPort = /^\d{1,5}$/.test(port) && Number(port) >= 1 && Number(port) <= 65535
  const isName = HOST_NAME.test(host) && /[a-z]/i.test(host)
  return isName && isPort && rest.length === 0 ? { host, port: Number(port) } : undefined
}

/** Bytes of a size that the schema has accepted: a number or a text such as `256MiB`. */
export function sizeBytes(value: number | string): number {
  return typeof value === 'number' ? value : parseSize(value)
}

function isPoolSize(value: number | string): boolean {
  let bytes: number
  try {
    bytes = sizeBytes(value)
  } catch {
    return false
  }
  return bytes >= POOL_BYTES_MIN && bytes <= POOL_BYTES_MAX && bytes % POOL_CHUNK_BYTES === 0
}

/** Milliseconds of a time that the schema has accepted: a number of seconds or a text such as `30s`. */
export function timeoutMs(value: number | string): number {
  return typeof value === 'number' ? value * 1000 : parseDuration(value)
}

function isTimeout(value: number | string): boolean {
  try {
    const ms = timeoutMs(value)
    return ms >= DEVICE_TIMEOUT_MS_MIN && ms <= DEVICE_TIMEOUT_MS_MAX
  } catch {
    return false
  }
}

const timeout = z
  .union([z.number(), z.string()])
  .refine(isTimeout, 'a time from 1s to 1h, such as 30s')

const name = z
  .string()
  .regex(
    /^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$/,
    'a name is 1 to 64 letters, digits, dots, dashes and underscores, and begins with a letter or digit',
  )
  .describe('A name, for references and messages')

const iscsiName = z
  .string()
  .min(1)
  .max(223)
  .describe('An iSCSI name: iqn.YYYY-MM.reversed.domain:anything, eui.16 hex digits, naa.16 or 32')

const digestChoice = z.enum(['CRC32C', 'None'])
const digest = z
  .union([digestChoice, z.array(digestChoice).min(1).max(2)])
  .describe('CRC32C: for who asks (default); None: never; a list: exactly these, best first')

const lunNumber = z
  .int()
  .min(0)
  .max(LUNS_PER_TARGET - 1)
  .describe('Logical unit number')

const authNames = z.union([z.string(), z.array(z.string()).min(1)])

const portal = z.strictObject({
  name,
  listen: z
    .array(
      z
        .string()
        .refine(
          (text) => parseListen(text) !== undefined,
          'write an address as 10.0.0.1:3260 or [fd00::5]:3260, a link-local one with its interface: [fe80::1%eth0]:3260',
        ),
    )
    .min(1)
    .describe(
      'Addresses and ports; 0.0.0.0 means every IPv4 address, [::] every address, or every IPv6 address where a portal listens on an IPv4 address with the same port',
    ),
  advertise: z
    .array(
      z
        .string()
        .refine(
          (text) => parseAdvertise(text) !== undefined,
          'write an address as 203.0.113.5:3260, [2001:db8::5]:3260 or san.example.org:3260',
        ),
    )
    .min(1)
    .optional()
    .describe(
      'Addresses that discovery tells initiators instead of those of "listen": behind NAT, or in a container',
    ),
  digests: z
    .strictObject({ header: digest.optional(), data: digest.optional() })
    .optional()
    .describe('Checksums of PDU headers and data that the portal agrees to'),
  discoveryAuth: authNames
    .default('none')
    .describe(
      'Auth group that discovery sessions must pass, or a list; none: names only, as CHAP-less tools need',
    ),
})

/** As CHAP_ALGORITHMS of iscsi/chap.ts names them. */
const CHAP_NAMES = ['sha3-256', 'sha256', 'sha1', 'md5'] as const

const credentials = z.strictObject({
  user: z.string().min(1).max(255),
  secretFile: z
    .string()
    .min(1)
    .describe('File with the secret, 12 to 256 bytes, not readable by others; one line'),
})

const authGroup = z.strictObject({
  name,
  chap: credentials
    .extend({
      algorithms: z
        .array(z.enum(CHAP_NAMES))
        .min(1)
        .optional()
        .describe(
          'What the proof may be computed with; absent: all. [sha3-256, sha256] forbids MD5',
        ),
    })
    .optional()
    .describe('What initiators must prove'),
  mutual: credentials.optional().describe('What Plexus proves to initiators that ask'),
  initiators: z
    .array(iscsiName)
    .min(1)
    .optional()
    .describe(
      'Initiator names that may log in, and with "chap" only by its user; * stands for anything; absent: any name that no other group of the target lists',
    ),
})

const devicePath = z.string().min(1).describe('Block device (best by-id) or image file')
const device = z.union([
  devicePath,
  z.strictObject({
    path: devicePath,
    readOnly: z.boolean().default(false).describe('Open for reading only; its LUNs are read-only'),
    timeout: timeout
      .optional()
      .describe('A disk that answers no request for so long is called down; default: of "hal"'),
    label: z
      .literal('initiator')
      .optional()
      .describe(
        'initiator: a label of a volume on this device was put there by an initiator, and the device is exported all the same',
      ),
  }),
])

const lun = z.strictObject({
  lun: lunNumber,
  device: z.string().optional().describe('A name from "devices"; this or "volume"'),
  volume: name.optional().describe('Name of a volume (plexus volume list); this or "device"'),
  blockSize: z
    .union([z.literal(512), z.literal(4096)])
    .optional()
    .describe("Logical block that initiators see; absent: the device's own"),
  readOnly: z.boolean().default(false),
})

const target = z.strictObject({
  name: iscsiName,
  alias: z.string().max(255).optional(),
  portals: z.array(z.string()).min(1).describe('Names from "portals"'),
  auth: authNames
    .optional()
    .describe(
      'Auth group, or a list of which one must let an initiator in; none admits anybody; absent: nobody may log in',
    ),
  luns: z.array(lun).default([]),
  access: z
    .record(
      iscsiName,
      z.array(z.strictObject({ lun: lunNumber, readOnly: z.boolean().default(false) })),
    )
    .optional()
    .describe(
      'LUN mask: who stands here sees these LUNs, who does not sees none; absent: all see all. Without CHAP anybody can use the name of another host',
    ),
})

const machine = z
  .string()
  .regex(/^[0-9a-f]{12}$/, 'write the 12 digits by which plexusd names the other machine')

export const configSchema = z.strictObject({
  version: z.literal(1),
  portals: z.array(portal).default([]),
  auth: z.array(authGroup).default([]),
  devices: z.record(name, device).default({}),
  targets: z.array(target).default([]),
  limits: z
    .strictObject({
      sessions: z
        .int()
        .min(1)
        .max(SESSIONS_MAX)
        .default(SESSIONS_DEFAULT)
        .describe(
          'Sessions with targets; one more is refused, unless one does not answer any more',
        ),
      sessionsPerAddress: z
        .int()
        .min(1)
        .max(SESSIONS_MAX)
        .optional()
        .describe('Sessions from one address; absent: as many as "sessions"'),
      discoverySessions: z
        .int()
        .min(1)
        .max(DISCOVERY_SESSIONS_MAX)
        .default(DISCOVERY_SESSIONS_DEFAULT)
        .describe('Discovery sessions; one more ends the oldest of the network that has most'),
      pendingLogins: z
        .int()
        .min(LOGINS_PENDING_MIN)
        .max(LOGINS_PENDING_MAX)
        .default(LOGINS_PENDING_DEFAULT)
        .describe(
          'Connections that have not logged in; one more ends the oldest of the network that has most',
        ),
      commandsPerSession: z
        .int()
        .min(COMMAND_WINDOW_MIN)
        .max(COMMAND_WINDOW)
        .default(COMMAND_WINDOW)
        .describe('Commands that one session may have open'),
      bufferPool: z
        .union([z.int(), z.string()])
        .refine(isPoolSize, 'a size from 32MiB to 2GiB, a multiple of 4MiB')
        .default(POOL_BYTES_DEFAULT)
        .describe('Memory for data in flight, taken at start, such as 256MiB'),
    })
    .prefault({}),
  log: z
    .strictObject({
      level: z.enum(['debug', 'info', 'warn', 'error']).default('info'),
      format: z
        .enum(['auto', 'json', 'journal', 'text'])
        .default('auto')
        .describe('auto: readable lines under systemd and on a terminal, JSON otherwise'),
    })
    .prefault({}),
  hal: z
    .strictObject({
      engine: z
        .enum(['auto', 'io_uring', 'threads'])
        .default('auto')
        .describe('auto: io_uring where the kernel permits it, else threads'),
      timeout: timeout
        .default(`${DEVICE_TIMEOUT_MS / 1000}s`)
        .describe('A disk that answers no request for so long is called down'),
    })
    .prefault({}),
  state: z
    .strictObject({
      dir: z.string().min(1).default(STATE_DIR_DEFAULT).describe('Where LUN identities are kept'),
      movedFrom: machine
        .optional()
        .describe(
          'The disks of that machine are here now: LUNs keep the identities they had there',
        ),
      copiedFrom: machine
        .optional()
        .describe('The folder is a copy, and that machine still serves: LUNs get new identities'),
    })
    .prefault({}),
  hooks: z
    .strictObject({
      onEvent: z
        .string()
        .refine(isAbsolute, 'write an absolute path, such as /etc/plexus/on-event')
        .optional()
        .describe('Program that is run for each event, as root: EVENT SEVERITY OBJECT'),
    })
    .prefault({}),
  control: z
    .strictObject({
      dir: z
        .string()
        .min(1)
        .optional()
        .describe(
          'Where the sockets of the command line are; default: what systemd gives, or /run/plexus',
        ),
    })
    .prefault({}),
})

export type ConfigInput = z.output<typeof configSchema>

/** A JSON schema in the parts that this project looks at. */
export interface JsonSchema {
  readonly properties?: Readonly<Record<string, JsonSchema>>
  readonly additionalProperties?: JsonSchema | boolean
  readonly items?: JsonSchema
  readonly anyOf?: readonly JsonSchema[]
}

/** The editor schema of plexus.yaml. */
export function configJsonSchema(): JsonSchema {
  return z.toJSONSchema(configSchema, { io: 'input' }) as JsonSchema
}

/** The keys that the mapping at `path` knows, from the schema; none where it takes any. */
export function knownKeys(path: readonly PropertyKey[]): readonly string[] {
  let at: JsonSchema | undefined = configJsonSchema()
  for (const part of path) {
    const mapping: JsonSchema | undefined = at?.anyOf?.find((one) => one.properties) ?? at
    const rest: JsonSchema | boolean | undefined = mapping?.additionalProperties
    at =
      typeof part === 'number'
        ? mapping?.items
        : (own(mapping?.properties, String(part)) ?? (typeof rest === 'object' ? rest : undefined))
  }
  const mapping = at?.anyOf?.find((one) => one.properties) ?? at
  return Object.keys(mapping?.properties ?? {})
}

function own<T>(record: Readonly<Record<string, T>> | undefined, key: string): T | undefined {
  return record && Object.hasOwn(record, key) ? record[key] : undefined
}
