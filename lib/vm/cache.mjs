/**
 * The web server of the guests' uplink: HTTP on standard input and output, one process per connection, so that
 * nothing listens on the host. Plain JavaScript, because QEMU starts it for each connection, and node starts in a
 * quarter of the time that tsx takes.
 *
 * It is a binary cache of a Nix store of this machine. Its argument is a directory with a link `store` to the root of
 * that store (without the link there is no cache), and optionally a file `fault` that makes the cache misbehave: `cut`
 * or `wrong`. An optional file `answer.json` there sets the answer for all URLs below one path (`Answer` of served.ts).
 */
import { execFile, spawn } from 'node:child_process'
import { readFileSync, readdirSync, realpathSync } from 'node:fs'
import { createServer } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { basename, join } from 'node:path'
import { Duplex, Transform } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { promisify } from 'node:util'

const directory = process.argv[2]
const given = (read) => {
  try {
    return read()
  } catch {
    return undefined
  }
}
const root = given(() => realpathSync(join(directory, 'store')))
const set = given(() => JSON.parse(readFileSync(join(directory, 'answer.json'), 'utf8')))
if (root === undefined && set === undefined) process.exit(1)
const fault = given(() => readFileSync(join(directory, 'fault'), 'utf8').trim())
// the machine's own store is queried with nix's defaults, so through its daemon if there is one
const options = [
  ...['--extra-experimental-features', 'nix-command'],
  ...(root === '/' ? [] : ['--store', root]),
]
const paths = root && join(root, 'nix/store')

/** The narinfo of a path; undefined when the store does not have it. */
async function narinfo(hash) {
  const name = readdirSync(paths).find((entry) => entry.startsWith(`${hash}-`))
  if (name === undefined) return undefined
  const ask = ['path-info', ...options, '--json', `/nix/store/${name}`]
  const said = await promisify(execFile)('nix', ask).catch(() => undefined)
  // a list up to nix 2.18, an object with the path as its key since
  const [info] = said ? Object.values(JSON.parse(said.stdout)) : []
  // an invalid path has no hash
  if (!info?.narHash) return undefined
  const fields = {
    StorePath: `/nix/store/${name}`,
    URL: `nar/${name}.nar`,
    Compression: 'none',
    NarHash: info.narHash,
    NarSize: info.narSize,
    References: info.references.map((path) => basename(path)).join(' '),
    CA: typeof info.ca === 'string' ? info.ca : undefined,
  }
  const known = Object.entries(fields).filter(([, value]) => value !== undefined)
  return known.map(([key, value]) => `${key}: ${value}\n`).join('')
}

/** Damages a path as a faulty cache does: ends it after 64 KiB, or changes the byte there. */
function spoiled() {
  let seen = 0
  return new Transform({
    transform(chunk, _, done) {
      const at = 65_536 - seen
      seen += chunk.length
      if (at < 0 || at >= chunk.length) return done(null, chunk)
      if (fault === 'cut') return done(new Error('cut'), undefined)
      chunk[at] ^= 1
      return done(null, chunk)
    },
  })
}

async function answer({ url = '', method }, response) {
  if (set && url.startsWith(set.path)) {
    return response.writeHead(set.status, set.headers).end(given(() => readFileSync(set.file)))
  }
  if (root === undefined) return response.writeHead(404).end()
  const [, hash] = /^\/([a-z0-9]{32})\.narinfo$/.exec(url) ?? []
  const [, name] = /^\/nar\/([a-z0-9]{32}-[\w.+?=-]+)\.nar$/.exec(url) ?? []
  const text =
    url === '/nix-cache-info'
      ? 'StoreDir: /nix/store\nWantMassQuery: 1\nPriority: 40\n'
      : hash && (await narinfo(hash))
  if (text) return response.end(text)
  if (!name || !(await narinfo(name.slice(0, 32)))) return response.writeHead(404).end()
  if (method === 'HEAD') return response.end()
  const dump = spawn('nix-store', ['--dump', join(paths, name)], {
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  await pipeline(dump.stdout, ...(fault ? [spoiled()] : []), response)
}

const connection = Duplex.from({ readable: process.stdin, writable: process.stdout })
const answers = (request, response) => {
  answer(request, response).catch(() => connection.destroy())
}
const server = set?.tls ? createTlsServer(set.tls, answers) : createServer(answers)
connection.on('error', () => process.exit(1)).on('close', () => process.exit())
server.emit('connection', connection)
