/**
 * How a verb is declared: data from which the daemon checks parameters, and the command line makes its
 * arguments, help, completion and documentation. The action stands in the table of the class (engine) or of
 * the daemon; the declaration is shared, so that `plexus --help` needs no daemon.
 */

/** What an argument names: an object of a type, or another kind of thing; completion asks the daemon for the names. */
export type ArgumentKind =
  | 'type'
  | 'volume'
  | 'plex'
  | 'subdisk'
  | 'drive'
  | 'pool'
  | 'spare'
  | 'virstor'
  | 'device'
  | 'object'
  | 'set'
  | 'provider'
  | 'job'
  | 'size'
  | 'text'
  | 'file'

export interface ArgumentSpec {
  /** Key in the parameters, camelCase. */
  readonly name: string
  readonly kind: ArgumentKind
  readonly summary: string
  /** May be left out. Default: it must stand. */
  readonly optional?: boolean
  /** Takes all that follow; a list in the parameters. Only the last one. */
  readonly variadic?: boolean
  /** Only these words. */
  readonly choices?: readonly string[]
}

export interface OptionSpec {
  /** Key in the parameters, camelCase; `--kebab-case` on the command line. */
  readonly name: string
  /** One letter. */
  readonly short?: string
  /** Has a value; without it the option is a flag. */
  readonly value?: ArgumentKind
  readonly choices?: readonly string[]
  readonly summary: string
  /** Takes one or more values; a list in the parameters. */
  readonly variadic?: boolean
}

export interface VerbSpec {
  /** As typed before it: `vinum`, `volume`. */
  readonly noun: string
  /** As typed: `create`. */
  readonly name: string
  readonly aliases?: readonly string[]
  readonly summary: string
  readonly arguments: readonly ArgumentSpec[]
  readonly options: readonly OptionSpec[]
  /** Changes nothing: allowed on the status socket. */
  readonly readOnly: boolean
  /** Tells what is not for every user of the system: not allowed on the status socket although it only looks. */
  readonly confidential?: boolean
  /** Loses data or redundancy when the object is the wrong one: the command line asks for its name, or wants --yes. */
  readonly destructive?: boolean
  /** Answers one table: takes -o and --sort. */
  readonly table?: boolean
  /** Understands `dryRun`: answers the plan and changes nothing. Every verb that changes a configuration does. */
  readonly dryRun?: boolean
}
