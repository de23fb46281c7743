// The tabs of a first visit: each file of tabs/ with its variables, and the same headers for all.
const queries = import.meta.glob('./tabs/*.graphql', { eager: true, query: '?raw', import: 'default' });
const variables = import.meta.glob('./tabs/*.json', { eager: true, query: '?raw', import: 'default' });

export const headers = `{
  // The access token, if the service requires one. In development, print one with
  //   gateway-tokens token --sub me --scope gateway-tokens:admin
  "Authorization": ""
}
`;

export const tabs = Object.keys(queries)
  .sort()
  .map((file) => ({ query: queries[file], variables: variables[file.replace('.graphql', '.json')], headers }));
