/**
 * Which services a switch has broken, by systemd's answers before the switch, soon after it and a while later. The
 * upgrade's functions are called one by one here, because a scratch root has no systemd.
 */
import { chmodSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { beforeEach, expect, test } from 'vitest'
import { project } from '../../lib/settings.ts'
import { useRoot, type ScratchRoot } from './root.ts'

const part = (name: string): string => readFileSync(join(project, `nix/agents/${name}.sh`), 'utf8')
const parts = ['reachability', 'upgrade-services', 'upgrade-system'].map(part).join('')

let root: ScratchRoot
await useRoot((made) => (root = made))
beforeEach(() => {
  if (!root) return
  mkdirSync(join(root.dir, 'run/systemd/system'), { recursive: true })
  systemctl(`case $1 in show) ;; *) exit 0 ;; esac\n${show}`)
})

/** A systemctl that shows the services of /root/units, which has one per line. */
const show = `while read -r id type restarts state since; do
  printf '%s\\n' "Type=$type" "NRestarts=$restarts" "Id=$id.service" "ActiveState=\${state%/*}" "SubState=\${state#*/}" \\
    "ActiveEnterTimestampMonotonic=\${since}000000" ''
done </root/units | sed '$d'`

const systemctl = (text: string): void => {
  writeFileSync(join(root.dir, 'root/systemctl'), `#!/bin/bash\n${text}\n`)
  chmodSync(join(root.dir, 'root/systemctl'), 0o755)
}
/** Output of commands that run after the parts of the agent, with a fixed time since the boot. */
const asked = (commands: string, agent = parts): Promise<string> => {
  writeFileSync(join(root.dir, 'root/parts'), agent)
  return root.sh(
    `mount --bind /root/systemctl /usr/bin/systemctl
    UPGRADE_SETTLE=20; . /root/parts
    since_boot() { REPLY=10000; }
    systemd_says() { printf '%s\\n' "$@" >/root/units; }
    ${commands}`,
  )
}
/** The verdict on one service, given as `<type> <restarts> <state> <second since it was active>` at each moment. */
const verdict = (before: string, first: string, now: string, more = ''): Promise<string> =>
  asked(`${more}
    systemd_says 'calm simple 0 active/running 5' '${before && `it ${before}`}'; remember_services
    systemd_says 'calm simple 0 active/running 5' '${first && `it ${first}`}'; look_at_services
    systemd_says 'calm simple 0 active/running 5' '${now && `it ${now}`}'; restless; echo "$REPLY"`)
const times = (count: number): string =>
  `it.service does not stay up: it was restarted ${count} times within 20 s`

test.each<[string, [string, string, string], string]>([
  [
    'that stays up',
    ['simple 0 active/running 5', 'simple 0 active/running 9990', 'simple 0 active/running 9990'],
    '',
  ],
  [
    'that falls over',
    ['simple 0 active/running 5', 'simple 1 active/running 9990', 'simple 3 active/running 9999'],
    times(2),
  ],
  [
    'that is new, and falls over',
    ['', 'simple 1 active/running 9990', 'simple 3 active/running 9999'],
    times(2),
  ],
  ['that came meanwhile, and fell over', ['', '', 'simple 3 active/running 9999'], times(3)],
  [
    'that waits to be started again',
    [
      'simple 0 active/running 5',
      'simple 1 active/running 9990',
      'simple 2 activating/auto-restart 9995',
    ],
    times(1),
  ],
  [
    'that fell over for ten minutes before',
    [
      'simple 1 active/running 9401',
      'simple 1 active/running 9990',
      'simple 2 active/running 9999',
    ],
    '',
  ],
  [
    'that fell over once, longer ago',
    [
      'simple 1 active/running 9400',
      'simple 1 active/running 9990',
      'simple 2 active/running 9999',
    ],
    times(1),
  ],
  [
    'that fell over before, and waited to be started',
    [
      'simple 9 activating/auto-restart 5',
      'simple 9 active/running 9990',
      'simple 10 active/running 9999',
    ],
    '',
  ],
  [
    'that never came up before',
    ['notify 9 activating/start 0', 'notify 9 activating/start 0', 'notify 10 activating/start 0'],
    '',
  ],
  [
    'that never came up before, and was being ended',
    [
      'notify 9 deactivating/stop-sigterm 0',
      'notify 9 activating/start 0',
      'notify 10 activating/start 0',
    ],
    '',
  ],
  [
    'that was stopped by hand before',
    ['simple 9 inactive/dead 5', 'simple 0 active/running 9990', 'simple 2 active/running 9999'],
    times(2),
  ],
  [
    'that does not come up',
    ['notify 0 active/running 5', 'notify 0 activating/start 5', 'notify 0 activating/start 5'],
    'it.service has not come up',
  ],
  [
    'that is new, and does not come up',
    ['', 'notify 0 activating/start 0', 'notify 0 activating/start 0'],
    'it.service has not come up',
  ],
  [
    'that has come up by now',
    ['notify 0 active/running 5', 'notify 0 activating/start 5', 'notify 0 active/running 9999'],
    '',
  ],
  ['that came and went', ['', 'notify 0 activating/start 0', ''], ''],
  // it is reported as a failed unit already
  [
    'that waits long to be started again',
    [
      'simple 0 active/running 5',
      'simple 1 activating/auto-restart 5',
      'simple 1 activating/auto-restart 5',
    ],
    '',
  ],
  [
    'that is started later',
    ['notify 0 active/running 5', 'notify 0 active/running 5', 'notify 0 activating/start 5'],
    '',
  ],
  [
    'that was coming up before',
    ['notify 0 activating/start 0', 'notify 0 activating/start 0', 'notify 0 activating/start 0'],
    '',
  ],
  [
    'that is a job, and takes its time',
    ['oneshot 0 inactive/dead 0', 'oneshot 0 activating/start 0', 'oneshot 0 activating/start 0'],
    '',
  ],
])('A service %s', async (_, moments, reason) => {
  expect(await verdict(...moments)).toBe(reason)
})

test('A service that had failed before the switch is not blamed on it, even if another boot had started it', async () => {
  const now = ['simple 1 active/running 9990', 'simple 3 active/running 9999'] as const
  const failed = (units: string): string => `failed_before=$'${units}'`
  expect(await verdict('', ...now, failed('other.service\\nit.service'))).toBe('')
  expect(await verdict('', ...now, failed('other.service\\nwit.service'))).toBe(times(2))
})

test('Only services that the switch has started are given time to fail', async () => {
  const started = (before: string, after: string): Promise<string> =>
    asked(`systemd_says '${before}'; remember_services; systemd_says '${after}'; look_at_services
      if started_since it.service; then echo yes; else echo no; fi`)
  expect(await started('it simple 0 active/running 5', 'it simple 0 active/running 5')).toBe('no')
  expect(await started('it simple 0 active/running 5', 'it simple 0 active/running 9990')).toBe(
    'yes',
  )
  expect(await started('', 'it simple 0 active/running 9990')).toBe('yes')
  expect(await started('', 'it notify 0 activating/start 0')).toBe('yes')
  expect(await started('it oneshot 0 active/exited 5', 'it oneshot 0 active/exited 9990')).toBe(
    'no',
  )
  expect(await started('it simple 0 active/running 5', 'it simple 0 inactive/dead 9990')).toBe('no')
})

test.each([
  ['has done so before', 'simple 7 active/running 9990', '7', 'good'],
  ['was restarted long ago', 'simple 7 active/running 5', '7', 'it.service has failed'],
  ['was never restarted before', 'simple 0 active/running 9990', '1', 'it.service has failed'],
  ['was started by the switch', 'simple 7 active/running 9990', '0', 'it.service has failed'],
])('A service that waits for a restart, and %s', async (_, before, restarts, judged) => {
  const waits = `echo 'it.service loaded activating auto-restart It'`
  systemctl(`case $1 in show) ;; list-units) ${waits}; exit ;; *) exit 0 ;; esac\n${show}`)
  const said = await asked(`systemd_says 'it ${before}'; remember_services
    systemd_says 'it simple ${restarts} activating/auto-restart 9990'
    UPGRADE_PATIENCE=0 UPGRADE_CHECKS='[]' UPGRADE_CHECKS_NA='[]' failed_before=''
    read_whole() { found=(); }; items() { :; }; reachable() { :; }; sleep() { :; }
    if validate; then echo good; else printf '%s\\n' "\${bad[@]}"; fi`)
  expect(said).toBe(judged)
})

test('A systemd that does not answer is a failure; without systemd none is asked', async () => {
  const look =
    'if look_at_services; then echo "${#services[@]} known"; remember_services; else echo none; ! remember_services; fi'
  expect(await asked(`systemd_says 'it simple 0 active/running 5'; ${look}`)).toBe('1 known')
  systemctl('exit 0')
  expect(await asked(look)).toBe('none')
  systemctl(
    'printf "Id=it.service\\nNRestarts=0\\nActiveState=active\\nSubState=running\\n"; exit 1',
  )
  expect(await asked(look)).toBe('none')
  expect(await asked(`rmdir /run/systemd/system; ${look}`)).toBe('0 known')
})

test('A systemctl that hangs is stopped, and does not inherit the lock', async () => {
  systemctl('[[ ! -e /proc/$$/fd/9 ]] || echo locked; exec sleep 100')
  const quick = parts.replace('timeout 60 systemctl', 'timeout 1 systemctl')
  expect(quick).not.toBe(parts)
  const from = performance.now()
  expect(await asked('exec 9>/run/lock; ask_systemd show || echo "exit $?"', quick)).toBe(
    'exit 124',
  )
  expect(performance.now() - from).toBeLessThan(60_000)
})

/** The result of a validation in which systemd answers only this many queries of each kind. */
const validated = (shows: number, lists: number): Promise<string> =>
  asked(`systemd_says 'it simple 0 active/running 5'; remember_services; rm -f /root/asked-*
    cat >/root/failing <<'END'
#!/bin/bash
case $1 in show) most=${shows} ;; list-units) most=${lists} ;; *) exit ;; esac
echo >>/root/asked-$1
[[ $(wc -l </root/asked-$1) -le $most ]] || exit 1
exec /root/systemctl "$@"
END
    chmod +x /root/failing; umount /usr/bin/systemctl; mount --bind /root/failing /usr/bin/systemctl
    UPGRADE_PATIENCE=0 UPGRADE_CHECKS='[]' UPGRADE_CHECKS_NA='[]' failed_before=''
    read_whole() { found=(); }; items() { :; }; reachable() { :; }; sleep() { :; }
    if validate; then echo good; else printf '%s\\n' "\${bad[@]}"; fi`)

test('If systemd stops answering while services settle, they do not count as good', async () => {
  expect(await validated(9, 9)).toBe('good')
  for (const [shows, lists] of [
    [0, 0],
    [0, 9],
    [1, 9],
    [9, 0],
    [9, 1],
  ] as const)
    expect
      .soft([shows, lists, await validated(shows, lists)])
      .toEqual([shows, lists, 'systemd does not report the state of the services'])
})
