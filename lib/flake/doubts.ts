import { basename, dirname, resolve } from 'node:path'
import { placeOf } from './by-hand.ts'
import { mainOf } from './own-files.ts'
import { mentions, pathsOf, seenOfAll, type Seen } from './seen.ts'
import { sourceOf, within, type Node } from './syntax.ts'
import type { SetValue } from './value.ts'

/** What is about to be written for a host, and what it leads to. */
interface NewEntry {
  /** Absolute path of the flake's directory. */
  directory: string
  hosts: SetValue
  entry: Node
  seen: Seen
  name: string
  /** The host that was copied. */
  like: string | undefined
  /** Files that are seen to be the new host's own. */
  reads: string[]
}

/** What a person should look at in a new entry, a line each. */
export const doubts = (made: NewEntry): string[] => [
  ...lent(made).map(
    (path) => `The new entry still says \`${path}\`, as that of \`${made.like}\` alone does`,
  ),
  ...missing(made),
  ...(made.reads.length === 0 ? withFilesOf(made) : []),
]

/** Paths in the new entry that are as in the copied one, and that no other host reads; of an only host, its hardware. */
function lent({ entry, hosts, like }: NewEntry): string[] {
  const own = new Set(like === undefined ? [] : seenOfAll(hosts).get(like)?.paths)
  const others = [...seenOfAll(hosts)].filter(([other]) => other !== like)
  const mayBeOfAll = (path: string): boolean =>
    others.length === 0 && !/^(hardware|disk)/.test(basename(path))
  for (const [, { paths }] of others) for (const path of paths) own.delete(path)
  return entry
    .descendantsOfType('path_expression')
    .map(({ text }) => text)
    .filter((text) => own.has(resolve(dirname(sourceOf(entry).path), text)) && !mayBeOfAll(text))
}

/** Files that are the copied host's own, and that the new one leads to in place of any of its name. */
function withFilesOf({ directory, hosts, seen, like }: NewEntry): string[] {
  const own = like === undefined ? undefined : seenOfAll(hosts).get(like)
  const main = own && mainOf(pathsOf(own, like!, directory), like!, directory)
  return main === undefined || !seen.paths.includes(main)
    ? []
    : [`The new entry leads to \`${main}\`, as that of \`${like}\` does: ${twice}`]
}

/** That nothing but what it is called tells the new host from the copied one, as far as that is to be seen. */
export function twinOf(
  hosts: SetValue,
  { paths, texts }: Seen,
  name: string,
  like?: string,
): string[] {
  const own = like === undefined ? undefined : seenOfAll(hosts).get(like)
  const isTwin = paths.length > 0 && paths.every((path) => own?.paths.includes(path))
  return isTwin && !texts.some((text) => mentions(text, name))
    ? [`The new entry has the files of \`${like}\`, and its own name nowhere: ${twice}`]
    : []
}

const twice = 'it would be the same host twice'

/** What the new entry asks for by its name that is not there, or is not to be seen. */
function missing({ entry, seen, name }: NewEntry): string[] {
  const notes = seen.unknowns
    .filter(({ node }) => node.type === 'select_expression')
    .flatMap(({ node, why, fault }) => {
      const own = sourceOf(node).path === sourceOf(entry).path && within(node, entry)
      const named = own && mentions(node.text, name)
      if (named && fault !== 'absent')
        return [`The new entry asks for \`${node.text}\`: see that it is there`]
      if (fault !== 'absent' || why !== `there is no \`${name}\``) return []
      const { file, line } = placeOf(node)
      return named
        ? [`\`${node.text}\` is not there yet`]
        : [`There is no \`${name}\` in \`${node.text}\` yet, at line ${line} of \`${file}\``]
    })
  return [...new Set(notes)]
}
