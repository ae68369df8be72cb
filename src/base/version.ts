/**
 * The version of Plexus, from its package.json: found from wherever this file runs (src/ under the
 * tests, dist/ when installed, build/ for the tools). The daemon, the command line and INQUIRY use it.
 */
import { readFileSync } from 'node:fs'
import { assert } from './assert.ts'

/** The version text of package.json, such as `0.1.0`. */
export function plexusVersion(): string {
  for (let at = new URL('.', import.meta.url); at.pathname !== '/'; at = new URL('..', at)) {
    let text: string
    try {
      text = readFileSync(new URL('package.json', at), 'utf8')
    } catch {
      continue
    }
    const manifest = JSON.parse(text) as { name?: unknown; version?: unknown }
    if (manifest.name === 'plexus' && typeof manifest.version === 'string') return manifest.version
  }
  assert(false, 'the package.json of plexus lies above its code')
}
