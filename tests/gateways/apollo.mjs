// Apollo Gateway over the supergraph file named on the command line: on a free port of the loopback interface.
import { readFileSync } from 'node:fs'

import { ApolloGateway, RemoteGraphQLDataSource } from '@apollo/gateway'
import { ApolloServer } from '@apollo/server'
import responseCache from '@apollo/server-plugin-response-cache'
import { ApolloServerPluginInlineTrace } from '@apollo/server/plugin/inlineTrace'
import { startStandaloneServer } from '@apollo/server/standalone'

process.env.APOLLO_TELEMETRY_DISABLED = 'true'
const { APQ, RESPONSE_CACHE, ROUTER_SECRET } = process.env

class Subgraph extends RemoteGraphQLDataSource {
  willSendRequest({ request, context }) {
    if (context.authorization) request.http.headers.set('authorization', context.authorization)
    if (this.routerSecret) request.http.headers.set('router-authorization', this.routerSecret)
  }
}

const gateway = new ApolloGateway({
  supergraphSdl: readFileSync(process.argv[2], 'utf8'),
  buildService: ({ name, url }) =>
    new Subgraph({
      url,
      apq: name === 'tokens' && Boolean(APQ),
      routerSecret: name === 'tokens' ? ROUTER_SECRET : undefined,
    }),
})

const server = new ApolloServer({
  gateway,
  allowBatchedHttpRequests: true,
  plugins: [ApolloServerPluginInlineTrace(), ...(RESPONSE_CACHE ? [(responseCache.default ?? responseCache)()] : [])],
})
const { url } = await startStandaloneServer(server, {
  listen: { host: '127.0.0.1', port: 0 },
  context: async ({ req }) => ({ authorization: req.headers.authorization }),
})
console.log(url)
