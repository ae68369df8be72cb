/** The command line of the fuzzer. */
import { parseArgs } from 'node:util'

const USAGE = `usage: npm run fuzz -- [options]
  --seconds N    how long attacks and floods go on, 30
  --seed N       of all cases; default: another one each time
  --workers N    attackers at the same time, 16
  --attack TEXT  only attacks and floods whose names contain it
  --case M       this case alone, with a count of what it leaves behind
  --cases A-B    these cases one after the other, with a count behind each`

export interface FuzzArguments {
  readonly seconds: number
  readonly seed: number
  readonly workers: number
  readonly attack: string
  /** First and last case of a replay. */
  readonly replay: readonly [number, number] | undefined
}

/** Ends the process with 2 where the arguments make no sense. */
export function parseFuzzArguments(): FuzzArguments {
  const { values } = parseArgs({
    options: {
      seconds: { type: 'string', default: '30' },
      seed: { type: 'string', default: String(Math.floor(Math.random() * 2 ** 31)) },
      workers: { type: 'string', default: '16' },
      attack: { type: 'string', default: '' },
      case: { type: 'string' },
      cases: { type: 'string' },
    },
  })
  const [seconds = 0, seed = 0, workers = 0] = [values.seconds, values.seed, values.workers].map(
    Number,
  )
  const range =
    values.cases ?? (values.case === undefined ? undefined : `${values.case}-${values.case}`)
  const [first = 0, last = 0] = range?.split('-').map(Number) ?? []
  const numbers = [seconds, seed, workers, first, last]
  if (!numbers.every((n) => Number.isInteger(n) && n >= 0) || workers === 0 || last < first) {
    console.error(USAGE)
    process.exit(2)
  }
  const { attack } = values
  return { seconds, seed, workers, attack, replay: range === undefined ? undefined : [first, last] }
}
