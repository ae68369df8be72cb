/**
 * Where the command line talks to: the process's own streams, or a test's. Data goes to stdout, progress,
 * questions and errors to stderr.
 */
import { readFileSync } from 'node:fs'
import { createInterface } from 'node:readline/promises'

export interface Terminal {
  out(text: string): void
  err(text: string): void
  readonly outIsTty: boolean
  /** May a question be asked? */
  readonly canAsk: boolean
  readonly errIsTty: boolean
  readonly colour: boolean
  /** The answer to a question; empty at the end of the input. */
  ask(question: string): Promise<string>
  /** The text of a file; `-` is standard input. Throws what node:fs throws. */
  readFile(path: string): string
  sleep(ms: number): Promise<void>
  nowMs(): number
}

/** The terminal of this process. */
export function processTerminal(): Terminal {
  const { stdout, stderr, stdin, env } = process
  // A reader that has left (`| head`) is no error of ours.
  stdout.on('error', (error: NodeJS.ErrnoException) => {
    if (error.code === 'EPIPE') process.exit(0)
    throw error
  })
  const noColour = (env['NO_COLOR'] ?? '') !== ''
  return {
    out: (text) => void stdout.write(text),
    err: (text) => void stderr.write(text),
    outIsTty: stdout.isTTY === true,
    errIsTty: stderr.isTTY === true,
    canAsk: stdin.isTTY === true && stderr.isTTY === true,
    colour: stdout.isTTY === true && !noColour,
    async ask(question) {
      const lines = createInterface({ input: stdin, output: stderr })
      try {
        return await new Promise<string>((resolve) => {
          lines.once('close', () => resolve(''))
          lines.question(question).then(resolve, () => resolve(''))
        })
      } finally {
        lines.close()
      }
    },
    readFile: (path) => readFileSync(path === '-' ? 0 : path, 'utf8'),
    sleep: (ms) => new Promise((resolve) => setTimeout(resolve, ms)),
    nowMs: () => performance.now(),
  }
}
