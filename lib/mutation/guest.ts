import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import type { Family, Watch } from '../scenario/family.ts'
import { choose, judgeCases } from '../scenario/run.ts'
import type { Ended } from '../scenario/stage.ts'
import { labHome, project } from '../settings.ts'
import { writeFile } from '../write-file.ts'
import { hash } from './mutant.ts'
import { merge, readTrace, traced, traceDirectories, type Hits } from './trace.ts'

const agents = join(project, 'nix/agents')
const place = (): string => join(labHome(), 'agent-traces')
const names = (): string[] => readdirSync(agents).filter((name) => name.endsWith('.sh'))
/** A hash of each agent's text, by its name in nix/agents. */
const known = (): Record<string, string> =>
  Object.fromEntries(names().map((name) => [name, hash(readFileSync(join(agents, name), 'utf8'))]))

interface Kept {
  case: string
  /** The agents' hashes at that time, as from `known`. */
  agents: Record<string, string>
  hits: Hits
}

/**
 * The lines of the agents that each case has run, by `<family>/<case>`. An agent that has changed since is left out;
 * one that the case did not run is included, without lines.
 */
export function keptTraces(): Map<string, Hits> {
  const kept = new Map<string, Hits>()
  if (!existsSync(place())) return kept
  const now = Object.entries(known())
  for (const name of readdirSync(place()).filter((file) => file.endsWith('.json'))) {
    const found = readKept(join(place(), name))
    const same = now.filter(([agent, text]) => found?.agents?.[agent] === text)
    if (found && same.length > 0)
      kept.set(
        found.case,
        Object.fromEntries(same.map(([agent]) => [agent, found.hits[agent] ?? {}])),
      )
  }
  return kept
}

/** Null for a damaged file: its case counts as not traced. */
function readKept(path: string): Kept | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as Kept | null
  } catch {
    return null
  }
}

/**
 * Runs cases in VMs whose agents trace themselves, and keeps what each case has run. A trace that was not on the VM's
 * disk yet when its power was cut is lost.
 * @param wanted names of cases; all cases if empty
 */
export function traceCases(
  wanted: string[],
  families: Family[],
  options: { hosts?: string[]; seed?: number; json?: boolean },
): Promise<Ended> {
  const extra = tracedAgents()
  return judgeCases(choose(families, wanted), {
    name: 'coverage',
    extra,
    watch: watch(),
    ...options,
  })
}

/** The text of every agent with tracing, by its path in the flake. */
export const tracedAgents = (): Record<string, string> =>
  Object.fromEntries(
    names().map((name) => {
      const text = readFileSync(join(agents, name), 'utf8')
      return [`nix/agents/${name}`, traced(name, text)]
    }),
  )

/** Keeps the traces of a case's VMs, merged, under the case's name. */
export function watch(): Watch {
  const [, directory] = traceDirectories
  const seen = new Map<string, Hits>()
  const take = (named: string, said: string): void => {
    const hits = seen.get(named) ?? {}
    const more: Hits = {}
    readTrace(said, more)
    merge(hits, more)
    seen.set(named, hits)
    privateDirectory(place())
    const text = JSON.stringify({ case: named, agents: known(), hits } satisfies Kept)
    writeFile(join(place(), `${named.replace('/', '-')}.json`), text, { over: 'any' })
  }
  const before = `mkdir -p ${directory}; chmod 1777 ${directory}; rm -f ${directory}/*`
  const after = `cat ${directory}/* | grep '^+*@' | cut -c 1-200 || true`
  return { before, after, take }
}
