/** Whatever write of a pin fails, the next boot starts golden or the new generation, and a later trial pins that. */
import { readFileSync } from 'node:fs'
import { afterAll, beforeAll, beforeEach, expect, test } from 'vitest'
import { type Failing, failingCalls, missingForWrites, takeLog, type Write } from './full.ts'
import { GoldenHost } from './golden.ts'
import { missingForRoot } from './root.ts'
import { called, failings, noSweep, note, swept } from './sweep.ts'

const missing = (await missingForRoot()) ?? (await missingForWrites())
/** A host whose only generation has booted and is golden. */
let booted: GoldenHost
let one: string
beforeAll(async () => {
  if (!missing) [booted, one] = await GoldenHost.makeBooted()
})
afterAll(() => booted?.root.remove())
beforeEach((context) => {
  if (missing) context.skip(missing)
})

const places = {
  'golden’s state': 'openat .*/golden-generation/golden.json.new$',
  'golden’s kernel': 'cp (openat|write) .*/boot/EFI/golden/',
  'golden’s boot entry': 'mv renameat2? .*/boot/loader/entries/golden-',
  'golden’s root for the collector': 'ln .*/gcroots/golden-generation',
  'the boot loader’s file': 'openat .*/loader.conf.new$',
}
/** @returns what is wrong after a pin with failing calls, after the next boot, and after another pin */
async function pinWith(failing: Failing): Promise<{ wrong: string[]; calls: Write[] }> {
  const host = await booted.copy()
  const wrong: string[] = []
  const must = (held: boolean, otherwise: string): void => {
    if (!held) wrong.push(otherwise)
  }
  try {
    // another size than the first kernel's, so that it has to be copied
    const two = await host.generation(2, { kernel: 96 })
    await host.rebuild(2)
    host.around = failingCalls(host.root, failing)
    await host.boot().catch(() => {})
    const calls = takeLog(host.root)
    host.around = []
    // throws if the boot loader finds nothing that it can start
    const { tried } = await host.boot()
    must([one, two].includes(tried.at(-1)!), `boots ${tried.at(-1)}`)
    const { golden, goldenEntry, ...status } = await host.status()
    must(golden === one || golden === two, `golden is ${golden}`)
    must(status.default === goldenEntry, `the default is ${status.default}, golden ${goldenEntry}`)
    const record = readFileSync(host.path('var/lib/golden-generation/golden.json'), 'utf8')
    const { toplevel } = JSON.parse(record) as { toplevel: string }
    must(toplevel === golden, `golden.json names ${toplevel}`)
    if (golden === one) {
      await host.rebuild(2)
      await host.boot()
    }
    const last = await host.status()
    must(last.golden === two && last.trial === null, `in the end: ${JSON.stringify(last)}`)
    return { wrong, calls }
  } finally {
    await host.root.remove()
  }
}

test.each(Object.entries(places))(
  'A write error at %s during a pin leaves one bootable golden generation',
  async (_, first) => {
    const { wrong, calls } = await pinWith({ first, times: 1e9 })
    expect(calls.some(({ failed }) => failed)).toBe(true)
    expect(wrong).toEqual([])
  },
)

test(
  'Golden stays bootable after each system call of a pin has failed, alone or with all later ones',
  { timeout: 14_400_000 },
  async (context) => {
    const none = noSweep('tests/agents/full-golden.test.ts')
    context.skip(none !== undefined, none)
    const { calls } = await pinWith({ first: 1, times: 0 })
    const found: string[] = []
    for (const failing of swept(failings(calls))) {
      const played = await pinWith(failing).catch((thrown: Error) => ({
        wrong: [thrown.message],
        calls: [],
      }))
      const at = played.calls.find(({ failed }) => failed) ?? calls[Number(failing.first) - 1]!
      note(called(failing, at), at.phase, '', '', played.wrong.join('; '))
      found.push(...played.wrong)
    }
    expect(found).toEqual([])
  },
)

test('The boot loader’s file stays whole if there is no space to change it for a trial', async () => {
  const host = await booted.copy()
  try {
    await host.generation(2)
    await host.rebuild(2)
    const conf = '/boot/loader/loader.conf'
    for (const first of [' write .*/loader.conf.new$', ' write .*/startup.nsh$']) {
      // the installer's version, with timeout, default and whether entries may be edited
      await host.sh(`sed -i '/^reboot-on-error/d' ${conf}; rm -f /boot/startup.nsh`)
      host.around = failingCalls(host.root, { first, times: 1 })
      await host.sh('golden-arm-trial 2>&1')
      expect(takeLog(host.root).some(({ failed }) => failed)).toBe(true)
      host.around = []
      // no file is left empty
      expect(await host.sh('find /boot -maxdepth 2 -size 0')).toBe('')
      expect(readFileSync(host.path(conf), 'utf8')).toContain('default nixos-generation-2.conf')
    }
  } finally {
    await host.root.remove()
  }
})

/** A second generation with the first one's kernel and first stage, so that a pin writes only its entry. */
const sibling = async (host: GoldenHost): Promise<string> =>
  host.root.sh(`sed 's/sorrow-1"/sorrow-2"/; s/echo 1 /echo 2 /' /root/expr.nix >/root/sibling.nix
    nix build --out-link /root/result --impure --file /root/sibling.nix
    readlink /root/result; ln -sfn "$(readlink /root/result)" /nix/var/nix/profiles/system-2-link; rm /root/result`)

test('If nothing can be written, golden stays the same, and a failed boot falls back to it', async () => {
  const host = await booted.copy()
  try {
    const two = await sibling(host)
    await host.rebuild(2)
    const good = await host.boot([], 'mount -o remount,ro,bind /boot')
    expect(good.tried).toEqual([two])
    expect(good.said).toMatch(/Cannot make .* golden: .*golden-.*\.conf cannot be written/)
    const status = await host.status()
    expect(status).toMatchObject({ golden: one, default: status.goldenEntry })

    host.services({ 'sshd.service': 'failed' })
    await host.rebuild(2)
    const state = '/var/lib/golden-generation'
    const bad = await host.boot(
      [],
      `mount --bind ${state} ${state}; mount -o remount,ro,bind ${state}`,
    )
    expect(bad.tried).toEqual([two, one])
  } finally {
    await host.root.remove()
  }
})
