// Relative addresses: the page works under whatever path a proxy puts in front of /graphql.
import { defineConfig } from 'vite';

export default defineConfig({
  base: './',
  logLevel: 'error', // its warnings are about directives in other people's packages
  build: {
    outDir: '../graphql_api/web/static/graphiql',
    assetsDir: 'graphiql',
    emptyOutDir: true,
  },
});
