// The order service: a hundred orders, each of the user with its number. It knows a user's id and nothing else of them.
import { serve } from './subgraph.mjs'

const orders = Array.from({ length: 100 }, (_, index) => ({
  id: `order-${index + 1}`,
  user: { id: `user-${index + 1}` },
}))

const typeDefs = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])

  type Order @key(fields: "id") {
    id: ID!
    user: User!
  }

  type User @key(fields: "id", resolvable: false) {
    id: ID!
  }

  type Query {
    orders(first: Int! = 10): [Order!]!
    order(id: ID!): Order
  }
`

const byId = (id) => orders.find((order) => order.id === id) ?? null

serve(typeDefs, {
  Order: { __resolveReference: ({ id }) => byId(id) },
  Query: {
    orders: (_, { first }) => orders.slice(0, first),
    order: (_, { id }) => byId(id),
  },
})
