/** Commands that need no daemon: version, completion, man, and `config check`, which plexusd itself carries out. */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Argument, type Command } from 'commander'
import { plexusVersion } from '../base/version.ts'
import { EXIT } from '../control/protocol.ts'
import { askNames, COMPLETION_SCRIPTS, complete } from './completion.ts'
import { reference } from './man.ts'
import type { Terminal } from './terminal.ts'

const CONFIG_FILE = '/etc/plexus/plexus.yaml'

/** Runs plexusd, which lies beside this file in one package, and ends as it ends. */
function plexusd(args: readonly string[], terminal: Terminal): number {
  const daemon = fileURLToPath(new URL('../daemon/plexusd.js', import.meta.url))
  const { status, error } = spawnSync(process.execPath, [daemon, ...args], { stdio: 'inherit' })
  if (error) terminal.err(`plexusd cannot be run: ${error.message}\n`)
  return status ?? EXIT.FAILED
}

/** Adds them. `onTyped` hears what the command line asks for: a run that gives the exit code. */
export function addLocalCommands(
  program: Command,
  terminal: Terminal,
  onTyped: (run: () => number | Promise<number>) => void,
): void {
  const prints = (text: () => string) => (): void =>
    onTyped(() => {
      terminal.out(text())
      return EXIT.DONE
    })
  program
    .command('version')
    .description('print the version')
    .action(prints(() => `plexus ${plexusVersion()} (node ${process.versions.node})\n`))
  program
    .command('completion')
    .description('print the completion script of a shell')
    .addArgument(new Argument('<shell>', 'which one').choices(Object.keys(COMPLETION_SCRIPTS)))
    .action((shell: string) => prints(() => COMPLETION_SCRIPTS[shell] ?? '')())
  program
    .command('man')
    .description('print the reference of all commands, as Markdown')
    .action(prints(() => reference(program)))
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action((words: string[]) =>
      onTyped(async () => {
        const { socket } = program.opts<{ socket?: string }>()
        const lines = await complete(program, words, (kind) => askNames(kind, socket))
        terminal.out(lines.map((line) => `${line}\n`).join(''))
        return EXIT.DONE
      }),
    )
  const config = program.commands.find((one) => one.name() === 'config') ?? program
  config
    .command('check')
    .description('say everything that is wrong with a configuration; needs no daemon')
    .argument('[file]', `default: ${CONFIG_FILE}`)
    .action((file: string | undefined) =>
      onTyped(() => plexusd(['--check', '--config', file ?? CONFIG_FILE], terminal)),
    )
}
