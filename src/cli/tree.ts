/** `plexus tree` in lines: devices on the left, what stands on them, the LUNs and hosts on the right. */
import type { TreeProvider, TreeReport } from '../control/daemon-reports.ts'
import type { GeomReport } from '../control/reports.ts'
import { printable } from './render.ts'

/** Some lines; the one at `exit` goes on to the right. */
interface Block {
  readonly lines: readonly string[]
  readonly exit: number
}

const JOIN = ' ── '

/** The bracket that leads several lines into one: top, between, bottom; and at the line that goes on. */
function bracket(at: number, first: number, last: number, exit: number, isSource: boolean): string {
  if (first === last) return at === first ? '──' : ' '
  if (at < first || at > last) return ' '
  if (at === exit && !isSource) return ' ├'
  if (!isSource) return ' │'
  if (at === exit) return at === first ? '─┬' : at === last ? '─┴' : '─┼'
  return at === first ? '─┐' : at === last ? '─┘' : '─┤'
}

/** Several blocks, one below the other, led into `text`. */
function merge(blocks: readonly Block[], text: string): Block {
  const lines = blocks.flatMap((one) => one.lines)
  const starts = blocks.map((_, at) =>
    blocks.slice(0, at).reduce((sum, one) => sum + one.lines.length, 0),
  )
  const exits = blocks.map((one, at) => (starts[at] ?? 0) + one.exit)
  const first = exits[0] ?? 0
  const last = exits.at(-1) ?? 0
  // A line that comes from the left anyhow looks best; the middle one of them.
  const exit = exits[Math.floor((exits.length - 1) / 2)] ?? 0
  const width = Math.max(...lines.map((one) => one.length))
  return {
    exit,
    lines: lines.map((line, at) => {
      const isSource = exits.includes(at)
      const filled = isSource
        ? `${line} ${'─'.repeat(width - line.length)}`
        : line.padEnd(width + 1)
      const mark = bracket(at, first, last, exit, isSource)
      const drawn = first === last ? `${filled}${at === exit ? '──' : ''}` : `${filled}${mark}`
      return at === exit ? `${drawn}─ ${text}` : drawn.trimEnd()
    }),
  }
}

/** The whole answer in lines. */
export function renderTree(report: TreeReport): string {
  const providers = new Map(report.providers.map((one) => [one.name, one]))
  const makers = new Map<string, GeomReport>()
  for (const geom of report.geoms) for (const name of geom.providers) makers.set(name, geom)
  // What carries nothing stands alone, whoever has taken it.
  const used = new Set(
    report.geoms.flatMap((geom) =>
      geom.providers.flatMap((name) => providers.get(name)?.standsOn ?? geom.consumers),
    ),
  )

  const nameOf = (provider: TreeProvider): string => {
    const { state } = provider
    return state === 'up' || state === 'UP'
      ? provider.name
      : `${provider.name} [${state.toUpperCase()}]`
  }
  const blockOf = (provider: TreeProvider): Block => {
    const geom = makers.get(provider.name)
    const names = provider.standsOn ?? geom?.consumers ?? []
    const below = names.flatMap((name) => providers.get(name) ?? [])
    if (!geom || below.length === 0) {
      const className = geom?.className ?? provider.className
      return { lines: [`  ${nameOf(provider)}${JOIN}${className}`], exit: 0 }
    }
    const isOnly = report.geoms.filter(({ className }) => className === geom.className).length === 1
    const isPlain = (provider.standsOn !== undefined && isOnly) || geom.name === provider.name
    const title = isPlain ? geom.className : `${geom.className} ${geom.name}`
    return merge(below.map(blockOf), `${title}${JOIN}${nameOf(provider)}`)
  }
  const exportText = (name: string): string =>
    report.exports
      .filter((one) => one.provider === name)
      .map(({ target, lun, sessions }) =>
        [`${target} lun ${lun}`, sessions.join(', ')].filter((one) => one !== '').join(JOIN),
      )
      .join('; ')

  const exported = new Set(report.exports.map(({ provider }) => provider))
  const tops = report.providers.filter(({ name }) => !used.has(name) || exported.has(name))
  const blocks = tops.map((provider) => {
    const { lines, exit } = blockOf(provider)
    const above = exportText(provider.name)
    if (above === '') return lines
    return lines.map((line, at) => (at === exit ? `${line}${JOIN}${above}` : line))
  })
  const missing = report.missing.map(({ name, reason }) => [`  ${name}${JOIN}missing: ${reason}`])
  const all = [...blocks, ...missing]
  if (all.length === 0)
    return '  no devices; plexus device list shows what the configuration names\n'
  return all.map((lines) => lines.map((one) => `${printable(one)}\n`).join('')).join('')
}
