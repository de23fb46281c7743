// The invoice service: it adds a link to each token, which it makes of fields that only the token service knows.
import { serve } from '../../supergraph/subgraph.mjs'

const typeDefs = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "@external", "@requires"])

  type CustomerGatewayToken @key(fields: "userId gateway") {
    userId: ID!
    gateway: String!
    gatewayCustomerId: String! @external
    isActive: Boolean! @external
    invoices: String @requires(fields: "gatewayCustomerId isActive")
  }

  type Query {
    invoice(id: ID!): String
  }
`

serve(typeDefs, {
  CustomerGatewayToken: {
    __resolveReference: (token) => token,
    invoices: ({ gateway, gatewayCustomerId, isActive }) =>
      isActive ? `https://invoices.example/${gateway}/${gatewayCustomerId}` : null,
  },
  Query: { invoice: (_, { id }) => id },
})
