// Hive Gateway: what it hands on to the subgraphs. Which subgraphs there are is said on its command line.
import { defineConfig } from '@graphql-hive/gateway'

const { ROUTER_SECRET } = process.env

export const gatewayConfig = defineConfig({
  propagateHeaders: {
    fromClientToSubgraphs: ({ request, subgraphName }) => ({
      authorization: request.headers.get('authorization'),
      'router-authorization': subgraphName === 'tokens' ? ROUTER_SECRET : undefined,
    }),
  },
})
