import { createHash } from 'node:crypto'
import { existsSync, readFileSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { seeded } from '../scenario/random.ts'
import { editsOfShell } from './bash.ts'
import type { Edit } from './edit.ts'
import { editsOfModule } from './nix.ts'

export interface Mutant extends Edit {
  /** Depends on the changed text, not on its line, so it stays the same if the text moves. */
  id: string
  /** The program's name: `golden-lib`, or `module/auto-upgrade`. */
  agent: string
  /** Path in the project. */
  file: string
  /** The text that it replaces. */
  was: string
}

/** Every program that has mutants, by its name on the command line. */
export function programs(project: string): Map<string, string> {
  const all = (directory: string, ending: string, prefix: string): [string, string][] =>
    readdirSync(join(project, directory))
      .filter((file) => file.endsWith(ending))
      .map((file) => [prefix + file.slice(0, -ending.length), `${directory}/${file}`])
  const modules = ['auto-upgrade', 'chezmoi-sync', 'golden-generation', 'reachability']
  return new Map([
    ...all('nix/agents', '.sh', ''),
    ...modules
      .map((name): [string, string] => [`module/${name}`, `nix/modules/${name}.nix`])
      .filter(([, file]) => existsSync(join(project, file))),
  ])
}

/** All mutants of a program. */
export async function mutantsOf(project: string, agent: string, file: string): Promise<Mutant[]> {
  const text = readFileSync(join(project, file), 'utf8')
  const isModule = file.endsWith('.nix')
  const edits = await (isModule ? editsOfModule(join(project, file)) : editsOfShell(text))
  const seen = new Map<string, number>()
  return edits.map((edit) => {
    const was = text.slice(edit.from, edit.to)
    const what = [file, edit.within, edit.kind, was, edit.instead].join('\0')
    const nth = (seen.get(what) ?? 0) + 1
    seen.set(what, nth)
    return { ...edit, id: hash(what, String(nth)), agent, file, was }
  })
}

/** The program's text with the mutant in it. */
export const mutated = (text: string, { from, to, instead }: Edit): string =>
  text.slice(0, from) + instead + text.slice(to)

/** Describes a mutant on one line. */
export function told({ was, instead }: Mutant): string {
  const short = (text: string): string => {
    const line = text.trim().replaceAll(/\s+/g, ' ')
    return line.length <= 60 ? line : `${line.slice(0, 57)}...`
  }
  return instead.trim() ? `${short(was)} => ${short(instead)}` : `without ${short(was)}`
}

/** A random sample, the same for the same seed. */
export function sample(mutants: Mutant[], count: number, seed: number): Mutant[] {
  const random = seeded(seed)
  const rest = [...mutants]
  for (let at = rest.length - 1; at > 0; at--) {
    const other = Math.floor(random() * (at + 1))
    ;[rest[at], rest[other]] = [rest[other]!, rest[at]!]
  }
  return rest.slice(0, count)
}

export const hash = (...texts: string[]): string =>
  createHash('sha256').update(texts.join('\0')).digest('hex').slice(0, 10)
