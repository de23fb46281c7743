// Composes graphs read from standard input, each `[{name, url, sdl}]`, with the library named on the command line, and
// writes what it says of each: `{supergraph, complaints}`, where errors, warnings and hints are all complaints.
import { text } from 'node:stream/consumers'

import { parse } from 'graphql'

const graphs = JSON.parse(await text(process.stdin)).map((subgraphs) =>
  subgraphs.map(({ name, url, sdl }) => ({ name, url, document: parse(sdl) })),
)

const libraries = {
  async apollo(subgraphs) {
    const { composeServices } = await import('@apollo/composition')
    const { supergraphSdl, errors = [], hints = [] } = composeServices(
      subgraphs.map(({ name, url, document }) => ({ name, url, typeDefs: document })),
    )
    return { supergraph: supergraphSdl, complaints: [...errors, ...hints].map(String) }
  },
  async guild(subgraphs) {
    const { composeServices } = await import('@theguild/federation-composition')
    const { supergraphSdl, errors = [] } = composeServices(
      subgraphs.map(({ name, url, document }) => ({ name, url, typeDefs: document })),
    )
    return { supergraph: supergraphSdl, complaints: errors.map(String) }
  },
  async wundergraph(subgraphs) {
    const { federateSubgraphs, ROUTER_COMPATIBILITY_VERSION_ONE } = await import('@wundergraph/composition')
    const result = federateSubgraphs({
      subgraphs: subgraphs.map(({ name, url, document }) => ({ name, url, definitions: document })),
      version: ROUTER_COMPATIBILITY_VERSION_ONE,
    })
    return { complaints: [...(result.errors ?? []), ...result.warnings].map(String) }
  },
}

console.log(JSON.stringify(await Promise.all(graphs.map(libraries[process.argv[2]]))))
