#!/usr/bin/env node
/**
 * plexus, the command line of administrators. Imports src/base only; what needs the daemon's code is done by
 * the daemon: `config check` runs `plexusd --check`. Exit codes: 0 done, 1 failed, 2 usage or configuration.
 */
import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { Command, CommanderError } from 'commander'
import { plexusVersion } from '../base/version.ts'

const EXIT_FAILED = 1
const EXIT_USAGE = 2

/** Runs plexusd, which lies beside this file in one package, and ends as it ends. */
function plexusd(args: readonly string[]): number {
  const daemon = fileURLToPath(new URL('../daemon/plexusd.js', import.meta.url))
  const { status, error } = spawnSync(process.execPath, [daemon, ...args], { stdio: 'inherit' })
  if (error) process.stderr.write(`plexusd cannot be run: ${error.message}\n`)
  return status ?? EXIT_FAILED
}

function run(argv: readonly string[]): number {
  let status = 0
  const program = new Command('plexus')
    .description('Administers a Plexus iSCSI SAN appliance.')
    .version(plexusVersion(), '--version', 'print the version')
    .exitOverride()
  program
    .command('version')
    .description('print the version')
    .action(() => {
      process.stdout.write(`plexus ${plexusVersion()} (node ${process.versions.node})\n`)
    })
  program
    .command('config')
    .description('the configuration')
    .command('check <file>')
    .description('say everything that is wrong with a configuration')
    .action((file: string) => {
      status = plexusd(['--check', '--config', file])
    })
  try {
    program.parse(argv, { from: 'user' })
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error
    return error.exitCode === 0 ? 0 : EXIT_USAGE
  }
  return status
}

process.exitCode = run(process.argv.slice(2))
