/**
 * The commands of `plexus`, made from the declarations of the verbs (control/all-verbs.ts): arguments, options,
 * aliases, help. plexus.ts runs it; completion.ts and man.ts walk it.
 */
import { Argument, Command, Option } from 'commander'
import { plexusVersion } from '../base/version.ts'
import { ALL_VERB_SPECS, NOUN_SUMMARIES } from '../control/all-verbs.ts'
import { EVENT_SPECS, methodName, NAMES } from '../control/daemon-verbs.ts'
import { optionFlag } from '../control/parameters.ts'
import type { ArgumentSpec, OptionSpec, VerbSpec } from '../control/verb-spec.ts'
import { SPECIAL_COMMANDS } from './commands.ts'
import type { CommonFlags } from './invocation.ts'
import { isTable } from './lists.ts'
import type { Terminal } from './terminal.ts'

const COMMON_GROUP = 'Common options:'
const TABLE_OPTIONS: readonly string[] = ['--output', '--sort']

/** What a command line turned out to mean. */
export interface Typed {
  readonly spec: VerbSpec
  readonly parameters: Readonly<Record<string, unknown>>
  readonly flags: CommonFlags
  readonly extra: Readonly<Record<string, unknown>>
}

/** `<devices...>`, `[name]`. */
function argumentOf(spec: ArgumentSpec): Argument {
  const name = `${kebab(spec.name)}${spec.variadic ? '...' : ''}`
  const made = new Argument(spec.optional ? `[${name}]` : `<${name}>`, spec.summary)
  return spec.choices ? made.choices([...spec.choices]) : made
}

const kebab = (name: string): string => optionFlag(name).slice(2)

function optionOf(spec: OptionSpec): Option {
  const short = spec.short === undefined ? '' : `-${spec.short}, `
  const value =
    spec.value === undefined ? '' : ` <${kebab(spec.value)}${spec.variadic ? '...' : ''}>`
  const made = new Option(`${short}${optionFlag(spec.name)}${value}`, spec.summary)
  return spec.choices ? made.choices([...spec.choices]) : made
}

/** Those of the common options that mean something for the verb. */
function commonOptions(spec: VerbSpec): Option[] {
  const table = spec.readOnly && isTable(spec)
  const all: [boolean, string, string][] = [
    [spec.dryRun === true, '--dry-run', 'say what would be done, and do nothing'],
    [spec.destructive === true, '--yes', 'do not ask'],
    [spec.dryRun === true, '--wait', 'wait for the jobs that it starts'],
    [true, '--json', 'print the answer as JSON'],
    [table, '-o, --output <columns>', 'columns, comma between them; +name adds to the usual'],
    [table, '--sort <column>', 'sort by a column; -name: downwards'],
    [spec.readOnly, '--no-headings', 'no headings, tabs between fields: for scripts'],
    [spec.readOnly, '-p, --exact', 'numbers as they are, not rounded to a unit'],
    [true, '--socket <path>', 'directory of the sockets, or one of them; default: /run/plexus'],
    [true, '-v, --verbose', 'all columns; with errors what kind they are'],
  ]
  return all
    .filter(([applies]) => applies)
    .map(([, flags, summary]) => {
      const option = new Option(flags, summary).helpGroup(COMMON_GROUP)
      // JSON has all that is known, in the order of the daemon.
      return TABLE_OPTIONS.includes(option.long ?? '') ? option.conflicts('json') : option
    })
}

function flagsOf(options: Readonly<Record<string, unknown>>): CommonFlags {
  const text = (name: string): string | undefined => {
    const value = options[name]
    return typeof value === 'string' ? value : undefined
  }
  return {
    json: options['json'] === true,
    output: text('output'),
    sort: text('sort'),
    headings: options['headings'] !== false,
    exact: options['exact'] === true,
    verbose: options['verbose'] === true,
    dryRun: options['dryRun'] === true,
    yes: options['yes'] === true,
    wait: options['wait'] === true,
    socket: text('socket'),
  }
}

/** The command line's words as the parameters of the verb, and the rest. */
function typedOf(spec: VerbSpec, command: Command): Typed {
  const given = command.optsWithGlobals<Record<string, unknown>>()
  const parameters: Record<string, unknown> = {}
  for (const [at, { name }] of spec.arguments.entries()) {
    const value: unknown = command.processedArgs[at]
    const isEmpty = value === undefined || (Array.isArray(value) && value.length === 0)
    if (!isEmpty) parameters[name] = value
  }
  for (const { name } of spec.options) {
    if (given[name] !== undefined) parameters[name] = given[name]
  }
  const declared = new Set(spec.options.map(({ name }) => name))
  const extra = Object.fromEntries(Object.entries(given).filter(([name]) => !declared.has(name)))
  return { spec, parameters, flags: flagsOf(extra), extra }
}

function addVerb(
  parent: Command,
  spec: VerbSpec,
  name: string,
  onTyped: (typed: Typed) => void,
): Command {
  const command = parent.command(name).description(`${spec.summary}`)
  for (const alias of spec.aliases ?? []) command.alias(alias)
  for (const one of spec.arguments) command.addArgument(argumentOf(one))
  for (const one of spec.options) command.addOption(optionOf(one))
  for (const one of SPECIAL_COMMANDS[methodName(spec)]?.options ?? []) {
    command.option(one.flags, one.summary, one.default)
  }
  for (const one of commonOptions(spec)) command.addOption(one)
  return command.action(() => onTyped(typedOf(spec, command)))
}

/** Verbs that are typed otherwise than by noun and name, or not at all. */
const HIDDEN: ReadonlySet<string> = new Set([
  methodName(NAMES),
  methodName(EVENT_SPECS.list),
  methodName(EVENT_SPECS.follow),
])

/** All commands. `onTyped` hears which verb was meant, `onError` what is wrong with the command line. */
export function makeProgram(
  terminal: Terminal,
  onTyped: (typed: Typed) => void,
  onError: (text: string) => void = (text) => terminal.err(text),
): Command {
  const program = new Command('plexus')
    .description('Administers a Plexus iSCSI SAN appliance.')
    .version(plexusVersion(), '--version', 'print the version')
    .configureOutput({
      writeOut: (text) => terminal.out(text),
      writeErr: onError,
      getOutHelpWidth: () => 100,
      getErrHelpWidth: () => 100,
    })
    // Also before the noun: it is about the daemon, not about the verb.
    .option('--socket <path>', 'directory of the sockets, or one of them; default: /run/plexus')
    .helpOption('-h, --help', 'print this help')
    .helpCommand(false)
    .exitOverride()
  const nouns = new Map<string, Command>()
  const nounOf = (noun: string): Command => {
    const known = nouns.get(noun)
    if (known) return known
    const made = program.command(noun).description(NOUN_SUMMARIES[noun] ?? noun)
    nouns.set(noun, made)
    return made
  }
  for (const spec of ALL_VERB_SPECS) {
    if (HIDDEN.has(methodName(spec))) continue
    addVerb(spec.noun === '' ? program : nounOf(spec.noun), spec, spec.name, onTyped)
  }
  addVerb(program, EVENT_SPECS.list, 'events', onTyped)
  return program
}
