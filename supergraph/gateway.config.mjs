// Hive Gateway: what it takes from clients and forwards to the subgraphs. Its command line names the subgraphs.
import { defineConfig } from '@graphql-hive/gateway'

const { ROUTER_SECRET } = process.env

export const gatewayConfig = defineConfig({
  batching: true,
  propagateHeaders: {
    fromClientToSubgraphs: ({ request, subgraphName }) => ({
      authorization: request.headers.get('authorization'),
      'router-authorization': subgraphName === 'tokens' ? ROUTER_SECRET : undefined,
    }),
  },
})
