/**
 * What is on the disk before it has its name, for tests of agents: the root's `sync` and `mv` write down how they
 * were called. A power cut would show the same in a VM, in one of many moments.
 */
import { dirname } from 'node:path'

export const watchers = '/watch'
const log = `${watchers}/steps`

/** Bash that makes a `sync` and a `mv` which write down how they were called, and begins a new list. */
export const watch = `mkdir -p ${watchers}
for name in sync mv; do
  [ -e ${watchers}/real-$name ] || cp /usr/bin/$name ${watchers}/real-$name
  printf '#!/bin/bash\\necho "%s $*" >>${log}\\nexec -a %s ${watchers}/real-%s "$@"\\n' $name $name $name >${watchers}/$name
  chmod +x ${watchers}/$name
done
: >${log}; chmod 666 ${log}`

/** The same in place of the root's own, for a program that does not look for them elsewhere. */
export const watchInPlace = `${watch}
for name in sync mv; do mount --bind ${watchers}/$name /usr/bin/$name; done`

export const readSteps = `cat ${log}`

/**
 * What a power cut could spoil: a file that had its name before it was on the disk, and one whose name was not on
 * the disk by the next step that relies on it.
 * @param steps as written down, with what relies on them
 * @param relies which steps those are; the end always is one
 * @param unless names for which either text will do after a power cut
 */
export function spoilable(steps: string[], relies: RegExp, unless = /^$/): string[] {
  const found: string[] = []
  const synced = (path: string, from: number, to: number): boolean =>
    steps.slice(from, to).some((step) => {
      const [name, ...args] = step.split(' ')
      const on = args.at(-1) ?? '/'
      const whole = args.length < 1 || /^(-f|--file-system)$/.test(args[0]!)
      return name === 'sync' && (on === path || (whole && path.startsWith(on)))
    })
  for (const [at, step] of steps.entries()) {
    if (!step.startsWith('mv ')) continue
    const [source, target] = step.split(' ').slice(-2) as [string, string]
    const before = steps.slice(0, at).findLastIndex((other) => other.endsWith(` ${target}`))
    if (!synced(source, before + 1, at)) found.push(`${target} was named before it was on the disk`)
    const next = steps.findIndex((other, index) => index > at && relies.test(other))
    const until = next < 0 ? steps.length : next
    if (!unless.test(target) && !synced(dirname(target), at, until) && !synced(target, at, until))
      found.push(`the name of ${target} was not on the disk at: ${steps[until] ?? 'the end'}`)
  }
  return found
}
