/**
 * The task set of one logical unit (SAM-5, clause 8; control mode page TST = 0: all nexuses share it). It decides when a task
 * starts, and remembers every task from admission to its end, so that task management finds it.
 * Used by logical-unit.ts (owns it) and device-server.ts (admits, enters, aborts).
 *
 *   admit -> COLLECTING -> enter -> (WAITING ->) RUNNING -> taskEnded
 *                 ^------------- taskPaused ---------'      between two pieces
 *
 * Who waits for whom; `older` is by order of admission, HEAD OF QUEUE tasks count as older than all:
 *   1. every task for an older ORDERED or HEAD OF QUEUE task, an ORDERED task for every older one (8.9); a HEAD OF QUEUE
 *      task for neither.
 *   2. a task of class `unit` for all that run, all but `none` for it while it runs.
 *   3. overlapping ranges: `exclusive` for all that run, all for it. Plain reads and writes do not wait for each
 *      other: SBC leaves the order of overlapping commands in flight to the initiator.
 *   4. overlapping ranges: everything for a fence. A fence is an aborted task whose I/O is still with the disk and may change
 *      the medium: the abort is answered at once, and yet no old write lands after a newer one.
 * A task that waits for its initiator (COLLECTING), or by rule 1 behind such a one of its own nexus, is not enabled: other
 * nexuses do not wait for it, whatever the rules say. An initiator that stops in the middle of a write delays only its own
 * tasks.
 * Rules 2 and 3 hold against waiting tasks, too, if they are older; thus the order is first in, first out among those in conflict,
 * nobody starves, and as waiting is only for older or running ones there is no deadlock.
 *
 * Nearly always there is no barrier, no exclusive task and no fence: then `enter` compares four counters and
 * starts the task, without a search or an allocation.
 */
import { assert } from '../../base/assert.ts'
import {
  type AbortAnswer,
  STATUS,
  TASK_ATTRIBUTE,
  TASK_STATE,
  type Task,
  type TaskOwner,
} from './task.ts'
import type { Nexus, SerializationClass } from './types.ts'

export class TaskSet implements TaskOwner {
  readonly #start: (task: Task) => void
  readonly #ended: (task: Task) => void
  #first: Task | undefined
  #last: Task | undefined
  #firstWaiting: Task | undefined
  #lastWaiting: Task | undefined
  #size = 0
  #waiting = 0
  /** ORDERED and HEAD OF QUEUE tasks that are not aborted, in any state. */
  #barriers = 0
  /** Tasks of class `exclusive` and `unit` that wait or run. */
  #exclusives = 0
  #fences = 0
  #sequence = 0
  #draining = false
  #drainAgain = false

  /**
   * `start` hands a task to its handler, which ends it at once or later; `ended` hears of every task that ended
   * after it had been started.
   */
  constructor(start: (task: Task) => void, ended: (task: Task) => void) {
    this.#start = start
    this.#ended = ended
  }

  /** Tasks in any state. */
  get size(): number {
    return this.#size
  }

  get waiting(): number {
    return this.#waiting
  }

  /** Aborted tasks with I/O in flight. */
  get fences(): number {
    return this.#fences
  }

  /** Takes a task in whose data is still to come. */
  admit(task: Task): void {
    assert(task.state === TASK_STATE.OUTSIDE, `task ${task.tag} is admitted once`)
    task.owner = this
    task.state = TASK_STATE.COLLECTING
    this.#sequence++
    task.sequence =
      task.attribute === TASK_ATTRIBUTE.HEAD_OF_QUEUE ? -this.#sequence : this.#sequence
    task.previous = this.#last
    if (this.#last) this.#last.next = task
    else this.#first = task
    this.#last = task
    this.#size++
    if (isBarrier(task)) this.#barriers++
  }

  /** The task's data is complete: starts it now, or when nothing is in its way any more. */
  enter(task: Task): void {
    assert(task.state === TASK_STATE.COLLECTING, `task ${task.tag} enters once`)
    if (isExclusive(task)) this.#exclusives++
    if (this.#blocked(task)) {
      task.state = TASK_STATE.WAITING
      this.#appendWaiting(task)
      return
    }
    task.state = TASK_STATE.RUNNING
    this.#start(task)
  }

  /** Called by {@link Task.finish}, after the transport has the result. */
  taskEnded(task: Task): void {
    if (task.state === TASK_STATE.COLLECTING) {
      // The transport ended it: no buffer for its data, or the data came wrong.
      this.#forget(task)
      if (this.#waiting > 0) this.#drain()
      return
    }
    assert(task.state === TASK_STATE.RUNNING, `task ${task.tag} ended while running`)
    if (task.aborted) this.#fences--
    this.#forget(task)
    this.#ended(task)
    if (this.#waiting > 0) this.#drain()
  }

  /** The task of a nexus with this tag, unless it was aborted. */
  find(nexus: Nexus, tag: number): Task | undefined {
    for (let task = this.#first; task; task = task.next) {
      if (task.tag === tag && task.nexus === nexus && !task.aborted && !task.completed) return task
    }
    return undefined
  }

  /** Called by {@link Task.endPiece}: the task waits for its initiator again. */
  taskPaused(task: Task): void {
    assert(task.state === TASK_STATE.RUNNING, `task ${task.tag} paused while running`)
    if (isExclusive(task)) this.#exclusives--
    task.state = TASK_STATE.COLLECTING
    if (this.#waiting > 0) this.#drain()
  }

  /**
   * Aborts the tasks that `concerns` picks, and tells the transport; `answer` says what their initiators are told, which is
   * nothing by default.
   */
  abort(
    concerns: (task: Task) => boolean,
    answer: (task: Task) => AbortAnswer | undefined = () => undefined,
  ): void {
    // Two steps, as the transport's callbacks may end further tasks and so change the list.
    const concerned: Task[] = []
    for (let task = this.#first; task; task = task.next) {
      if (!task.aborted && !task.completed && concerns(task)) concerned.push(task)
    }
    for (const task of concerned) {
      task.abortAnswer = answer(task)
      this.#markAborted(task)
    }
    for (const task of concerned) task.events.onAborted(task)
    if (this.#waiting > 0) this.#drain()
  }

  #markAborted(task: Task): void {
    if (isBarrier(task)) this.#barriers--
    task.aborted = true
    if (task.state === TASK_STATE.RUNNING) {
      this.#fences++
      return
    }
    if (task.state === TASK_STATE.WAITING) this.#removeWaiting(task)
    this.#forget(task)
  }

  /** Takes the task out of the list and the counters. */
  #forget(task: Task): void {
    if (isBarrier(task) && !task.aborted) this.#barriers--
    if (isExclusive(task) && task.state !== TASK_STATE.COLLECTING) this.#exclusives--
    if (task.previous) task.previous.next = task.next
    else this.#first = task.next
    if (task.next) task.next.previous = task.previous
    else this.#last = task.previous
    task.previous = undefined
    task.next = undefined
    task.owner = undefined
    task.state = TASK_STATE.OUTSIDE
    this.#size--
    if (this.#size === 0) this.#assertEmpty()
  }

  /** A counter that has drifted would take the short way where it must not, or never again. */
  #assertEmpty(): void {
    const left = this.#waiting + this.#barriers + this.#exclusives + this.#fences
    assert(left === 0, `an empty task set counts ${left} barriers, fences or waiting tasks, not 0`)
  }

  /** Starts whatever may start. Who is older is decided by `sequence`, not by the place in the list. */
  #drain(): void {
    // A handler may end its task at once, which leads here again: the outer call goes on for it.
    this.#drainAgain = true
    if (this.#draining) return
    this.#draining = true
    while (this.#drainAgain) {
      this.#drainAgain = false
      for (let task = this.#firstWaiting; task; task = task.nextWaiting) {
        if (this.#blocked(task)) continue
        this.#removeWaiting(task)
        task.state = TASK_STATE.RUNNING
        this.#start(task)
        // The list may have changed under the handler in any way: begin anew.
        this.#drainAgain = true
        break
      }
    }
    this.#draining = false
  }

  #blocked(task: Task): boolean {
    if (
      this.#barriers === 0 &&
      this.#exclusives === 0 &&
      this.#fences === 0 &&
      task.attribute !== TASK_ATTRIBUTE.ORDERED
    ) {
      return false
    }
    for (let other = this.#first; other; other = other.next) {
      if (other !== task && this.#isInTheWay(other, task)) return true
    }
    return false
  }

  /** Must `task`, which is to start, wait for `other`? The numbers are those of the file's comment. */
  #isInTheWay(other: Task, task: Task): boolean {
    if (other.aborted) {
      return other.rangeWrites && (classOf(task) === 'unit' || overlap(other, task))
    }
    const sameNexus = other.nexus === task.nexus
    if (!sameNexus && this.#isDormant(other)) return false
    if (comesBefore(other, task)) return true
    if (other.state === TASK_STATE.COLLECTING) return false
    const older = other.sequence < task.sequence && task.attribute !== TASK_ATTRIBUTE.HEAD_OF_QUEUE
    if (other.state === TASK_STATE.WAITING && !older) return false
    const itsClass = classOf(other)
    const ownClass = classOf(task)
    if (ownClass === 'unit') return true
    if (itsClass === 'unit') return ownClass !== 'none'
    return (itsClass === 'exclusive' || ownClass === 'exclusive') && overlap(other, task)
  }

  /** Does the task wait for its initiator, itself or behind an older one of its nexus by rule 1? */
  #isDormant(task: Task): boolean {
    if (task.state !== TASK_STATE.WAITING) return task.state === TASK_STATE.COLLECTING
    let collects = false
    for (let other = this.#first; other; other = other.next) {
      if (other.nexus !== task.nexus || other.sequence > task.sequence) continue
      if (other.state === TASK_STATE.COLLECTING) collects = true
      if (collects && isBarrier(other)) return true
    }
    return false
  }

  #appendWaiting(task: Task): void {
    task.previousWaiting = this.#lastWaiting
    if (this.#lastWaiting) this.#lastWaiting.nextWaiting = task
    else this.#firstWaiting = task
    this.#lastWaiting = task
    this.#waiting++
  }

  #removeWaiting(task: Task): void {
    if (task.previousWaiting) task.previousWaiting.nextWaiting = task.nextWaiting
    else this.#firstWaiting = task.nextWaiting
    if (task.nextWaiting) task.nextWaiting.previousWaiting = task.previousWaiting
    else this.#lastWaiting = task.previousWaiting
    task.previousWaiting = undefined
    task.nextWaiting = undefined
    this.#waiting--
  }
}

/** TAS = 1 (SAM-5, 5.6; control mode page): a task that another nexus' function aborts ends with TASK ABORTED at once. */
export function tellOthers(nexus: Nexus): (task: Task) => AbortAnswer | undefined {
  return (task) =>
    task.nexus === nexus ? undefined : { status: STATUS.TASK_ABORTED, sense: undefined }
}

function classOf(task: Task): SerializationClass {
  return task.command?.serialize ?? 'none'
}

function isBarrier(task: Task): boolean {
  return (
    task.attribute === TASK_ATTRIBUTE.ORDERED || task.attribute === TASK_ATTRIBUTE.HEAD_OF_QUEUE
  )
}

/** Rule 1. */
function comesBefore(other: Task, task: Task): boolean {
  if (other.sequence > task.sequence || task.attribute === TASK_ATTRIBUTE.HEAD_OF_QUEUE) {
    return false
  }
  return isBarrier(other) || task.attribute === TASK_ATTRIBUTE.ORDERED
}

function isExclusive(task: Task): boolean {
  const serialize = classOf(task)
  return serialize === 'exclusive' || serialize === 'unit'
}

function overlap(a: Task, b: Task): boolean {
  return (
    a.rangeOffset >= 0 &&
    b.rangeOffset >= 0 &&
    a.rangeOffset < b.rangeOffset + b.rangeBytes &&
    b.rangeOffset < a.rangeOffset + a.rangeBytes
  )
}
