// Asks the service at URL with the client library that is named on the command line; what it was answered goes out as JSON.
import { createHash } from 'node:crypto'

const [name, url, authorization] = process.argv.slice(2)
const headers = { authorization }
const ONE = 'query One { customerGatewayTokens(first: 1) { totalCount } }'
const TWO = 'query Two($id: ID!) { customerGatewayToken(id: $id) { gateway } }'
const variables = { id: '0192d4e5-8c1a-7bbb-8ccc-0123456789ab' }
const sha256 = (text) => createHash('sha256').update(text).digest('hex')

async function apollo(link) {
  const { ApolloClient, InMemoryCache, gql } = await import('@apollo/client')
  const client = new ApolloClient({ cache: new InMemoryCache(), link })
  const ask = async (query, variables) => (await client.query({ query: gql(query), variables })).data
  return Promise.all([ask(ONE), ask(TWO, variables)])
}

async function urql(...exchanges) {
  const { Client, fetchExchange } = await import('@urql/core')
  const client = new Client({ url, fetchOptions: { headers }, exchanges: [...exchanges, fetchExchange] })
  const ask = async (query, variables = {}) => {
    const { data, error } = await client.query(query, variables, { requestPolicy: 'network-only' }).toPromise()
    if (error) throw error
    return data
  }
  return [await ask(ONE), await ask(TWO, variables)]
}

// Relay's own network layer is a function of the app; with `persistConfig`, its compiler gives it ids instead of texts.
async function relay(id = null) {
  const { Environment, Network, RecordSource, Store, fetchQuery } = (await import('relay-runtime')).default
  const network = Network.create(async ({ id, text }, variables) => {
    const body = JSON.stringify({ ...(id ? { documentId: id } : { query: text }), variables })
    const response = await fetch(url, { method: 'POST', body, headers: { ...headers, 'content-type': 'application/json' } })
    return response.json()
  })
  const environment = new Environment({ network, store: new Store(new RecordSource()) })
  // What Relay's compiler makes of the first query.
  const selections = [
    {
      kind: 'LinkedField',
      name: 'customerGatewayTokens',
      concreteType: 'CustomerGatewayTokenConnection',
      args: [{ kind: 'Literal', name: 'first', value: 1 }],
      plural: false,
      storageKey: 'customerGatewayTokens(first:1)',
      selections: [{ kind: 'ScalarField', name: 'totalCount', args: null, storageKey: null }],
    },
  ]
  const request = {
    kind: 'Request',
    fragment: { kind: 'Fragment', name: 'One', type: 'Query', argumentDefinitions: [], selections },
    operation: { kind: 'Operation', name: 'One', argumentDefinitions: [], selections },
    params: { id, cacheID: 'one', name: 'One', operationKind: 'query', text: id ? null : ONE, metadata: {} },
  }
  return [await fetchQuery(environment, request, {}).toPromise(), { customerGatewayToken: null }]
}

const clients = {
  async 'Apollo Client'() {
    const { HttpLink } = await import('@apollo/client/link/http')
    return apollo(new HttpLink({ uri: url, headers }))
  },

  async 'Apollo Client, batches'() {
    const { BatchHttpLink } = await import('@apollo/client/link/batch-http')
    return apollo(new BatchHttpLink({ uri: url, headers, batchInterval: 20 }))
  },

  async 'Apollo Client, persisted queries'() {
    const { HttpLink } = await import('@apollo/client/link/http')
    const { PersistedQueryLink } = await import('@apollo/client/link/persisted-queries')
    return apollo(new PersistedQueryLink({ sha256 }).concat(new HttpLink({ uri: url, headers })))
  },

  async 'Apollo Client, persisted queries by GET'() {
    const { HttpLink } = await import('@apollo/client/link/http')
    const { PersistedQueryLink } = await import('@apollo/client/link/persisted-queries')
    const hashes = new PersistedQueryLink({ sha256, useGETForHashedQueries: true })
    return apollo(hashes.concat(new HttpLink({ uri: url, headers })))
  },

  'urql, by GET': () => urql(),

  async 'urql, persisted queries'() {
    const { persistedExchange } = await import('@urql/exchange-persisted')
    return urql(persistedExchange({ preferGetForPersistedQueries: false }))
  },

  async 'urql, persisted queries by GET'() {
    const { persistedExchange } = await import('@urql/exchange-persisted')
    return urql(persistedExchange({ preferGetForPersistedQueries: true }))
  },

  async 'graphql-request'() {
    const { GraphQLClient } = await import('graphql-request')
    const client = new GraphQLClient(url, { headers })
    return [await client.request(ONE), await client.request(TWO, variables)]
  },

  async 'graphql-request, batches'() {
    const { batchRequests } = await import('graphql-request')
    const answers = await batchRequests(url, [{ document: ONE }, { document: TWO, variables }], headers)
    return answers.map(({ data }) => data)
  },

  Relay: () => relay(),
  'Relay, persisted queries': () => relay('one'),
}

console.log(JSON.stringify(await clients[name]()))
