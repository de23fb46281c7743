// The page that a browser gets at /graphql: GraphiQL, with tabs worth trying and a line about what came back.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import '@graphiql/plugin-explorer/style.css';
import './style.css';

import { explorerPlugin } from '@graphiql/plugin-explorer';
import { GraphiQL, HISTORY_PLUGIN } from 'graphiql';
import { createRoot } from 'react-dom/client';

import { AccessToken } from './access-token.jsx';
import { Answer } from './answer.jsx';
import { ask } from './ask.js';
import { docs } from './docs.jsx';
import { storage } from './storage.js';
import { headers, tabs } from './tabs.js';

// What the editor of variables takes for a custom scalar.
const SCALARS = { DateTime: { type: 'string', format: 'date-time' }, JSON: {}, _Any: { type: 'object' } };
const PLUGINS = [explorerPlugin({ showAttribution: false }), HISTORY_PLUGIN];

createRoot(document.getElementById('root')).render(
  <GraphiQL
    fetcher={ask}
    defaultTabs={tabs}
    defaultHeaders={headers}
    defaultEditorToolsVisibility="variables"
    storage={storage}
    plugins={PLUGINS}
    referencePlugin={docs}
    customScalarSchemas={SCALARS}
    shouldPersistHeaders={false}
  >
    <GraphiQL.Logo>
      <span className="title">Customer gateway tokens</span>
      <AccessToken />
    </GraphiQL.Logo>
    <GraphiQL.Toolbar>
      {({ prettify, copy, merge }) => (
        <>
          {prettify}
          {merge}
          {copy}
        </>
      )}
    </GraphiQL.Toolbar>
    <GraphiQL.Footer>
      <Answer />
    </GraphiQL.Footer>
  </GraphiQL>,
);
