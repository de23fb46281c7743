// Hive Gateway in other forms than the example graph's: with the query planner in Rust, or with a cache for everybody.
import { unifiedGraphHandler } from '@graphql-hive/router-runtime'

const { PLANNER, RESPONSE_CACHE, ROUTER_SECRET } = process.env

export const gatewayConfig = {
  ...(PLANNER === 'rust' && { unifiedGraphHandler }),
  ...(RESPONSE_CACHE && { responseCaching: { session: () => null } }),
  propagateHeaders: {
    fromClientToSubgraphs: ({ request, subgraphName }) => ({
      authorization: request.headers.get('authorization'),
      'router-authorization': subgraphName === 'tokens' ? ROUTER_SECRET : undefined,
    }),
  },
}
