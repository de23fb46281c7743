// Where the page keeps its state: under a prefix of its own, and without the headers of past queries, which may hold
// access tokens.
import { createLocalStorage } from '@graphiql/toolkit';

const HISTORY = /:(queries|favorites)$/;

const kept = createLocalStorage({ namespace: 'gateway-tokens' });
const { setItem } = kept;
const withoutHeaders = (name, value) => (name === 'headers' ? undefined : value);

kept.setItem = (key, value) =>
  setItem(key, HISTORY.test(key) ? JSON.stringify(JSON.parse(value, withoutHeaders)) : value);

export const storage = kept;
