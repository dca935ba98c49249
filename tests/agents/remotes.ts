/** Remotes that fail to give a repository, each in a different way, on ports of this machine. */
import { execFileSync, spawn } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type RequestListener } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import { connect, createServer as createTcpServer, type AddressInfo, type Server } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { waitFor } from '../../lib/retry.ts'
import { freePort, listens } from '../lib/ssh/sshd.ts'

export interface Remotes {
  /**
   * Answers by path: `/<status>/…` with that status, `/login/…` with a redirect to a web page, `/page/…` with a
   * web page, `/reset/…` by closing the connection, `/cut/…` by closing it in the middle of an answer.
   */
  http: string
  /** Servers with bad certificates: by date or by issuer; the clock of `skewed` is years behind. */
  expired: string
  future: string
  stranger: string
  skewed: string
  /** Certificate of the trusted authority that signed all others except that of `stranger`. */
  ca: string
  /** `git daemon`, which exports none of its repositories. */
  daemon: string
  /** A repository behind a connection that damages the length of a protocol line, or the content of a pack. */
  damaged: Record<'line' | 'pack', string>
  stop: () => void
}

export async function startRemotes(): Promise<Remotes> {
  const dir = mkdtempSync(join(tmpdir(), 'remotes-'))
  const stops: (() => void)[] = [() => rmSync(dir, { recursive: true })]
  const listen = async (server: Server): Promise<number> => {
    server.listen(0, '127.0.0.1')
    await new Promise((resolve) => server.once('listening', resolve))
    stops.push(() => server.close())
    return (server.address() as AddressInfo).port
  }
  const certify = makeAuthority(dir)
  const tls = async (name: string, from: string, to: string, date?: string): Promise<string> => {
    const answer: RequestListener = (request, response) => {
      if (date) response.setHeader('Date', date)
      respond(request, response)
    }
    return `https://127.0.0.1:${await listen(createTlsServer(certify(name, from, to), answer))}`
  }
  const serve = async (base: string, ...flags: string[]): Promise<number> => {
    const port = await freePort()
    const where = ['--listen=127.0.0.1', `--port=${port}`, `--base-path=${base}`]
    const daemon = spawn('git', ['daemon', ...where, ...flags], { stdio: 'ignore' })
    stops.push(() => daemon.kill())
    await waitFor('git daemon', 20, () => listens(port))
    return port
  }
  const make = (name: string): string => {
    mkdirSync(join(dir, name))
    execFileSync('git', ['init', '-q', '--bare', '-b', 'main', join(dir, name, 'config.git')])
    return join(dir, name)
  }
  const daemonPort = await serve(make('srv'))
  const exported = make('exported')
  const load = ['-C', join(exported, 'config.git'), 'fast-import', '--quiet']
  execFileSync('git', load, { input: oneCommit })
  const behind = await serve(exported, '--export-all')
  const damaged = async (damage: (came: Buffer) => void): Promise<string> =>
    `git://127.0.0.1:${await listen(lineTo(behind, damage))}/config.git`
  return {
    http: `http://127.0.0.1:${await listen(createServer(respond))}`,
    expired: await tls('expired', '20200101000000Z', '20200201000000Z'),
    future: await tls('future', '20400101000000Z', '20410101000000Z'),
    stranger: await tls('stranger', '20200101000000Z', '20400101000000Z'),
    skewed: await tls(
      'skewed',
      '20200101000000Z',
      '20200201000000Z',
      'Wed, 15 Jan 2020 00:00:00 GMT',
    ),
    ca: readFileSync(join(dir, 'ca.pem'), 'utf8'),
    daemon: `git://127.0.0.1:${daemonPort}`,
    damaged: {
      // the third digit of the first line's length
      line: await damaged((came) => void (came[2]! ^= 0x80)),
      pack: await damaged((came) => {
        const pack = came.indexOf('PACK')
        // after the twelve bytes of its header, and the header of its first object
        if (pack >= 0) came[pack + 20]! ^= 0x10
      }),
    },
    stop: () => stops.toReversed().forEach((stop) => stop()),
  }
}

/** Forwards everything to a port, and damages what comes back. */
const lineTo = (port: number, damage: (came: Buffer) => void): Server =>
  createTcpServer((near) => {
    const far = connect(port, '127.0.0.1')
    near.pipe(far)
    far.on('data', (came) => {
      damage(came)
      near.write(came)
    })
    far.on('end', () => near.end())
    for (const end of [near, far])
      end.on('error', () => [near, far].forEach((one) => one.destroy()))
  })

const oneCommit = `commit refs/heads/main
committer o <o@o> 0 +0000
data 3
One
M 100644 inline one
data 4
one

`

const respond: RequestListener = (request, response) => {
  const [, kind = ''] = request.url!.split('/')
  if (kind === 'reset') return void request.socket.destroy()
  if (kind === 'cut') {
    response.writeHead(200, {
      'Content-Type': 'application/x-git-upload-pack-advertisement',
      'Content-Length': 1000,
    })
    return void response.write('001e# service=git-upload-pack\n0000', () =>
      request.socket.destroy(),
    )
  }
  if (kind === 'login') return void response.writeHead(302, { Location: '/page/sign-in' }).end()
  if (kind === 'page')
    return void response.writeHead(200, { 'Content-Type': 'text/html' }).end(loginPage)
  if (kind === '401') response.setHeader('WWW-Authenticate', 'Basic realm="git"')
  response.writeHead(Number(kind) || 404).end('no')
}

/** Makes certificates for 127.0.0.1, all but the stranger's signed by the authority in `ca.pem`. */
function makeAuthority(dir: string) {
  const file = (name: string): string => join(dir, name)
  const openssl = (...args: string[]): void => {
    execFileSync('openssl', args, { cwd: dir, stdio: 'ignore' })
  }
  const config = `[ca]
default_ca = own
[own]
database = ${file('index')}
new_certs_dir = ${dir}
serial = ${file('serial')}
default_md = sha256
policy = any
unique_subject = no
x509_extensions = host
[any]
commonName = supplied
[host]
subjectAltName = IP:127.0.0.1
`
  writeFileSync(file('ca.cnf'), config)
  writeFileSync(file('index'), '')
  writeFileSync(file('serial'), '01')
  const authority = ['req', '-x509', '-newkey', 'rsa:2048', '-nodes', '-days', '9000']
  for (const name of ['ca', 'stranger-ca'])
    openssl(...authority, '-subj', `/CN=${name}`, '-keyout', `${name}.key`, '-out', `${name}.pem`)
  return (name: string, from: string, to: string): { key: Buffer; cert: Buffer } => {
    const by = name === 'stranger' ? 'stranger-ca' : 'ca'
    openssl(
      ...['req', '-newkey', 'rsa:2048', '-nodes', '-subj', '/CN=127.0.0.1'],
      ...['-keyout', `${name}.key`, '-out', `${name}.csr`],
    )
    openssl(
      ...['ca', '-batch', '-config', 'ca.cnf', '-cert', `${by}.pem`, '-keyfile', `${by}.key`],
      ...['-in', `${name}.csr`, '-out', `${name}.pem`, '-startdate', from, '-enddate', to],
    )
    return { key: readFileSync(file(`${name}.key`)), cert: readFileSync(file(`${name}.pem`)) }
  }
}

const loginPage = `<!DOCTYPE html>
<html>
<form action="/sign-in"><input name="user"></form>
</html>
`
