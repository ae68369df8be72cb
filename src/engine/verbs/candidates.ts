/** What verbs of every class get to plan on: the devices that they name, examined, and randomness that can be repeated. */
import type { Random } from '../../base/random.ts'
import { deviceContents, formatContents } from '../../hal/device-contents.ts'
import { READ_ACCESS } from '../geom/consumer.ts'
import { isSameMedium, type Provider } from '../geom/provider.ts'
import type { Topology } from '../geom/topology.ts'
import type { Candidate } from './plan.ts'

/** Looks at the providers that a verb names: whose they are, and what is on them. Unknown ones are left out. */
export async function examine(
  topology: Topology,
  names: readonly string[],
): Promise<ReadonlyMap<string, Candidate>> {
  const found = new Map<string, Candidate>()
  for (const name of new Set(names)) {
    const provider = topology.providers.get(name)
    if (!provider) continue
    const holder = [...provider.consumers].find(({ access }) => access.write + access.exclusive > 0)
    const { sizeBytes, blockBytes, features, opaque } = provider
    // What LUNs lead to is the initiators', also while its unit cannot use it.
    const inUse = holder?.holder ?? (opaque ? 'LUNs of the configuration' : undefined)
    found.set(name, {
      name,
      path: topology.device(name)?.path ?? name,
      className: provider.geom.className,
      sizeBytes,
      blockBytes,
      readOnly: features.readOnly,
      inUse,
      twin: [...topology.providers.values()].find((other) => isTwin(other, provider))?.name,
      contents: inUse
        ? ''
        : formatContents(
            await topology.using(provider, 'a look at its contents', READ_ACCESS, deviceContents),
          ),
    })
  }
  return found
}

/** Another path to the same disk; where the disks do not tell, also one with the same label. */
function isTwin(other: Provider, provider: Provider): boolean {
  if (other === provider) return false
  const isSameLabel =
    other.label !== undefined && other.label.driveUuid === provider.label?.driveUuid
  return isSameMedium(other, provider) ?? isSameLabel
}

/** Gives the same bytes again when rewound: a plan that is made twice names its new objects alike. */
export class RandomTape implements Random {
  readonly #source: Random
  readonly #tape: Buffer[]
  #position = 0

  constructor(source: Random, tape: Buffer[] = []) {
    this.#source = source
    this.#tape = tape
  }

  bytes(length: number): Buffer {
    const known = this.#tape[this.#position]
    if (known?.length !== length) {
      this.#tape.length = this.#position
      this.#tape.push(this.#source.bytes(length))
    }
    return Buffer.from(this.#tape[this.#position++] as Buffer)
  }

  rewound(): RandomTape {
    return new RandomTape(this.#source, this.#tape)
  }
}
