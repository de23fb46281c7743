// Relative URLs, so that the page works behind a proxy that adds a path prefix.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { brotliCompressSync, gzipSync } from 'node:zlib';
import { defineConfig } from 'vite';

const outDir = '../graphql_api/web/static/graphiql';

// Compresses each file at build time: the service sends these and compresses no file itself.
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
  logLevel: 'error', // warnings are about directives in dependencies
  plugins: [compressed],
  build: {
    outDir,
    assetsDir: 'graphiql',
    emptyOutDir: true,
  },
});
