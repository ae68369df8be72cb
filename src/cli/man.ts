/**
 * `plexus man`: the reference of all commands as Markdown, from the same declarations as the help.
 * docs/cli-reference.md is its output (`npm run docs`); a test holds the two together.
 */
import type { Command } from 'commander'
import { EXIT } from '../control/protocol.ts'

const EXIT_WORDS: readonly (readonly [number, string])[] = [
  [EXIT.DONE, 'done; `status --check`: healthy'],
  [EXIT.FAILED, 'failed'],
  [EXIT.USAGE, 'usage: the command line or a value in it is wrong'],
  [EXIT.UNREACHABLE, 'the daemon cannot be reached'],
  [EXIT.NOT_FOUND, 'no such object'],
  [EXIT.REFUSED, 'refused: in use, unsafe, the name is taken'],
  [EXIT.NOT_PERMITTED, 'not permitted'],
  [EXIT.TIMEOUT, 'the time was over'],
  [EXIT.DEGRADED, '`status --check`: degraded'],
  [EXIT.FAULTED, '`status --check`: faulted'],
  [EXIT.CONFIG_DIFFERS, '`status --check`: healthy, but the configuration differs from what runs'],
]

function leaves(command: Command, path: string): { path: string; command: Command }[] {
  const here = command.commands.length === 0 ? [{ path, command }] : []
  const below = command.commands.filter((one) => !one.name().startsWith('__'))
  return [...here, ...below.flatMap((one) => leaves(one, `${path} ${one.name()}`))]
}

const cell = (text: string): string => text.replaceAll('|', '\\|')

function isCommon(command: Command, long: string | undefined): boolean {
  return command.options.some((one) => one.long === long && one.helpGroupHeading !== undefined)
}

function section(path: string, command: Command): string {
  const words = command.registeredArguments.map((one) => {
    const name = `${one.name()}${one.variadic ? '...' : ''}`
    return one.required ? `<${name}>` : `[${name}]`
  })
  const own = command.options.filter((one) => !isCommon(command, one.long))
  const common = command.options.filter((one) => isCommon(command, one.long))
  const aliases = command.aliases()
  const rows = [
    ...command.registeredArguments.map((one, at) => [`\`${words[at] ?? ''}\``, one.description]),
    ...own.map((one) => [`\`${one.flags}\``, one.description]),
  ].map(([name, summary]) => `| ${cell(name ?? '')} | ${cell(summary ?? '')} |`)
  const choices = [...command.registeredArguments, ...own].flatMap((one) => {
    if (!one.argChoices) return []
    const name = 'flags' in one ? one.flags.split(' ')[0] : one.name()
    return [`\`${name}\` is one of ${one.argChoices.map((word) => `\`${word}\``).join(', ')}.`]
  })
  return [
    `### ${path}`,
    '',
    `\`${[path, ...words].join(' ')}\``,
    '',
    `${command.description()}.${aliases.length > 0 ? ` Also: ${aliases.map((one) => `\`${one}\``).join(', ')}.` : ''}`,
    ...(rows.length > 0 ? ['', '| | |', '|---|---|', ...rows] : []),
    ...(choices.length > 0 ? ['', ...choices] : []),
    ...(common.length > 0
      ? ['', `Common: ${common.map((one) => `\`${one.long ?? ''}\``).join(' ')}`]
      : []),
    '',
  ].join('\n')
}

/** The whole reference. */
export function reference(program: Command): string {
  const commands = leaves(program, 'plexus')
  const seen = new Map<string, string>()
  for (const { command } of commands) {
    for (const option of command.options) {
      if (isCommon(command, option.long)) seen.set(option.flags, option.description)
    }
  }
  const common = [...seen].map(([flags, summary]) => `| \`${flags}\` | ${cell(summary)} |`)
  const exits = EXIT_WORDS.map(([code, words]) => `| ${code} | ${words} |`)
  return [
    '# Reference of the command line',
    '',
    'Made by `plexus man` from the declarations in src/control; write there, then `npm run docs`.',
    '',
    '## Common options',
    '',
    '| | |',
    '|---|---|',
    ...common,
    '',
    '## Exit codes',
    '',
    '| Code | |',
    '|---|---|',
    ...exits,
    '',
    '## Commands',
    '',
    ...commands.map(({ path, command }) => section(path, command)),
  ].join('\n')
}
