import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { deployment, groundLane } from '../../../lib/vm/deployment.ts'
import { chooseGuest } from '../../../lib/nix/guest.ts'
import { chooseHosts } from '../../../lib/nix/hosts.ts'
import { evaluationStore } from '../../../lib/nix/store.ts'
import { openWorld, template } from '../../../lib/scenario/world.ts'
import { countEvaluations, makeFleet } from '../../fleet.ts'

const names = Array.from({ length: 20 }, (_, at) => `host-${at + 1}`)
const wanted = ['host-7', 'host-13']
const attribute = 'labConfigurations'

let dir: string
beforeEach(() => {
  dir = mkdtempSync(join(tmpdir(), 'fleet-'))
  vi.stubEnv('LAB_HOME', join(dir, 'home'))
  vi.stubEnv('LAB_FLAKE', makeFleet(dir, names, wanted))
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(dir, { recursive: true })
})

test('of a fleet of twenty hosts only the chosen ones are evaluated, each once', async () => {
  const { bin, seen } = countEvaluations(dir)
  vi.stubEnv('PATH', `${bin}:${process.env['PATH']}`)
  const all = await chooseHosts(undefined, attribute)
  expect(all.toSorted()).toEqual(names.toSorted())
  expect(await chooseHosts(wanted, attribute)).toEqual(wanted)
  const evaluated = (): string[] => seen().filter((one) => one !== attribute)
  expect(evaluated()).toEqual([])

  // a deploy evaluates before it makes anything
  const { steps, context } = groundLane(wanted.map((host) => deployment(host)))
  await steps.find(({ title }) => title === 'evaluate')!.run(context, () => {})
  const each = wanted.map((host) => `${attribute}.${host}`).toSorted()
  expect(evaluated().toSorted()).toEqual(each)

  // cases begin with the same hosts plus the lab's settings, in a remote that has all twenty
  const world = openWorld('run/fleet', await template(chooseGuest(), all.toSorted()), wanted)
  for (const host of wanted) {
    const { facts } = await world.host(host, world.branch, evaluationStore())
    expect(facts.hostName).toBe(host)
  }
  expect(evaluated().toSorted()).toEqual([...each, ...each].toSorted())
  await expect(world.host('host-1')).rejects.toThrow('host-1 was evaluated')
})
