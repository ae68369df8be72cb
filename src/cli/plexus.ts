#!/usr/bin/env node
/**
 * plexus, the command line of administrators. It asks the daemon over its control sockets and renders the answers;
 * nothing here knows of disks. Data goes to stdout, all else to stderr; the exit codes are in control/protocol.ts.
 */
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { CommanderError } from 'commander'
import { PlexusError } from '../base/errors.ts'
import { methodName } from '../control/daemon-verbs.ts'
import { EXIT, EXIT_OF_KIND } from '../control/protocol.ts'
import { UnreachableError } from '../control/rpc-client.ts'
import type { VerbSpec } from '../control/verb-spec.ts'
import { SPECIAL_COMMANDS } from './commands.ts'
import { runCommon } from './common.ts'
import { Invocation } from './invocation.ts'
import { addLocalCommands } from './local.ts'
import { makeProgram, type Typed } from './program.ts'
import { printable } from './render.ts'
import { processTerminal, type Terminal } from './terminal.ts'

/** The daemon gets the text of a file, not its name: it has other rights and another directory. */
function withFiles(
  spec: VerbSpec,
  parameters: Readonly<Record<string, unknown>>,
  terminal: Terminal,
): Readonly<Record<string, unknown>> {
  const read = (path: string): string => {
    try {
      return terminal.readFile(path)
    } catch (error) {
      const { code, message } = error as NodeJS.ErrnoException
      throw new PlexusError(code === 'ENOENT' ? 'not-found' : 'io', {
        op: 'read',
        subject: path,
        message: `${path} cannot be read: ${message}`,
        cause: error,
      })
    }
  }
  const texts = spec.arguments
    .filter(({ name, kind }) => kind === 'file' && parameters[name] !== undefined)
    .map(({ name }) => [name, read(String(parameters[name]))] as const)
  return { ...parameters, ...Object.fromEntries(texts) }
}

function exitOf(error: unknown, verbose: boolean, terminal: Terminal): number {
  if (!(error instanceof PlexusError)) throw error
  const detail = verbose ? ` [${error.kind}, ${error.op}, ${error.subject}]` : ''
  terminal.err(`${printable(`${error.message}${detail}`)}\n`)
  return error instanceof UnreachableError ? EXIT.UNREACHABLE : EXIT_OF_KIND[error.kind]
}

async function runTyped(
  { spec, parameters, flags, extra }: Typed,
  terminal: Terminal,
): Promise<number> {
  let invocation: Invocation | undefined
  try {
    const withTexts = withFiles(spec, parameters, terminal)
    invocation = new Invocation({ spec, parameters: withTexts, flags, extra, terminal })
    const special = SPECIAL_COMMANDS[methodName(spec)]
    return await (special ? special.run(invocation) : runCommon(invocation))
  } catch (error) {
    return exitOf(error, flags.verbose, terminal)
  } finally {
    invocation?.close()
  }
}

/** Runs one command line, without the program's own name. Resolves to the exit code. */
export async function runCli(argv: readonly string[], terminal: Terminal): Promise<number> {
  let run = (): number | Promise<number> => EXIT.USAGE
  const program = makeProgram(terminal, (typed) => {
    run = () => runTyped(typed, terminal)
  })
  addLocalCommands(program, terminal, (typed) => {
    run = typed
  })
  try {
    program.parse(argv, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? EXIT.DONE : EXIT.USAGE
  }
  return run()
}

function isMain(): boolean {
  const script = process.argv[1]
  return script !== undefined && realpathSync(script) === fileURLToPath(import.meta.url)
}

if (isMain()) process.exitCode = await runCli(process.argv.slice(2), processTerminal())
