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

/** Adds them; each gives `end` the exit code, or a promise of it. */
export function addLocalCommands(
  program: Command,
  terminal: Terminal,
  end: (exit: number | Promise<number>) => void,
): void {
  program
    .command('version')
    .description('print the version')
    .action(() => {
      terminal.out(`plexus ${plexusVersion()} (node ${process.versions.node})\n`)
      end(EXIT.DONE)
    })
  program
    .command('completion')
    .description('print the completion script of a shell')
    .addArgument(new Argument('<shell>', 'which one').choices(Object.keys(COMPLETION_SCRIPTS)))
    .action((shell: string) => {
      terminal.out(COMPLETION_SCRIPTS[shell] ?? '')
      end(EXIT.DONE)
    })
  program
    .command('man')
    .description('print the reference of all commands, as Markdown')
    .action(() => {
      terminal.out(reference(program))
      end(EXIT.DONE)
    })
  program
    .command('__complete', { hidden: true })
    .argument('[words...]')
    .action((words: string[]) => {
      const { socket } = program.opts<{ socket?: string }>()
      const names = complete(program, words, (kind) => askNames(kind, socket))
      end(
        names.then((lines) => {
          terminal.out(lines.map((line) => `${line}\n`).join(''))
          return EXIT.DONE
        }),
      )
    })
  const config = program.commands.find((one) => one.name() === 'config') ?? program
  config
    .command('check')
    .description('say everything that is wrong with a configuration; needs no daemon')
    .argument('[file]', `default: ${CONFIG_FILE}`)
    .action((file: string | undefined) => {
      end(plexusd(['--check', '--config', file ?? CONFIG_FILE], terminal))
    })
}
