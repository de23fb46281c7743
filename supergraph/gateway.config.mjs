// Hive Gateway: what it takes from clients and forwards to the subgraphs. Its command line names the subgraphs.
import { defineConfig } from '@graphql-hive/gateway'

const { ROUTER_SECRET, TOKENS_URL } = process.env

/** Forwards what `extensions.help` of errors names. Uncompressed, because `fetch` decompresses and keeps the header. */
const help = {
  async onRequest({ url, endResponse }) {
    if (!url.pathname.startsWith('/help/')) return
    const page = await fetch(new URL(url.pathname, TOKENS_URL), { headers: { 'accept-encoding': 'identity' } })
    endResponse(new Response(page.body, page)) // a copy, because the gateway adds headers
  },
}

export const gatewayConfig = defineConfig({
  batching: true,
  plugins: () => [help],
  propagateHeaders: {
    fromClientToSubgraphs: ({ request, subgraphName }) => ({
      authorization: request.headers.get('authorization'),
      'router-authorization': subgraphName === 'tokens' ? ROUTER_SECRET : undefined,
    }),
  },
})
