export interface Queue<T> {
  push: (item: T) => void
  /** Ends the iteration, what was pushed before included. */
  end: () => void
  /** To be read once, by one reader. */
  items: AsyncGenerator<T, void, void>
}

/** Turns calls into an iterator: what is pushed before anybody reads is kept. */
export function queue<T>(onReturn: () => void = () => {}): Queue<T> {
  const kept: T[] = []
  let ended = false
  let wakeUp: (() => void) | undefined
  async function* read(): AsyncGenerator<T, void, void> {
    try {
      for (;;) {
        while (kept.length > 0) yield kept.shift()!
        if (ended) return
        await new Promise<void>((resolve) => (wakeUp = resolve))
      }
    } finally {
      onReturn()
    }
  }
  const push = (item: T): void => {
    if (!ended) kept.push(item)
    wakeUp?.()
  }
  const end = (): void => {
    ended = true
    wakeUp?.()
  }
  return { push, end, items: read() }
}
