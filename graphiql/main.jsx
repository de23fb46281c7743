// The page that a browser gets at /graphql: GraphiQL, with tabs worth trying and a line about what came back.
import 'graphiql/setup-workers/vite';
import 'graphiql/style.css';
import './style.css';

import { GraphiQL, HISTORY_PLUGIN } from 'graphiql';
import { createRoot } from 'react-dom/client';

import { AccessToken } from './access-token.jsx';
import { Answer } from './answer.jsx';
import { ask } from './ask.js';
import { storage } from './storage.js';
import { headers, tabs } from './tabs.js';

createRoot(document.getElementById('root')).render(
  <GraphiQL
    fetcher={ask}
    defaultTabs={tabs}
    defaultHeaders={headers}
    defaultEditorToolsVisibility="variables"
    storage={storage}
    plugins={[HISTORY_PLUGIN]}
    shouldPersistHeaders={false}
  >
    <GraphiQL.Logo>Customer gateway tokens</GraphiQL.Logo>
    <GraphiQL.Toolbar>
      {({ prettify, copy, merge }) => (
        <>
          {prettify}
          {merge}
          {copy}
          <AccessToken />
        </>
      )}
    </GraphiQL.Toolbar>
    <GraphiQL.Footer>
      <Answer />
    </GraphiQL.Footer>
  </GraphiQL>,
);
