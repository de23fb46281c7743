// The invoice service: it adds a link to each token, which it makes of fields that only the token service knows, and
// names the customers of charges by their ids at the gateway.
import { serve } from '../../supergraph/subgraph.mjs'

const typeDefs = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key", "@external", "@requires"])

  type CustomerGatewayToken @key(fields: "gateway gatewayCustomerId") {
    gateway: String!
    gatewayCustomerId: String!
    isActive: Boolean! @external
    invoices: String @requires(fields: "isActive")
  }

  type Charge {
    customer: CustomerGatewayToken
  }

  type Query {
    charge(customer: String!): Charge
  }
`

serve(typeDefs, {
  CustomerGatewayToken: {
    __resolveReference: (token) => token,
    invoices: ({ gateway, gatewayCustomerId, isActive }) =>
      isActive ? `https://invoices.example/${gateway}/${gatewayCustomerId}` : null,
  },
  Query: { charge: (_, { customer }) => ({ customer: { gateway: 'STRIPE', gatewayCustomerId: customer } }) },
})
