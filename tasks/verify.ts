import {
  checksOf,
  judge,
  judgeClosure,
  judgeLogin,
  probesOf,
  tailscaleLogin,
  type Result,
} from '../lib/vm/checks.ts'
import { Exit, explain, type ExitCode } from '../lib/failure.ts'
import { guestOf, guestStore } from '../lib/nix/guest.ts'
import { programPath, withGuest, type GuestAgent } from '../lib/vm/guest-agent.ts'
import { readHost, type Host } from '../lib/nix/host.ts'
import { someVms } from '../lib/nix/hosts.ts'
import { labKey, publicKey, sshTarget } from '../lib/vm/identity.ts'
import { closure } from '../lib/nix/nix.ts'
import { probe } from '../lib/ssh/probes.ts'
import { counting } from '../lib/retry.ts'
import { connect } from '../lib/ssh/ssh.ts'
import { runLanes, type Lane } from '../lib/steps.ts'
import { green, red, table, yellow } from '../lib/table.ts'
import { main, type Args } from '../lib/task.ts'
import { files, qemuOf, type Vm } from '../lib/vm/vm.ts'

export const name = 'verify'
export const describe = 'Compare the configuration with the running system'
export const usage = '[host..]'
export const positionals = { host: { describe: 'VMs; default: all', array: true } }
export const options = {
  json: { type: 'boolean', describe: 'Print data instead of a table' },
} as const
export const under = [
  'nix eval --json <flake>#labConfigurations.<host> --apply <nix/lab/facts.nix>',
  'ssh <host> bash -s   one connection for all probes',
  'QEMU guest agent: sshd -T   how root may log in',
]
export const examples: [string, string][] = [
  ['just verify-test-vms', 'Every VM, in parallel'],
  ['tsx tasks/verify.ts sorrow --json', 'One, as data'],
]

/** Time limit for the probes of one VM, in seconds; a slower guest is broken. */
const limit = 180

export interface Verified {
  host: string
  results: Result[]
}

export async function run(args: Args): Promise<ExitCode> {
  const json = Boolean(args['json'])
  return printVerified(await verifyHosts(someVms(args['host']), json), json)
}

/** Verifies VMs in parallel; a VM that does not answer counts as a failed check. */
export async function verifyHosts(vms: Vm[], quiet = false): Promise<Verified[]> {
  const found = new Map<Vm, Verified>()
  const verifyLane = (vm: Vm): Lane<Vm> => ({
    title: vm.host,
    context: vm,
    steps: [
      {
        title: 'verify',
        would: () => [`ask ${vm.host} for what runs`],
        run: async (_, say) =>
          void found.set(vm, await counting('answers', limit, say, () => verify(vm))),
      },
    ],
  })
  await runLanes(vms.map(verifyLane), { quiet })
  return vms.map((vm) => found.get(vm)!)
}

async function verify(vm: Vm): Promise<Verified> {
  const { host, user } = vm
  if (!qemuOf(vm)) {
    return {
      host,
      results: [{ check: 'running', state: 'fail', found: 'stopped', expected: 'running' }],
    }
  }
  let methods: string[] = []
  const target = {
    ...sshTarget(vm),
    connectTimeout: limit,
    onMethods: (m: string[]) => (methods = m),
  }
  // the evaluation and the logins do not depend on each other
  const [configured, connected, root] = await Promise.allSettled([
    readHost(host, guestOf(vm).attribute, guestStore(guestOf(vm))),
    connect(target),
    rootLogin(vm),
  ])
  if (configured.status === 'rejected') {
    if (connected.status === 'fulfilled') await connected.value.close()
    throw configured.reason
  }
  const outside = [
    await headlessClosure(configured.value, guestStore(guestOf(vm))),
    failable(root, 'guest agent', 'answers'),
    ...(root.status === 'fulfilled' ? [root.value] : []),
  ]
  if (connected.status === 'rejected') {
    return { host, results: [failable(connected, 'SSH', `login as ${user}`), ...outside] }
  }
  const ssh = connected.value
  try {
    const key = Boolean(process.env['LAB_TAILSCALE_AUTHKEY'])
    const login = tailscaleLogin(configured.value, vm.openUplink === true, key)
    const checks = [...checksOf(configured.value), ...login]
    const results = judge(checks, await probe(ssh, probesOf(checks), limit))
    return { host, results: [...results, judgeLogin(user, methods, true), ...outside] }
  } finally {
    await ssh.close()
  }
}

/** How root may log in, as sshd says through the guest agent, which works without SSH. */
async function rootLogin(vm: Vm): Promise<Result> {
  const script = `${programPath}
sshd -T -C user=root,host=localhost,addr=127.0.0.1 || exit 0
for file in /etc/ssh/authorized_keys.d/root /etc/ssh/lab_keys.d/root; do
  [ ! -e $file ] || while read -r line; do echo "$line"; done <$file
done`
  const ask = (guest: GuestAgent) => guest.exec('/bin/sh', ['-c', script], { timeout: limit })
  const { stdout } = await withGuest(vm, ask, limit)
  // OpenSSH up to 9 prints the names in lower case, later versions in mixed case
  const says = (setting: string): boolean => stdout.toLowerCase().includes(`\n${setting}\n`)
  const open = says('permitrootlogin yes')
  const methods = [
    ...(says('pubkeyauthentication yes') && !says('permitrootlogin no') ? ['publickey'] : []),
    ...(open && says('passwordauthentication yes') ? ['password'] : []),
    ...(open && says('kbdinteractiveauthentication yes') ? ['keyboard-interactive'] : []),
  ]
  return judgeLogin('root', methods, stdout.includes(publicKey(labKey())))
}

/** Checks the closure where it was built; another check compares it with the running system. */
async function headlessClosure({ toplevel }: Host, store: string[]): Promise<Result> {
  try {
    const paths = await closure(toplevel, store)
    return judgeClosure(paths.map(({ path }) => path))
  } catch {
    return { check: 'headless closure', state: 'n/a', found: 'it is not built on this machine' }
  }
}

function failable(outcome: PromiseSettledResult<unknown>, check: string, expected: string): Result {
  if (outcome.status === 'fulfilled') return { check, state: 'pass', found: expected, expected }
  const found = explain(check, outcome.reason).split('\n')[0]!
  return { check, state: 'fail', found, expected }
}

/** Prints the results and returns the exit code; `n/a` counts neither as passed nor as failed. */
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
    for (const { host, check, found, expected, hint } of failed) {
      console.log(red(`${host}: ${check}: found ${found || 'nothing'}, expected ${expected}`))
      if (hint) console.log(`  hint: ${hint}`)
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
