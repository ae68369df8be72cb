/**
 * A session as a script: the PDUs of a login, of reads and writes in all of their forms, of text, NOP-Out and task
 * management, and of a logout, in the order in which a sound initiator sends them, and between them the waits for
 * what the target has to answer first (RFC 7143). Undisturbed it succeeds; disturb.ts disturbs it.
 */
import {
  inquiry,
  read10,
  read16,
  readCapacity16,
  reportLuns,
  synchronizeCache10,
  testUnitReady,
  write10,
  write16,
} from '../support/cdb.ts'
import {
  AT,
  CONTINUE,
  encodeText,
  FINAL,
  IMMEDIATE,
  lunField,
  NO_TAG,
  newHeader,
  OP,
  opcodeOf,
} from '../support/initiator-pdu.ts'
import type { Draft } from './mutate.ts'
import type { Script, ScriptSession } from './script-session.ts'

const BLOCK = 512
const KIB = 1024
const READ = 0x40
const WRITE = 0x20
const ATTRIBUTE = { SIMPLE: 1, ORDERED: 2, HEAD_OF_QUEUE: 3 } as const
/** The script stays within so many blocks from the start of the unit, which has more. */
const SCRIPT_BLOCKS = 65_536
/** What writes carry: nothing looks at it. */
const CONTENT = Buffer.alloc(6 * KIB * KIB, 0xf5)

interface Command {
  readonly cdb: Buffer
  readonly readBytes?: number
  readonly writeBytes?: number
  readonly attribute?: number
}

function commandHeader(session: ScriptSession, command: Command, final: boolean): Buffer {
  const { cdb, readBytes, writeBytes, attribute = ATTRIBUTE.SIMPLE } = command
  const direction = writeBytes ? WRITE : readBytes ? READ : 0
  session.lastTag = session.newTag()
  const header = newHeader(
    OP.SCSI_COMMAND,
    (final ? FINAL : 0) | direction | attribute,
    session.lastTag,
  )
  header.writeUInt32BE(writeBytes ?? readBytes ?? 0, AT.EXPECTED_BYTES)
  cdb.copy(header, AT.CDB)
  return header
}

/** A command, its data in all the ways that were agreed on, and its status. */
async function* whole(session: ScriptSession, command: Command): Script {
  const { initialR2t, immediateData, firstBurstBytes, sendSegmentBytes } = session.agreed
  const bytes = command.writeBytes ?? 0
  const immediate = immediateData ? Math.min(firstBurstBytes, sendSegmentBytes, bytes) : 0
  const unsolicited = initialR2t ? immediate : Math.min(firstBurstBytes, bytes)
  const header = commandHeader(session, command, unsolicited === immediate)
  const tag = session.lastTag
  yield await session.request(header, CONTENT.subarray(0, immediate))
  yield* dataOuts(session, tag, NO_TAG, immediate, unsolicited)
  for (;;) {
    const answer = await session.answer(tag)
    if (!answer || opcodeOf(answer) !== OP.R2T) return
    const offset = answer.header.readUInt32BE(AT.BUFFER_OFFSET)
    const end = offset + answer.header.readUInt32BE(AT.RESIDUAL)
    yield* dataOuts(session, tag, answer.header.readUInt32BE(AT.TRANSFER_TAG), offset, end)
  }
}

async function* dataOuts(
  session: ScriptSession,
  tag: number,
  transferTag: number,
  from: number,
  to: number,
): Script {
  const { sendSegmentBytes } = session.agreed
  for (let at = from, sn = 0; at < to; at += sendSegmentBytes, sn++) {
    const end = Math.min(at + sendSegmentBytes, to)
    const header = newHeader(OP.DATA_OUT, end === to ? FINAL : 0, tag)
    header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
    header.writeUInt32BE(sn, AT.DATA_SN)
    header.writeUInt32BE(at, AT.BUFFER_OFFSET)
    yield session.plain(header, CONTENT.subarray(at, end))
  }
}

/** Several commands without a wait between them, small enough to carry all of their data. */
async function* together(session: ScriptSession, commands: readonly Command[]): Script {
  const tags: number[] = []
  for (const command of commands) {
    const data = CONTENT.subarray(0, session.agreed.immediateData ? (command.writeBytes ?? 0) : 0)
    const header = commandHeader(session, command, true)
    tags.push(session.lastTag)
    yield await session.request(header, data)
  }
  for (const [index, tag] of tags.entries()) {
    for (;;) {
      const answer = await session.answer(tag)
      if (!answer || opcodeOf(answer) !== OP.R2T) break
      const transferTag = answer.header.readUInt32BE(AT.TRANSFER_TAG)
      yield* dataOuts(session, tag, transferTag, 0, commands[index]?.writeBytes ?? 0)
    }
  }
}

const write = (lba: number, bytes: number, attribute?: number): Command => ({
  cdb: write16(lba, bytes / BLOCK),
  writeBytes: bytes,
  ...(attribute === undefined ? {} : { attribute }),
})
const read = (lba: number, bytes: number, attribute?: number): Command => ({
  cdb: read16(lba, bytes / BLOCK),
  readBytes: bytes,
  ...(attribute === undefined ? {} : { attribute }),
})
const somewhere = ({ random }: ScriptSession): number => random.below(SCRIPT_BLOCKS - 16_384)

/** The parts that a session is made of, between its login and its logout. */
export const SECTIONS: Readonly<Record<string, (session: ScriptSession) => Script>> = {
  async *pings(session) {
    const tags = [1, 2, 3].map(() => session.newTag())
    for (const tag of tags) {
      const header = newHeader(OP.NOP_OUT, FINAL, tag)
      header.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
      yield await session.request(header, CONTENT.subarray(0, session.random.below(4096)))
    }
    for (const tag of tags) await session.answer(tag)
  },

  async *inquiries(session) {
    yield* together(session, [
      { cdb: testUnitReady() },
      { cdb: inquiry(96), readBytes: 96 },
      { cdb: reportLuns(), readBytes: 4096 },
      { cdb: readCapacity16(), readBytes: 32 },
      { cdb: synchronizeCache10() },
    ])
  },

  async *'send targets'(session) {
    let transferTag = NO_TAG
    let text = encodeText([['SendTargets', '']])
    for (let round = 0; round < 4; round++) {
      const tag = session.newTag()
      const header = newHeader(OP.TEXT, FINAL, tag)
      header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
      yield await session.request(header, text)
      const answer = await session.answer(tag)
      if (!answer || ((answer.header[AT.FLAGS] ?? 0) & FINAL) !== 0) return
      transferTag = answer.header.readUInt32BE(AT.TRANSFER_TAG)
      text = Buffer.alloc(0)
    }
  },

  async *'text in pieces'(session) {
    const text = encodeText([['X-com.example.fuzz', 'y'.repeat(200)]])
    let transferTag = NO_TAG
    for (let at = 0; at < text.length; at += 80) {
      const isLast = at + 80 >= text.length
      const tag = session.newTag()
      const header = newHeader(OP.TEXT, isLast ? FINAL : CONTINUE, tag)
      header.writeUInt32BE(transferTag, AT.TRANSFER_TAG)
      yield await session.request(header, text.subarray(at, at + 80))
      const answer = await session.answer(tag)
      if (!answer) return
      transferTag = answer.header.readUInt32BE(AT.TRANSFER_TAG)
    }
  },

  async *'small reads and writes'(session) {
    const at = somewhere(session)
    yield* together(session, [
      { cdb: write10(at, 8), writeBytes: 4096 },
      { cdb: read10(at, 8), readBytes: 4096 },
      write(at + 8, 512),
      read(at, 8192),
    ])
  },

  async *'a write of one burst'(session) {
    yield* whole(session, write(somewhere(session), 64 * KIB))
  },

  async *'a write of several bursts'(session) {
    const bytes = session.random.pick([256, 512, 1024]) * KIB
    yield* whole(session, write(somewhere(session), bytes))
  },

  async *'an ordered write of several bursts'(session) {
    yield* whole(session, write(somewhere(session), 256 * KIB, ATTRIBUTE.ORDERED))
  },

  async *'a transfer above 4 MiB'(session) {
    const bytes = 5 * KIB * KIB
    if (session.random.chance(0.5)) yield* whole(session, read(somewhere(session), bytes))
    else yield* whole(session, write(somewhere(session), bytes))
  },

  async *'large reads'(session) {
    const at = somewhere(session)
    const bytes = session.random.pick([64, 256, 1024]) * KIB
    yield* together(session, [read(at, bytes), read(at + 2048, bytes), read(at + 4096, bytes)])
  },

  async *'commands of all attributes'(session) {
    const at = somewhere(session)
    const { ORDERED, HEAD_OF_QUEUE } = ATTRIBUTE
    yield* together(session, [
      write(at, 4096),
      read(at, 64 * KIB, ORDERED),
      write(at, 4096, ORDERED),
      read(at, 4096),
      write(at, 4096, HEAD_OF_QUEUE),
      read(at, 64 * KIB, HEAD_OF_QUEUE),
      read(at, 4096),
    ])
  },

  async *'an aborted write'(session) {
    const command = write(somewhere(session), 256 * KIB)
    const header = commandHeader(session, command, true)
    yield await session.request(header)
    await session.answer(session.lastTag)
    const tag = session.newTag()
    yield taskManagement(session, TMF.ABORT_TASK, tag)
    await session.answer(tag)
  },
}

/** Task management functions (RFC 7143, 11.5.1). */
export const TMF = {
  ABORT_TASK: 1,
  ABORT_TASK_SET: 2,
  CLEAR_TASK_SET: 4,
  LOGICAL_UNIT_RESET: 5,
  TARGET_WARM_RESET: 6,
  TARGET_COLD_RESET: 7,
} as const

/** The function `fn` on LUN 0, or on the session's last command. */
export function taskManagement(session: ScriptSession, fn: number, tag: number): Draft {
  const header = newHeader(OP.TASK_MANAGEMENT | IMMEDIATE, FINAL | fn, tag)
  lunField(0).copy(header, AT.LUN)
  header.writeUInt32BE(fn === TMF.ABORT_TASK ? session.lastTag : NO_TAG, 20)
  return session.immediate(header)
}

/** The whole session: each PDU with the number of the section that it belongs to. */
export async function* sessionScript(
  session: ScriptSession,
  sections: readonly string[],
): AsyncGenerator<{ readonly section: number; readonly draft: Draft }, void, void> {
  for await (const draft of session.login()) yield { section: 0, draft }
  for (const [index, name] of sections.entries()) {
    const script = SECTIONS[name]?.(session)
    if (!script) throw new Error(`"${name}" is no section of the script`)
    for await (const draft of script) yield { section: index + 1, draft }
  }
  const tag = session.newTag()
  const draft = session.immediate(newHeader(OP.LOGOUT | IMMEDIATE, FINAL, tag))
  yield { section: sections.length + 1, draft }
  await session.answer(tag)
}
