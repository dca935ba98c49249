import { spawn } from 'node:child_process'
import { join } from 'node:path'
import packet, { type DecodedPacket } from 'dns-packet'
import { expect, test } from 'vitest'
import { project } from '../../../lib/settings.ts'

/** Sends bytes to the name server as one connection would, and decodes what comes back. */
const ask = (...chunks: Buffer[]) => askOf([], chunks)

async function askOf(
  more: string[],
  chunks: Buffer[],
): Promise<{ answers: DecodedPacket[]; code: number }> {
  const args = [join(project, 'lib/vm/dns.mjs'), 'git.lab=10.0.3.100', ...more]
  const child = spawn(process.execPath, args, { stdio: ['pipe', 'pipe', 'ignore'] })
  const out: Buffer[] = []
  child.stdout.on('data', (data: Buffer) => out.push(data))
  const ended = new Promise<number>((resolve) => child.on('close', (code) => resolve(code ?? -1)))
  for (const chunk of chunks) {
    child.stdin.write(chunk)
    await new Promise((resolve) => setTimeout(resolve, 20))
  }
  child.stdin.end()
  const code = await ended
  const answers: DecodedPacket[] = []
  for (let rest = Buffer.concat(out); rest.length > 0;) {
    const length = rest.readUInt16BE(0) + 2
    answers.push(packet.decode(rest.subarray(2, length)))
    rest = rest.subarray(length)
  }
  return { answers, code }
}

const query = (id: number, name: string, type: 'A' | 'AAAA' = 'A'): Buffer =>
  packet.streamEncode({
    type: 'query',
    id,
    flags: packet.RECURSION_DESIRED,
    questions: [{ name, type }],
  })

const rcode = (answer: DecodedPacket | undefined): string | undefined =>
  (answer as { rcode?: string } | undefined)?.rcode

test('it resolves its own name in any case, and answers NXDOMAIN for others', async () => {
  const { answers, code } = await ask(query(1, 'Git.Lab'), query(2, 'github.com'))
  expect(answers[0]).toMatchObject({ id: 1, type: 'response', answers: [{ data: '10.0.3.100' }] })
  expect(rcode(answers[0])).toBe('NOERROR')
  expect(answers[1]).toMatchObject({ id: 2, answers: [] })
  expect(rcode(answers[1])).toBe('NXDOMAIN')
  expect(code).toBe(0)
})

test('its name has no AAAA record, which is not NXDOMAIN', async () => {
  const { answers } = await ask(query(3, 'git.lab', 'AAAA'))
  expect(answers[0]).toMatchObject({ id: 3, answers: [] })
  expect(rcode(answers[0])).toBe('NOERROR')
})

test('two queries in one segment and one query split in two are all answered', async () => {
  const both = Buffer.concat([query(4, 'git.lab'), query(5, 'git.lab', 'AAAA')])
  const { answers } = await ask(both.subarray(0, 7), both.subarray(7, 40), both.subarray(40))
  expect(answers.map(({ id }) => id)).toEqual([4, 5])
})

test('on an open uplink it resolves what this machine can resolve', async () => {
  const chunks = [query(1, 'localhost'), query(2, 'git.lab'), query(3, 'nowhere.invalid')]
  const { answers } = await askOf(['--others'], chunks)
  const address = (id: number): unknown => {
    const found = answers.find((answer) => answer.id === id)
    return (found?.answers?.[0] as { data?: string } | undefined)?.data ?? rcode(found)
  }
  expect([1, 2, 3].map(address)).toEqual(['127.0.0.1', '10.0.3.100', 'NXDOMAIN'])
  expect(rcode((await ask(query(1, 'localhost'))).answers[0])).toBe('NXDOMAIN')
})
