// The explorer, without the fields that only a federation router uses.
import { explorerPlugin } from '@graphiql/plugin-explorer';
import { useGraphiQL } from '@graphiql/react';
import { GraphQLObjectType, GraphQLSchema } from 'graphql';
import { useMemo } from 'react';

function Explorer() {
  const schema = useGraphiQL((state) => state.schema);
  const shown = useMemo(() => schema && withoutFederation(schema), [schema]);
  return explorerPlugin({ schema: shown, showAttribution: false }).content();
}

function withoutFederation(schema) {
  const query = schema.getQueryType().toConfig();
  const fields = Object.fromEntries(Object.entries(query.fields).filter(([name]) => !name.startsWith('_')));
  return new GraphQLSchema({ ...schema.toConfig(), types: [], query: new GraphQLObjectType({ ...query, fields }) });
}

export const explorer = { ...explorerPlugin(), content: Explorer };
