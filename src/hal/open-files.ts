/** How many file descriptors this process may have open. Read once, at start, by the daemon. */
import { readFileSync } from 'node:fs'

/** The soft limit, which Node has raised to the hard one at its start (proc(5), limits). */
export function openFilesMax(): number {
  let text = ''
  try {
    text = readFileSync('/proc/self/limits', 'latin1')
  } catch {
    // Without /proc nothing is known, and the kernel's own refusal has to do.
  }
  const limit = Number(/^Max open files\s+(\d+)/m.exec(text)?.[1] ?? Number.NaN)
  return Number.isNaN(limit) ? Number.POSITIVE_INFINITY : limit
}
