import { execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { once } from 'node:events'
import { Agent, get, type IncomingMessage } from 'node:http'
import { createServer, type AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterAll, beforeAll, expect, test } from 'vitest'
import { nix } from '../../../lib/nix/nix.ts'
import { run } from '../../../lib/run.ts'
import { project } from '../../../lib/settings.ts'

const own = ['--option', 'build-users-group', '', '--option', 'substituters', '']
let dir: string
let store: string
let path: string
let url: string
const server = createServer((socket) => {
  const args = [join(project, 'lib/vm/cache.mjs'), join(dir, 'cache')]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'inherit'] })
  child.stdin.on('error', () => {})
  socket.on('error', () => {}).on('close', () => child.kill())
  child.on('exit', () => socket.destroySoon())
  socket.pipe(child.stdin)
  child.stdout.pipe(socket)
})

beforeAll(async () => {
  dir = mkdtempSync(join(tmpdir(), 'cache-'))
  store = join(dir, 'store')
  mkdirSync(join(dir, 'cache'))
  writeFileSync(join(dir, 'large'), 'a binary cache\n'.repeat(20_000))
  const add = ['--store', store, ...own, '--add', join(dir, 'large')]
  path = (await run('nix-store', add)).stdout.trim()
  // beside valid paths a store may hold the rest of a build
  writeFileSync(join(store, `nix/store/${'a'.repeat(32)}-left`), '')
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`
})
afterAll(() => {
  server.close()
  execFileSync('chmod', ['-R', 'u+w', dir])
  rmSync(dir, { recursive: true })
})

const hash = (): string => path.slice('/nix/store/'.length).slice(0, 32)

/** Serves the store, broken or not. */
function serve(fault?: string): void {
  for (const name of ['store', 'fault']) rmSync(join(dir, 'cache', name), { force: true })
  if (fault !== 'gone') symlinkSync(store, join(dir, 'cache/store'))
  if (fault !== undefined && fault !== 'gone') writeFileSync(join(dir, 'cache/fault'), fault)
}

/** Copies the path with nix into a new store. */
async function copy(): Promise<{ said: string; verified: string; arrived: boolean }> {
  const to = mkdtempSync(join(dir, 'to-'))
  const options = ['--option', 'build-users-group', '', '--option', 'download-attempts', '2']
  const args = ['copy', ...options, '--no-check-sigs', '--from', url, '--to', to, path]
  const env = { XDG_CACHE_HOME: join(to, 'cache'), HOME: to }
  const { stderr } = await nix(args, { env, allow: [1] })
  const verify = ['--store', to, ...own, '--verify', '--check-contents']
  const { stderr: verified } = await run('nix-store', verify, { allow: [1] })
  const check = ['--store', to, ...own, '--check-validity', path]
  const { code } = await run('nix-store', check, { allow: [1] })
  return {
    said: stderr,
    verified: verified.replace(/^(reading|checking).*\n?/gm, ''),
    arrived: code === 0,
  }
}

test('nix copies a path from the cache completely', async () => {
  serve()
  expect(await copy()).toMatchObject({ arrived: true, verified: '' })
})

test('requests are answered over one connection, and a path that the store lacks gives 404', async () => {
  serve()
  const none = `${'0'.repeat(32)}.narinfo`
  const left = `${'a'.repeat(32)}.narinfo`
  const questions = ['nix-cache-info', `${hash()}.narinfo`, none, left, 'nar/../etc/passwd', '']
  const agent = new Agent({ keepAlive: true, maxSockets: 1 })
  const codes: unknown[] = []
  for (const one of questions) {
    const asked = get(`${url}/${one}`, { agent })
    const [response] = (await once(asked, 'response')) as [IncomingMessage]
    codes.push([response.statusCode, asked.reusedSocket])
    await once(response.resume(), 'end')
  }
  agent.destroy()
  expect(codes).toEqual([200, 200, 404, 404, 404, 404].map((code, at) => [code, at > 0]))
})

test.each([
  ['cut', /[Pp]artial file|bytes (missing|remaining)/],
  ['wrong', /hash mismatch importing path/],
  ['gone', /returned nothing|[Ee]mpty reply/],
])('from a cache that is %s nix copies nothing, and reports the reason', async (fault, reason) => {
  serve(fault)
  const { said, ...left } = await copy()
  expect(said).toMatch(reason)
  expect(left).toEqual({ arrived: false, verified: '' })
})

test('a wrong cache sends different content of the same size', async () => {
  const whole = async (): Promise<Buffer> =>
    Buffer.from(await (await fetch(`${url}/nar/${path.split('/').at(-1)}.nar`)).arrayBuffer())
  serve()
  const right = await whole()
  serve('wrong')
  const wrong = await whole()
  expect(wrong.length).toBe(right.length)
  const digest = (bytes: Buffer): string => createHash('sha256').update(bytes).digest('hex')
  expect(digest(wrong)).not.toBe(digest(right))
})
