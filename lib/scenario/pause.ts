import { createInterface } from 'node:readline'
import { usage } from '../failure.ts'
import type { CaseResult } from '../report/result.ts'
import { sshLine } from '../vm/identity.ts'

/** Stops a run at each case that fails, until the user presses Enter. */
export interface Pause {
  /** Resolves when no failed case is being inspected: the next one may restore its VMs then. */
  over: () => Promise<void>
  /** Shows a case that failed, and waits for Enter; several are shown one after the other. */
  at: (result: CaseResult, hosts: string[]) => Promise<void>
}

/** @throws Failure (usage) where there is no terminal */
export function pauses(): Pause {
  if (!process.stdin.isTTY || !process.stderr.isTTY) {
    throw usage(
      'Cannot pause: there is no terminal to wait at',
      'Leave out --pause; --keep leaves the VMs as the last case left them',
    )
  }
  // a live view would redraw over the question; a terminal has one unless CI is set
  process.env['CI'] ||= 'true'
  let last = Promise.resolve()
  return {
    over: () => last,
    at: (result, hosts) => {
      last = last.then(() => askedFor(result, hosts))
      return last
    },
  }
}

async function askedFor(result: CaseResult, hosts: string[]): Promise<void> {
  process.stderr.write(
    `\n${inWords(result, hosts)}\nPress Enter to go on, Ctrl-C to end the run here: `,
  )
  // not in raw mode, so that Ctrl-C sends the signal that ends a run at any other time
  const terminal = createInterface({ input: process.stdin, terminal: false })
  await new Promise<void>((resolve) => {
    terminal.once('line', () => resolve()).once('close', () => resolve())
  })
  terminal.close()
}

/**
 * What the user needs to inspect a case that failed.
 * @param hosts the VMs of the run; those that the case did not use wait once their own case has ended
 */
export function inWords(result: CaseResult, hosts: string[]): string {
  const rows = [
    ...result.checks.filter(({ held }) => !held),
    ...result.oracle
      .filter(({ state }) => state === 'failed')
      .map((row) => ({ ...row, name: ['oracle:', row.host, row.name].filter(Boolean).join(' ') })),
  ]
  const wrong = rows.map(({ name, expected, found }) => [
    name,
    `  expected ${expected}`,
    `  found    ${found}`,
  ])
  const others = hosts.filter((host) => !result.hosts.includes(host))
  return [
    `Paused: ${result.family} ${result.case} has failed, ${result.title}`,
    // a wait that took too long ends a case before it can compare anything
    ...(wrong.length > 0 ? wrong.flat() : [result.reason]),
    ...(result.evidence ? [`evidence: ${result.evidence}`] : []),
    `again: ${result.replay}`,
    `${result.hosts.join(' and ')} ${result.hosts.length > 1 ? 'are' : 'is'} as the case left ${result.hosts.length > 1 ? 'them' : 'it'}:`,
    ...result.hosts.flatMap((host) => [`  ${sshLine(host)}`, `  ${sshLine(host)}-root`]),
    ...others.flatMap((host) => [
      `${host} finishes the case that it is in, then waits:`,
      `  ${sshLine(host)}`,
    ]),
  ].join('\n')
}
