// Relative addresses: the page works under whatever path a proxy puts in front of /graphql.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { defineConfig } from 'vite';

const outDir = '../graphql_api/web/static/graphiql';

// The service sends these instead, so that it compresses nothing while it serves.
const compressed = {
  name: 'compressed',
  closeBundle() {
    const folder = new URL(`${outDir}/graphiql/`, import.meta.url);
    for (const name of readdirSync(folder).filter((name) => /\.(js|css|ttf)$/.test(name))) {
      const content = readFileSync(new URL(name, folder));
      writeFileSync(new URL(`${name}.br`, folder), brotliCompressSync(content));
      writeFileSync(new URL(`${name}.gz`, folder), gzipSync(content, { level: 9 }));
    }
  },
};

export default defineConfig({
  base: './',
  logLevel: 'error', // its warnings are about directives in other people's packages
  plugins: [compressed],
  build: {
    outDir,
    assetsDir: 'graphiql',
    emptyOutDir: true,
  },
});
