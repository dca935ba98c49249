import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, beforeEach, expect, test, vi } from 'vitest'
import { keptTraces, tracedAgents, watch } from '../../../lib/mutation/guest.ts'
import { mutantsOf, mutated } from '../../../lib/mutation/mutant.ts'
import { casesFor, controlOf } from '../../../lib/mutation/scenarios.ts'
import { traced, type Hits } from '../../../lib/mutation/trace.ts'
import { anyCheck, cutFiles, replayOfControl } from '../../../lib/scenario/control.ts'
import { project } from '../../../lib/settings.ts'
import { families } from '../../../tasks/pipelines/families.ts'

let home: string
beforeEach(() => {
  home = mkdtempSync(join(tmpdir(), 'home-'))
  vi.stubEnv('LAB_HOME', home)
})
afterEach(() => {
  vi.unstubAllEnvs()
  rmSync(home, { recursive: true })
})

const file = 'nix/agents/pin-golden.sh'
const read = async (path: string): Promise<string> => readFileSync(join(project, path), 'utf8')
const [mutant] = await mutantsOf(project, 'pin-golden', file)

test('A mutant is given to VMs as a control with its patch', async () => {
  const control = await controlOf(mutant!, 'break-boot/panic')
  expect(await cutFiles(control, read)).toEqual({ [file]: mutated(await read(file), mutant!) })
  expect(control.red).toBe(anyCheck)
  expect(replayOfControl(control, ['sorrow'], 7)).toBe(
    `just mutate --mutant ${mutant!.id} --scenarios --case break-boot/panic --host sorrow --seed 7`,
  )
})

test('A mutant is judged by the cases of the families that run its agent, or by the given ones', async () => {
  const known = await families()
  const all = casesFor(mutant!, known)
  expect(all).toContain('break-boot/panic')
  expect(all.some((named) => named.startsWith('concurrent-edits/'))).toBe(false)
  expect(casesFor(mutant!, known, ['break-boot/panic'])).toEqual(['break-boot/panic'])
})

test('Cases known to run the mutated lines come first, and those known not to run them are left out', async () => {
  const known = await families()
  const [from] = mutant!.lines
  const traces = new Map<string, Hits>([
    ['break-boot/stuck', { 'pin-golden.sh': { [from]: { word: 1 } } }],
    ['break-boot/panic', { 'pin-golden.sh': { [from + 100]: { word: 1 } } }],
    ['break-boot/hang', { 'pin-golden.sh': {} }],
    // traced before this agent last changed
    ['break-boot/emergency', { 'golden-lib.sh': { [from]: { word: 1 } } }],
  ])
  const all = casesFor(mutant!, known, undefined, traces)
  expect(all[0]).toBe('break-boot/stuck')
  expect(all).not.toContain('break-boot/panic')
  expect(all).not.toContain('break-boot/hang')
  expect(all).toContain('break-boot/bad-initrd')
  expect(all).toContain('break-boot/emergency')
})

test('The first case is one that runs lines near the mutant which few others run', async () => {
  const [from] = mutant!.lines
  const at = { [from]: { word: 1 } }
  const traces = new Map<string, Hits>([
    ['break-boot/stuck', { 'pin-golden.sh': { ...at, [from + 20]: { word: 1 } } }],
    ['break-boot/hang', { 'pin-golden.sh': { ...at, [from + 2]: { word: 1 } } }],
    ['break-boot/panic', { 'pin-golden.sh': { ...at, [from + 3]: { word: 1 } } }],
    ['break-boot/emergency', { 'pin-golden.sh': { ...at, [from + 2]: { word: 1 } } }],
  ])
  const all = casesFor(mutant!, await families(), undefined, traces)
  expect(all.slice(0, 4)).toEqual(['break-boot/panic', ...all.slice(1, 3), 'break-boot/stuck'])
})

test('Traces of agents are kept per agent text, merged over all VMs', async () => {
  const text = readFileSync(join(project, file), 'utf8')
  expect(tracedAgents()[file]).toBe(traced('pin-golden.sh', text))
  const agent = '/nix/store/x-pin-golden/bin/pin-golden'
  const { take } = watch()
  const of = (line: number): string =>
    `+@${agent}:5: : '@file pin-golden.sh 5'\n++@${agent}:${line}: locked\n`
  take('break-boot/panic', of(24))
  take('break-boot/panic', of(25))
  const kept = (): Hits => keptTraces().get('break-boot/panic')!
  expect(kept()).toMatchObject({
    'pin-golden.sh': { 20: { locked: 1 }, 21: { locked: 1 } },
    'unpin-golden.sh': {},
  })
  const path = join(process.env['LAB_HOME']!, 'agent-traces/break-boot-panic.json')
  const written = JSON.parse(readFileSync(path, 'utf8')) as { agents: Record<string, string> }
  written.agents['pin-golden.sh'] = 'of an older text'
  writeFileSync(path, JSON.stringify(written))
  expect(Object.keys(kept())).not.toContain('pin-golden.sh')
  expect(Object.keys(kept())).toContain('unpin-golden.sh')
})
