// Serves one subgraph over HTTP: on HOST and PORT, or on a free port of the loopback interface.
import { createServer } from 'node:http'

import { buildSubgraphSchema } from '@apollo/subgraph'
import { parse } from 'graphql'
import { createYoga } from 'graphql-yoga'

export function serve(typeDefs, resolvers) {
  const { HOST = '127.0.0.1', PORT = '0' } = process.env
  const schema = buildSubgraphSchema({ typeDefs: parse(typeDefs), resolvers })
  const server = createServer(createYoga({ schema, logging: 'warn' }))
  server.keepAliveTimeout = 65_000 // longer than a router keeps a connection, or a request can meet its end
  server.listen(Number(PORT), HOST, () => console.log(`http://${HOST}:${server.address().port}/graphql`))
}
