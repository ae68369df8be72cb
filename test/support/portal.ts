/** A whole target in this process: one portal on a free port, one target, one LUN over a memory device. */
import type { Test } from 'tap'
import { type Clock, realClock } from '../../src/base/clock.ts'
import { MIB } from '../../src/base/limits.ts'
import { type Logger, silentLogger } from '../../src/base/log.ts'
import { type AlignedPool, createAlignedPool } from '../../src/hal/aligned-pool.ts'
import type { Auth } from '../../src/target/iscsi/auth.ts'
import { IscsiServer, type IscsiServerOptions } from '../../src/target/iscsi/portal.ts'
import { type PortalGroup, TargetNode, TargetRegistry } from '../../src/target/iscsi/target-node.ts'
import { createDeviceServer } from '../../src/target/scsi/device-server.ts'
import { BlockUnit } from '../../src/target/scsi/logical-unit.ts'
import { MemoryDevice } from './memory-device.ts'

export const TARGET = 'iqn.2026-11.test.plexus:disk'

export interface TestPortal {
  readonly port: number
  readonly server: IscsiServer
  readonly pool: AlignedPool
  readonly device: MemoryDevice
  readonly unit: BlockUnit
  readonly registry: TargetRegistry
  readonly group: PortalGroup
  until(condition: () => boolean): Promise<void>
}

export async function openPortal(
  t: Test,
  options: {
    limits?: Partial<IscsiServerOptions['limits']>
    clock?: Clock
    host?: string
    dualStack?: boolean
    auth?: Auth
    log?: Logger
  } = {},
): Promise<TestPortal> {
  const pool = createAlignedPool(64 * MIB, { poison: true })
  const log = options.log ?? silentLogger()
  const clock = options.clock ?? realClock
  const device = new MemoryDevice({ sizeBytes: 32 * MIB })
  const unit = new BlockUnit({
    name: 'disk',
    identity: {
      naa: Buffer.from('602504c0000000010000000000000001', 'hex'),
      serial: '0000000000000001',
      vendor: 'PLEXUS',
      product: 'iSCSI Disk',
      revision: '0001',
    },
    device,
    pool,
    clock,
    log,
  })
  const group: PortalGroup = {
    name: 'test',
    tag: 1,
    listen: [{ host: options.host ?? '127.0.0.1', port: 0, dualStack: options.dualStack ?? false }],
    digests: { header: ['CRC32C', 'None'], data: ['CRC32C', 'None'] },
    discoveryAuth: 'none',
  }
  const registry = new TargetRegistry()
  registry.set(
    new TargetNode({
      name: TARGET,
      alias: 'test disk',
      portalGroups: [group],
      auth: options.auth ?? 'none',
      luns: new Map([[0, { lun: 0, unit, readOnly: false }]]),
    }),
  )
  const server = new IscsiServer({
    registry,
    deviceServer: createDeviceServer({ clock, log, pool }),
    pool,
    clock,
    log,
    limits: {
      sessions: 64,
      sessionsPerAddress: 64,
      discoverySessions: 32,
      pendingLogins: 1024,
      commandsPerSession: 128,
      descriptors: 65_536,
      ...options.limits,
    },
  })
  await server.listen(group)
  t.teardown(async () => {
    device.release()
    await server.close()
  })
  const port = server.addresses()[0]?.port ?? 0
  return {
    port,
    server,
    pool,
    device,
    unit,
    registry,
    group,
    async until(condition) {
      const endMs = performance.now() + 5000
      while (!condition()) {
        if (performance.now() > endMs) throw new Error('not within five seconds')
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    },
  }
}

/** Everything is at rest: no lease is out. */
export async function settled(portal: TestPortal, t: Test): Promise<void> {
  await portal.until(() => portal.pool.leased === 0).catch(() => {})
  t.equal(portal.pool.leased, 0, 'all buffers are back')
}

export function read10(lba: number, blocks: number): Buffer {
  const cdb = Buffer.alloc(10)
  cdb[0] = 0x28
  cdb.writeUInt32BE(lba, 2)
  cdb.writeUInt16BE(blocks, 7)
  return cdb
}

export function write10(lba: number, blocks: number): Buffer {
  const cdb = read10(lba, blocks)
  cdb[0] = 0x2a
  return cdb
}
