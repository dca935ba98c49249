import { Failure, together } from './failure.ts'

/** A lab has become unusable: nothing more can run in it. */
export class Lost extends Failure {}

export interface Sharing<T, L> {
  /** Number of VMs in each lab. */
  vms: number
  /** Number of VMs that a thing needs: one, or all of a lab. */
  needs: (thing: T) => number
  /** Expected duration in seconds. */
  seconds: (thing: T) => number
  /**
   * Runs a thing.
   * @param vms which of the lab's VMs it gets
   * @throws Lost if the lab has become unusable; another lab then runs the thing
   */
  run: (thing: T, lab: L, vms: number[]) => Promise<void>
  /** Called once for each lab that is lost. */
  lost: (index: number, why: Failure) => void
}

/**
 * Shares things among several labs. Each free VM takes the next one, the longest first. Things that need all
 * VMs of a lab come before the rest, so that no VM has to wait for another.
 * @param labs those that are not ready yet begin later; a lab whose promise fails is lost
 * @returns the things not done because no lab was left
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
  // a lost lab may return its thing after the others have found nothing more to do
  do await Promise.all([...left].map(ofLab))
  while (waiting.length > 0 && left.size > 0 && bugs.length === 0)
  if (bugs.length > 0) throw together(bugs)
  return waiting
}
