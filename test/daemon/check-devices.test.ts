/** `plexus config check`: what it says of devices that would not serve, or that somebody else uses. */
import { execFileSync } from 'node:child_process'
import { linkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { deviceWarnings } from '../../src/daemon/check-devices.ts'
import { parseConfig } from '../../src/daemon/config.ts'
import { loopDevice, noLoopDevices, tempDirectory } from '../support/loop-device.ts'

const SIZE_BYTES = 8 * 2 ** 20

/** A disk image; with an ext4 file system's magic number and features (linux fs/ext4/ext4.h, offset 1024) in it. */
function image(dir: string, name: string, isExt4 = false): string {
  const bytes = Buffer.alloc(SIZE_BYTES)
  if (isExt4) {
    bytes.writeUInt16LE(0xef53, 1080)
    bytes.writeUInt32LE(4, 1116)
    bytes.writeUInt32LE(0x40, 1120)
  }
  const path = join(dir, name)
  writeFileSync(path, bytes)
  return path
}

function warnings(dir: string, devices: Readonly<Record<string, string>>, exported: string[]) {
  const config = {
    version: 1,
    devices,
    portals: [{ name: 'p', listen: ['127.0.0.1:3260'] }],
    targets: exported.map((device) => ({
      name: `iqn.2026-11.test.plexus:${device}`,
      portals: ['p'],
      auth: 'none',
      luns: [{ lun: 0, device }],
    })),
    hal: { engine: 'threads' },
  }
  return deviceWarnings(parseConfig(JSON.stringify(config), join(dir, 'plexus.yaml')))
}

t.test('paths that cannot serve, and one disk under two names', async (t) => {
  const dir = tempDirectory(t)
  const good = image(dir, 'good')
  linkSync(good, join(dir, 'again'))
  const found = await warnings(
    dir,
    { absent: join(dir, 'absent'), dir, null: '/dev/null', good, again: join(dir, 'again') },
    [],
  )
  t.match(found, [
    /^device "absent": .*absent does not exist; is the disk connected/,
    /^device "dir": .* is a directory; give a block device or a regular file/,
    /^device "null": \/dev\/null is a character device/,
    /^device "again": .*again is the same disk as device "good"$/,
  ])
  t.equal(found.length, 4)
})

t.test('a file system that a LUN would give away', async (t) => {
  const dir = tempDirectory(t)
  const devices = {
    lun: image(dir, 'lun', true),
    drive: image(dir, 'drive', true),
    blank: image(dir, 'blank'),
  }
  const found = await warnings(dir, devices, ['lun', 'blank'])
  t.match(found, [/^device "lun": a LUN gives initiators .*lun, which carries ext4/])
  t.equal(found.length, 1, 'a drive of a volume is looked at when the volume is made')
})

t.test('a disk that is mounted', { skip: noLoopDevices() }, async (t) => {
  const dir = tempDirectory(t)
  const loop = loopDevice(t, { sizeBytes: SIZE_BYTES })
  try {
    execFileSync('mkfs.ext4', ['-q', loop.path], { stdio: 'pipe' })
    execFileSync('mount', [loop.path, dir], { stdio: 'pipe' })
  } catch (error) {
    t.comment(`cannot mount here: ${error}`)
    return
  }
  const found = await warnings(dir, { d: loop.path }, [])
  execFileSync('umount', [dir])
  t.match(found, [/^device "d": .* is in use: .*mounted/])
})
