// Sends a request to the service that serves this page, and keeps the status, time and request id of its answer.
import { parse } from 'graphql';

import { INTRODUCTION } from './docs.jsx';
import { accessToken } from './roles.js';
import { store } from './store.js';

export const answered = store(null);

const MEDIA = 'application/graphql-response+json, application/json;q=0.9';

export async function ask(request, { headers = {} } = {}) {
  const token = accessToken();
  const began = performance.now();
  const response = await fetch(location.pathname, {
    method: 'POST',
    headers: {
      accept: MEDIA,
      'content-type': 'application/json',
      ...(token && { authorization: `Bearer ${token}` }),
      ...given(headers),
    },
    body: JSON.stringify({ ...request, operationName: operationName(request) }),
  });
  const text = await response.text();
  const answer = {
    status: response.status,
    requestId: response.headers.get('x-request-id'),
    ms: Math.round(performance.now() - began),
  };
  try {
    const body = JSON.parse(text);
    if (request.operationName === 'IntrospectionQuery') introduce(body);
    else answered.set({ ...answer, errors: body.errors ?? [] });
    return body;
  } catch {
    throw new Error(`The answer is not JSON (HTTP ${response.status}): ${text.slice(0, 200)}`);
  }
}

function introduce({ data }) {
  if (data) data.__schema.description = INTRODUCTION;
}

// For a moment after a change of tab, GraphiQL still sends the operation name of the previous tab.
function operationName({ query, operationName: name }) {
  try {
    return parse(query).definitions.some((definition) => definition.name?.value === name) ? name : undefined;
  } catch {
    return undefined; // the service answers with a better syntax error
  }
}

// The headers of the headers editor that have a value, by name in lower case.
function given(headers) {
  return Object.fromEntries(
    Object.entries(headers)
      .filter(([, value]) => value)
      .map(([name, value]) => [name.toLowerCase(), value]),
  );
}
