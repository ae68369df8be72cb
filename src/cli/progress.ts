/** Jobs in words: the bar of `plexus status` and the line that --wait and `plexus wait` keep up to date. */
import { formatSize } from '../base/bytes.ts'
import { formatDuration } from '../control/duration.ts'
import type { JobReport } from '../control/reports.ts'
import type { Terminal } from './terminal.ts'

const BAR_CELLS = 20

/** `[########>-----------]`, full without a head. */
export function progressBar(done: number, total: number): string {
  const part = total > 0 ? Math.min(1, done / total) : 1
  const cells = Math.floor(part * BAR_CELLS)
  if (cells >= BAR_CELLS) return `[${'#'.repeat(BAR_CELLS)}]`
  return `[${'#'.repeat(cells)}>${'-'.repeat(BAR_CELLS - cells - 1)}]`
}

/** `rebuild: [####>----]  41.2%  768 GiB of 1.82 TiB   212 MiB/s   1h 28m to go` */
export function progressLine(job: JobReport): string {
  const { kind, state, doneBytes, totalBytes, bytesPerSecond, etaSeconds } = job
  const percent = (totalBytes > 0 ? (doneBytes / totalBytes) * 100 : 100).toFixed(1)
  const parts = [
    `${kind}: ${progressBar(doneBytes, totalBytes)}  ${percent}%  ${formatSize(doneBytes)} of ${formatSize(totalBytes)}`,
  ]
  if (state === 'running') {
    parts.push(`${formatSize(Math.round(bytesPerSecond))}/s`)
    parts.push(
      etaSeconds === undefined ? 'time to go unknown' : `${formatDuration(etaSeconds)} to go`,
    )
  } else {
    parts.push(state)
  }
  if (job.mismatches > 0) parts.push(`${job.mismatches} mismatches`)
  return parts.join('   ')
}

/** How a job ended, in a sentence. */
export function endText(job: JobReport): string {
  const { kind, object, state, error, mismatches } = job
  if (state === 'failed') return `${kind} of ${object} failed: ${error ?? 'no reason is known'}`
  if (state === 'cancelled') return `${kind} of ${object} was cancelled`
  const checked = kind === 'check' || kind === 'repair'
  return `${kind} of ${object} is done${checked ? `, ${mismatches} mismatches` : ''}`
}

/** One line on stderr that is drawn over and over on a terminal, and not at all elsewhere. */
export class ProgressLine {
  readonly #terminal: Terminal
  #shown = false

  constructor(terminal: Terminal) {
    this.#terminal = terminal
  }

  show(text: string): void {
    if (!this.#terminal.errIsTty) return
    this.#shown = true
    this.#terminal.err(`\r${text}\u001b[K`)
  }

  clear(): void {
    if (this.#shown) this.#terminal.err('\r\u001b[K')
    this.#shown = false
  }
}
