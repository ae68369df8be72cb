/**
 * Completion: `plexus completion SHELL` prints a script that asks `plexus __complete WORDS…` for what may stand at
 * the cursor; that walks the declarations and asks the daemon for the names of objects. A daemon that does not
 * answer gives no names, and never an error in the middle of a line.
 */
import type { Command, Option } from 'commander'
import { ALL_VERB_SPECS } from '../control/all-verbs.ts'
import type { NameList } from '../control/daemon-reports.ts'
import { EVENT_SPECS, NAMES } from '../control/daemon-verbs.ts'
import { optionFlag } from '../control/parameters.ts'
import type { ArgumentKind, VerbSpec } from '../control/verb-spec.ts'
import { connect } from './client.ts'

/** Says to the script: names of files belong here. */
const FILES = ':files'
/** Nobody waits longer for a name while typing. */
const NAMES_MS = 1_000

const BASH = `# plexus completion for bash: source it, or put it into /etc/bash_completion.d/plexus
_plexus() {
  local word="\${COMP_WORDS[COMP_CWORD]}" line
  COMPREPLY=()
  while IFS= read -r line; do
    if [[ "$line" == "${FILES}" ]]; then
      # Only here: a name that a folder has, too, would get a slash.
      compopt -o filenames 2>/dev/null
      while IFS= read -r line; do COMPREPLY+=("$line"); done < <(compgen -f -- "$word")
    else
      COMPREPLY+=("\${line%%$'\\t'*}")
    fi
  done < <(plexus __complete -- "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null)
}
complete -o nosort -F _plexus plexus
`

const ZSH = `#compdef plexus
# plexus completion for zsh: put it as _plexus into a directory of $fpath, or source it after compinit
_plexus() {
  local -a lines described
  local line
  lines=("\${(@f)$(plexus __complete -- "\${(@)words[2,CURRENT]}" 2>/dev/null)}")
  for line in $lines; do
    if [[ "$line" == "${FILES}" ]]; then
      _files
    elif [[ -n "$line" ]]; then
      described+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
    fi
  done
  (( \${#described} )) && _describe -V plexus described
}
if [[ "\${funcstack[1]}" == "_plexus" ]]; then _plexus "$@"; else compdef _plexus plexus; fi
`

const FISH = `# plexus completion for fish: put it into ~/.config/fish/completions/plexus.fish
function __plexus_complete
  set -l words (commandline -opc) (commandline -ct)
  for line in (plexus __complete -- $words[2..-1] 2>/dev/null)
    if test "$line" = "${FILES}"
      __fish_complete_path (commandline -ct)
    else
      echo $line
    end
  end
end
complete -c plexus -f -a '(__plexus_complete)'
`

export const COMPLETION_SCRIPTS: Readonly<Record<string, string>> = {
  bash: BASH,
  zsh: ZSH,
  fish: FISH,
}

type NamesOf = (kind: ArgumentKind) => Promise<readonly string[]>

/** The names of a kind of object, from the daemon; none when it does not answer soon. */
export async function askNames(
  kind: ArgumentKind,
  socket: string | undefined,
): Promise<readonly string[]> {
  try {
    const client = await connect(socket, true)
    try {
      const answer = await client.call(NAMES.name, { kind }, { timeoutMs: NAMES_MS })
      return (answer as NameList).names
    } finally {
      client.close()
    }
  } catch {
    return []
  }
}

function specOf(path: readonly string[]): VerbSpec | undefined {
  if (path.length === 1 && path[0] === EVENT_SPECS.list.noun) return EVENT_SPECS.list
  const [noun, name] = path.length === 1 ? ['', path[0]] : path
  return ALL_VERB_SPECS.find((spec) => spec.noun === noun && spec.name === name)
}

async function valuesOf(
  row: { readonly kind: ArgumentKind; readonly choices?: readonly string[] | undefined },
  namesOf: NamesOf,
): Promise<readonly string[]> {
  if (row.choices) return row.choices
  if (row.kind === 'file') return [FILES]
  return row.kind === 'text' || row.kind === 'size' ? [] : namesOf(row.kind)
}

function findOption(command: Command, word: string): Option | undefined {
  return command.options.find((one) => one.long === word || one.short === word)
}

/** What the words before the cursor have come to: the command, its arguments so far, an option that wants a value. */
function walk(
  program: Command,
  words: readonly string[],
): {
  readonly command: Command
  readonly path: readonly string[]
  readonly positionals: number
  readonly open: Option | undefined
} {
  let command = program
  const path: string[] = []
  let positionals = 0
  let open: Option | undefined
  for (const word of words) {
    if (word.startsWith('-')) {
      const option = findOption(command, word)
      open = option && (option.required || option.optional) ? option : undefined
      continue
    }
    if (open) {
      if (!open.variadic) open = undefined
      continue
    }
    const next = command.commands.find((one) => one.name() === word || one.aliases().includes(word))
    if (next) {
      command = next
      path.push(next.name())
    } else {
      positionals++
    }
  }
  return { command, path, positionals, open }
}

/** Lines for the scripts: a candidate, perhaps with a tab and what it is. `words`: all after `plexus`, the last one unfinished. */
export async function complete(
  program: Command,
  words: readonly string[],
  namesOf: NamesOf,
): Promise<readonly string[]> {
  const current = words.at(-1) ?? ''
  const { command, path, positionals, open } = walk(program, words.slice(0, -1))
  const spec = specOf(path)
  const fits = (line: string): boolean => line === FILES || line.startsWith(current)
  if (current.startsWith('-')) {
    return command.options
      .filter((one) => !one.hidden)
      .map((one) => `${one.long ?? one.short ?? ''}\t${one.description}`)
      .filter(fits)
  }
  if (open) {
    const declared = spec?.options.find((one) => optionFlag(one.name) === open.long)
    if (!declared?.value) return open.argChoices?.filter(fits) ?? []
    const values = await valuesOf({ kind: declared.value, choices: declared.choices }, namesOf)
    return values.filter(fits)
  }
  if (spec) {
    const last = spec.arguments.at(-1)
    const row = spec.arguments[positionals] ?? (last?.variadic ? last : undefined)
    return row ? (await valuesOf(row, namesOf)).filter(fits) : []
  }
  const local = command.registeredArguments[positionals]
  if (local) return local.argChoices?.filter(fits) ?? [FILES]
  return command.commands
    .filter((one) => !one.name().startsWith('__'))
    .map((one) => `${one.name()}\t${one.description()}`)
    .filter(fits)
}
