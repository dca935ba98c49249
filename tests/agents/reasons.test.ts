/** Error messages of git, ssh, curl and jj about a remote: how they are classified, and the one line that is reported. */
import { join } from 'node:path'
import { expect, test } from 'vitest'
import { run } from '../../lib/run.ts'
import { project } from '../../lib/settings.ts'

/** The agents' verdict on each of these texts, all in one bash. */
async function judge(texts: string[]) {
  const script = `. "$1"; shift
    for said; do judge_remote "$said"; why "$said"; printf '%s\\n' "$verdict" "$remedy" "$REPLY"; done`
  const file = join(project, 'nix/agents/reasons.sh')
  const { stdout } = await run('bash', ['-euo', 'pipefail', '-c', script, 'judge', file, ...texts])
  const lines = stdout.split('\n')
  return texts.map((said, i) => {
    const [verdict = '', remedy = '', why = ''] = lines.slice(i * 3)
    return { said, verdict, remedy, why }
  })
}
const http = (said: string): string =>
  `fatal: unable to access 'https://git.example/x.git/': ${said}`
const ssh = (said: string): string => `${said}\nfatal: Could not read from remote repository.

Please make sure you have the correct access rights
and the repository exists.`

test('Errors of the network, or of a remote that is down, may pass by themselves', async () => {
  const texts = [
    ssh('Connection to git.example closed by remote host.'),
    ssh('Connection closed by 10.0.0.1 port 22'),
    ssh(
      'ssh_dispatch_run_fatal: Connection to 10.0.0.1 port 22: message authentication code incorrect',
    ),
    ssh('ssh: connect to host git.example port 22: No route to host'),
    ssh('ssh: connect to host git.example port 22: Network is unreachable'),
    ssh('ssh: Could not resolve hostname git.example: Temporary failure in name resolution'),
    http('CONNECT tunnel failed, response 503'),
    http('Proxy CONNECT aborted'),
    http('Received HTTP code 502 from proxy after CONNECT'),
    http('Could not resolve proxy: proxy.example'),
    http('transfer closed with 123 bytes remaining to read'),
    http('Operation too slow. Less than 1000 bytes/sec transferred the last 30 seconds'),
    http('SSL connection timeout'),
    http('The requested URL returned error: 408'),
    http('The requested URL returned error: 425'),
    'error: RPC failed; curl 16 Error in the HTTP2 framing layer\nfatal: expected flush after ref listing',
    'error: RPC failed; curl 92 HTTP/2 stream 0 was not closed cleanly: CANCEL (err 8)\nfatal: early EOF',
    'remote: API rate limit exceeded\nfatal: expected flush after ref listing',
    'fatal: remote error: Too many requests, try again later',
    'fatal: read error: Connection reset by peer',
    'fatal: protocol error: bad line length character: 0\ufffd3f',
    'fatal: protocol error: bad line length character: 0\ufffd3f\nfatal: bad fetch',
    'fatal: protocol error: bad line length 70000',
    'fatal: early EOF',
    'fatal: the remote end hung up unexpectedly',
    http('The requested URL returned error: 520'),
    http('Empty reply from server'),
    http('Recv failure: Broken thing'),
    http("Failed to connect to git.example port 443 after 3 ms: Couldn't connect to server"),
    http('gnutls_handshake() failed: The TLS connection was non-properly terminated.'),
    http('OpenSSL SSL_connect: SSL_ERROR_SYSCALL in connection to git.example:443'),
    'fatal: unable to look up git.example (port 9418) (Name has no usable address)',
    'fatal: pack signature mismatch',
  ]
  for (const { said, verdict, remedy } of await judge(texts))
    expect.soft([said, verdict, remedy]).toEqual([said, 'offline', ''])
})

test('Errors that the user must fix are failures, with a remedy', async () => {
  const remedies: [string, RegExp][] = [
    // on this machine
    ['fatal: write error: No space left on device', /^make room$/],
    ['fatal: write error: Disk quota exceeded', /^make room$/],
    ["error: cannot open '.git/FETCH_HEAD': Read-only file system", /mounted read-only$/],
    ['fatal: read error: Input/output error', /^its disk has read or write errors$/],
    [
      "fatal: Unable to create '/x/.git/index.lock': File exists.",
      /^a program that was ended left its lock/,
    ],
    [
      'Another git process seems to be running in this repository',
      /^a program that was ended left its lock/,
    ],
    ['fatal: bad object refs/heads/main', /^the repository is damaged/],
    ['error: object file .git/objects/12/34 is empty', /^the repository is damaged/],
    [
      'fatal: loose object 1234 (stored in .git/objects/12/34) is corrupt',
      /^the repository is damaged/,
    ],
    ["error: cannot open '.git/FETCH_HEAD': Permission denied", /^look at who owns it$/],
    ['error: unlink: Operation not permitted', /^look at who owns it$/],
    [
      'error: insufficient permission for adding an object to repository database',
      /belong to another user/,
    ],
    // on the way there
    [ssh('git@git.example: Permission denied (publickey,password).'), /none of the keys/],
    [ssh('git@git.example: Permission denied (keyboard-interactive).'), /none of the keys/],
    [ssh('git@git.example: Permission denied (gssapi-with-mic).'), /none of the keys/],
    [ssh('git@git.example: Permission denied (hostbased).'), /none of the keys/],
    [
      ssh('Received disconnect from 10.0.0.1 port 22:2: Too many authentication failures'),
      /none of the keys/,
    ],
    [ssh('Host key verification failed.'), /host key is not the one in known_hosts/],
    [ssh('REMOTE HOST IDENTIFICATION HAS CHANGED!'), /host key is not the one in known_hosts/],
    [http('SSL certificate problem: certificate has expired'), /TLS certificate is rejected/],
    // reported by the remote
    ['remote: fatal: No space left on device\nfatal: early EOF', /^the remote cannot use its own/],
    ['remote: error: Read-only file system\nfatal: early EOF', /^the remote cannot use its own/],
    ['remote: error: Permission denied\nfatal: early EOF', /^the remote cannot use its own/],
    ["fatal: couldn't find remote ref main", /^the branch is not there$/],
    ["fatal: Authentication failed for 'https://git.example/x.git/'", /a name and a password/],
    [http('The requested URL returned error: 407'), /a name and a password/],
    [http('CONNECT tunnel failed, response 407'), /a name and a password/],
    [http('The requested URL returned error: 403'), /refuses access to this user/],
    [http('The requested URL returned error: 410'), /^look at the URL/],
    [http('The requested URL returned error: 302'), /has moved/],
    [ssh('ERROR: Repository not found.'), /^look at the URL/],
    [ssh("fatal: '/srv/x.git' does not appear to be a git repository"), /^look at the URL/],
    ['Error: No git remotes to fetch from', /^look at the URL/],
    [
      'Error: Failed to push\nRemote rejected the update of some refs:\n  main (reason: unpacker error)',
      /^the remote cannot use its own/,
    ],
    [
      'Error: Won’t push commit 1234 since it has no author and/or committer set',
      /jj config set --user/,
    ],
    [
      'fatal: unable to update url base from redirection:\n  asked for: https://a/x\n   redirect: https://b/login',
      /leads to a web page/,
    ],
  ]
  const found = await judge(remedies.map(([said]) => said))
  for (const [i, { said, verdict, remedy }] of found.entries()) {
    expect.soft([said, verdict]).toEqual([said, 'failed'])
    expect.soft(remedy, said).toMatch(remedies[i]![1])
  }
})

test('An unknown error is a failure without a remedy', async () => {
  const texts = [
    // only errors of the network may pass by themselves
    'fatal: something that nobody has thought of',
    'fatal: remote error: the server timed out its patience with you',
    http('The requested URL returned error: 451'),
    // about the remote's own disk
    'remote: error: pack is corrupted\nfatal: nobody knows',
    // a login shell that prints a greeting
    'fatal: protocol error: bad line length character: Welc',
    // names in a message are not git's own words
    "fatal: refusing to fetch into branch 'refs/heads/connection-timed out'",
    'fatal: invalid refspec "connection timed out"',
    'fatal: nobody knows ssh://timeout.example/timeout',
  ]
  for (const { said, verdict, remedy } of await judge(texts))
    expect.soft([said, verdict, remedy]).toEqual([said, 'failed', ''])
})

test('One line of all the output gives the reason', async () => {
  const reasons: [string, string][] = [
    [
      ssh('ssh: connect to host x port 22: No route to host'),
      'ssh: connect to host x port 22: No route to host',
    ],
    ['warning: a\nfatal: b\nfatal: c', 'fatal: b'],
    ['something\nelse', 'else'],
    ['Error: cannot\nCaused by: this\nHint: look', 'cannot: this'],
    ['Error: cannot\nCaused by:\n1: this\n2: this\n3: that', 'cannot: this: that'],
    ['Error: git\nCaused by: No end within 20 s', 'git: No end within 20 s'],
    ['fatal: early\nNo end within 20 s', 'No end within 20 s'],
    [
      'fatal: unable to connect to x:\n  x[0]: errno=refused',
      'fatal: unable to connect to x: x[0]: errno=refused',
    ],
    ['git: fatal: b \rgit: ', 'fatal: b'],
    ['Receiving objects: 1%\rfatal: b\rfatal: c', 'fatal: b'],
    [
      'remote: First words\nremote: and more\nfatal: cannot push: no',
      'fatal: cannot push: no (the remote says: First words)',
    ],
    [
      'remote: ====\nremote: The project was archived.\nremote: ====\nfatal: cannot push: no',
      'fatal: cannot push: no (the remote says: The project was archived.)',
    ],
    [
      'remote: fatal: it is full\nfatal: cannot push: no',
      'fatal: cannot push: no (the remote says: it is full)',
    ],
    ['remote: no\nfatal: cannot push: no', 'fatal: cannot push: no'],
    [
      'Error: Failed\nremote: no way\n  main (reason: hook declined)\n  dev (reason: stale)',
      'Failed: hook declined: stale (the remote says: no way)',
    ],
    [
      'Error: Commit 1234 is immutable',
      "Commit 1234 is immutable (by a tag, a bookmark of a remote that is not tracked, or this user's setting of immutable_heads())",
    ],
    ['', ''],
  ]
  const found = await judge(reasons.map(([said]) => said))
  expect.soft(found.map(({ said, why }) => [said, why])).toEqual(reasons)
})
