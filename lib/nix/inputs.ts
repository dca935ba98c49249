import { nix } from './nix.ts'
import { run } from '../run.ts'
import { counting } from '../retry.ts'

export interface Input {
  /** Its name in flake.lock. */
  name: string
  /** Store path. */
  path: string
}

/** A flake's direct and indirect inputs that are in a store. @param lock the text of flake.lock */
export async function lockedInputs(lock: string, store: string[]): Promise<Input[]> {
  const all = await inputs(lock)
  const missing = await invalid(all, store)
  return all.filter(({ path }) => !missing.includes(path))
}

/**
 * Fetches all inputs of a flake into the store, if any is missing there.
 * @param flake a flake reference
 * @throws Failure with nix's own words
 */
export async function fetchInputs(
  flake: string,
  lock: string,
  store: string[],
  say: (line: string) => void,
): Promise<void> {
  const missing = (await invalid(await inputs(lock), store)).length
  if (missing === 0) return
  const timeout = 1800
  await counting(`fetch ${missing} inputs`, timeout, say, () =>
    nix(['flake', 'archive', ...store, flake], { timeout }),
  )
}

/** The inputs' store paths, computed from the locked hash and the name `source` that all of them have. */
async function inputs(lock: string): Promise<Input[]> {
  const { nodes } = JSON.parse(lock) as { nodes: Record<string, { locked?: { narHash?: string } }> }
  const locked = Object.entries(nodes).flatMap(([name, node]) => {
    const hash = node.locked?.narHash
    return hash === undefined ? [] : [{ name, hash }]
  })
  return Promise.all(
    locked.map(async ({ name, hash }) => {
      // needs no store: it may not exist yet, and of several processes that create it at once some fail
      const print = ['--store', 'dummy://', '--print-fixed-path', '--recursive', 'sha256']
      return { name, path: (await run('nix-store', [...print, hash, 'source'])).stdout.trim() }
    }),
  )
}

async function invalid(all: Input[], store: string[]): Promise<string[]> {
  if (all.length === 0) return []
  const check = ['--check-validity', '--print-invalid', ...store, ...all.map(({ path }) => path)]
  return (await run('nix-store', check)).stdout.split('\n').filter(Boolean)
}
