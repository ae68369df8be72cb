/** src/hal/device-probe.ts, device-identity.ts and sysfs.ts, on loop devices, files and imitations of sysfs. */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  constants,
  fstatSync,
  fsyncSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  statSync,
  truncateSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import t, { type Test } from 'tap'
import { PlexusError } from '../../src/base/errors.ts'
import { readIdentity } from '../../src/hal/device-identity.ts'
import { probeDevice, queueFeatures } from '../../src/hal/device-probe.ts'
import { FALLOC_PUNCH_HOLE, fallocate } from '../../src/hal/libc.ts'
import {
  diskDirOf,
  partitionDirsOf,
  readNumber,
  splitDeviceNumber,
  sysfsDirOf,
  udevProperties,
} from '../../src/hal/sysfs.ts'

const MIB = 1024 * 1024
const dir = mkdtempSync(join(tmpdir(), 'plexus-probe-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function makeFile(name: string, sizeBytes: number): string {
  const path = join(dir, name)
  writeFileSync(path, '')
  truncateSync(path, sizeBytes)
  return path
}

/** A loop device over a new sparse file, detached after the test; undefined where that is not permitted. */
function attach(t: Test, path: string, ...options: string[]): string | undefined {
  const result = spawnSync('losetup', ['-f', '--show', ...options, path], { encoding: 'utf8' })
  if (result.error || result.status !== 0) {
    t.pass('loop devices cannot be made here', { skip: true })
    return undefined
  }
  const loop = result.stdout.trim()
  t.teardown(() => spawnSync('losetup', ['-d', loop]))
  return loop
}

/** Opens for the time of the test. */
function openFor(t: Test, path: string, flags = constants.O_RDWR): number {
  const fd = openSync(path, flags)
  t.teardown(() => closeSync(fd))
  return fd
}

function kindOf(call: () => unknown): string {
  try {
    call()
    return 'no error'
  } catch (error) {
    return error instanceof PlexusError ? error.kind : String(error)
  }
}

t.test('a loop device with 512-byte blocks', (t) => {
  const path = makeFile('a.img', 16 * MIB)
  const loop = attach(t, path)
  if (loop === undefined) return t.end()
  const probe = probeDevice(openFor(t, loop), loop)
  const { sizeBytes, logicalBlockBytes, alignmentOffsetBytes } = probe.geometry
  t.strictSame([sizeBytes, logicalBlockBytes, alignmentOffsetBytes], [16 * MIB, 512, 0])
  t.ok(probe.geometry.physicalBlockBytes >= 512)
  t.ok(probe.geometry.ioMinBytes >= 512)
  t.ok(probe.geometry.maxTransferBytes >= 64 * 1024, 'largest transfer')
  t.equal(probe.features.readOnly, false)
  t.equal(probe.features.volatileWriteCache, true, 'a loop device has a write-back cache')
  t.equal(probe.identity.wwid, undefined)
  t.equal(probe.identity.model, path, 'people see the backing file')
  t.equal(probe.sysfsDir, `/sys/devices/virtual/block/${loop.slice('/dev/'.length)}`)
  t.end()
})

t.test('a loop device with 4096-byte blocks', (t) => {
  const loop = attach(t, makeFile('b.img', 16 * MIB), '-b', '4096')
  if (loop === undefined) return t.end()
  const { geometry } = probeDevice(openFor(t, loop), loop)
  t.equal(geometry.logicalBlockBytes, 4096)
  t.ok(geometry.physicalBlockBytes >= 4096)
  t.equal(geometry.sizeBytes, 16 * MIB)
  t.end()
})

t.test('where zeroes are promised, a hole punch frees the blocks and leaves zeroes', (t) => {
  const path = makeFile('c.img', 4 * MIB)
  const loop = attach(t, path)
  if (loop === undefined) return t.end()
  const fd = openFor(t, loop)
  const { features } = probeDevice(fd, loop)
  if (features.discardMaxBytes === 0) {
    t.equal(features.discardZeroes, false)
    t.pass('the file system below has no holes', { skip: true })
    return t.end()
  }
  t.strictSame([features.discardZeroes, features.writeZeroes], [true, true])
  t.ok(features.discardGranularityBytes >= 512)
  const data = Buffer.alloc(4 * MIB, 0xa5)
  writeSync(fd, data, 0, data.length, 0)
  fsyncSync(fd)
  const before = statSync(path).blocks
  t.equal(fallocate(fd, FALLOC_PUNCH_HOLE, MIB, 2 * MIB), 0)
  readSync(fd, data, 0, data.length, 0)
  t.ok(data.subarray(0, MIB).equals(Buffer.alloc(MIB, 0xa5)), 'before the hole')
  t.ok(data.subarray(MIB, 3 * MIB).equals(Buffer.alloc(2 * MIB)), 'zeroes in the hole')
  t.ok(data.subarray(3 * MIB).equals(Buffer.alloc(MIB, 0xa5)), 'after the hole')
  t.ok(statSync(path).blocks <= before - (2 * MIB) / 512, 'the space is free again')
  t.end()
})

t.test('a partition: its own size, the queue of its disk', (t) => {
  const loop = attach(t, makeFile('d.img', 16 * MIB), '-P')
  if (loop === undefined) return t.end()
  // The kernel may lack every partition table; it can always be told of a partition.
  if (spawnSync('addpart', [loop, '1', '2048', '6144']).status !== 0) {
    t.pass('addpart cannot be used here', { skip: true })
    return t.end()
  }
  t.teardown(() => spawnSync('delpart', [loop, '1']))
  const partition = `${loop}p1`
  const fd = openFor(t, partition)
  const probe = probeDevice(fd, partition)
  const whole = probeDevice(openFor(t, loop), loop)
  t.equal(probe.geometry.sizeBytes, 3 * MIB)
  t.equal(probe.geometry.maxTransferBytes, whole.geometry.maxTransferBytes)
  t.strictSame(probe.features.discardMaxBytes, whole.features.discardMaxBytes)
  t.equal(diskDirOf(probe.sysfsDir ?? ''), whole.sysfsDir)
  t.strictSame(partitionDirsOf(whole.sysfsDir ?? ''), [probe.sysfsDir])
  t.end()
})

t.test('read-only devices and descriptors, and devices that have left', (t) => {
  const path = makeFile('e.img', MIB)
  const loop = attach(t, path, '-r')
  if (loop === undefined) return t.end()
  const fd = openSync(loop, constants.O_RDONLY)
  t.equal(probeDevice(fd, loop).features.readOnly, true)
  closeSync(fd)
  const writable = attach(t, makeFile('f.img', MIB))
  if (writable === undefined) return t.end()
  t.equal(probeDevice(openFor(t, writable, constants.O_RDONLY), writable).features.readOnly, true)
  t.equal(probeDevice(openFor(t, writable), writable).features.readOnly, false)
  t.end()
})

t.test('a block device of size 0 is refused', (t) => {
  const path = makeFile('g.img', MIB)
  const loop = attach(t, path)
  if (loop === undefined) return t.end()
  const fd = openFor(t, loop)
  truncateSync(path, 0)
  spawnSync('losetup', ['-c', loop])
  t.equal(
    kindOf(() => probeDevice(fd, loop)),
    'gone',
  )
  t.end()
})

t.test('a regular file', (t) => {
  const path = makeFile('h.img', 10 * MIB + 700)
  const fd = openFor(t, path)
  const { geometry, features, identity, sysfsDir } = probeDevice(fd, path)
  t.equal(geometry.sizeBytes, 10 * MIB + 512, 'whole blocks only')
  t.equal(geometry.logicalBlockBytes, 512)
  t.ok(geometry.physicalBlockBytes >= 512 && geometry.physicalBlockBytes <= 64 * 1024)
  t.equal(features.volatileWriteCache, true)
  t.equal(features.readOnly, false)
  t.equal(sysfsDir, undefined)
  t.strictSame(Object.values(identity), [undefined, undefined, undefined, undefined])
  t.equal(features.discardZeroes, features.discardGranularityBytes > 0)
  t.equal(features.discardMaxBytes > 0, features.discardGranularityBytes > 0)
  const { size, blocks } = fstatSync(fd)
  t.strictSame([size, blocks], [10 * MIB + 700, 0], 'probing changes nothing')

  const readOnly = probeDevice(openFor(t, path, constants.O_RDONLY), path).features
  t.strictSame([readOnly.readOnly, readOnly.discardMaxBytes], [true, 0])
  const small = makeFile('small.img', 511)
  t.equal(
    kindOf(() => probeDevice(openFor(t, small), small)),
    'invalid',
  )
  t.equal(
    kindOf(() => probeDevice(openFor(t, dir, constants.O_RDONLY), dir)),
    'invalid',
  )
  t.equal(
    kindOf(() => probeDevice(openFor(t, '/dev/null'), '/dev/null')),
    'invalid',
  )
  t.throws(() => probeDevice(1_000_000, '/dev/x'), /^\/dev\/x cannot be probed: EBADF/)
  t.end()
})

/** A directory with attributes, as sysfs has them. */
function imitate(name: string, attributes: Readonly<Record<string, string | Buffer>>): string {
  const root = join(dir, 'sysfs', name)
  mkdirSync(root, { recursive: true })
  for (const [path, value] of Object.entries(attributes)) {
    mkdirSync(dirname(join(root, path)), { recursive: true })
    writeFileSync(join(root, path), typeof value === 'string' ? `${value}\n` : value)
  }
  return root
}

const DISCARDS = {
  'queue/discard_max_bytes': '1073741824',
  'queue/discard_granularity': '4096',
  'queue/write_zeroes_max_bytes': '65536',
}

t.test('zeroes after a discard are claimed only where they are certain', (t) => {
  const backing = makeFile('backing.img', MIB)
  const cases: ReadonlyArray<readonly [string, Record<string, string>, boolean]> = [
    [
      'NVMe that zeroes and frees',
      { ...DISCARDS, 'queue/write_zeroes_unmap_max_bytes': '65536' },
      true,
    ],
    [
      'NVMe that zeroes without freeing',
      { ...DISCARDS, 'queue/write_zeroes_unmap_max_bytes': '0' },
      false,
    ],
    ['an old kernel that does not say', DISCARDS, false],
    [
      'discard without write-zeroes',
      { ...DISCARDS, 'queue/write_zeroes_max_bytes': '0', 'queue/discard_zeroes_data': '1' },
      false,
    ],
    [
      'SCSI by WRITE SAME with UNMAP',
      { ...DISCARDS, 'device/scsi_disk/0:0:0:0/zeroing_mode': 'writesame_16_unmap' },
      true,
    ],
    [
      'SCSI by plain WRITE SAME',
      { ...DISCARDS, 'device/scsi_disk/0:0:0:0/zeroing_mode': 'writesame' },
      false,
    ],
    [
      'SCSI that cannot discard',
      { 'device/scsi_disk/0:0:0:0/zeroing_mode': 'writesame_16_unmap' },
      false,
    ],
  ]
  for (const [name, attributes, zeroes] of cases) {
    const features = queueFeatures(imitate(`zeroes/${name}`, attributes))
    t.equal(features.discardZeroes, zeroes, name)
  }
  const loops: ReadonlyArray<readonly [string, string, boolean]> = [
    ['loop8', backing, true],
    ['loop9', '/dev/null', false],
    ['loop10', `${backing} (deleted)`, false],
    ['md0', backing, false],
  ]
  for (const [name, backingFile, zeroes] of loops) {
    const root = imitate(`zeroes/${name}`, { ...DISCARDS, 'loop/backing_file': backingFile })
    t.equal(queueFeatures(root).discardZeroes, zeroes, `${name} over ${backingFile}`)
  }
  t.end()
})

t.test('the careful answer where the kernel says nothing', (t) => {
  t.strictSame(queueFeatures(imitate('bare', {})), {
    volatileWriteCache: true,
    discardGranularityBytes: 0,
    discardMaxBytes: 0,
    discardZeroes: false,
    writeZeroes: false,
  })
  const through = imitate('through', { ...DISCARDS, 'queue/write_cache': 'write through' })
  t.equal(queueFeatures(through).volatileWriteCache, false)
  t.equal(queueFeatures(through).discardGranularityBytes, 4096)
  const off = imitate('off', { ...DISCARDS, 'queue/discard_max_bytes': '0' })
  t.equal(
    queueFeatures(off).discardGranularityBytes,
    0,
    'a granularity without discard means nothing',
  )
  t.end()
})

t.test('identities from sysfs and udev', (t) => {
  const scsi = {
    'device/wwid': 'naa.5000c500a1b2c3d4',
    'device/vendor': 'SEAGATE ',
    'device/model': 'ST16000NM002G   ',
    'device/vpd_pg80': Buffer.from('0080000c202020205a4c32304d4e3031', 'hex'),
  }
  const cases: ReadonlyArray<
    readonly [string, string, Record<string, string>, readonly unknown[]]
  > = [
    [
      'SCSI',
      imitate('sda', scsi),
      {},
      ['naa.5000c500a1b2c3d4', 'ZL20MN01', 'SEAGATE', 'ST16000NM002G'],
    ],
    [
      'a partition of it',
      imitate('sda/sda2', { partition: '2' }),
      {},
      ['naa.5000c500a1b2c3d4-part2', 'ZL20MN01-part2', 'SEAGATE', 'ST16000NM002G'],
    ],
    [
      'NVMe',
      imitate('nvme0n1', {
        wwid: 'eui.0025388b01234567',
        'device/serial': 'S5GXNX0R123456 ',
        'device/model': 'Samsung SSD 980 PRO 1TB    ',
      }),
      {},
      ['eui.0025388b01234567', 'S5GXNX0R123456', undefined, 'Samsung SSD 980 PRO 1TB'],
    ],
    [
      'virtio',
      imitate('vdb', { serial: 'data-1', 'device/vendor': '0x1af4' }),
      {},
      [undefined, 'data-1', undefined, undefined],
    ],
    [
      'device mapper',
      imitate('dm-3', { 'dm/uuid': 'LVM-abc', 'dm/name': 'vg0-home' }),
      {},
      ['dm-uuid-LVM-abc', undefined, undefined, 'vg0-home'],
    ],
    [
      'md',
      imitate('md0', {}),
      { MD_UUID: '01:02' },
      ['md-uuid-01:02', undefined, undefined, undefined],
    ],
    [
      'udev alone',
      imitate('sdz', {}),
      { ID_WWN: '0x5000c500a1b2c3d4', ID_SERIAL_SHORT: 'X1', ID_VENDOR: 'ATA', ID_MODEL: 'M1' },
      ['naa.5000c500a1b2c3d4', 'X1', 'ATA', 'M1'],
    ],
    [
      'a serial page cut short',
      imitate('sdy', { 'device/vpd_pg80': Buffer.from('0080', 'hex') }),
      {},
      [undefined, undefined, undefined, undefined],
    ],
  ]
  for (const [name, root, udev, wanted] of cases) {
    const { wwid, serial, vendor, model } = readIdentity(root, new Map(Object.entries(udev)))
    t.strictSame([wwid, serial, vendor, model], wanted, name)
  }
  t.end()
})

t.test('device numbers, numbers and the database of udev', (t) => {
  t.strictSame(splitDeviceNumber(0x0801), { major: 8, minor: 1 })
  // makedev(259, 300000) and makedev(5000, 1), as glibc packs them.
  t.strictSame(
    splitDeviceNumber(Number(((300000n >> 8n) << 20n) | (259n << 8n) | (300000n & 0xffn))),
    {
      major: 259,
      minor: 300000,
    },
  )
  t.strictSame(splitDeviceNumber(Number((1n << 44n) | (0x388n << 8n) | 1n)), {
    major: 0x1388,
    minor: 1,
  })
  t.equal(sysfsDirOf(4095, 99999), undefined)
  const root = imitate('numbers', { size: '42', text: 'none' })
  t.strictSame(
    [readNumber(root, 'size'), readNumber(root, 'text'), readNumber(root, 'absent')],
    [42, undefined, undefined],
  )
  imitate('udev', { 'b8:0': 'S:disk/by-id/x\nE:ID_MODEL=A=B\nE:ID_BUS=scsi' })
  const udev = udevProperties(8, 0, join(dir, 'sysfs/udev'))
  t.strictSame([udev.get('ID_MODEL'), udev.get('ID_BUS'), udev.size], ['A=B', 'scsi', 2])
  t.equal(udevProperties(8, 1, join(dir, 'sysfs/udev')).size, 0)
  t.end()
})
