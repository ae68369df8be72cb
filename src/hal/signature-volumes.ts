/**
 * Partition tables, RAID members, volume managers, encryption and swap that Plexus recognises on a device, one row per
 * format; see signatures.ts, and signature-own.ts for our labels and FreeBSD's. Sources: UEFI 2.10 chapter 5 (GPT, MBR),
 * SNIA DDF 2.0, and the headers of the Linux kernel (md, swap, bcache), of DRBD, LVM2, cryptsetup and OpenZFS.
 */
import { crc32 } from 'node:zlib'
import { alignDown } from '../base/bytes.ts'
import { KIB, MIB } from '../base/limits.ts'
import {
  ascii,
  be32,
  blockSizes,
  type DiskShape,
  grouped,
  guid,
  hex,
  hexField,
  lastSector,
  le32,
  type SignatureDetail,
  type SignatureRow,
  text,
  uuid,
} from './signature-fields.ts'

// ------------------------------------------------------------------------------------- positions

/** Linux md 1.0: 8 KiB before the end, rounded down to 4 KiB. */
function md10Offset(disk: DiskShape): readonly number[] {
  return [alignDown(disk.sizeBytes, 4 * KIB) - 8 * KIB]
}

/** Linux md 0.90: the last whole 64 KiB. */
function md090Offset(disk: DiskShape): readonly number[] {
  return [alignDown(disk.sizeBytes, 64 * KIB) - 64 * KIB]
}

const ZFS_LABEL_BYTES = 256 * KIB
/** Two labels at the beginning, two at the end, which is rounded down to a label. */
function zfsOffsets(disk: DiskShape): readonly number[] {
  const end = alignDown(disk.sizeBytes, ZFS_LABEL_BYTES)
  return [0, ZFS_LABEL_BYTES, end - 2 * ZFS_LABEL_BYTES, end - ZFS_LABEL_BYTES]
}

// --------------------------------------------------------------------------------------- details

const XDR_UINT64 = 8
const XDR_STRING = 9
/** The value of a name in the XDR name-value list of a ZFS label: after the name type, count, value. */
function zfsValue(bytes: Buffer, name: string, type: number): Buffer | undefined {
  const padded = Buffer.alloc(4 + Math.ceil(name.length / 4) * 4)
  padded.writeUInt32BE(name.length)
  padded.write(name, 4, 'latin1')
  const list = bytes.subarray(16 * KIB, 128 * KIB)
  const at = list.indexOf(padded)
  if (at < 0 || at + padded.length + 16 > list.length) return undefined
  const value = list.subarray(at + padded.length)
  if (value.readUInt32BE(0) !== type || value.readUInt32BE(4) !== 1) return undefined
  if (type === XDR_UINT64) return value.subarray(8, 16)
  return value.subarray(12, 12 + Math.min(value.readUInt32BE(8), 256))
}

function zfsDetail(bytes: Buffer): SignatureDetail {
  const name = zfsValue(bytes, 'name', XDR_STRING)
  const poolGuid = zfsValue(bytes, 'pool_guid', XDR_UINT64)
  return {
    label: name && text(name, 0, name.length),
    uuid: poolGuid?.readBigUInt64BE().toString(),
  }
}

function lvmDetail(bytes: Buffer): SignatureDetail | undefined {
  if (bytes.toString('latin1', 24, 32) !== 'LVM2 001') return undefined
  const at = bytes.readUInt32LE(20)
  if (at > bytes.length - 32) return {}
  return { uuid: grouped(text(bytes, at, 32), [6, 4, 4, 4, 4, 4, 6], '-') }
}

function luksDetail(bytes: Buffer): SignatureDetail {
  const version = bytes.readUInt16BE(6)
  const label = version === 2 ? text(bytes, 24, 48) : undefined
  return { name: `LUKS${version}`, label, uuid: text(bytes, 168, 40) }
}

/** The version 1 superblock carries its own position, so that the end of a partition is not taken for that of the disk. */
function md1Detail(bytes: Buffer, offset: number): SignatureDetail | undefined {
  if (bytes.readUInt32LE(4) !== 1) return undefined
  if (bytes.readBigUInt64LE(144) !== BigInt(offset / 512)) return undefined
  return { label: text(bytes, 32, 32), uuid: grouped(hexField(bytes, 16, 16), [8, 8, 8, 8], ':') }
}

function md0Detail(bytes: Buffer): SignatureDetail | undefined {
  const isBig = bytes[0] === 0xa9
  const word = (at: number) => (isBig ? bytes.readUInt32BE(at) : bytes.readUInt32LE(at))
  if (word(4) !== 0) return undefined
  const words = [20, 52, 56, 60].map((at) => word(at).toString(16).padStart(8, '0'))
  return { uuid: words.join(':') }
}

/** UEFI 2.10, 5.3.2: the CRC32 of the header with its own field as zero. */
function gptDetail(name: string): (bytes: Buffer) => SignatureDetail {
  return (bytes) => {
    const headerBytes = bytes.readUInt32LE(12)
    if (headerBytes >= 92 && headerBytes <= bytes.length) {
      const header = Buffer.from(bytes.subarray(0, headerBytes))
      header.writeUInt32LE(0, 16)
      if (crc32(header) === bytes.readUInt32LE(16)) return { uuid: guid(bytes, 56) }
    }
    // Damaged is not absent: gdisk would still recover the partitions from the other copy.
    return { name: `${name} (damaged)` }
  }
}

const MBR_GPT_PROTECTIVE = 0xee
/** Four entries with a sane boot flag, one of them in use: the two magic bytes alone mean any boot sector. */
function mbrDetail(bytes: Buffer): SignatureDetail | undefined {
  const entries = [0, 1, 2, 3].map((index) => bytes.subarray(446 + index * 16, 462 + index * 16))
  if (!entries.every((entry) => entry[0] === 0 || entry[0] === 0x80)) return undefined
  const used = entries.filter((entry) => entry[4] !== 0 && entry.readUInt32LE(12) !== 0)
  if (used.length === 0) return undefined
  const isProtective = used.some((entry) => entry[4] === MBR_GPT_PROTECTIVE)
  const serial = bytes.readUInt32LE(440)
  return {
    name: isProtective ? 'protective MBR' : 'MBR',
    uuid: serial === 0 ? undefined : serial.toString(16).padStart(8, '0'),
  }
}

// ----------------------------------------------------------------------------------------- table

const MD_MAGIC = 0xa92b4efc
const UBERBLOCK_MAGIC = 0x00bab10c
const ZFS_UBERBLOCKS = Array.from({ length: 128 }, (_, index) => 128 * KIB + index * KIB)

export const VOLUME_ROWS: readonly SignatureRow[] = [
  // Partition tables.
  {
    kind: 'partition-table',
    name: 'GPT',
    at: blockSizes,
    length: 512,
    magic: [[0, ascii('EFI PART')]],
    detail: gptDetail('GPT'),
  },
  {
    kind: 'partition-table',
    name: 'GPT backup',
    at: lastSector,
    length: 512,
    magic: [[0, ascii('EFI PART')]],
    detail: gptDetail('GPT backup'),
  },
  {
    kind: 'partition-table',
    name: 'MBR',
    at: [0],
    length: 512,
    magic: [[510, hex('55aa')]],
    detail: mbrDetail,
  },
  {
    kind: 'partition-table',
    name: 'BSD disklabel',
    at: blockSizes,
    length: 512,
    magic: [[0, le32(0x82564557)]],
    detail: (b) => (b.readUInt32LE(132) === 0x82564557 ? { label: text(b, 24, 16) } : undefined),
  },

  // RAID and mirrors.
  {
    kind: 'raid',
    name: 'md 1.0',
    at: md10Offset,
    length: 256,
    magic: [[0, le32(MD_MAGIC)]],
    detail: md1Detail,
  },
  {
    kind: 'raid',
    name: 'md 1.1',
    at: [0],
    length: 256,
    magic: [[0, le32(MD_MAGIC)]],
    detail: md1Detail,
  },
  {
    kind: 'raid',
    name: 'md 1.2',
    at: [4 * KIB],
    length: 256,
    magic: [[0, le32(MD_MAGIC)]],
    detail: md1Detail,
  },
  {
    kind: 'raid',
    name: 'md 0.90',
    at: md090Offset,
    length: 256,
    magic: [
      [0, le32(MD_MAGIC)],
      [0, be32(MD_MAGIC)],
    ],
    detail: md0Detail,
  },
  {
    kind: 'raid',
    name: 'DDF',
    at: (disk) => [disk.sizeBytes - 512, disk.sizeBytes - 257 * 512],
    length: 512,
    magic: [
      [0, be32(0xde11de11)],
      [0, le32(0xde11de11)],
    ],
    detail: (b) => ({ uuid: hexField(b, 8, 24) }),
  },
  {
    kind: 'raid',
    name: 'Intel Matrix RAID',
    at: (disk) => blockSizes(disk).map((block) => disk.sizeBytes - 2 * block),
    length: 512,
    magic: [[0, ascii('Intel Raid ISM Cfg Sig. ')]],
  },
  {
    kind: 'raid',
    name: 'DRBD',
    at: (disk) => [alignDown(disk.sizeBytes, 4 * KIB) - 4 * KIB],
    length: 512,
    // Version 8, version 8 not shut down cleanly, version 9.
    magic: [
      [60, be32(0x8374026b)],
      [60, be32(0x8374026c)],
      [60, be32(0x8374026d)],
    ],
    detail: (b) => ({ uuid: hexField(b, b[63] === 0x6d ? 48 : 40, 8) }),
  },

  // Volume managers and storage systems that own whole disks.
  {
    kind: 'volume-manager',
    name: 'LVM2 physical volume',
    at: [0, 512, 1024, 1536],
    length: 512,
    magic: [[0, ascii('LABELONE')]],
    detail: lvmDetail,
  },
  {
    kind: 'volume-manager',
    name: 'ZFS',
    at: zfsOffsets,
    length: ZFS_LABEL_BYTES,
    magic: ZFS_UBERBLOCKS.flatMap((at) => [
      [at, Buffer.concat([le32(UBERBLOCK_MAGIC), le32(0)])] as const,
      [at, Buffer.concat([le32(0), be32(UBERBLOCK_MAGIC)])] as const,
    ]),
    detail: zfsDetail,
  },
  {
    kind: 'volume-manager',
    name: 'bcache',
    at: [4 * KIB],
    length: 512,
    magic: [[24, hex('c68573f64e1a45ca8265f57f48ba6d81')]],
    detail: (b) => ({ label: text(b, 72, 32), uuid: uuid(b, 40) }),
  },
  {
    kind: 'volume-manager',
    name: 'Ceph BlueStore',
    at: [0],
    length: 512,
    magic: [[0, ascii('bluestore block device')]],
    detail: (b) => ({ uuid: text(b, 23, 36) }),
  },
  {
    kind: 'volume-manager',
    name: 'Oracle ASM',
    at: [0],
    length: 512,
    magic: [[32, ascii('ORCLDISK')]],
    detail: (b) => ({ label: text(b, 40, 24) ?? text(b, 72, 32) }),
  },
  {
    kind: 'volume-manager',
    name: 'VMFS extent',
    at: [1 * MIB],
    length: 1024,
    magic: [[0, le32(0xc001d00d)]],
    detail: (b) => ({ uuid: text(b, 532, 35) }),
  },
  {
    kind: 'volume-manager',
    name: 'Windows dynamic disk',
    at: [6 * 512],
    length: 512,
    magic: [[0, ascii('PRIVHEAD')]],
    detail: (b) => ({ uuid: text(b, 48, 36) }),
  },
  {
    kind: 'volume-manager',
    name: 'VDO',
    at: [0],
    length: 512,
    magic: [[0, ascii('dmvdo001')]],
    detail: (b) => ({ uuid: uuid(b, 40) }),
  },
  {
    kind: 'volume-manager',
    name: 'Stratis',
    at: [512, 9 * 512],
    length: 512,
    magic: [[4, ascii('!Stra0tis\x86\xff\x02^Arh')]],
    detail: (b) => ({ uuid: grouped(text(b, 32, 32), [8, 4, 4, 4, 12], '-') }),
  },

  // Encryption.
  {
    kind: 'encryption',
    name: 'LUKS',
    at: [0],
    length: 512,
    magic: [[0, ascii('LUKS\xba\xbe')]],
    detail: luksDetail,
  },
  {
    kind: 'encryption',
    name: 'LUKS2 backup header',
    at: [14, 15, 16, 17, 18, 19, 20, 21, 22].map((power) => 2 ** power),
    length: 512,
    magic: [[0, ascii('SKUL\xba\xbe')]],
    detail: (b) => ({ label: text(b, 24, 48), uuid: text(b, 168, 40) }),
  },
  {
    kind: 'encryption',
    name: 'BitLocker',
    at: [0],
    length: 512,
    magic: [[3, ascii('-FVE-FS-')]],
  },

  // Swap; the signature ends the first page.
  {
    kind: 'swap',
    name: 'swap',
    at: [0],
    length: 4 * KIB,
    magic: [
      [4 * KIB - 10, ascii('SWAPSPACE2')],
      [4 * KIB - 10, ascii('SWAP-SPACE')],
    ],
    detail: (b) => ({ label: text(b, 1052, 16), uuid: uuid(b, 1036) }),
  },
  {
    kind: 'swap',
    name: 'swap of large pages',
    at: [0],
    length: 64 * KIB,
    magic: [8, 16, 64].map((page) => [page * KIB - 10, ascii('SWAPSPACE2')] as const),
    detail: (b) => ({ label: text(b, 1052, 16), uuid: uuid(b, 1036) }),
  },
  {
    kind: 'swap',
    name: 'hibernation image',
    at: [0],
    length: 4 * KIB,
    magic: ['S1SUSPEND', 'S2SUSPEND', 'ULSUSPEND', 'LINHIB0001'].map(
      (magic) => [4 * KIB - 10, ascii(magic)] as const,
    ),
  },
]
