#!/usr/bin/env node
/**
 * plexus, the command line of administrators. It asks the daemon over its control sockets and renders the answers;
 * nothing here knows of disks. Data goes to stdout, all else to stderr; the exit codes are in control/protocol.ts.
 */
import { realpathSync } from 'node:fs'
import { fileURLToPath } from 'node:url'
import { CommanderError } from 'commander'
import { PlexusError } from '../base/errors.ts'
import { commandName, methodName } from '../control/daemon-verbs.ts'
import { EXIT, EXIT_OF_KIND, OUTPUT_MAJOR, OUTPUT_MINOR } from '../control/protocol.ts'
import { UnreachableError } from '../control/rpc-client.ts'
import type { VerbSpec } from '../control/verb-spec.ts'
import { SPECIAL_COMMANDS } from './commands.ts'
import { runCommon } from './common.ts'
import { Invocation } from './invocation.ts'
import { addLocalCommands } from './local.ts'
import { makeProgram, type Typed } from './program.ts'
import { jsonText, printable } from './render.ts'
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

/** An error as `--json` prints it, on stderr. */
function errorText(command: string, error: PlexusError): string {
  const { kind, op, subject, message } = error
  const outputVersion = { command, major: OUTPUT_MAJOR, minor: OUTPUT_MINOR }
  return jsonText({ outputVersion, error: { kind, op, subject, message } }, 2)
}

function exitOf(error: unknown, { spec, flags }: Typed, terminal: Terminal): number {
  if (!(error instanceof PlexusError)) throw error
  const { kind, op, subject, message } = error
  const detail = flags.verbose ? ` [${kind}, ${op}, ${subject}]` : ''
  const text = flags.json ? errorText(commandName(spec), error) : printable(message + detail)
  terminal.err(`${text}\n`)
  return error instanceof UnreachableError ? EXIT.UNREACHABLE : EXIT_OF_KIND[kind]
}

async function runTyped(typed: Typed, terminal: Terminal): Promise<number> {
  const { spec, parameters, flags, extra } = typed
  let invocation: Invocation | undefined
  try {
    const withTexts = withFiles(spec, parameters, terminal)
    invocation = new Invocation({ spec, parameters: withTexts, flags, extra, terminal })
    const special = SPECIAL_COMMANDS[methodName(spec)]
    return await (special ? special.run(invocation) : runCommon(invocation))
  } catch (error) {
    return exitOf(error, typed, terminal)
  } finally {
    invocation?.close()
  }
}

/** Runs one command line, without the program's own name. Resolves to the exit code. */
export async function runCli(argv: readonly string[], terminal: Terminal): Promise<number> {
  let run = (): number | Promise<number> => EXIT.USAGE
  const usage: string[] = []
  const isJson = argv.includes('--json')
  const onTyped = (typed: Typed): void => {
    run = () => runTyped(typed, terminal)
  }
  const program = makeProgram(terminal, onTyped, (text) => {
    if (isJson) usage.push(text)
    else terminal.err(text)
  })
  addLocalCommands(program, terminal, (typed) => {
    run = typed
  })
  try {
    program.parse(argv, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    if (error.exitCode === 0) return EXIT.DONE
    if (isJson) {
      const message = usage.join('').trim()
      const refused = new PlexusError('invalid', { op: 'parse', subject: 'command line', message })
      terminal.err(`${errorText('', refused)}\n`)
    }
    return EXIT.USAGE
  }
  return run()
}

function isMain(): boolean {
  const script = process.argv[1]
  return script !== undefined && realpathSync(script) === fileURLToPath(import.meta.url)
}

if (isMain()) process.exitCode = await runCli(process.argv.slice(2), processTerminal())
