import type { OracleRow } from '../report/result.ts'
import type { Facts, Repository } from './oracle-facts.ts'
import { nothingWrong } from './oracle-boot.ts'

/**
 * Each change is in its clone exactly once, with its original author. In the flake's clone, where the agent only
 * rebases, its message, its content and its order are the original ones as well.
 */
export const judgeClones = ({ repositories, foreign }: Facts, clones: string[]): OracleRow[] => [
  ...clones.map((name, index) => {
    const repository = repositories[name]
    const wrong = repository ? changed(repository, index === 0) : ['no repository']
    return nothingWrong(`commits of ${name}`, 'each once, and as it was made', wrong)
  }),
  nothingWrong('files of the user', 'owned by the user', foreign),
]

interface Version {
  id: string
  author: string
  message: string
  parents: string[]
}

/** Forbidden changes to the commits of a clone: duplicates, or another author, message, content or order. */
export function changed({ commits, shown, patches }: Repository, rebasedOnly: boolean): string[] {
  const versions = new Map<string, Version[]>()
  for (const [id, { change, origin, parents }] of Object.entries(commits)) {
    if (!change) continue
    const [author = '', ...message] = origin.split('\n')
    const version = { id, author: withoutTime(author), message: message.join('\n'), parents }
    versions.set(change, [...(versions.get(change) ?? []), version])
  }
  const now = new Set(shown)
  const wrong: string[] = []
  for (const [change, all] of versions) {
    const left = all.filter(({ id }) => now.has(id))
    const name = all.find(({ message }) => message)?.message.split('\n')[0] || change.slice(0, 8)
    const differ = (what: string, values: string[]): void => {
      const different = [...new Set(values)]
      if (different.length > 1)
        wrong.push(`${what} of \`${name}\` changed: ${different.join(' / ')}`)
    }
    if (left.length > 1) wrong.push(`\`${name}\` is there ${left.length} times`)
    differ(
      'the author',
      // jj's placeholder for an author without a name
      all.map(({ author }) => author).filter((author) => !author.includes('JJ_EMPTY_STRING')),
    )
    if (!rebasedOnly || left.length === 0) continue
    const finished = all.filter(({ message }) => message)
    differ(
      'the message',
      finished.map(({ message }) => message),
    )
    // a commit in conflict is stored with both sides, so its patch is another one
    const texts = finished.flatMap(({ id, parents }) =>
      parents.length === 1 &&
      patches[id] !== undefined &&
      !patches[id].includes('JJ-CONFLICT-README')
        ? [patches[id]]
        : [],
    )
    if (new Set(texts).size > 1) wrong.push(`the content of \`${name}\` changed`)
  }
  return [
    ...wrong,
    ...(rebasedOnly ? [...copied(commits, shown), ...disordered(commits, now, versions)] : []),
  ]
}

/** Two changes with the same author, time and message: one is a copy of the other. */
function copied(commits: Repository['commits'], shown: string[]): string[] {
  const said = shown.flatMap((id) => {
    const { change, origin = '' } = commits[id] ?? {}
    const [, ...message] = origin.split('\n')
    return change && message.join('').trim() ? [{ change, origin, title: message[0]! }] : []
  })
  const again = said.filter(({ change, origin }, index) =>
    said.slice(0, index).some((other) => other.origin === origin && other.change !== change),
  )
  return again.map(({ title }) => `\`${title}\` was copied`)
}

/** Changes that no longer descend from the change that they were made on. */
function disordered(
  commits: Repository['commits'],
  now: Set<string>,
  versions: Map<string, Version[]>,
): string[] {
  const below = (id: string): Set<string> => {
    const found = new Set<string>()
    for (const stack = [id]; stack.length > 0;) {
      for (const parent of commits[stack.pop()!]?.parents ?? []) {
        if (!found.has(parent)) stack.push(parent)
        found.add(parent)
      }
    }
    return found
  }
  const here = (change: string): Version[] =>
    (versions.get(change) ?? []).filter(({ id, message }) => now.has(id) && message)
  return [...versions].flatMap(([change, all]) => {
    const [one] = here(change)
    if (!one) return []
    const described = all.filter(({ message }) => message)
    const stoodOn = new Set(
      described.flatMap(({ parents }) => parents.flatMap((id) => commits[id]?.change ?? [])),
    )
    const under = below(one.id)
    return [...stoodOn].flatMap((other) => {
      const [base, ...more] = here(other)
      if (!base || other === change || [base, ...more].some(({ id }) => under.has(id))) return []
      return [`\`${titleOf(one)}\` does not stand on \`${titleOf(base)}\``]
    })
  })
}

const titleOf = ({ message }: Version): string => message.split('\n')[0]!

const withoutTime = (author: string): string => author.replace(/ \d+ [+-]\d{4}$/, '')
