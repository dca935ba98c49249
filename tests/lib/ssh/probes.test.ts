import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { probe, type Probe } from '../../../lib/ssh/probes.ts'
import { connect, type Ssh } from '../../../lib/ssh/ssh.ts'
import { project } from '../../../lib/settings.ts'
import { makeSshd, noSshd, type Sshd } from './sshd.ts'

let sshd: Sshd
let ssh: Ssh
beforeAll(async () => {
  if (noSshd) throw new Error(noSshd)
  sshd = await makeSshd()
  await sshd.start()
  ssh = await connect(sshd.target)
})
afterAll(async () => {
  await ssh?.close()
  await sshd?.stop()
})

const probes = (snippets: Record<string, string>, programs = true): Record<string, Probe> =>
  Object.fromEntries(
    Object.entries(snippets).map(([name, snippet]) => [name, { snippet, programs }]),
  )

const any = {
  plain: 'echo yes',
  lines: String.raw`printf 'a\\b\n\n"c" \n'; false`,
  open: 'printf unfinished',
  errors: 'echo wrong >&2',
  silent: ':',
  moves: 'set -- other words; echo "$1"',
  names: 'name=x text=y left=z end=0 units=; echo "$name$text$left"',
  reads: 'read -r line; echo "$? <$line>"',
}
const answersOfAny = {
  plain: { code: 0, text: 'yes' },
  lines: { code: 1, text: 'a\\b\n\n"c"' },
  open: { code: 0, text: 'unfinished' },
  errors: { code: 0, text: 'wrong' },
  silent: { code: 0, text: '' },
  moves: { code: 0, text: 'other' },
  names: { code: 0, text: 'xyz' },
  reads: { code: 0, text: '1 <>' },
}

test.each([true, false])(
  'Each probe gets its own answer, whatever its output (programs: %s)',
  async (programs) => {
    expect(await probe(ssh, probes(any, programs), 60)).toEqual(answersOfAny)
  },
)

test('A probe may exit early, and may print more than a pipe holds', async () => {
  const more = {
    leaves: 'echo before; exit 3; echo after',
    long: 'for i in {1..20000}; do echo "line $i"; done',
  }
  const answers = await probe(ssh, { ...probes(any, false), ...probes(more) }, 60)
  expect(answers).toMatchObject({ ...answersOfAny, leaves: { code: 3, text: 'before' } })
  expect(answers['long']!.text.split('\n')).toHaveLength(20_000)
})

test('A probe that hangs is killed and has no answer, but the others have', async () => {
  const mark = 'sleep 4321'
  const answers = await probe(ssh, probes({ hangs: `${mark}; echo woke`, well: 'echo yes' }), 60, 1)
  expect(answers).toEqual({ well: { code: 0, text: 'yes' } })
  const left = execFileSync('sh', ['-c', `pgrep -f '^${mark}' || true`], { encoding: 'utf8' })
  expect(left).toBe('')
})

test('Probes that are programs run in parallel', async () => {
  // each waits for the other, so in sequence they would never end
  const dir = join(sshd.dir, 'meet')
  const meet = (own: string, other: string): string =>
    `mkdir -p ${dir}; : >${dir}/${own}; until [ -e ${dir}/${other} ]; do sleep 0.05; done; echo met`
  const answers = await probe(ssh, probes({ one: meet('a', 'b'), two: meet('b', 'a') }), 60, 20)
  expect(answers).toMatchObject({ one: { text: 'met' }, two: { text: 'met' } })
})

test('A unit that does not exist is reported as not-found', async () => {
  const answers = await probe(ssh, probes({ none: 'unit lab-no-such.service' }, false), 60)
  expect(answers).toEqual({ none: { code: 1, text: 'not-found inactive dead' } })
})

test('shellcheck accepts probes.sh', () => {
  const file = join(project, 'lib/ssh/probes.sh')
  expect(execFileSync('shellcheck', [file], { encoding: 'utf8' })).toBe('')
})

test('While a guest boots, the units are read only once it has finished booting', () => {
  const script = `
    SECONDS=0; sleep() { echo booted >"$booted"; }
    systemctl() {
      local state; state=$(<"$booted")
      case $1 in
        is-system-running) [[ $state == booted ]] && echo running || echo starting ;;
        list-units) [[ $state == booted ]] && echo 'last.service loaded active exited Last' || echo 'last.service loaded inactive dead Last' ;;
      esac
    }
    booted=$(mktemp); . ${join(project, 'lib/ssh/probes.sh')}
    rm "$booted"; unit last.service`
  expect(execFileSync('bash', ['-c', script], { encoding: 'utf8' })).toBe('loaded active exited\n')
})

test('A unit that keeps restarting counts as failed, whatever its state at the moment', () => {
  const script = `
    systemctl() {
      case $1 in
        list-units) printf '%s\\n' 'good.service loaded active running Good' 'bad.service loaded failed failed Bad' \
          'again.service loaded activating auto-restart Again' 'loop.service loaded active running Loop' ;;
        show)
          [[ -z \${mute-} ]] || return 1
          unit() { printf '%s\\n' "Id=$1.service" "NRestarts=$2" "ActiveState=$3" "SubState=$4" "ActiveEnterTimestampMonotonic=$5" ''; }
          read -r up _ </proc/uptime; now=\${up%.*}
          unit good 0 active running 1000000
          unit bad 4 failed failed 0
          unit again 3 activating auto-restart 0
          unit loop $((now / 12)) active running $(((now - 7) * 1000000))
          unit settled 4 active running 5000000
          unit starting 3 activating start 0 ;;
      esac
    }
    . ${join(project, 'lib/ssh/probes.sh')}
    failed again.service; echo --; mute=yes; failed`
  const said = execFileSync('bash', ['-c', script], { encoding: 'utf8' }).trim().split('\n')
  expect(said).toEqual([
    'bad.service',
    expect.stringMatching(/^loop\.service \(restarted \d+ times\)$/),
    'starting.service (restarted 3 times)',
    '--',
    'bad.service',
    'again.service',
    'systemd does not answer',
  ])
})
