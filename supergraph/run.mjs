// The example graph on this machine: this service (if none runs yet), the user and order services, and Hive Gateway.
// Asks one stitched query, prints the response, and runs until it is interrupted or one of them ends.
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { createInterface } from 'node:readline'
import { setTimeout as pause } from 'node:timers/promises'
import { fileURLToPath } from 'node:url'

const { AUTH_SECRET, PYTHON = 'python3', TOKENS_PORT = '8000', GATEWAY_PORT = '4000' } = process.env
// What the service logs of the query would be mixed into the response: with AUTH_SECRET, also that it is denied.
const QUIET = { LOG_LEVEL: AUTH_SECRET ? 'error' : 'warning' }
const tokens = `http://127.0.0.1:${TOKENS_PORT}`
const endpoint = `http://127.0.0.1:${GATEWAY_PORT}/graphql`
const file = (name) => fileURLToPath(new URL(name, import.meta.url))
const children = []
let stopping = false

function start(name, command, ...args) {
  const env = { ...(name === 'gateway-tokens' && QUIET), ...process.env, TOKENS_URL: tokens, NODE_ENV: 'production' }
  const child = spawn(command, args, { env, stdio: ['ignore', 'pipe', 'inherit'] })
  child.on('error', (error) => stop(`${name} did not start: ${error.message}`))
  child.on('exit', () => stop(`${name} ended.`))
  child.stdout.resume()
  children.push(child)
  return child
}

async function stop(reason) {
  if (stopping) return
  stopping = true
  if (reason) console.error(reason)
  const running = children.filter((child) => child.pid && child.exitCode === null && child.signalCode === null)
  running.forEach((child) => child.kill())
  await Promise.all(running.map((child) => once(child, 'exit')))
  process.exit(reason ? 1 : 0)
}

/** The first piece of the child's output that fits. */
function said(child, pattern) {
  return new Promise((resolve) => {
    createInterface({ input: child.stdout }).on('line', (line) => {
      const found = pattern.exec(line)
      if (found) resolve(found[0])
    })
  })
}

async function subgraph(name) {
  const url = await said(start(name, process.execPath, file(`${name}.mjs`)), /http:.*/)
  return `${name}=${url}`
}

const get = (path) =>
  fetch(tokens + path, { headers: { accept: 'application/json' }, signal: AbortSignal.timeout(30_000) })
const isReady = () => get('/readyz').then((response) => response.ok, () => false)
const isOurs = () =>
  get('/').then((response) => response.text()).then((text) => text.includes('Customer gateway tokens'), () => false)

/** Whether this service is ready there already. Waits for one that is starting or ending. */
async function isServed() {
  if (await isReady()) return isOurs()
  while (await isOurs()) {
    console.error(`Waiting until the service on port ${TOKENS_PORT} is ready or has ended …`)
    await pause(1000)
    if (await isReady()) return true
  }
  return false
}

async function ourService() {
  if (!wasServed) start('gateway-tokens', PYTHON, '-m', 'graphql_api', 'serve', '--port', TOKENS_PORT, '--demo')
  while (!(await isReady())) await pause(50)
  return `tokens=${tokens}/graphql`
}

async function gateway(services) {
  const hive = file('node_modules/@graphql-hive/gateway/dist/bin.js')
  const listen = ['--host', '127.0.0.1', '--port', GATEWAY_PORT, '--config-path', file('gateway.config.mjs')]
  const named = services.flatMap((service) => ['--dev-service', service])
  await said(start('Hive Gateway', process.execPath, hive, 'supergraph', ...listen, ...named), /Listening on/)
}

async function ask(query) {
  const headers = { 'content-type': 'application/json' }
  const response = await fetch(endpoint, { method: 'POST', headers, body: JSON.stringify({ query }) })
  return response.json()
}

/** Ends here if the variable holds no port. */
function mustBePort(variable, value) {
  if (/^[1-9][0-9]{0,4}$/.test(value) && value <= 65535) return
  console.error(`${variable}: '${value}' is not a port from 1 to 65535.`)
  process.exit(2)
}

/** Ends here, before anything else starts, if another program listens there. */
async function mustBeFree(variable, port) {
  const server = createServer().listen(port, '127.0.0.1')
  try {
    await once(server, 'listening')
  } catch (error) {
    const wrong = error.code === 'EADDRINUSE' ? 'is in use by another program' : `cannot be opened (${error.code})`
    console.error(`Port ${port} ${wrong}: set ${variable}.`)
    process.exit(1)
  }
  server.close()
  await once(server, 'close')
}

mustBePort('TOKENS_PORT', TOKENS_PORT)
mustBePort('GATEWAY_PORT', GATEWAY_PORT)
await mustBeFree('GATEWAY_PORT', GATEWAY_PORT)
const wasServed = await isServed()
if (!wasServed) await mustBeFree('TOKENS_PORT', TOKENS_PORT)

process.on('SIGINT', () => stop())
process.on('SIGTERM', () => stop())

await gateway(await Promise.all([ourService(), subgraph('users'), subgraph('orders')]))
const query = readFileSync(file('query.graphql'), 'utf8')
console.log(`${query}\nreturns\n\n${JSON.stringify(await ask(query), null, 2)}\n`)
console.log(`The example graph is at ${endpoint}, also in a browser. Ctrl-C stops it.`)
