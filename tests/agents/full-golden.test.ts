/** Whatever of a pin cannot be written, what boots next is golden or the new one, and a later trial pins it. */
import { readFileSync } from 'node:fs'
import { beforeEach, expect, test } from 'vitest'
import { failingCalls, missingForWrites, takeLog } from './full.ts'
import { GoldenHost } from './golden.ts'
import { missingForRoot } from './root.ts'

const missing = (await missingForRoot()) ?? (await missingForWrites())
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
test.each(Object.entries(places))('Writing fails at %s while it is pinned', async (_, first) => {
  const host = await GoldenHost.make()
  try {
    const one = await host.generation(1)
    await host.install(1)
    await host.boot()
    // of a size that leaves something to copy
    const two = await host.generation(2, { kernel: 96 })
    await host.rebuild(2)
    host.around = failingCalls(host.root, { first, times: 1e9 })
    await host.boot().catch(() => {})
    expect(takeLog(host.root).some(({ failed }) => failed)).toBe(true)
    host.around = []
    // throws where the boot loader finds nothing that it can start
    const { tried } = await host.boot()
    expect([one, two]).toContain(tried.at(-1))
    const status = await host.status()
    expect(status.golden).toBe(status.golden === two ? two : one)
    expect(status.default).toBe(status.goldenEntry)
    expect(
      JSON.parse(readFileSync(host.path('var/lib/golden-generation/golden.json'), 'utf8')),
    ).toHaveProperty('toplevel', status.golden)
    if (status.golden === one) {
      await host.rebuild(2)
      await host.boot()
    }
    expect(await host.status()).toMatchObject({ golden: two, trial: null })
  } finally {
    await host.root.remove()
  }
})

/** A second generation with the first one's kernel and first stage, so that a pin has no more to write than its entry. */
const sibling = async (host: GoldenHost): Promise<string> =>
  host.root.sh(`sed 's/sorrow-1"/sorrow-2"/; s/echo 1 /echo 2 /' /root/expr.nix >/root/sibling.nix
    nix build --out-link /root/result --impure --file /root/sibling.nix
    readlink /root/result; ln -sfn "$(readlink /root/result)" /nix/var/nix/profiles/system-2-link; rm /root/result`)

test('Where nothing can be written, what is golden stays so, and a bad boot goes back to it', async () => {
  const host = await GoldenHost.make()
  try {
    const one = await host.generation(1)
    await host.install(1)
    await host.boot()
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
