import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { evaluate } from '../../../lib/nix/nix.ts'
import { run } from '../../../lib/run.ts'

let scratch: string
beforeAll(() => (scratch = mkdtempSync(join(tmpdir(), 'evaluate-'))))
afterAll(async () => {
  // what nix adds to a store is read-only
  await run('chmod', ['-R', 'u+w', scratch])
  rmSync(scratch, { recursive: true })
})

test('an input that cannot be fetched is no file that git does not know', async () => {
  const locked = 'sha256-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA='
  writeFileSync(
    join(scratch, 'flake.nix'),
    `{ outputs = _: { host = import (fetchTarball { url = "http://127.0.0.1:9/x.tar.gz"; sha256 = "${locked}"; }); }; }`,
  )
  const store = ['--store', join(scratch, 'store'), '--option', 'download-attempts', '1']
  await expect(evaluate(scratch, 'host', 'host: host', store)).rejects.toMatchObject({
    message: expect.stringContaining('http://127.0.0.1:9/x.tar.gz'),
    detail: { hint: expect.stringMatching(/^An input of the flake could not be fetched/) },
  })
})

test('a failure says what nix found wrong, however many lines the wrong value has', async () => {
  const values = Array.from({ length: 20 }, (_, index) => `  value ${index}`)
  const words = ["The option `ports' does not exist. Definition values:", ...values].join('\n')
  writeFileSync(
    join(scratch, 'flake.nix'),
    `{ outputs = _: { host = throw ${JSON.stringify(words)}; }; }`,
  )
  const failed = evaluate(scratch, 'host', 'host: host', ['--store', join(scratch, 'store')])
  await expect(failed).rejects.toMatchObject({
    message: `Cannot evaluate \`${scratch}#host\`: The option \`ports' does not exist. Definition values:`,
    detail: { evidence: expect.stringMatching(/^error: The option .*\n *value 0\n/) },
  })
})
