/**
 * The fuzzer's attackers: each takes one connection (or a few), does one bad thing and goes. Their chance
 * comes from the case's own random source, so that a case does the same again.
 */
import { read10, write10 } from '../support/cdb.ts'
import { type LoginResult, login, randomIsid } from '../support/initiator-login.ts'
import {
  AT,
  CONTINUE,
  digestOf,
  encodePdu,
  FINAL,
  IMMEDIATE,
  NO_TAG,
  newHeader,
  OP,
} from '../support/initiator-pdu.ts'
import { Wire } from '../support/initiator-wire.ts'
import { type AttackContext, sleep } from './attack-context.ts'
import { SEQUENCES } from './disturb.ts'
import { type Draft, goldenLogin, goldenSequence, mutate, mutateBytes, wildText } from './mutate.ts'

type Attack = (context: AttackContext, wire: Wire) => Promise<void>

const STEP_MS = 100
const LOGIN_MS = 5000
/** Task attributes (RFC 7143, 11.3.1). */
const ORDERED = 2
const HEAD_OF_QUEUE = 3

function wireForm(wire: Wire, { header, data, ahs }: Draft): Buffer {
  return encodePdu(header, data, wire.cutter.digests, ahs)
}

/** Reads and forgets what comes, until nothing has come for `quietMs`. */
async function swallow(wire: Wire, quietMs = STEP_MS): Promise<void> {
  for (let pdus = 0; pdus < 2000; pdus++) {
    const more = await wire.next(quietMs).then(
      () => true,
      () => false,
    )
    if (!more) return
  }
}

/** Logs in as an honest initiator would, with keys of chance. */
async function enter({ targetName, random }: AttackContext, wire: Wire): Promise<LoginResult> {
  const digest = () => (random.chance(0.3) ? 'CRC32C' : 'None')
  return login(wire, {
    targetName,
    timeoutMs: LOGIN_MS,
    isid: Buffer.concat([Buffer.from([0x80]), random.bytes(5)]),
    keys: {
      HeaderDigest: digest(),
      DataDigest: digest(),
      InitialR2T: random.pick(['Yes', 'No']),
      ImmediateData: random.pick(['Yes', 'No']),
      MaxBurstLength: String(random.pick([512, 4096, 262144, 16776192])),
      FirstBurstLength: String(random.pick([512, 8192, 65536])),
      MaxRecvDataSegmentLength: String(random.pick([512, 8192, 262144])),
    },
  })
}

function writeCommand(cmdSn: number, tag: number, blocks: number, lba: number): Buffer {
  const header = newHeader(OP.SCSI_COMMAND, FINAL | 0x20 | 1, tag)
  header.writeUInt32BE(blocks * 512, AT.EXPECTED_BYTES)
  header.writeUInt32BE(cmdSn >>> 0, AT.CMD_SN)
  write10(lba, blocks).copy(header, AT.CDB)
  return header
}

/** Every attack by its name; the name leads the summary. */
export const ATTACKS: Readonly<Record<string, Attack>> = {
  async 'garbage instead of a login'({ random }, wire) {
    wire.write(random.bytes(random.between(1, 65536)))
    await swallow(wire)
  },

  async 'another PDU before the login'({ random }, wire) {
    const header = newHeader(random.below(256), random.below(256), random.u32())
    wire.write(
      wireForm(
        wire,
        mutate(random, { header, data: random.bytes(random.below(512)), ahs: Buffer.alloc(0) }),
      ),
    )
    await swallow(wire)
  },

  async 'a mutated login'({ random, targetName }, wire) {
    wire.write(wireForm(wire, mutate(random, goldenLogin(random, targetName))))
    await swallow(wire)
  },

  async 'a login with broken lengths'({ random, targetName }, wire) {
    wire.write(mutateBytes(random, wireForm(wire, goldenLogin(random, targetName))))
    await swallow(wire)
  },

  async 'wild text in a login'({ random, targetName }, wire) {
    const draft = goldenLogin(random, targetName)
    draft.data = wildText(random, targetName)
    for (let round = random.between(1, 6); round > 0; round--) {
      draft.header[AT.FLAGS] = random.below(256)
      wire.write(wireForm(wire, draft))
      draft.data = wildText(random, targetName)
      await sleep(random.below(20))
    }
    await swallow(wire)
  },

  async 'text that is continued for ever'({ random, targetName }, wire) {
    const draft = goldenLogin(random, targetName)
    draft.header[AT.FLAGS] = CONTINUE
    for (let round = 0; round < 64 && !wire.ended; round++) {
      draft.data = Buffer.alloc(random.between(0, 8192), 0x41)
      wire.write(wireForm(wire, draft))
    }
    await swallow(wire)
  },

  async 'a login byte by byte, then nothing'({ random, targetName }, wire) {
    const bytes = wireForm(wire, goldenLogin(random, targetName))
    const stopAt = random.below(bytes.length)
    for (let at = 0; at < stopAt && !wire.ended; at++) {
      wire.write(bytes.subarray(at, at + 1))
      await sleep(random.below(4))
    }
    await sleep(random.below(1000))
  },

  async 'a connection that says nothing'({ random }, wire) {
    await sleep(random.below(1500))
    if (random.chance(0.3)) wire.socket.end()
    await sleep(50)
  },

  async 'mutated requests'(context, wire) {
    const { random } = context
    const result = await enter(context, wire)
    const drafts = goldenSequence(random, result)
    if (random.chance(0.2)) random.shuffle(drafts)
    const rate = random.pick([0, 0.1, 0.5, 1])
    for (const draft of drafts) {
      if (random.chance(rate)) mutate(random, draft)
      let bytes = wireForm(wire, draft)
      if (random.chance(rate / 10)) bytes = mutateBytes(random, bytes)
      wire.write(bytes)
      if (random.chance(0.1)) wire.write(bytes)
      if (random.chance(0.2)) await sleep(random.below(5))
    }
    await swallow(wire)
  },

  async 'requests in segments of a few bytes'(context, wire) {
    const { random } = context
    const result = await enter(context, wire)
    const bytes = Buffer.concat(
      goldenSequence(random, result).map((draft) => wireForm(wire, draft)),
    )
    for (let at = 0, cuts = 0; at < bytes.length && cuts < 300 && !wire.ended; cuts++) {
      const length = random.between(1, random.chance(0.5) ? 3 : 3000)
      wire.write(bytes.subarray(at, at + length))
      at += length
      await new Promise((resolve) => setImmediate(resolve))
    }
    await swallow(wire)
  },

  async 'writes whose data never comes'(context, wire) {
    const { random } = context
    const { cmdSn } = await enter(context, wire)
    const count = random.between(1, 140)
    for (let i = 0; i < count; i++) {
      wire.send(writeCommand(cmdSn + i, 0x100 + i, random.between(1, 2048), random.below(20000)))
    }
    await sleep(random.below(600))
  },

  async 'R2Ts that are answered wrongly'(context, wire) {
    const { random } = context
    const { cmdSn } = await enter(context, wire)
    for (let i = 0; i < 8; i++) wire.send(writeCommand(cmdSn + i, 0x100 + i, 512, 1000 * i))
    for (let answered = 0; answered < 40; answered++) {
      const pdu = await wire.next(STEP_MS).catch(() => undefined)
      if (pdu === undefined) return
      if ((pdu.header[0] ?? 0) !== OP.R2T) continue
      const header = newHeader(
        OP.DATA_OUT,
        random.pick([0, FINAL]),
        pdu.header.readUInt32BE(AT.TAG),
      )
      pdu.header.copy(header, AT.TRANSFER_TAG, AT.TRANSFER_TAG, AT.TRANSFER_TAG + 4)
      pdu.header.copy(header, AT.BUFFER_OFFSET, AT.BUFFER_OFFSET, AT.BUFFER_OFFSET + 4)
      const draft = { header, data: random.bytes(random.below(8192)), ahs: Buffer.alloc(0) }
      wire.write(wireForm(wire, random.chance(0.7) ? mutate(random, draft) : draft))
    }
  },

  async 'answers that are not read'(context, wire) {
    const { random } = context
    const { cmdSn } = await enter(context, wire)
    wire.socket.pause()
    for (let i = 0; i < 128; i++) {
      const header = newHeader(OP.SCSI_COMMAND, FINAL | 0x40 | 1, 0x100 + i)
      header.writeUInt32BE(1024 * 512, AT.EXPECTED_BYTES)
      header.writeUInt32BE((cmdSn + i) >>> 0, AT.CMD_SN)
      read10(random.below(20000), 1024).copy(header, AT.CDB)
      wire.send(header)
    }
    const ping = newHeader(OP.NOP_OUT | IMMEDIATE, FINAL, 7)
    ping.writeUInt32BE(NO_TAG, AT.TRANSFER_TAG)
    for (let i = random.below(200); i > 0; i--) wire.send(ping, Buffer.alloc(8192, 0x70))
    await sleep(random.below(800))
  },

  async 'a storm of task management'(context, wire) {
    const { random } = context
    const { cmdSn } = await enter(context, wire)
    let sent = 0
    for (let i = 0; i < 200; i++) {
      if (random.chance(0.5)) {
        wire.send(
          writeCommand(cmdSn + sent, 0x100 + i, random.between(1, 64), random.below(20000)),
          undefined,
        )
        sent++
        continue
      }
      const header = newHeader(
        OP.TASK_MANAGEMENT | IMMEDIATE,
        FINAL | random.between(1, 7),
        0x1000 + i,
      )
      header.writeUInt32BE(0x100 + random.below(i + 1), 20)
      header.writeUInt32BE((cmdSn + sent) >>> 0, AT.CMD_SN)
      header.writeUInt32BE((cmdSn + random.below(sent + 1)) >>> 0, 32)
      wire.send(header)
    }
    await swallow(wire)
  },

  // On the unit of the honest sessions: what cannot run must not hold them up.
  async 'ordered writes without their data'({ random, sharedTargetName, spareBlock }, wire) {
    const { cmdSn } = await login(wire, {
      targetName: sharedTargetName,
      keys: { InitialR2T: 'Yes', ImmediateData: 'No' },
      timeoutMs: LOGIN_MS,
    })
    for (let i = 0; i < random.between(1, 4); i++) {
      const header = writeCommand(cmdSn + i, 0x100 + i, 64, spareBlock)
      header[AT.FLAGS] = FINAL | 0x20 | random.pick([ORDERED, HEAD_OF_QUEUE])
      wire.send(header)
    }
    await sleep(random.between(500, 5000))
  },

  async 'ordered reads that are not taken'({ random, sharedTargetName, spareBlock }, wire) {
    const { cmdSn } = await login(wire, { targetName: sharedTargetName, timeoutMs: LOGIN_MS })
    wire.socket.pause()
    const attribute = random.pick([ORDERED, HEAD_OF_QUEUE])
    for (let i = 0; i < 48; i++) {
      const header = newHeader(OP.SCSI_COMMAND, FINAL | 0x40 | attribute, 0x100 + i)
      header.writeUInt32BE(2048 * 512, AT.EXPECTED_BYTES)
      header.writeUInt32BE((cmdSn + i) >>> 0, AT.CMD_SN)
      read10(spareBlock, 2048).copy(header, AT.CDB)
      wire.send(header)
    }
    await sleep(random.between(500, 5000))
  },

  async 'wrong digests'(context, wire) {
    const { random } = context
    const result = await enter(context, wire)
    const { header: useHeader, data: useData } = wire.cutter.digests
    for (const { header, data } of goldenSequence(random, result)) {
      const bytes = encodePdu(header, data, { header: useHeader, data: useData })
      if (random.chance(0.3)) digestOf(random.bytes(4)).copy(bytes, bytes.length - 4)
      wire.write(bytes)
    }
    await swallow(wire)
  },

  async 'many logins of one initiator port'(context, wire) {
    const { port, address, targetName } = context
    const isid = randomIsid()
    const others = await Promise.all(
      Array.from({ length: 4 }, () => Wire.connect({ port, localAddress: address })),
    )
    await Promise.allSettled(
      [wire, ...others].map((each) => login(each, { targetName, isid, timeoutMs: LOGIN_MS })),
    )
    for (const other of others) other.destroy()
  },

  async 'text for ever in the full feature phase'(context, wire) {
    const { random } = context
    const { cmdSn } = await enter(context, wire)
    for (let i = 0; i < 100; i++) {
      const header = newHeader(OP.TEXT, CONTINUE, 0x100)
      header.writeUInt32BE(i === 0 ? NO_TAG : random.u32(), AT.TRANSFER_TAG)
      header.writeUInt32BE((cmdSn + i) >>> 0, AT.CMD_SN)
      wire.send(header, Buffer.alloc(random.between(0, 8192), 0x41))
    }
    await swallow(wire)
  },

  ...SEQUENCES,
}

/** Runs one case: connects, attacks, and leaves in one of the ways in which peers leave. */
export async function runAttack(name: string, context: AttackContext): Promise<void> {
  const { port, address, random } = context
  const wire = await Wire.connect({ port, localAddress: address, timeoutMs: 5000 })
  try {
    await ATTACKS[name]?.(context, wire)
  } finally {
    if (random.chance(0.3)) wire.socket.resetAndDestroy()
    else wire.destroy()
  }
}
