/**
 * File systems that Plexus recognises on a device, one row per format; see signatures.ts. Sources: the
 * superblocks as the headers of the Linux kernel and FreeBSD (sys/ufs/ffs/fs.h) define them, ECMA-119
 * and ECMA-167 for ISO 9660 and UDF, Microsoft's exFAT and FAT specifications.
 */
import { GIB, KIB, MIB } from '../base/limits.ts'
import {
  ascii,
  be32,
  dosSerial,
  grouped,
  hex,
  hexField,
  le32,
  type SignatureDetail,
  type SignatureRow,
  text,
  uuid,
} from './signature-fields.ts'

const EXT_COMPAT_JOURNAL = 0x4
const EXT_INCOMPAT_JOURNAL_DEVICE = 0x8
/** Extents, 64bit, MMP, flex_bg and the read-only compatible features that only ext4 has. */
const EXT4_INCOMPAT = 0x40 | 0x80 | 0x100 | 0x200
const EXT4_RO_COMPAT = 0x8 | 0x10 | 0x20 | 0x40 | 0x400

function extDetail(bytes: Buffer): SignatureDetail | undefined {
  const logBlock = bytes.readUInt32LE(24)
  const revision = bytes.readUInt32LE(76)
  if (logBlock > 6 || revision > 1) return undefined
  const incompat = bytes.readUInt32LE(96)
  const isExt4 = incompat & EXT4_INCOMPAT || bytes.readUInt32LE(100) & EXT4_RO_COMPAT
  let name = 'ext2'
  if (incompat & EXT_INCOMPAT_JOURNAL_DEVICE) name = 'ext journal'
  else if (isExt4) name = 'ext4'
  else if (bytes.readUInt32LE(92) & EXT_COMPAT_JOURNAL) name = 'ext3'
  return { name, label: text(bytes, 120, 16), uuid: uuid(bytes, 104) }
}

function vfatDetail(bytes: Buffer): SignatureDetail | undefined {
  if (bytes.readUInt16BE(510) !== 0x55aa) return undefined
  const [serialAt, labelAt] = bytes.toString('latin1', 82, 87) === 'FAT32' ? [67, 71] : [39, 43]
  const label = text(bytes, labelAt, 11)
  return { label: label === 'NO NAME' ? undefined : label, uuid: dosSerial(bytes, serialAt) }
}

const UFS1_MAGIC = 0x00011954
const UFS2_MAGIC = 0x19540119
function ufsDetail(bytes: Buffer): SignatureDetail {
  const isBig = [UFS1_MAGIC, UFS2_MAGIC].includes(bytes.readUInt32BE(1372))
  const word = (at: number) => (isBig ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at))
  const isTwo = word(1372) === UFS2_MAGIC
  const digits = [word(144), word(148)].map((id) => id.toString(16).padStart(8, '0')).join('')
  return {
    name: isTwo ? 'UFS2' : 'UFS1',
    label: isTwo ? text(bytes, 680, 32) : undefined,
    uuid: /^0+$/.test(digits) ? undefined : digits,
  }
}

/** VMware's UUID: two little endian words, one little endian half word, six bytes. */
function vmfsUuid(bytes: Buffer, offset: number): string | undefined {
  const field = Buffer.from(bytes.subarray(offset, offset + 16))
  field.subarray(0, 4).reverse()
  field.subarray(4, 8).reverse()
  field.subarray(8, 10).reverse()
  return grouped(hexField(field, 0, 16), [8, 8, 4, 12], '-')
}

export const FILESYSTEM_ROWS: readonly SignatureRow[] = [
  {
    kind: 'filesystem',
    name: 'ext',
    at: [1024],
    length: 512,
    magic: [[56, hex('53ef')]],
    detail: extDetail,
  },
  {
    kind: 'filesystem',
    name: 'xfs',
    at: [0],
    length: 512,
    magic: [[0, ascii('XFSB')]],
    detail: (b) => ({ label: text(b, 108, 12), uuid: uuid(b, 32) }),
  },
  {
    kind: 'filesystem',
    name: 'btrfs',
    // The first superblock and its mirrors.
    at: [64 * KIB, 64 * MIB, 256 * GIB],
    length: 1024,
    magic: [[64, ascii('_BHRfS_M')]],
    detail: (b) => ({ label: text(b, 299, 256), uuid: uuid(b, 32) }),
  },
  {
    kind: 'filesystem',
    name: 'f2fs',
    at: [1024, 5 * KIB],
    length: 2048,
    magic: [[0, le32(0xf2f52010)]],
    detail: (b) => ({ label: text(b, 124, 1024, 'utf16le'), uuid: uuid(b, 108) }),
  },
  {
    kind: 'filesystem',
    name: 'ntfs',
    at: [0],
    length: 512,
    magic: [[3, ascii('NTFS    ')]],
    detail: (b) => ({
      uuid: b.readBigUInt64LE(72).toString(16).toUpperCase().padStart(16, '0'),
    }),
  },
  {
    kind: 'filesystem',
    name: 'vfat',
    at: [0],
    length: 512,
    magic: [
      [82, ascii('FAT32   ')],
      [54, ascii('FAT16   ')],
      [54, ascii('FAT12   ')],
      [54, ascii('FAT     ')],
    ],
    detail: vfatDetail,
  },
  {
    kind: 'filesystem',
    name: 'exfat',
    at: [0],
    length: 512,
    magic: [[3, ascii('EXFAT   ')]],
    detail: (b) => ({ uuid: dosSerial(b, 100) }),
  },
  {
    kind: 'filesystem',
    name: 'ReFS',
    at: [0],
    length: 512,
    magic: [[0, ascii('\0\0\0ReFS\0')]],
  },
  {
    kind: 'filesystem',
    name: 'iso9660',
    at: [32 * KIB],
    length: 2048,
    magic: [[1, ascii('CD001')]],
    detail: (b) => ({ label: text(b, 40, 32) }),
  },
  { kind: 'filesystem', name: 'udf', at: [32 * KIB], length: 2048, magic: [[1, ascii('BEA01')]] },
  {
    kind: 'filesystem',
    name: 'VMFS',
    at: [2 * MIB],
    length: 512,
    magic: [[0, le32(0x2fabf15e)]],
    detail: (b) => ({ label: text(b, 29, 128), uuid: vmfsUuid(b, 9) }),
  },
  {
    kind: 'filesystem',
    name: 'UFS',
    at: [0, 8 * KIB, 64 * KIB, 256 * KIB],
    length: 2048,
    magic: [
      [1372, le32(UFS2_MAGIC)],
      [1372, be32(UFS2_MAGIC)],
      [1372, le32(UFS1_MAGIC)],
      [1372, be32(UFS1_MAGIC)],
    ],
    detail: ufsDetail,
  },
  {
    kind: 'filesystem',
    name: 'bcachefs',
    at: [4 * KIB],
    length: 512,
    magic: [[24, hex('c68573f666ce90a9d96a60cf803df7ef')]],
    detail: (b) => ({ label: text(b, 72, 32), uuid: uuid(b, 56) }),
  },
  {
    kind: 'filesystem',
    name: 'APFS',
    at: [0],
    length: 512,
    magic: [[32, ascii('NXSB')]],
    detail: (b) => ({ uuid: uuid(b, 72) }),
  },
  {
    kind: 'filesystem',
    name: 'HFS+',
    at: [1024],
    length: 512,
    magic: [
      [0, hex('482b0004')],
      [0, hex('48580005')],
    ],
  },
  {
    kind: 'filesystem',
    name: 'jfs',
    at: [32 * KIB],
    length: 512,
    magic: [[0, ascii('JFS1')]],
    detail: (b) => ({ label: text(b, 152, 16), uuid: uuid(b, 136) }),
  },
  {
    kind: 'filesystem',
    name: 'reiserfs',
    at: [64 * KIB],
    length: 512,
    magic: ['ReIsErFs', 'ReIsEr2Fs', 'ReIsEr3Fs'].map((magic) => [52, ascii(magic)] as const),
    detail: (b) => ({ label: text(b, 100, 16), uuid: uuid(b, 84) }),
  },
  {
    kind: 'filesystem',
    name: 'nilfs2',
    at: [1024],
    length: 512,
    magic: [[6, hex('3434')]],
    detail: (b) =>
      b.readUInt32LE(0) === 2 ? { label: text(b, 168, 80), uuid: uuid(b, 152) } : undefined,
  },
  {
    kind: 'filesystem',
    name: 'ocfs2',
    at: [1024, 2048, 4096, 8192],
    length: 512,
    magic: [[0, ascii('OCFSV2')]],
  },
  {
    kind: 'filesystem',
    name: 'gfs2',
    at: [64 * KIB],
    length: 512,
    magic: [[0, hex('0116197000000001')]],
  },
  { kind: 'filesystem', name: 'squashfs', at: [0], length: 512, magic: [[0, ascii('hsqs')]] },
  {
    kind: 'filesystem',
    name: 'erofs',
    at: [1024],
    length: 512,
    magic: [[0, le32(0xe0f5e1e2)]],
    detail: (b) => ({ label: text(b, 64, 16), uuid: uuid(b, 48) }),
  },
]
