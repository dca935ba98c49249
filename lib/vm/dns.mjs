/**
 * The name server of the guests' uplink: DNS over TCP (RFC 7766) on standard input and output, one
 * process per connection, so that nothing listens on the host. Resolves the names in its arguments,
 * `<name>=<IPv4 address>`, and answers NXDOMAIN for all others; with `--others` it resolves those as
 * this machine does. Plain JavaScript, because QEMU starts it for each look-up, and node starts in a
 * quarter of the time that tsx takes.
 */
import { lookup } from 'node:dns/promises'
import packet from 'dns-packet'

const others = process.argv.includes('--others')
const addresses = new Map(process.argv.slice(2).map((word) => word.split('=')))
const nxdomain = 3

let rest = Buffer.alloc(0)
process.stdin.on('data', (chunk) => {
  rest = Buffer.concat([rest, chunk])
  // the C library sends the queries for both address families at once
  for (let end; rest.length >= 2 && (end = 2 + rest.readUInt16BE(0)) <= rest.length;) {
    const asked = packet.decode(rest.subarray(2, end))
    rest = rest.subarray(end)
    void answer(asked).then((said) => process.stdout.write(packet.streamEncode(said)))
  }
})

async function answer({ id, flags, questions }) {
  const found = await Promise.all(questions.map(({ name }) => find(name.toLowerCase())))
  const address = (question) => found[questions.indexOf(question)]
  return {
    type: 'response',
    id,
    flags:
      packet.AUTHORITATIVE_ANSWER |
      packet.RECURSION_AVAILABLE |
      (flags & packet.RECURSION_DESIRED) |
      (questions.every(address) ? 0 : nxdomain),
    questions,
    answers: questions
      .filter((question) => question.type === 'A' && address(question))
      .map((question) => ({ ...question, ttl: 0, data: address(question) })),
  }
}

async function find(name) {
  const known = addresses.get(name)
  if (known || !others) return known
  const { address } = await lookup(name, { family: 4 }).catch(() => ({}))
  return address
}
