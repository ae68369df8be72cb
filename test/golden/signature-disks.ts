/**
 * Disks of foreign formats, made by hand from the formats' documents: one or more for each row of
 * src/hal/signature-volumes.ts and signature-filesystems.ts. Read by test/hal/signatures.test.ts.
 */
import { crc32 } from 'node:zlib'
import type { ReadBytes, Signature } from '../../src/hal/signatures.ts'

export const KIB = 1024
export const MIB = 1024 * KIB
const TIB = 1024 * 1024 * MIB
export const SIZE = 8 * MIB

export type Writes = ReadonlyArray<readonly [number, Buffer | string]>

/** A disk of zeroes with some bytes in it; it has the rules of a raw device. */
export function diskOf(writes: Writes, sizeBytes: number, block: number): ReadBytes {
  return (offset, length) => {
    if (offset % block !== 0 || length % block !== 0)
      throw new Error(`unaligned: ${offset} ${length}`)
    if (offset < 0 || offset + length > sizeBytes) throw new Error(`outside: ${offset} ${length}`)
    if (length > MIB) throw new Error(`${length} bytes at once`)
    const bytes = Buffer.alloc(length)
    for (const [at, what] of writes) {
      const source = typeof what === 'string' ? Buffer.from(what, 'latin1') : what
      for (let i = 0; i < source.length; i++) {
        const to = at + i - offset
        if (to >= 0 && to < length) bytes[to] = source[i] ?? 0
      }
    }
    return bytes
  }
}

export const hex = (digits: string) => Buffer.from(digits.replaceAll(' ', ''), 'hex')
/** 00 01 02 … as UUID bytes. */
const UUID_BYTES = hex('00112233445566778899aabbccddeeff')
const UUID = '00112233-4455-6677-8899-aabbccddeeff'
export const UUID_TEXT = '01234567-89ab-cdef-0123-456789abcdef'

export function gptHeader(): Buffer {
  const header = Buffer.alloc(92)
  header.write('EFI PART', 0, 'latin1')
  header.writeUInt32LE(0x10000, 8)
  header.writeUInt32LE(92, 12)
  UUID_BYTES.copy(header, 56)
  header.writeUInt32LE(crc32(header), 16)
  return header
}
const GPT_UUID = '33221100-5544-7766-8899-aabbccddeeff'

export interface Golden {
  /** The row of the table that this is for. */
  readonly row: string
  readonly sizeBytes?: number
  readonly block?: number
  readonly writes: Writes
  /** All that is found. `row` stands for the name where there is none. */
  readonly found: Partial<Signature> & Pick<Signature, 'kind' | 'offset'>
}

const fs = (
  row: string,
  offset: number,
  writes: Writes,
  more: Partial<Signature> = {},
): Golden => ({
  row,
  writes,
  found: { kind: 'filesystem', offset, ...more },
})
const label = 'home'

export const GOLDEN: readonly Golden[] = [
  {
    row: 'Plexus',
    writes: [
      [SIZE - 512, 'PLEXUS::VINUM'],
      [SIZE - 512 + 72, hex('0000800000000000')],
    ],
    found: { kind: 'plexus', offset: SIZE - 512 },
  },
  {
    row: 'Plexus',
    block: 4096,
    writes: [
      [SIZE - 4096, 'PLEXUS::VINUM'],
      [SIZE - 4096 + 72, hex('0000800000000000')],
    ],
    found: { kind: 'plexus', offset: SIZE - 4096 },
  },
  {
    row: 'vinum',
    writes: [
      [4096, 'VINUM-1\0'],
      [4096 + 8, hex('0000000000020000')],
      [4096 + 16, 'host'],
      [4096 + 48, 'drive1'],
    ],
    found: { kind: 'freebsd', offset: 4096, label: 'drive1' },
  },
  {
    row: 'vinum',
    writes: [
      [4096, '\0ONIV NI'],
      [4096 + 12, 'host'],
      [4096 + 44, 'drive32'],
    ],
    found: { kind: 'freebsd', offset: 4096, label: 'drive32' },
  },
  {
    row: 'vinum',
    writes: [
      [4096, 'IN VINO\0'],
      [4096 + 16, 'host'],
      [4096 + 48, 'drive64'],
    ],
    found: { kind: 'freebsd', offset: 4096, label: 'drive64' },
  },
  {
    row: 'GEOM::MULTIPATH',
    writes: [[SIZE - 512, `GEOM::MULTIPATH\0${UUID_TEXT}\0\0\0\0disk7`]],
    found: { kind: 'freebsd', offset: SIZE - 512, label: 'disk7', uuid: UUID_TEXT },
  },
  {
    row: 'GEOM::VIRSTOR',
    writes: [
      [SIZE - 512, 'PLEXCONV'],
      [SIZE - 512 + 84, 'big'],
    ],
    found: { kind: 'freebsd', offset: SIZE - 512, label: 'big' },
  },
  {
    row: 'GEOM::VIRSTOR',
    writes: [
      [SIZE - 512, 'GEOM::VIRSTOR'],
      [SIZE - 512 + 20, 'big'],
    ],
    found: { kind: 'freebsd', offset: SIZE - 512, label: 'big' },
  },
  {
    row: 'GEOM',
    writes: [
      [SIZE - 512, 'GEOM::MIRROR'],
      [SIZE - 512 + 20, 'gm0'],
    ],
    found: { kind: 'freebsd', name: 'GEOM::MIRROR', offset: SIZE - 512, label: 'gm0' },
  },
  {
    row: 'GEOM',
    block: 4096,
    writes: [[SIZE - 4096, 'GEOM::ELI']],
    found: { kind: 'freebsd', name: 'GEOM::ELI', offset: SIZE - 4096 },
  },
  {
    row: 'GPT',
    writes: [[512, gptHeader()]],
    found: { kind: 'partition-table', offset: 512, uuid: GPT_UUID },
  },
  {
    row: 'GPT',
    block: 4096,
    writes: [[4096, gptHeader()]],
    found: { kind: 'partition-table', offset: 4096, uuid: GPT_UUID },
  },
  {
    row: 'GPT',
    writes: [
      [512, gptHeader()],
      [512 + 60, 'x'],
    ],
    found: { kind: 'partition-table', name: 'GPT (damaged)', offset: 512 },
  },
  {
    row: 'GPT backup',
    writes: [[SIZE - 512, gptHeader()]],
    found: { kind: 'partition-table', offset: SIZE - 512, uuid: GPT_UUID },
  },
  {
    row: 'MBR',
    writes: [
      [440, hex('78563412')],
      [446, hex('80 200000 83 ffffff 00080000 00100000')],
      [510, hex('55aa')],
    ],
    found: { kind: 'partition-table', offset: 0, uuid: '12345678' },
  },
  {
    row: 'MBR',
    writes: [
      [446, hex('00 000200 ee ffffff 01000000 ffffffff')],
      [510, hex('55aa')],
    ],
    found: { kind: 'partition-table', name: 'protective MBR', offset: 0 },
  },
  {
    row: 'BSD disklabel',
    writes: [
      [512, hex('57455682')],
      [512 + 24, 'fictitious'],
      [512 + 132, hex('57455682')],
    ],
    found: { kind: 'partition-table', offset: 512, label: 'fictitious' },
  },
  ...[
    ['md 1.0', SIZE - 8192],
    ['md 1.1', 0],
    ['md 1.2', 4096],
  ].map(([row, at]): Golden => {
    const offset = Number(at)
    const superOffset = Buffer.alloc(8)
    superOffset.writeBigUInt64LE(BigInt(offset / 512))
    return {
      row: String(row),
      writes: [
        [offset, hex('fc4e2ba9 01000000')],
        [offset + 16, UUID_BYTES],
        [offset + 32, 'host:0'],
        [offset + 144, superOffset],
      ],
      found: {
        kind: 'raid',
        offset,
        label: 'host:0',
        uuid: '00112233:44556677:8899aabb:ccddeeff',
      },
    }
  }),
  {
    row: 'md 0.90',
    sizeBytes: SIZE + 8 * KIB,
    writes: [
      [SIZE - 64 * KIB, hex('fc4e2ba9 00000000 5a000000')],
      [SIZE - 64 * KIB + 20, hex('33221100')],
      [SIZE - 64 * KIB + 52, hex('77665544 bbaa9988 ffeeddcc')],
    ],
    found: { kind: 'raid', offset: SIZE - 64 * KIB, uuid: '00112233:44556677:8899aabb:ccddeeff' },
  },
  {
    row: 'md 0.90',
    writes: [
      [SIZE - 64 * KIB, hex('a92b4efc 00000000 0000005a')],
      [SIZE - 64 * KIB + 20, hex('00112233')],
      [SIZE - 64 * KIB + 52, hex('44556677 8899aabb ccddeeff')],
    ],
    found: { kind: 'raid', offset: SIZE - 64 * KIB, uuid: '00112233:44556677:8899aabb:ccddeeff' },
  },
  {
    row: 'DDF',
    writes: [
      [SIZE - 512, hex('de11de11')],
      [SIZE - 512 + 8, 'LSI     0123456789abcdef'],
    ],
    found: {
      kind: 'raid',
      offset: SIZE - 512,
      uuid: '4c5349202020202030313233343536373839616263646566',
    },
  },
  {
    row: 'DDF',
    writes: [[SIZE - 257 * 512, hex('11de11de')]],
    found: { kind: 'raid', offset: SIZE - 257 * 512 },
  },
  {
    row: 'Intel Matrix RAID',
    writes: [[SIZE - 1024, 'Intel Raid ISM Cfg Sig. 1.3.00']],
    found: { kind: 'raid', offset: SIZE - 1024 },
  },
  {
    row: 'Intel Matrix RAID',
    block: 4096,
    writes: [[SIZE - 8192, 'Intel Raid ISM Cfg Sig. 1.3.00']],
    found: { kind: 'raid', offset: SIZE - 8192 },
  },
  {
    row: 'DRBD',
    writes: [
      [SIZE - 4096 + 40, hex('0123456789abcdef')],
      [SIZE - 4096 + 60, hex('8374026b')],
    ],
    found: { kind: 'raid', offset: SIZE - 4096, uuid: '0123456789abcdef' },
  },
  {
    row: 'DRBD',
    writes: [
      [SIZE - 4096 + 48, hex('fedcba9876543210')],
      [SIZE - 4096 + 60, hex('8374026d')],
    ],
    found: { kind: 'raid', offset: SIZE - 4096, uuid: 'fedcba9876543210' },
  },
  {
    row: 'LVM2 physical volume',
    writes: [
      [512, 'LABELONE'],
      [512 + 20, hex('20000000')],
      [512 + 24, 'LVM2 001abcdef0123456789ABCDEFGHIJKLMNOP'],
    ],
    found: {
      kind: 'volume-manager',
      offset: 512,
      uuid: 'abcdef-0123-4567-89AB-CDEF-GHIJ-KLMNOP',
    },
  },
  {
    row: 'ZFS',
    writes: [
      [16 * KIB, hex('0101000000000000 00000001')],
      [
        16 * KIB + 12,
        hex('00000024 00000020 00000004 6e616d65 00000009 00000001 00000004 74616e6b'),
      ],
      [16 * KIB + 64, hex('00000030 00000030 00000009 706f6f6c5f67756964 000000')],
      [16 * KIB + 64 + 24, hex('00000008 00000001 0000000000003039')],
      [128 * KIB + 5 * KIB, hex('0cb1ba0000000000')],
    ],
    found: { kind: 'volume-manager', offset: 0, label: 'tank', uuid: '12345' },
  },
  {
    row: 'ZFS',
    sizeBytes: SIZE + 100 * KIB,
    writes: [[SIZE - 128 * KIB, hex('0000000000bab10c')]],
    found: { kind: 'volume-manager', offset: SIZE - 256 * KIB },
  },
  {
    row: 'bcache',
    writes: [
      [4096 + 24, hex('c68573f64e1a45ca8265f57f48ba6d81')],
      [4096 + 40, UUID_BYTES],
      [4096 + 72, label],
    ],
    found: { kind: 'volume-manager', offset: 4096, label, uuid: UUID },
  },
  {
    row: 'Ceph BlueStore',
    writes: [[0, `bluestore block device\n${UUID_TEXT}\n`]],
    found: { kind: 'volume-manager', offset: 0, uuid: UUID_TEXT },
  },
  {
    row: 'Oracle ASM',
    writes: [[32, 'ORCLDISKDATA01']],
    found: { kind: 'volume-manager', offset: 0, label: 'DATA01' },
  },
  {
    row: 'VMFS extent',
    writes: [
      [MIB, hex('0dd001c0')],
      [MIB + 532, '4f5c1b1e-a0b1c2d3-e4f5-001122334455'],
    ],
    found: { kind: 'volume-manager', offset: MIB, uuid: '4f5c1b1e-a0b1c2d3-e4f5-001122334455' },
  },
  {
    row: 'Windows dynamic disk',
    writes: [
      [3072, 'PRIVHEAD'],
      [3072 + 48, UUID_TEXT],
    ],
    found: { kind: 'volume-manager', offset: 3072, uuid: UUID_TEXT },
  },
  {
    row: 'VDO',
    writes: [
      [0, 'dmvdo001'],
      [40, UUID_BYTES],
    ],
    found: { kind: 'volume-manager', offset: 0, uuid: UUID },
  },
  {
    row: 'Stratis',
    writes: [
      [4608 + 4, '!Stra0tis\x86\xff\x02^Arh'],
      [4608 + 32, '00112233445566778899aabbccddeeff'],
    ],
    found: { kind: 'volume-manager', offset: 4608, uuid: UUID },
  },
  {
    row: 'LUKS',
    writes: [
      [0, 'LUKS\xba\xbe\0\x01aes'],
      [168, UUID_TEXT],
    ],
    found: { kind: 'encryption', name: 'LUKS1', offset: 0, uuid: UUID_TEXT },
  },
  {
    row: 'LUKS',
    writes: [
      [0, 'LUKS\xba\xbe\0\x02'],
      [24, label],
      [168, UUID_TEXT],
    ],
    found: { kind: 'encryption', name: 'LUKS2', offset: 0, label, uuid: UUID_TEXT },
  },
  {
    row: 'LUKS2 backup header',
    writes: [
      [0x400000, 'SKUL\xba\xbe\0\x02'],
      [0x400000 + 168, UUID_TEXT],
    ],
    found: { kind: 'encryption', offset: 0x400000, uuid: UUID_TEXT },
  },
  { row: 'BitLocker', writes: [[3, '-FVE-FS-']], found: { kind: 'encryption', offset: 0 } },
  {
    row: 'swap',
    writes: [
      [1036, UUID_BYTES],
      [1052, label],
      [4086, 'SWAPSPACE2'],
    ],
    found: { kind: 'swap', offset: 0, label, uuid: UUID },
  },
  {
    row: 'swap of large pages',
    writes: [
      [1036, UUID_BYTES],
      [65526, 'SWAPSPACE2'],
    ],
    found: { kind: 'swap', offset: 0, uuid: UUID },
  },
  { row: 'hibernation image', writes: [[4086, 'S1SUSPEND']], found: { kind: 'swap', offset: 0 } },
  fs('ext', 1024, [[1080, hex('53ef')]], { name: 'ext2' }),
  fs(
    'ext',
    1024,
    [
      [1080, hex('53ef')],
      [1116, hex('04')],
    ],
    { name: 'ext3' },
  ),
  fs(
    'ext',
    1024,
    [
      [1080, hex('53ef')],
      [1116, hex('04000000 40')],
      [1128, UUID_BYTES],
      [1144, label],
    ],
    { name: 'ext4', label, uuid: UUID },
  ),
  fs(
    'ext',
    1024,
    [
      [1080, hex('53ef')],
      [1120, hex('08')],
    ],
    { name: 'ext journal' },
  ),
  fs(
    'xfs',
    0,
    [
      [0, 'XFSB'],
      [32, UUID_BYTES],
      [108, label],
    ],
    { label, uuid: UUID },
  ),
  fs(
    'btrfs',
    65536,
    [
      [65568, UUID_BYTES],
      [65600, '_BHRfS_M'],
      [65536 + 299, 'pool \u001b[31m\tred'],
    ],
    { label: 'pool ?[31m?red', uuid: UUID },
  ),
  { ...fs('btrfs', 64 * MIB, [[64 * MIB + 64, '_BHRfS_M']]), sizeBytes: 16 * TIB },
  fs(
    'f2fs',
    1024,
    [
      [1024, hex('1020f5f2')],
      [1024 + 108, UUID_BYTES],
      [1024 + 124, 'h\0o\0m\0e\0'],
    ],
    { label, uuid: UUID },
  ),
  fs(
    'ntfs',
    0,
    [
      [3, 'NTFS    '],
      [72, hex('efcdab8967452301')],
      [510, hex('55aa')],
    ],
    { uuid: '0123456789ABCDEF' },
  ),
  fs(
    'vfat',
    0,
    [
      [67, hex('3c2b1a00')],
      [71, 'EFI        '],
      [82, 'FAT32   '],
      [510, hex('55aa')],
    ],
    { label: 'EFI', uuid: '001A-2B3C' },
  ),
  fs(
    'vfat',
    0,
    [
      [39, hex('78563412')],
      [43, 'NO NAME    FAT16   '],
      [510, hex('55aa')],
    ],
    { uuid: '1234-5678' },
  ),
  fs(
    'exfat',
    0,
    [
      [3, 'EXFAT   '],
      [100, hex('78563412')],
    ],
    { uuid: '1234-5678' },
  ),
  fs('ReFS', 0, [[3, 'ReFS']]),
  fs(
    'iso9660',
    32768,
    [
      [32769, 'CD001'],
      [32808, 'DEBIAN 12           '],
    ],
    { label: 'DEBIAN 12' },
  ),
  fs('udf', 32768, [[32769, 'BEA01']]),
  fs(
    'VMFS',
    2 * MIB,
    [
      [2 * MIB, hex('5ef1ab2f')],
      [2 * MIB + 9, hex('1e1b5c4f d3c2b1a0 f5e4 001122334455')],
      [2 * MIB + 29, 'datastore1'],
    ],
    { label: 'datastore1', uuid: '4f5c1b1e-a0b1c2d3-e4f5-001122334455' },
  ),
  fs(
    'UFS',
    65536,
    [
      [65536 + 144, hex('67452301 efcdab89')],
      [65536 + 680, 'root'],
      [65536 + 1372, hex('19015419')],
    ],
    { name: 'UFS2', label: 'root', uuid: '0123456789abcdef' },
  ),
  fs('UFS', 8192, [[8192 + 1372, hex('00011954')]], { name: 'UFS1' }),
  fs(
    'bcachefs',
    4096,
    [
      [4096 + 24, hex('c68573f666ce90a9d96a60cf803df7ef')],
      [4096 + 56, UUID_BYTES],
    ],
    { uuid: UUID },
  ),
  fs(
    'APFS',
    0,
    [
      [32, 'NXSB'],
      [72, UUID_BYTES],
    ],
    { uuid: UUID },
  ),
  fs('HFS+', 1024, [[1024, hex('482b0004')]]),
  fs(
    'jfs',
    32768,
    [
      [32768, 'JFS1'],
      [32768 + 136, UUID_BYTES],
      [32768 + 152, label],
    ],
    { label, uuid: UUID },
  ),
  fs(
    'reiserfs',
    65536,
    [
      [65588, 'ReIsEr2Fs'],
      [65620, UUID_BYTES],
      [65636, label],
    ],
    { label, uuid: UUID },
  ),
  fs(
    'nilfs2',
    1024,
    [
      [1024, hex('02000000 0000 3434')],
      [1024 + 152, UUID_BYTES],
      [1024 + 168, label],
    ],
    { label, uuid: UUID },
  ),
  fs('ocfs2', 8192, [[8192, 'OCFSV2']]),
  fs('gfs2', 65536, [[65536, hex('0116197000000001')]]),
  fs('squashfs', 0, [[0, 'hsqs']]),
  fs(
    'erofs',
    1024,
    [
      [1024, hex('e2e1f5e0')],
      [1024 + 48, UUID_BYTES],
      [1024 + 64, label],
    ],
    { label, uuid: UUID },
  ),
]
