import { Failure, together } from './failure.ts'

/** Nothing more can be done in a lab, whatever it is. */
export class Lost extends Failure {}

export interface Sharing<T, L> {
  /** VMs of each lab. */
  vms: number
  /** VMs that a thing needs: one, or all of a lab. */
  needs: (thing: T) => number
  /** Seconds that it takes, as far as anybody knows. */
  seconds: (thing: T) => number
  /**
   * Does a thing.
   * @param vms which of the lab's VMs it has
   * @throws Lost when the lab is of no use any more; another one does the thing then
   */
  run: (thing: T, lab: L, vms: number[]) => Promise<void>
  /** Told once of each lab that is lost. */
  lost: (index: number, why: Failure) => void
}

/**
 * Has things done by several labs. Each VM that is free takes the next one, the longest first; what needs all
 * VMs of a lab comes before the rest, as none of them has to wait for another then.
 * @param labs those that are not ready yet begin later; one that fails to be ready is lost
 * @returns what nobody has done, as no lab is left
 */
export async function share<T, L>(
  things: T[],
  labs: (L | Promise<L>)[],
  { vms, needs, seconds, run, lost }: Sharing<T, L>,
): Promise<T[]> {
  const waiting = things.toSorted((a, b) => needs(b) - needs(a) || seconds(b) - seconds(a))
  const all = Array.from({ length: vms }, (_, vm) => vm)
  const left = new Set(labs)
  const bugs: unknown[] = []

  const take = (most: number): T | undefined => {
    const at = waiting.findIndex((thing) => needs(thing) === most)
    return at < 0 ? undefined : waiting.splice(at, 1)[0]
  }
  const lose = (ready: L | Promise<L>, thrown: unknown): void => {
    if (!(thrown instanceof Failure)) bugs.push(thrown)
    else if (left.delete(ready)) lost(labs.indexOf(ready), thrown)
  }
  const work = async (ready: L | Promise<L>, lab: L, own: number[]): Promise<void> => {
    while (left.has(ready) && bugs.length === 0) {
      const thing = take(own.length)
      if (thing === undefined) return
      try {
        await run(thing, lab, own)
      } catch (thrown) {
        if (!(thrown instanceof Lost)) bugs.push(thrown)
        else {
          waiting.unshift(thing)
          lose(ready, thrown)
        }
      }
    }
  }
  const ofLab = async (ready: L | Promise<L>): Promise<void> => {
    try {
      const lab = await ready
      await work(ready, lab, all)
      await Promise.all(all.map((vm) => work(ready, lab, [vm])))
    } catch (thrown) {
      lose(ready, thrown)
    }
  }
  // what a lab gives back as it is lost may come when the others have found nothing more to do
  do await Promise.all([...left].map(ofLab))
  while (waiting.length > 0 && left.size > 0 && bugs.length === 0)
  if (bugs.length > 0) throw together(bugs)
  return waiting
}
