// Sends a body of twenty megabytes in chunks to URL with Node's own client, and prints the status of the answer.
import { request } from 'node:http'

const sending = request(process.argv[2], { method: 'POST', headers: { 'content-type': 'application/json' } })
sending.on('error', ({ code }) => console.log(code))
sending.on('response', (response) => {
  console.log(response.statusCode)
  response.resume()
  sending.removeAllListeners('error').on('error', () => {})
})

let left = 320
const send = () => {
  while (left-- > 0) if (!sending.write(' '.repeat(65536))) return sending.once('drain', send)
  sending.end()
}
send()
