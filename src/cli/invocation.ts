/**
 * One run of a command: what was typed, the terminal, the connection to the daemon. Made by program.ts; the
 * commands that need more than the common course (commands.ts) work on it.
 */
import { CONTROL_ANSWER_MS, CONTROL_LOOK_MS, CONTROL_RECONNECT_MS } from '../base/limits.ts'
import type { Answer } from '../control/daemon-reports.ts'
import { CONFIG_SPECS, methodName } from '../control/daemon-verbs.ts'
import { type CallOptions, type RpcClient, UnreachableError } from '../control/rpc-client.ts'
import type { VerbSpec } from '../control/verb-spec.ts'
import { connect } from './client.ts'
import { jsonText, printableAnswer, type TableOptions } from './render.ts'
import type { Terminal } from './terminal.ts'

/** What the common options say. */
export interface CommonFlags {
  readonly json: boolean
  readonly output: string | undefined
  readonly sort: string | undefined
  readonly headings: boolean
  readonly exact: boolean
  readonly verbose: boolean
  readonly dryRun: boolean
  readonly yes: boolean
  readonly wait: boolean
  readonly socket: string | undefined
}

export class Invocation {
  readonly spec: VerbSpec
  /** As the daemon gets them, without dryRun. */
  readonly parameters: Readonly<Record<string, unknown>>
  readonly flags: CommonFlags
  /** Options that the daemon does not know: `--watch`, `--timeout`. */
  readonly extra: Readonly<Record<string, unknown>>
  readonly terminal: Terminal
  #client: RpcClient | undefined

  constructor(init: {
    spec: VerbSpec
    parameters: Readonly<Record<string, unknown>>
    flags: CommonFlags
    extra: Readonly<Record<string, unknown>>
    terminal: Terminal
  }) {
    this.spec = init.spec
    this.parameters = init.parameters
    this.flags = init.flags
    this.extra = init.extra
    this.terminal = init.terminal
  }

  async client(): Promise<RpcClient> {
    const mayLook = this.spec.readOnly && !this.spec.confidential
    this.#client ??= await connect(this.flags.socket, mayLook)
    return this.#client
  }

  /** Calls the command's own method. */
  async call<T extends object>(
    extra: Readonly<Record<string, unknown>> = {},
    options: CallOptions = {},
  ): Promise<T & Answer> {
    const client = await this.client()
    const parameters = { ...this.parameters, ...extra }
    const timeoutMs = this.spec.readOnly ? CONTROL_LOOK_MS : CONTROL_ANSWER_MS
    const answer = await client.call(methodName(this.spec), parameters, { timeoutMs, ...options })
    // A file is dumped as it is, but not to a terminal.
    const isFile = this.spec === CONFIG_SPECS.dump && !this.terminal.outIsTty
    return (this.flags.json || isFile ? answer : printableAnswer(answer)) as T & Answer
  }

  /**
   * Runs `work`, which uses {@link client}, and runs it again when the daemon ends meanwhile and is there again: for
   * commands that follow something, whose user wants to see a restart through. Rejects with {@link UnreachableError}
   * only where no daemon has ever answered.
   */
  async overRestarts<T>(work: () => Promise<T>): Promise<T> {
    await this.client()
    for (let said = false; ; said = true) {
      try {
        return await work()
      } catch (error) {
        if (!(error instanceof UnreachableError)) throw error
        this.close()
        if (!said) this.terminal.err(`${error.message}; waiting for plexusd\n`)
        await this.terminal.sleep(CONTROL_RECONNECT_MS)
      }
    }
  }

  get tableOptions(): TableOptions {
    const { output, sort, headings, exact, verbose } = this.flags
    return { output, sort, headings, exact, verbose, colour: this.terminal.colour }
  }

  out(text: string): void {
    this.terminal.out(text)
  }

  json(answer: unknown, indent = 2): void {
    this.terminal.out(`${jsonText(answer, indent)}\n`)
  }

  close(): void {
    this.#client?.close()
    this.#client = undefined
  }
}
