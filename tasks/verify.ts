import { checksOf, judge, probesOf, type Result } from '../lib/checks.ts'
import { Exit, Failure, explain, type ExitCode } from '../lib/failure.ts'
import { chooseGuest } from '../lib/guest.ts'
import { askAgent } from '../lib/guest-agent.ts'
import { readHost } from '../lib/host.ts'
import { chooseVms } from '../lib/hosts.ts'
import { sshTarget } from '../lib/identity.ts'
import { evaluationStore } from '../lib/image.ts'
import { probe } from '../lib/probes.ts'
import { connect } from '../lib/ssh.ts'
import { green, red, table, yellow } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'
import { files, qemuOf, type Vm } from '../lib/vm.ts'

export const name = 'verify'
export const describe = 'Compare what the configuration says with what runs'
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; every one without any', array: true } }
export const options = {
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = [
  'nix eval --json <flake>#labConfigurations.<host> --apply <nix/lab/facts.nix>',
  'ssh <host> sudo sh -s   one connection with every probe in it',
]
export const examples: [string, string][] = [
  ['just verify-test-vms', 'Every VM, side by side'],
  ['tsx tasks/verify.ts sorrow --json', 'One, as data'],
]

/** Seconds that the probes of one VM may take; more means that the guest is ill. */
const limit = 60

export interface Verified {
  host: string
  results: Result[]
}

export async function run(args: Args): Promise<ExitCode> {
  const vms = chooseVms(args['host'])
  if (vms.length === 0) throw new Failure('Cannot find any VM', { hint: 'just lab makes two' })
  return printVerified(await verifyHosts(vms), Boolean(args['json']))
}

/** Verifies VMs side by side; one that cannot be asked is a failed check of its own. */
export const verifyHosts = (vms: Vm[]): Promise<Verified[]> => Promise.all(vms.map(verify))

async function verify(vm: Vm): Promise<Verified> {
  const { host } = vm
  if (!qemuOf(vm)) {
    return {
      host,
      results: [{ check: 'running', state: 'fail', found: 'stopped', expected: 'running' }],
    }
  }
  // the evaluation does not need the guest, nor the login the evaluation
  const [configured, connected, agent] = await Promise.allSettled([
    readHost(host, chooseGuest().attribute, evaluationStore()),
    connect({ ...sshTarget(vm), connectTimeout: limit }),
    askAgent(files(host).agent),
  ])
  if (configured.status === 'rejected') throw configured.reason
  const agentResult: Result = {
    check: 'guest agent',
    state: agent.status === 'fulfilled' ? 'pass' : 'fail',
    found: agent.status === 'fulfilled' ? 'answers' : (agent.reason as Error).message,
    expected: 'answers',
  }
  if (connected.status === 'rejected') {
    const found = explain('ssh', connected.reason).split('\n')[0]!
    const login: Result = { check: 'SSH', state: 'fail', found, expected: `login as ${vm.user}` }
    return { host, results: [login, agentResult] }
  }
  const ssh = connected.value
  try {
    const checks = checksOf(configured.value)
    const results = judge(checks, await probe(ssh, probesOf(checks), limit))
    return { host, results: [...results, agentResult] }
  } finally {
    await ssh.close()
  }
}

/** Prints the verdict and returns the exit code; `n/a` counts neither way. */
export function printVerified(verified: Verified[], json: boolean): ExitCode {
  const all = verified.flatMap(({ host, results }) =>
    results.map((result) => ({ host, ...result })),
  )
  const failed = all.filter(({ state }) => state === 'fail')
  if (json) console.log(JSON.stringify(verified, null, 2))
  else {
    const hosts = verified.map(({ host }) => host)
    const checks = [...new Set(all.map(({ check }) => check))]
    const cell = (host: string, check: string): string => {
      const found = all.find((one) => one.host === host && one.check === check)
      if (!found) return ''
      return { pass: green('pass'), fail: red('FAIL'), 'n/a': yellow('n/a') }[found.state]
    }
    const rows = checks.map((check) => [
      check,
      ...hosts.map((host) => cell(host, check)),
      all.find((one) => one.check === check && one.state === 'n/a')?.found ?? '',
    ])
    console.log(table([['check', ...hosts, ''], ...rows]))
    for (const { host, check, found, expected } of failed) {
      console.log(red(`${host}: ${check}: found ${found || 'nothing'}, expected ${expected}`))
    }
    const count = (state: string): number => all.filter((one) => one.state === state).length
    console.log(`${count('pass')} held, ${failed.length} failed, ${count('n/a')} n/a`)
    for (const host of new Set(failed.map((one) => one.host))) {
      console.log(`evidence: ${files(host).serial}; replay: tsx tasks/verify.ts ${host}`)
    }
  }
  return failed.length > 0 ? Exit.checkFailed : Exit.held
}

await main(import.meta, { name, describe, usage, positionals, options, under, examples, run })
