// Composes the subgraphs read from standard input, `[{name, url, sdl}]`, with the library named on the command line, and
// writes what it says: `{supergraph, complaints}`, where errors, warnings and hints are all complaints.
import { text } from 'node:stream/consumers'

import { parse } from 'graphql'

const subgraphs = JSON.parse(await text(process.stdin)).map(({ name, url, sdl }) => ({ name, url, document: parse(sdl) }))

const libraries = {
  async apollo() {
    const { composeServices } = await import('@apollo/composition')
    const { supergraphSdl, errors = [], hints = [] } = composeServices(
      subgraphs.map(({ name, url, document }) => ({ name, url, typeDefs: document })),
    )
    return { supergraph: supergraphSdl, complaints: [...errors, ...hints].map(String) }
  },
  async guild() {
    const { composeServices } = await import('@theguild/federation-composition')
    const { supergraphSdl, errors = [] } = composeServices(
      subgraphs.map(({ name, url, document }) => ({ name, url, typeDefs: document })),
    )
    return { supergraph: supergraphSdl, complaints: errors.map(String) }
  },
  async wundergraph() {
    const { federateSubgraphs, ROUTER_COMPATIBILITY_VERSION_ONE } = await import('@wundergraph/composition')
    const result = federateSubgraphs({
      subgraphs: subgraphs.map(({ name, url, document }) => ({ name, url, definitions: document })),
      version: ROUTER_COMPATIBILITY_VERSION_ONE,
    })
    return { complaints: [...(result.errors ?? []), ...result.warnings].map(String) }
  },
}

console.log(JSON.stringify(await libraries[process.argv[2]]()))
