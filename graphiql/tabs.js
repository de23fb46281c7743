// What the first visit opens: each file of tabs/ with the variables beside it, and the headers of every tab.
const queries = import.meta.glob('./tabs/*.graphql', { eager: true, query: '?raw', import: 'default' });
const variables = import.meta.glob('./tabs/*.json', { eager: true, query: '?raw', import: 'default' });

export const headers = `{
  // An access token, where the service asks for one. In development, this prints one:
  //   gateway-tokens token --sub me --scope gateway-tokens:admin
  "Authorization": ""
}
`;

export const tabs = Object.keys(queries)
  .sort()
  .map((file) => ({ query: queries[file], variables: variables[file.replace('.graphql', '.json')], headers }));
