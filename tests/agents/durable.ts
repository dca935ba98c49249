/**
 * Checks that agents sync a file before they rename it: the root's `sync` and `mv` record how they were called.
 * In a VM only a power cut at the right moment would show a mistake.
 */
import { dirname } from 'node:path'

export const watchers = '/watch'
const log = `${watchers}/steps`

/** Bash that creates a `sync` and a `mv` that record their calls, and starts a new list. */
export const watch = `mkdir -p ${watchers}
for name in sync mv; do
  [ -e ${watchers}/real-$name ] || cp /usr/bin/$name ${watchers}/real-$name
  printf '#!/bin/bash\\necho "%s $*" >>${log}\\nexec -a %s ${watchers}/real-%s "$@"\\n' $name $name $name >${watchers}/$name
  chmod +x ${watchers}/$name
done
: >${log}; chmod 666 ${log}`

/** The same, mounted over the root's own programs, for an agent that takes them from /usr/bin. */
export const watchInPlace = `${watch}
for name in sync mv; do mount --bind ${watchers}/$name /usr/bin/$name; done`

export const readSteps = `cat ${log}`

/**
 * Files that a power cut could spoil: those renamed before their content was on the disk, and those whose name was
 * not on the disk by the next step that relies on it.
 * @param steps the recorded calls, together with the steps that rely on them
 * @param relies matches the steps that rely on earlier ones; the end always does
 * @param unless matches names for which the old and the new text are both fine after a power cut
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
