import { basename, dirname, resolve } from 'node:path'
import { placeOf } from './by-hand.ts'
import { mainOf } from './own-files.ts'
import { mentions, pathsOf, seenOfAll, type Seen } from './seen.ts'
import { sourceOf, within, type Node } from './syntax.ts'
import type { SetValue } from './value.ts'

/** An entry that is about to be written for a host, and what its source shows. */
interface NewEntry {
  /** Absolute path of the flake's directory. */
  directory: string
  hosts: SetValue
  entry: Node
  seen: Seen
  name: string
  /** The host that was copied. */
  like: string | undefined
  /** Paths that appear to be the new host's own. */
  reads: string[]
}

/** What the user should check in a new entry, one line each. */
export const doubts = (made: NewEntry): string[] => [
  ...lent(made).map(
    (path) => `The new entry still says \`${path}\`, as that of \`${made.like}\` alone does`,
  ),
  ...missing(made),
  ...(made.reads.length === 0 ? withFilesOf(made) : []),
]

/** Paths copied unchanged that no other host reads; if there is no other host, only paths of hardware and disks. */
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

/** A warning if the new entry reads the copied host's own configuration instead of one of its own. */
function withFilesOf({ directory, hosts, seen, like }: NewEntry): string[] {
  const own = like === undefined ? undefined : seenOfAll(hosts).get(like)
  const main = own && mainOf(pathsOf(own, like!, directory), like!, directory)
  return main === undefined || !seen.paths.includes(main)
    ? []
    : [`The new entry leads to \`${main}\`, as that of \`${like}\` does: ${twice}`]
}

/** A warning if the new host appears to differ from the copied one in nothing but its name. */
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

/** Attributes of the new host's name that the entry uses, and that do not exist or that the source does not show. */
function missing({ entry, seen, name }: NewEntry): string[] {
  const notes = seen.unknowns
    .filter(({ node }) => node.type === 'select_expression')
    .flatMap(({ node, why, fault }) => {
      const own = sourceOf(node).path === sourceOf(entry).path && within(node, entry)
      const named = own && mentions(node.text, name)
      if (named && fault !== 'absent')
        return [`The new entry uses \`${node.text}\`: make sure that it exists`]
      if (fault !== 'absent' || why !== `there is no \`${name}\``) return []
      const { file, line } = placeOf(node)
      return named
        ? [`\`${node.text}\` is not there yet`]
        : [`There is no \`${name}\` in \`${node.text}\` yet, at line ${line} of \`${file}\``]
    })
  return [...new Set(notes)]
}
