import { describe, expect, test, vi } from 'vitest'
import { Failure } from '../../lib/failure.ts'
import { counting, pause, waitFor } from '../../lib/retry.ts'

const failure = async (promise: Promise<unknown>): Promise<Failure> => {
  const thrown = await promise.then(
    (value) => new Error(`resolved with ${String(value)}`),
    (reason: unknown) => reason,
  )
  if (!(thrown instanceof Failure)) throw thrown
  return thrown
}

describe('waitFor', () => {
  test('returns what the probe found, and stops probing', async () => {
    let probes = 0
    const found = await waitFor('three', 10, () => (++probes === 3 ? 'here' : undefined), {
      every: 0.01,
    })
    expect(found).toBe('here')
    expect(probes).toBe(3)
  })

  test('counts 0 and the empty string as found, false and undefined as not yet', async () => {
    expect(await waitFor('zero', 10, () => 0)).toBe(0)
    expect(await waitFor('nothing', 10, () => '')).toBe('')
    const answers = [undefined, false, true] as const
    let n = 0
    expect(await waitFor('true', 10, () => answers[n++], { every: 0.01 })).toBe(true)
    expect(n).toBe(3)
  })

  test('states what it waited for, the limit, the last reason and the evidence', async () => {
    let looked = 0
    const thrown = await failure(
      waitFor(
        '`sorrow` to answer',
        0.2,
        () => {
          throw new Failure('nothing listens on port 2222', { hint: 'look at the serial log' })
        },
        { every: 0.02, evidence: () => `serial line ${++looked}` },
      ),
    )
    expect(thrown.message).toBe(
      'Waiting for `sorrow` to answer took longer than its limit of 0.2 s: ' +
        'nothing listens on port 2222',
    )
    expect(thrown.detail.hint).toBe('look at the serial log')
    expect(thrown.detail.evidence).toBe('serial line 1')
  })

  test('gives a hanging probe up at the limit, and aborts its signal', async () => {
    let told = false
    const thrown = await failure(
      waitFor('a hang', 0.1, (signal) => {
        signal.addEventListener('abort', () => (told = true))
        return new Promise<undefined>(() => {})
      }),
    )
    expect(thrown.message).toContain('a hang took longer than its limit of 0.1 s')
    expect(told).toBe(true)
  })

  test('a bug in the probe is thrown at once, not retried', async () => {
    let probes = 0
    const bug = waitFor('a bug', 10, () => {
      probes += 1
      throw new TypeError('x is not a function')
    })
    await expect(bug).rejects.toThrow(TypeError)
    expect(probes).toBe(1)
  })

  test('a final failure ends the wait with its own message', async () => {
    const thrown = await failure(
      waitFor(
        'never',
        10,
        () => {
          throw new Failure('the host key is another')
        },
        { final: (reason) => reason.message.includes('host key') },
      ),
    )
    expect(thrown.message).toBe('the host key is another')
  })

  test('an aborted signal ends the wait with its reason, before it, in a pause or during a probe', async () => {
    const gone = new Failure('QEMU ended')
    expect(await failure(waitFor('x', 10, () => 1, { signal: AbortSignal.abort(gone) }))).toBe(gone)
    for (const probe of [() => undefined, () => new Promise<undefined>(() => {})]) {
      const abort = new AbortController()
      const waiting = waitFor('x', 60, probe, { every: 60, signal: abort.signal })
      setTimeout(() => abort.abort(gone), 20)
      expect(await failure(waiting)).toBe(gone)
    }
  })

  test('a poke starts the next probe at once, even if it came during a probe', async () => {
    let poke!: () => void
    let unsubscribed = 0
    let probes = 0
    const found = waitFor(
      'two pokes',
      60,
      async () => {
        probes += 1
        if (probes === 2) {
          poke()
          await pause(0.01)
        }
        return probes === 3
      },
      {
        every: 3600,
        wake: (call) => {
          poke = call
          return () => (unsubscribed += 1)
        },
      },
    )
    await pause(0.02)
    expect(probes).toBe(1)
    poke()
    expect(await found).toBe(true)
    expect(unsubscribed).toBe(1)
  })

  test('a slow probe does not delay the following ones', async () => {
    vi.useFakeTimers()
    try {
      const starts: number[] = []
      const from = performance.now()
      const found = waitFor(
        'starts',
        60,
        async () => {
          starts.push(performance.now() - from)
          // the third probe takes longer than its interval
          await pause(starts.length === 3 ? 0.5 : 0.1)
          return starts.length === 6
        },
        { every: 0.2 },
      )
      await vi.advanceTimersByTimeAsync(3000)
      expect(await found).toBe(true)
      expect(starts.map((ms) => Math.round(ms / 10) * 10)).toEqual([0, 200, 400, 900, 1100, 1300])
    } finally {
      vi.useRealTimers()
    }
  })

  test('reports once a second how long it has waited and the limit, and clears the line at the end', async () => {
    vi.useFakeTimers()
    try {
      const said: string[] = []
      let there = false
      const waiting = waitFor('me', 9, () => there, { every: 0.5, say: (line) => said.push(line) })
      await vi.advanceTimersByTimeAsync(2000)
      there = true
      await vi.advanceTimersByTimeAsync(600)
      expect(await waiting).toBe(true)
      const counts = [0, 1, 2].map((second) => `me: ${second} s of at most 9 s`)
      expect(said).toEqual([...counts, ''])
    } finally {
      vi.useRealTimers()
    }
  })

  test('counting reports the seconds of work with its own limit, under its current name', async () => {
    vi.useFakeTimers()
    try {
      const said: string[] = []
      let name = 'first'
      const work = async (): Promise<string> => {
        await pause(1.5)
        name = 'second'
        await pause(1)
        throw new Failure('broke')
      }
      const counted = counting(
        () => name,
        9,
        (line) => said.push(line),
        work,
      )
      const broke = expect(counted).rejects.toThrow('broke')
      await vi.advanceTimersByTimeAsync(2500)
      await broke
      expect(said).toEqual([
        'first: 0 s of at most 9 s',
        'first: 1 s of at most 9 s',
        'second: 2 s of at most 9 s',
        '',
      ])
      await vi.advanceTimersByTimeAsync(5000)
      expect(said).toHaveLength(4)
    } finally {
      vi.useRealTimers()
    }
  })
})
