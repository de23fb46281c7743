// Hive Gateway in other forms than the example graph's: with the query planner in Rust, with a cache for everybody, with
// persisted queries to our service, or with what another file configures.
import { unifiedGraphHandler } from '@graphql-hive/router-runtime'

const { APQ, MORE, PLANNER, RESPONSE_CACHE, ROUTER_SECRET } = process.env

export const gatewayConfig = {
  ...(MORE && (await import(MORE)).gatewayConfig),
  ...(PLANNER === 'rust' && { unifiedGraphHandler }),
  batching: true,
  ...(APQ && { transportEntries: { tokens: { options: { apq: true } } } }),
  ...(RESPONSE_CACHE && { responseCaching: { session: () => null } }),
  propagateHeaders: {
    fromClientToSubgraphs: ({ request, subgraphName }) => ({
      authorization: request.headers.get('authorization'),
      'router-authorization': subgraphName === 'tokens' ? ROUTER_SECRET : undefined,
    }),
  },
}
