/** What the fuzzer sends before it breaks it, and the ways in which it breaks it. */
import {
  inquiry,
  read10,
  read16,
  readCapacity16,
  reportLuns,
  requestSense,
  synchronizeCache10,
  testUnitReady,
  write10,
  write16,
} from '../support/cdb.ts'
import { INITIATOR_NAME, type LoginResult } from '../support/initiator-login.ts'
import {
  AT,
  encodeText,
  FINAL,
  IMMEDIATE,
  NO_TAG,
  newHeader,
  OP,
} from '../support/initiator-pdu.ts'
import type { Random } from './random.ts'

export interface Draft {
  header: Buffer
  data: Buffer
  ahs: Buffer
}

const BLOCK = 512
const WRITE = 0x20
const READ = 0x40
const INTERESTING = [
  0,
  1,
  2,
  3,
  7,
  8,
  0x7f,
  0x80,
  0xff,
  0xffff,
  0x7fffffff,
  0x80000000,
  0xfffffffe,
  NO_TAG,
]

const KEYS = [
  'InitiatorName',
  'InitiatorAlias',
  'TargetName',
  'SessionType',
  'AuthMethod',
  'CHAP_A',
  'CHAP_I',
  'CHAP_C',
  'CHAP_N',
  'CHAP_R',
  'HeaderDigest',
  'DataDigest',
  'MaxConnections',
  'SendTargets',
  'TargetAddress',
  'TargetPortalGroupTag',
  'InitialR2T',
  'ImmediateData',
  'MaxRecvDataSegmentLength',
  'MaxBurstLength',
  'FirstBurstLength',
  'DefaultTime2Wait',
  'DefaultTime2Retain',
  'MaxOutstandingR2T',
  'DataPDUInOrder',
  'DataSequenceInOrder',
  'ErrorRecoveryLevel',
  'IFMarker',
  'OFMarker',
  'TaskReporting',
  'iSCSIProtocolLevel',
  'X-com.example',
  '',
]
const VALUES = [
  '',
  'Yes',
  'No',
  'None',
  'CRC32C',
  'CRC32C,None',
  'CHAP',
  'CHAP,None',
  'None,CHAP',
  'Discovery',
  'Normal',
  'All',
  'Reject',
  'Irrelevant',
  'NotUnderstood',
  '0',
  '1',
  '-1',
  '511',
  '512',
  '16777215',
  '16777216',
  '4294967296',
  '99999999999999999999999',
  '0x',
  '0x0',
  '0xff',
  '0b',
  '0bAAAA',
  '1e3',
  '5,6,7,8',
  ',,,',
  '%s%n',
  '../../etc/passwd',
  '=',
  'a=b',
  'iqn.2026-11.test.plexus:x',
  'eui.0123456789abcdef',
  'ÿ\u0001\u{1f4a9}',
]

/** Text of known keys with values that do not belong to them. */
export function wildText(random: Random, targetName: string): Buffer {
  const pairs: [string, string][] = []
  if (random.chance(0.7)) pairs.push(['InitiatorName', INITIATOR_NAME], ['TargetName', targetName])
  const count = random.between(0, 40)
  for (let i = 0; i < count; i++) {
    const value = random.chance(0.05) ? 'x'.repeat(random.between(200, 3000)) : random.pick(VALUES)
    pairs.push([random.pick(KEYS), value])
  }
  const text = encodeText(random.shuffle(pairs))
  return random.chance(0.1) ? text.subarray(0, random.below(text.length + 1)) : text
}

/** A login request that would be granted. */
export function goldenLogin(random: Random, targetName: string): Draft {
  const header = newHeader(OP.LOGIN | IMMEDIATE, FINAL | 1, random.u32())
  header[8] = 0x80
  header.writeUInt32BE(random.u32(), 9)
  header.writeUInt32BE(1, AT.CMD_SN)
  const data = encodeText([
    ['InitiatorName', INITIATOR_NAME],
    ['TargetName', targetName],
    ['SessionType', 'Normal'],
    ['AuthMethod', 'None'],
  ])
  return { header, data, ahs: Buffer.alloc(0) }
}

const CDBS: readonly ((random: Random) => { cdb: Buffer; read?: number; write?: number })[] = [
  () => ({ cdb: testUnitReady() }),
  (r) => ({
    cdb: inquiry(
      r.below(300),
      r.chance(0.5) ? r.pick([0, 0x80, 0x83, 0x86, 0xb0, 0xb1, 0xb2]) : undefined,
    ),
    read: 300,
  }),
  () => ({ cdb: readCapacity16(), read: 32 }),
  () => ({ cdb: reportLuns(), read: 4096 }),
  () => ({ cdb: requestSense(), read: 252 }),
  () => ({ cdb: synchronizeCache10() }),
  (r) => transfer(r, read10, 'read'),
  (r) => transfer(r, read16, 'read'),
  (r) => transfer(r, write10, 'write'),
  (r) => transfer(r, write16, 'write'),
  (r) => ({ cdb: r.bytes(16), read: r.below(8192) }),
  (r) => ({ cdb: r.bytes(16), write: r.below(8192) }),
]

function transfer(
  random: Random,
  make: (lba: number, blocks: number) => Buffer,
  direction: 'read' | 'write',
) {
  const blocks = random.chance(0.1) ? random.between(1, 8192) : random.between(0, 64)
  return {
    cdb: make(random.below(random.chance(0.9) ? 30000 : NO_TAG), blocks),
    [direction]: blocks * BLOCK,
  }
}

/** A run of requests of the full feature phase, in their right order and with right numbers. */
export function goldenSequence(random: Random, login: LoginResult): Draft[] {
  const drafts: Draft[] = []
  let { cmdSn } = login
  const count = random.between(1, 24)
  for (let i = 0; i < count; i++) {
    const immediate = random.chance(0.1)
    const tag = random.chance(0.9) ? 0x100 + i : random.pick(INTERESTING)
    const made = GOLDEN[random.below(GOLDEN.length)]?.(random, login, tag) ?? []
    for (const draft of made) {
      const opcode = draft.header[0] ?? 0
      if (opcode !== OP.DATA_OUT && opcode !== OP.SNACK) {
        draft.header.writeUInt32BE(cmdSn, AT.CMD_SN)
        if (immediate) draft.header[0] = opcode | IMMEDIATE
        else cmdSn = (cmdSn + 1) >>> 0
      }
      draft.header.writeUInt32BE(login.expStatSn, AT.EXP_STAT_SN)
      drafts.push(draft)
    }
  }
  return drafts
}

const GOLDEN: readonly ((random: Random, login: LoginResult, tag: number) => Draft[])[] = [
  scsi,
  scsi,
  scsi,
  (random, _login, tag) => {
    const header = newHeader(OP.NOP_OUT, FINAL, tag)
    header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    return [draft(header, random.bytes(random.below(2048)))]
  },
  (random, _login, tag) => {
    const header = newHeader(OP.TASK_MANAGEMENT, FINAL | random.between(1, 8), tag)
    header.writeUInt32BE(0x100 + random.below(24), 20)
    return [draft(header)]
  },
  (random, _login, tag) => {
    const header = newHeader(OP.TEXT, random.pick([FINAL, FINAL, 0x40, 0]), tag)
    header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    return [draft(header, wildText(random, INITIATOR_NAME).subarray(0, 8000))]
  },
  (random, _login, tag) => {
    const header = newHeader(OP.DATA_OUT, random.pick([0, FINAL]), tag)
    header.writeUInt32BE(random.pick(INTERESTING), AT.TRANSFER_TAG)
    header.writeUInt32BE(random.below(4), AT.DATA_SN)
    header.writeUInt32BE(random.below(65536), AT.BUFFER_OFFSET)
    return [draft(header, random.bytes(random.below(4096)))]
  },
  (random, _login, tag) => [draft(newHeader(OP.SNACK, FINAL | random.below(4), tag))],
  (random, _login, tag) => [draft(newHeader(random.below(64), random.below(256), tag))],
  (random, _login, tag) => [draft(newHeader(OP.LOGOUT, FINAL | random.below(3), tag))],
]

function draft(header: Buffer, data: Buffer = Buffer.alloc(0)): Draft {
  return { header, data, ahs: Buffer.alloc(0) }
}

function scsi(random: Random, login: LoginResult, tag: number): Draft[] {
  const { cdb, read, write } = random.pick(CDBS)(random)
  const flags =
    (read !== undefined ? READ : 0) | (write !== undefined ? WRITE : 0) | random.below(5)
  const header = newHeader(OP.SCSI_COMMAND, FINAL | flags, tag)
  header.writeUInt32BE(read ?? write ?? 0, AT.EXPECTED_BYTES)
  cdb.copy(header, AT.CDB, 0, 16)
  const most = Math.min(write ?? 0, login.firstBurstBytes, login.sendSegmentBytes)
  return [draft(header, login.immediateData ? Buffer.alloc(most, 0xf5) : undefined)]
}

const MUTATIONS: readonly ((random: Random, draft: Draft) => void)[] = [
  (random, { header }) => {
    for (let i = random.between(1, 8); i > 0; i--) {
      const at = random.below(header.length)
      header[at] = (header[at] ?? 0) ^ (1 << random.below(8))
    }
  },
  (random, { header }) => {
    header.writeUInt32BE(
      random.pick(INTERESTING) >>> 0,
      random.pick([8, 12, 16, 20, 24, 28, 32, 36, 40, 44]),
    )
  },
  (random, { header }) => {
    header[random.below(2)] = random.u32()
  },
  (random, { header }) => {
    random.bytes(8).copy(header, AT.LUN)
  },
  (random, it) => {
    it.ahs = random.bytes(4 * random.between(1, 255))
  },
  (random, it) => {
    it.data = random.bytes(random.below(16384))
  },
  (random, it) => {
    it.data = it.data.subarray(0, random.below(it.data.length + 1))
  },
]

/** Breaks a draft in one to three ways. */
export function mutate(random: Random, it: Draft): Draft {
  for (let i = random.between(1, 3); i > 0; i--) random.pick(MUTATIONS)(random, it)
  return it
}

/** Breaks the wire form: lengths that lie, bytes that are missing or too many. */
export function mutateBytes(random: Random, bytes: Buffer): Buffer {
  const broken = Buffer.from(bytes)
  const kind = random.below(5)
  if (kind === 0) broken.writeUIntBE(random.below(0x1000000), AT.SEGMENT_BYTES, 3)
  else if (kind === 1) broken[AT.AHS_WORDS] = random.u32()
  else if (kind === 2) return broken.subarray(0, random.below(broken.length))
  else if (kind === 3) return Buffer.concat([broken, random.bytes(random.below(64))])
  else broken[random.below(broken.length)] = random.u32()
  return broken
}
