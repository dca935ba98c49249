import type { Scene } from './family.ts'
import type { Machine } from './machine.ts'

/** The control group of a unit; its directory exists while any process of the unit runs. */
const groupOf = (unit: string): string => `/sys/fs/cgroup/system.slice/${unit}`

/**
 * Starts a unit and freezes all its processes as soon as a condition holds; ends the case if the unit ended before that.
 * @param seen shell condition that root tests without a pause: one that starts a program misses short moments
 */
export async function standsStill(
  scene: Scene,
  vm: Machine,
  unit: string,
  seen: string,
): Promise<void> {
  const group = groupOf(unit)
  await vm.root(
    `systemctl start --no-block ${unit}; until [ -d ${group} ]; do :; done
    until { ${seen}; } || [ ! -d ${group} ]; do :; done
    echo 1 >${group}/cgroup.freeze`,
    { timeout: 120 * vm.patience, allow: 'any' },
  )
  const frozen = await vm.ask(`cat ${group}/cgroup.freeze`, { allow: 'any' })
  scene.must('the frozen unit is still running', '1', frozen)
}

/** Lets a frozen unit go on, and waits for its end. */
export async function goesOn(vm: Machine, unit: string): Promise<void> {
  await vm.root(`echo 0 >${groupOf(unit)}/cgroup.freeze`)
  await vm.until(`${unit} to end`, 120, `[ ! -d ${groupOf(unit)} ]`)
}

/** Kills all processes of a unit at once, and waits until they are gone. */
export async function killAll(vm: Machine, unit: string): Promise<void> {
  const group = groupOf(unit)
  await vm.root(`echo 1 >${group}/cgroup.kill; until [ ! -d ${group} ]; do :; done`)
}
