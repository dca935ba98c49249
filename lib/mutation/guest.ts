import { existsSync, readFileSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { privateDirectory } from '../directory.ts'
import { run } from '../run.ts'
import { scratchDirectory } from '../scratch.ts'
import { runControls } from '../scenario/control-run.ts'
import type { Control } from '../scenario/control.ts'
import type { Family } from '../scenario/family.ts'
import { choose } from '../scenario/run.ts'
import { labHome, project } from '../settings.ts'
import { writeFile } from '../write-file.ts'
import { hash } from './mutant.ts'
import { merge, readTrace, traced, traceDirectories, type Hits } from './trace.ts'

const agents = join(project, 'nix/agents')
const place = (): string => join(labHome(), 'agent-traces')
const names = (): string[] => readdirSync(agents).filter((name) => name.endsWith('.sh'))
const known = (): string => hash(...names().map((name) => readFileSync(join(agents, name), 'utf8')))

/** What each case has run of the agents as they are now, by `<family>/<case>`. */
export function keptTraces(): Map<string, Hits> {
  const kept = new Map<string, Hits>()
  if (!existsSync(place())) return kept
  const now = known()
  for (const name of readdirSync(place()).filter((file) => file.endsWith('.json'))) {
    const found = readKept(join(place(), name))
    if (found?.agents === now) kept.set(found.case, found.hits)
  }
  return kept
}

/** Null for a damaged file: its case counts as one that was not traced. */
function readKept(path: string): { case: string; agents: string; hits: Hits } | null {
  try {
    return JSON.parse(readFileSync(path, 'utf8')) as ReturnType<typeof readKept>
  } catch {
    return null
  }
}

/**
 * Runs cases in VMs whose agents trace themselves, and keeps what they have run. What a VM had not written to
 * its disk when its power was cut is not seen.
 * @throws Failure when a run could not be made
 */
export async function traceCases(
  wanted: string[],
  families: Family[],
  options: { hosts?: string[]; seed?: number; json?: boolean },
): Promise<void> {
  const cases = choose(families, wanted).map(({ family, one }) => `${family.name}/${one.name}`)
  const controls = await Promise.all(cases.map((named) => watching(named)))
  const { troubles } = await runControls(controls, families, { name: 'coverage', ...options })
  if (troubles.length > 0) throw troubles[0]!
}

/** The agents of a case that trace themselves; what they have run is kept once the case is over. */
export async function watching(named: string): Promise<Control> {
  const [, directory] = traceDirectories
  const hits: Hits = {}
  const take = (_: string, said: string): void => {
    const seen: Hits = {}
    readTrace(said, seen)
    merge(hits, seen)
    privateDirectory(place())
    const text = JSON.stringify({ case: named, agents: known(), hits })
    writeFile(join(place(), `${named.replace('/', '-')}.json`), text, { over: 'any' })
  }
  const before = `mkdir -p ${directory}; chmod 1777 ${directory}; rm -f ${directory}/*`
  const after = `cat ${directory}/* | grep '^+*@' | cut -c 1-200 || true`
  const name = named.replace('/', '-')
  return {
    ...{ name, cut: 'the agents trace themselves', case: named, red: /./, argument: name },
    ...{ patch: await patchOfAll(), again: `coverage.ts --case ${named}` },
    watch: { before, after, take },
  }
}

async function patchOfAll(): Promise<string> {
  const scratch = scratchDirectory('traced')
  try {
    const parts: string[] = []
    for (const name of names()) {
      const text = readFileSync(join(agents, name), 'utf8')
      writeFileSync(join(scratch, name), traced(name, text))
      const labels = ['--label', `a/nix/agents/${name}`, '--label', `b/nix/agents/${name}`]
      const files = [join(agents, name), join(scratch, name)]
      parts.push((await run('diff', ['-u', ...labels, ...files], { allow: [1] })).stdout)
    }
    return parts.join('')
  } finally {
    rmSync(scratch, { recursive: true })
  }
}
