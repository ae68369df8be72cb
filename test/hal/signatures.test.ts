/** src/hal/signatures.ts: every row of the tables, what real tools write, and garbage. */
import { spawnSync } from 'node:child_process'
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readSync,
  rmSync,
  truncateSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import fc from 'fast-check'
import t from 'tap'
import { PlexusError } from '../../src/base/errors.ts'
import {
  findSignatures,
  type ReadBytes,
  SIGNATURE_ROWS,
  type Signature,
} from '../../src/hal/signatures.ts'
import {
  diskOf,
  GOLDEN,
  gptHeader,
  hex,
  KIB,
  MIB,
  SIZE,
  UUID_TEXT,
  type Writes,
} from '../golden/signature-disks.ts'

t.test('each row finds its format, and no other row does', async (t) => {
  for (const { row, writes, found, sizeBytes = SIZE, block = 512 } of GOLDEN) {
    const wanted: Signature = { label: undefined, uuid: undefined, name: row, ...found }
    const read = diskOf(writes, sizeBytes, block)
    t.strictSame(await findSignatures(read, sizeBytes, block), [wanted], `${row}: ${wanted.name}`)
  }
  const covered = new Set(GOLDEN.map((golden) => golden.row))
  const rows = SIGNATURE_ROWS.map((row) => row.name)
  t.equal(new Set(rows).size, rows.length, 'names of rows are unique')
  t.strictSame(
    rows.filter((name) => !covered.has(name)),
    [],
    'every row is in the golden table',
  )
})

t.test('boot sectors and blank tables are no partition tables', async (t) => {
  const cases: ReadonlyArray<readonly [string, Writes]> = [
    ['a boot sector without entries', [[510, hex('55aa')]]],
    [
      'boot code in place of the entries',
      [
        [446, hex('e9fe 00 20 83 00 00 00 00080000 00100000')],
        [510, hex('55aa')],
      ],
    ],
    ['the two bytes of ext alone', [[1024, Buffer.concat([Buffer.alloc(56, 0xff), hex('53ef')])]]],
    ['one half of a BSD disklabel', [[512, hex('57455682')]]],
    [
      'an md superblock that belongs to the partition at the end',
      [
        [SIZE - 8192, hex('fc4e2ba9 01000000')],
        [SIZE - 8192 + 144, hex('0100000000000000')],
      ],
    ],
  ]
  for (const [name, writes] of cases) {
    t.strictSame(await findSignatures(diskOf(writes, SIZE, 512), SIZE, 512), [], name)
  }
})

t.test('several owners are all reported', async (t) => {
  const writes: Writes = [
    [446, hex('00 000200 ee ffffff 01000000 ffffffff')],
    [510, hex('55aa')],
    [512, gptHeader()],
    [1080, hex('53ef')],
    [SIZE - 512, gptHeader()],
  ]
  const names = (await findSignatures(diskOf(writes, SIZE, 512), SIZE, 512)).map(({ name }) => name)
  t.strictSame(names, ['GPT', 'GPT backup', 'protective MBR', 'ext2'])
})

t.test('a device that cannot be examined is not taken for empty', async (t) => {
  const short = findSignatures(() => Buffer.alloc(512), SIZE, 512)
  await t.rejects(short, /only 512 of 524288 bytes at 0 /)
  const broken = findSignatures(
    async () => {
      throw new PlexusError('gone', { op: 'read', subject: 'x', message: 'unplugged' })
    },
    SIZE,
    512,
  )
  await t.rejects(broken, /unplugged/)
  await t.rejects(
    findSignatures(() => Buffer.alloc(0), SIZE, 500),
    /power of two/,
  )
})

t.test('reads stay on the device, aligned and bounded, whatever its size', async (t) => {
  const sizes = fc.oneof(fc.nat(5000), fc.nat(4 * MIB), fc.nat(2 ** 46))
  await fc.assert(
    fc.asyncProperty(sizes, fc.constantFrom(512, 4096, 16384), async (sizeBytes, block) => {
      let bytesRead = 0
      const disk = diskOf([], sizeBytes - (sizeBytes % block), block)
      const read: ReadBytes = (offset, length) => {
        bytesRead += length
        return disk(offset, length)
      }
      const found = await findSignatures(read, sizeBytes, block)
      return found.length === 0 && bytesRead <= 2 * MIB
    }),
    { numRuns: 60 },
  )
  t.pass()
})

t.test('garbage never makes it fail', async (t) => {
  await fc.assert(
    fc.asyncProperty(
      fc.integer({ min: 0, max: SIGNATURE_ROWS.length - 1 }),
      fc.nat(20),
      fc.uint8Array({ minLength: 2048, maxLength: 2048 }),
      fc.constantFrom(0, 8 * KIB, 300 * KIB, SIZE),
      async (rowIndex, choice, noise, sizeBytes) => {
        const row = SIGNATURE_ROWS[rowIndex]
        if (!row) return false
        const at = typeof row.at === 'function' ? row.at({ sizeBytes, blockBytes: 512 }) : row.at
        const offset = at[choice % at.length] ?? 0
        const magic = row.magic[choice % row.magic.length]
        if (!magic) return false
        // Noise with the right magic in it reaches the closer look of the row.
        const writes: Writes = [
          [offset, Buffer.from(noise)],
          [offset + 16 * KIB, Buffer.from(noise)],
          [offset + magic[0], magic[1]],
        ]
        await findSignatures(diskOf(writes, sizeBytes, 512), sizeBytes, 512)
        return true
      },
    ),
    { numRuns: 300 },
  )
  t.pass()
})

// -------------------------------------------------------------------------------------- real tools

const dir = mkdtempSync(join(tmpdir(), 'plexus-signatures-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

function imageReader(path: string): { read: ReadBytes; close: () => void } {
  const fd = openSync(path, 'r')
  return {
    read(offset, length) {
      const bytes = Buffer.alloc(length)
      return bytes.subarray(0, readSync(fd, bytes, 0, length, offset))
    },
    close: () => closeSync(fd),
  }
}

function makeImage(name: string, sizeBytes: number): string {
  const path = join(dir, name)
  closeSync(openSync(path, 'w'))
  truncateSync(path, sizeBytes)
  return path
}

/** Runs a tool; undefined when it ran well, else the reason to skip. */
function run(command: string, args: readonly string[]): string | undefined {
  const { error, status, stderr } = spawnSync(command, args, { encoding: 'utf8' })
  if (error) return `${command} is not installed`
  return status === 0 ? undefined : `${command} failed here: ${stderr.trim().split('\n')[0]}`
}

/** The signatures on an image as text: `ext4 home <uuid> @1024`. */
async function describe(path: string, sizeBytes: number): Promise<string[]> {
  const { read, close } = imageReader(path)
  const found = await findSignatures(read, sizeBytes, 512)
  close()
  return found.map(
    ({ kind, name, label, uuid, offset }) => `${kind} ${name} ${label} ${uuid} @${offset}`,
  )
}

interface ToolCase {
  readonly tool: string
  readonly args: readonly string[]
  readonly sizeBytes: number
  readonly found: readonly string[]
}

const TOOLS: readonly ToolCase[] = [
  {
    tool: 'mkfs.ext4',
    args: ['-q', '-F', '-L', 'home', '-U', UUID_TEXT],
    sizeBytes: SIZE,
    found: [`filesystem ext4 home ${UUID_TEXT} @1024`],
  },
  {
    tool: 'mkfs.ext3',
    args: ['-q', '-F', '-U', UUID_TEXT],
    sizeBytes: SIZE,
    found: [`filesystem ext3 undefined ${UUID_TEXT} @1024`],
  },
  {
    tool: 'mkfs.ext2',
    args: ['-q', '-F', '-U', UUID_TEXT],
    sizeBytes: SIZE,
    found: [`filesystem ext2 undefined ${UUID_TEXT} @1024`],
  },
  {
    tool: 'mkfs.xfs',
    args: ['-q', '-L', 'data', '-m', `uuid=${UUID_TEXT}`],
    sizeBytes: 320 * MIB,
    found: [`filesystem xfs data ${UUID_TEXT} @0`],
  },
  {
    tool: 'mkswap',
    args: ['-L', 'swap1', '-U', UUID_TEXT],
    sizeBytes: SIZE,
    found: [`swap swap swap1 ${UUID_TEXT} @0`],
  },
  {
    tool: 'sgdisk',
    args: ['-U', UUID_TEXT, '-n', '1:2048:4095'],
    sizeBytes: SIZE,
    found: [
      `partition-table GPT undefined ${UUID_TEXT} @512`,
      `partition-table GPT backup undefined ${UUID_TEXT} @${SIZE - 512}`,
      'partition-table protective MBR undefined undefined @0',
    ],
  },
  {
    tool: 'mkfs.btrfs',
    args: ['-q', '-L', 'pool', '-U', UUID_TEXT],
    sizeBytes: 320 * MIB,
    found: [`filesystem btrfs pool ${UUID_TEXT} @65536`],
  },
  {
    tool: 'mkfs.vfat',
    args: ['-n', 'EFI', '-i', '12345678', '-F', '32'],
    sizeBytes: 64 * MIB,
    found: ['filesystem vfat EFI 1234-5678 @0'],
  },
]

for (const { tool, args, sizeBytes, found } of TOOLS) {
  t.test(`what ${tool} writes`, async (t) => {
    const path = makeImage(`${tool}.img`, sizeBytes)
    const reason = run(tool, [...args, path])
    if (reason) return t.pass(reason, { skip: reason })
    t.strictSame(await describe(path, sizeBytes), found)
  })
}

t.test('what pvcreate and mdadm write on a block device', async (t) => {
  const loopOf = (path: string) => {
    const { error, stdout, status } = spawnSync('losetup', ['-f', '--show', path], {
      encoding: 'utf8',
    })
    if (error || status !== 0) return undefined
    const loop = stdout.trim()
    t.teardown(() => spawnSync('losetup', ['-d', loop]))
    return loop
  }
  await t.test('pvcreate', async (t) => {
    const path = makeImage('pv.img', SIZE)
    const loop = loopOf(path)
    if (loop === undefined) return t.pass('no loop devices', { skip: true })
    const uuid = 'abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP'
    const reason = run('pvcreate', [
      '-q',
      '--norestorefile',
      '--uuid',
      uuid,
      '--config',
      'devices{use_devicesfile=0 filter=["a|/dev/loop.*|","r|.*|"]}',
      loop,
    ])
    if (reason) return t.pass(reason, { skip: reason })
    const names = await describe(path, SIZE)
    t.strictSame(names, [`volume-manager LVM2 physical volume undefined ${uuid} @512`])
  })
  for (const metadata of ['0.90', '1.0', '1.1', '1.2']) {
    await t.test(`mdadm ${metadata}`, async (t) => {
      if (!existsSync('/proc/mdstat')) return t.pass('no md in this kernel', { skip: true })
      const path = makeImage(`md${metadata}.img`, 2 * SIZE)
      const loop = loopOf(path)
      if (loop === undefined) return t.pass('no loop devices', { skip: true })
      const array = `/dev/md/plexus-test-${process.pid}`
      const reason = run('mdadm', [
        '--create',
        array,
        '--run',
        '--force',
        '--level=1',
        '--raid-devices=1',
        `--metadata=${metadata}`,
        loop,
      ])
      if (reason) return t.pass(reason, { skip: reason })
      run('mdadm', ['--stop', array])
      const found = await describe(path, 2 * SIZE)
      t.equal(found.length, 1)
      t.match(found[0], new RegExp(`^raid md ${metadata} `))
    })
  }
})
