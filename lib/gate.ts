/** Admits `free` callers at once and queues the others. A caller that gives up frees its place and uses no turn. */
export function gate(free: number): {
  /** @param givenUp rejects when the caller no longer wants a place */
  enter: (givenUp?: Promise<never>) => Promise<void>
  leave: () => void
} {
  const queue: (() => void)[] = []
  const leave = (): void => {
    const next = queue.shift()
    if (next) next()
    else free += 1
  }
  const enter = async (givenUp?: Promise<never>): Promise<void> => {
    let next!: () => void
    const turn = new Promise<void>((resolve) => (next = resolve))
    queue.push(next)
    if (free > 0) {
      free -= 1
      queue.shift()?.()
    }
    try {
      await (givenUp ? Promise.race([givenUp, turn]) : turn)
    } catch (thrown) {
      const place = queue.indexOf(next)
      if (place < 0) leave()
      else queue.splice(place, 1)
      throw thrown
    }
  }
  return { enter, leave }
}
