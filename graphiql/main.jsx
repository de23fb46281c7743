// The page that a browser gets at /graphql: GraphiQL, with example tabs and a status line below each answer.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import '@graphiql/plugin-explorer/style.css';
import './style.css';

import { GraphiQL, HISTORY_PLUGIN } from 'graphiql';
import { createRoot } from 'react-dom/client';

import { AccessToken } from './access-token.jsx';
import { Answer } from './answer.jsx';
import { ask } from './ask.js';
import { docs } from './docs.jsx';
import { explorer } from './explorer.jsx';
import { storage } from './storage.js';
import { headers, tabs } from './tabs.js';

// JSON Schemas by which the variables editor checks custom scalars.
const SCALARS = { DateTime: { type: 'string', format: 'date-time' }, JSON: {}, _Any: { type: 'object' } };
const PLUGINS = [explorer, HISTORY_PLUGIN];

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
