// The user service: a hundred users with names. It owns `User`, to which other subgraphs add fields.
import { serve } from './subgraph.mjs'

const given = ['Ada', 'Alan', 'Barbara', 'Claude', 'Edsger', 'Frances', 'Grace', 'Katherine', 'Margaret', 'Tim']
const family = ['Adams', 'Baker', 'Clark', 'Davis', 'Evans', 'Fisher', 'Green', 'Hughes', 'Irving', 'Jones']
const users = family.flatMap((last, tens) =>
  given.map((first, ones) => ({ id: `user-${tens * 10 + ones + 1}`, name: `${first} ${last}` })),
)
const byId = new Map(users.map((user) => [user.id, user]))

const typeDefs = `
  extend schema @link(url: "https://specs.apollo.dev/federation/v2.9", import: ["@key"])

  type User @key(fields: "id") {
    id: ID!
    name: String!
  }

  type Query {
    users(first: Int! = 10): [User!]!
    user(id: ID!): User
  }
`

serve(typeDefs, {
  User: { __resolveReference: ({ id }) => byId.get(id) ?? null },
  Query: {
    users: (_, { first }) => users.slice(0, first),
    user: (_, { id }) => byId.get(id) ?? null,
  },
})
