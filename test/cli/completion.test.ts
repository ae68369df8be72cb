/**
 * The completion scripts in the shells that they are for: each parses its own, and completes a verb, an option and a file
 * with it. What may stand where is in cli.test.ts. A shell that is not installed is skipped, and the test says so.
 */
import { spawnSync } from 'node:child_process'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { COMPLETION_SCRIPTS } from '../../src/cli/completion.ts'
import { programCommand } from '../support/daemon.ts'

const dir = mkdtempSync(join(tmpdir(), 'plexus-shells-'))
t.teardown(() => rmSync(dir, { recursive: true, force: true }))

/** A `plexus` that completes as the real one, and otherwise writes down how it was called. */
const ran = join(dir, 'ran')
const command = programCommand('cli/plexus').map((word) => `'${word}'`)
writeFileSync(
  join(dir, 'plexus'),
  `#!/bin/sh\n[ "$1" = __complete ] && exec ${command.join(' ')} "$@"\necho "$*" >> '${ran}'\n`,
)
chmodSync(join(dir, 'plexus'), 0o755)
writeFileSync(join(dir, 'volumes.conf'), '')
// A folder that is called as what is completed must not lend it its slash.
mkdirSync(join(dir, 'replace'))

interface Shell {
  /** Before the name of a script: parses it only. */
  readonly parse: readonly string[]
  /** How it is run without the user's own settings, before `-c`. */
  readonly plain: readonly string[]
  /** Its own program that completes each line of LINES with the script; every completed line is found in the output. */
  drive(script: string, lines: readonly string[]): string
}

/** Lines as they are typed, and as they are completed. */
const LINES: readonly (readonly [string, string])[] = [
  ['plexus volume repl', 'plexus volume replace'],
  ['plexus volume scrub db --dry', 'plexus volume scrub db --dry-run'],
  ['plexus vinum create volumes.c', 'plexus vinum create volumes.conf'],
]

const quoted = (text: string): string => `'${text}'`

const SHELLS: Readonly<Record<string, Shell>> = {
  // A bash of its own on a pseudo terminal: TAB is typed, and the line run.
  bash: {
    parse: ['-n'],
    plain: ['--norc', '--noprofile'],
    drive: (script, lines) =>
      [
        `type='sleep 1; echo source ${script}; sleep 1'`,
        ...lines.map((line) => `type="$type; printf '${line}\\t\\n'; sleep 2"`),
        `bash -c "$type; echo exit" | script -qec 'bash --norc --noprofile -i' /dev/null >/dev/null`,
        `while read -r line; do echo "plexus $line"; done < ${quoted(ran)}`,
      ].join('\n'),
  },
  // A zsh of its own on a pseudo terminal, with the completion system as people have it: TAB is typed, and the line run.
  zsh: {
    parse: ['-n'],
    plain: ['-f'],
    drive: (script, lines) =>
      [
        'zmodload zsh/zpty',
        'zpty shell zsh -f -i',
        `zpty -w shell "autoload -Uz compinit; compinit -u -D; source ${quoted(script)}"`,
        ...lines.map((line) => `zpty -w shell $'${line}\\t'`),
        'zpty -w shell exit',
        'while zpty -r shell line; do :; done',
        `while read -r line; do echo "plexus $line"; done < ${quoted(ran)}`,
      ].join('\n'),
  },
  fish: {
    parse: ['--no-execute'],
    plain: ['--no-config'],
    drive: (script, lines) =>
      [
        `source ${quoted(script)}`,
        ...lines.map(
          (line) =>
            `for word in (complete -C ${quoted(line)}); echo ${quoted(line.replace(/\S+$/, ''))}(string split -f1 \\t -- $word); end`,
        ),
      ].join('\n'),
  },
}

for (const [shell, script] of Object.entries(COMPLETION_SCRIPTS)) {
  const found = spawnSync(shell, ['-c', 'true']).error === undefined
  t.test(shell, { skip: found ? false : `${shell} is not installed` }, async (t) => {
    const { parse, plain, drive } = SHELLS[shell] as Shell
    const file = join(dir, `completion.${shell}`)
    writeFileSync(file, script)
    const run = (args: readonly string[]) => {
      const env = { ...process.env, PATH: `${dir}:${process.env['PATH']}`, TERM: 'dumb' }
      return spawnSync(shell, args, { cwd: dir, env, encoding: 'utf8', timeout: 240_000 })
    }
    t.match(run([...parse, file]), { status: 0, stdout: '', stderr: '' }, 'parses it')
    writeFileSync(ran, '')
    const program = drive(
      file,
      LINES.map(([typed]) => typed),
    )
    const { stdout, stderr } = run([...plain, '-c', program])
    const completed = stdout.split('\n').map((line) => line.trim())
    for (const [typed, line] of LINES) {
      t.ok(completed.includes(line), `${typed}: ${stdout}${stderr}${readFileSync(ran)}`)
    }
  })
}
