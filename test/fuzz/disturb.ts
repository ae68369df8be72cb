/**
 * Sequence cases: a session that follows its script (session-script.ts) until one PDU is disturbed, or two: changed,
 * late, sent twice, left out, cut in the middle, or met by a reset, by task management of this or of another session,
 * or by a reader that stops.
 */
import { login } from '../support/initiator-login.ts'
import { AT, FINAL, IMMEDIATE, NO_TAG, newHeader, OP } from '../support/initiator-pdu.ts'
import { Wire } from '../support/initiator-wire.ts'
import { type AttackContext, sleep } from './attack-context.ts'
import { type Draft, mutate, mutateBytes } from './mutate.ts'
import type { Random } from './random.ts'
import { ScriptSession } from './script-session.ts'
import { SECTIONS, sessionScript, TMF, taskManagement } from './session-script.ts'

/** A PDU at the moment when it is to be sent. */
interface Delivery {
  readonly context: AttackContext
  readonly random: Random
  readonly session: ScriptSession
  readonly draft: Draft
  readonly bytes: Buffer
  send(bytes: Buffer): void
  /** Sends it after the next PDU. */
  hold(bytes: Buffer): void
}

/** True: the session goes on behind it. */
type Disturbance = (delivery: Delivery) => Promise<boolean>

const LATE_MS = 1500
const STOPPED_MS = 2500
/** Resets meet commands of other nexuses; the first two concern the own session alone. */
const FUNCTIONS = Object.values(TMF)
const FUNCTIONS_FOR_OTHERS = FUNCTIONS.filter(
  (fn) => fn !== TMF.ABORT_TASK && fn !== TMF.ABORT_TASK_SET,
)

/** A place in the PDU: most often in its data, where it has some. */
function middle({ random, bytes }: Delivery): number {
  const from = bytes.length > 48 && random.chance(0.8) ? 49 : 1
  return random.between(from, bytes.length - 1)
}

function leave({ session, random }: Delivery): boolean {
  const { socket } = session.wire
  if (random.chance(0.5)) socket.resetAndDestroy()
  else socket.destroy()
  return false
}

/** Task management by a session of its own, which another initiator could have. */
async function manageFromOther({ context, random }: Delivery): Promise<void> {
  const { port, address, targetName } = context
  const wire = await Wire.connect({ port, localAddress: address })
  try {
    const { cmdSn } = await login(wire, { targetName, timeoutMs: 5000 })
    const fn = random.pick(FUNCTIONS_FOR_OTHERS)
    const header = newHeader(OP.TASK_MANAGEMENT | IMMEDIATE, FINAL | fn, 1)
    header.writeUInt32BE(NO_TAG, 20)
    header.writeUInt32BE(cmdSn, AT.CMD_SN)
    wire.send(header)
    await wire.next(1000).catch(() => undefined)
  } finally {
    wire.destroy()
  }
}

const DISTURBANCES: Readonly<Record<string, Disturbance>> = {
  async 'a changed PDU'({ random, session, draft, send }) {
    send(session.encode(mutate(random, draft)))
    return true
  },
  async 'a PDU with other bytes'({ random, bytes, send }) {
    send(mutateBytes(random, bytes))
    return true
  },
  async 'a late PDU'({ random, bytes, send }) {
    await sleep(random.below(LATE_MS))
    send(bytes)
    return true
  },
  async 'a repeated PDU'({ bytes, send }) {
    send(bytes)
    send(bytes)
    return true
  },
  async 'two PDUs in the wrong order'({ bytes, hold }) {
    hold(bytes)
    return true
  },
  async 'a missing PDU'() {
    return true
  },
  async 'an end in the middle of a PDU'(delivery) {
    delivery.send(delivery.bytes.subarray(0, middle(delivery)))
    await sleep(delivery.random.pick([0, 5, 50]))
    return leave(delivery)
  },
  async 'a rest in the middle of a PDU'(delivery) {
    const { bytes, send, random } = delivery
    const at = middle(delivery)
    send(bytes.subarray(0, at))
    await sleep(random.below(LATE_MS))
    send(bytes.subarray(at))
    return true
  },
  async 'an end behind a PDU'(delivery) {
    delivery.send(delivery.bytes)
    return leave(delivery)
  },
  async 'half a connection'({ session, bytes, send, random }) {
    send(bytes)
    session.wire.socket.end()
    await sleep(random.below(LATE_MS))
    return false
  },
  async 'a reader that stops'({ session, bytes, send }) {
    session.stopReading()
    send(bytes)
    return true
  },
  async 'a reader that stops for a while'({ session, bytes, send, random }) {
    session.wire.socket.pause()
    send(bytes)
    await sleep(random.below(STOPPED_MS))
    session.wire.socket.resume()
    return true
  },
  async 'task management before a PDU'({ session, bytes, send, random }) {
    send(session.encode(taskManagement(session, random.pick(FUNCTIONS), session.newTag())))
    send(bytes)
    return true
  },
  async 'task management behind a PDU'({ session, bytes, send, random }) {
    send(bytes)
    send(session.encode(taskManagement(session, random.pick(FUNCTIONS), session.newTag())))
    return true
  },
  async 'task management of another session'(delivery) {
    delivery.send(delivery.bytes)
    await manageFromOther(delivery)
    return true
  },
  async 'task management of another session in the middle of a PDU'(delivery) {
    const { bytes, send } = delivery
    const at = middle(delivery)
    send(bytes.subarray(0, at))
    await sleep(20)
    await manageFromOther(delivery)
    send(bytes.subarray(at))
    return true
  },
  async 'task management of another session in the middle of a PDU, then the end'(delivery) {
    delivery.send(delivery.bytes.subarray(0, middle(delivery)))
    await sleep(20)
    await manageFromOther(delivery)
    return leave(delivery)
  },
}

interface Plan {
  readonly act: Disturbance
  /** Section, and PDU within it; where the section is shorter, the first PDU behind it. */
  readonly section: number
  readonly pdu: number
}

async function sequence(name: string, context: AttackContext, wire: Wire): Promise<void> {
  const { random, targetName } = context
  const initiatorName = `iqn.2026-11.test.plexus:fuzz-${random.below(8)}`
  const session = new ScriptSession({ wire, random, initiatorName, targetName })
  const names = Object.keys(SECTIONS)
  const sections = Array.from({ length: random.between(1, 4) }, () => random.pick(names))
  const plan = (act: Disturbance): Plan => ({
    act,
    // Section 0 is the login, which is left alone more often than not.
    section: random.chance(0.15) ? 0 : random.between(1, sections.length + 1),
    pdu: random.below(random.pick([2, 8])),
  })
  const first = DISTURBANCES[name]
  const pending = first ? [plan(first)] : []
  if (random.chance(0.25)) pending.push(plan(random.pick(Object.values(DISTURBANCES))))

  let held: Buffer | undefined
  const send = (bytes: Buffer): void => {
    wire.write(bytes)
    if (held) wire.write(held)
    held = undefined
  }
  const hold = (bytes: Buffer): void => {
    held = bytes
  }
  let at = { section: 0, pdu: -1 }
  for await (const { section, draft } of sessionScript(session, sections)) {
    at = section === at.section ? { section, pdu: at.pdu + 1 } : { section, pdu: 0 }
    const due = pending.findIndex(
      (one) => one.section < section || (one.section === section && one.pdu <= at.pdu),
    )
    const bytes = session.encode(draft)
    const [disturbance] = due < 0 ? [] : pending.splice(due, 1)
    if (!disturbance) send(bytes)
    else if (!(await disturbance.act({ context, random, session, draft, bytes, send, hold }))) {
      return
    }
    if (wire.ended) return
  }
  if (wire.socket.isPaused()) await sleep(random.below(STOPPED_MS))
}

/** A case for each disturbance, as attacks. */
export const SEQUENCES: Readonly<
  Record<string, (context: AttackContext, wire: Wire) => Promise<void>>
> = Object.fromEntries(
  Object.keys(DISTURBANCES).map((name) => [
    `sequence: ${name}`,
    (context: AttackContext, wire: Wire) => sequence(name, context, wire),
  ]),
)
