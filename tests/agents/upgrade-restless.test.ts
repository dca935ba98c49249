import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { missingForRoot } from './root.ts'
import { agent, makeUpgradeWorld, type UpgradeWorld } from './upgrade.ts'

const missing = await missingForRoot()
let world: UpgradeWorld
beforeAll(async () => {
  if (!missing) world = await makeUpgradeWorld()
})
beforeEach((context) => {
  if (missing) context.skip(missing)
})
afterAll(() => world?.remove())

/**
 * A stand-in for systemctl, as a scratch root has no systemd. Once /root/loops-since exists, the service `loops`
 * has died and been restarted every 4 s since then. Before, it was restarted once, long ago: its start time is
 * negative, so that this holds however recently the machine booted.
 */
const systemctl = `#!/bin/bash
case $1 in
  show) ;;
  *) exit ;;
esac
read -r up _ </proc/uptime
now=$((\${up%.*} - $(cat /root/asleep 2>/dev/null || echo 0)))
unit() { printf '%s\\n' "Type=simple" "NRestarts=$2" "Id=$1.service" "ActiveState=active" "SubState=running" "ActiveEnterTimestampMonotonic=$3"; echo; }
unit calm 1 5000000
if [[ -e /root/loops-since ]]; then
  lives=$(((now - $(</root/loops-since)) / 4))
  unit loops $((lives + 1)) $(((now - 1) * 1000000 + RANDOM))
else
  unit loops 1 -700000000
fi
`
const upgrade = (settle: string, first = '') => {
  world.write('root/systemctl', systemctl)
  const model =
    'chmod +x /root/systemctl; mount --bind /root/systemctl /usr/bin/systemctl; mkdir -p /run/systemd/system'
  world.write('root/agent', `${first}\n${model}\n${agent}`)
  return world.upgrade({ UPGRADE_SETTLE: settle })
}
const looping = 'read -r up _ </proc/uptime; echo ${up%.*} >/root/loops-since'
const push = (text: string, commands = 'true'): Promise<string> =>
  world.push(text, {
    'text.nix': JSON.stringify(`${text}\nswitch does: ${commands}`).replaceAll('${', '\\${'),
  })

test('A service that dies some time after each start is detected, and the upgrade rolled back', async () => {
  const before = await world.state()
  await push('two', looping)
  const done = await upgrade('10')
  await world.sh('rm -f loops-since')
  expect(done).toMatchObject({ code: 1, outcome: 'validation-failed', notRestored: [] })
  expect(done.reason).toMatch(
    /^loops\.service does not stay up: it was restarted [23] times within 10 s$/,
  )
  expect(await world.state()).toBe(before)
})

test('A service that already died repeatedly before the switch causes no rollback, and is not waited for', async () => {
  await world.sh(looping)
  await world.sh('sleep 5')
  await push('three')
  expect(await upgrade('6')).toMatchObject({ code: 0, outcome: 'upgraded' })
  await world.sh('rm -f loops-since')
  await push('four')
  const from = performance.now()
  expect(await upgrade('60')).toMatchObject({ code: 0, outcome: 'upgraded' })
  expect(performance.now() - from).toBeLessThan(50_000)
})

test('A service that already died repeatedly before is recognized however long the machine has slept', async (context) => {
  if ((await world.sh('head -n 3 /proc/timer_list 2>/dev/null || true')) === '')
    context.skip('only root of the machine itself may ask how long it was awake')
  // ten days, which count in the time since the boot, but not in systemd's times of units
  const asleep = 864_000
  await world.sh(`${looping}; echo ${asleep} >/root/asleep; sleep 5`)
  await push('five')
  const done = await upgrade(
    '6',
    `[[ -v SLEPT ]] || SLEPT=1 exec unshare --time --boottime ${asleep} --fork bash -euo pipefail /root/agent`,
  )
  await world.sh('rm -f loops-since asleep')
  expect(done).toMatchObject({ code: 0, outcome: 'upgraded' })
})
