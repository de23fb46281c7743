// The access tokens that `gateway-tokens serve --demo` put into the fragment of the URL, and which of them is picked.
//
// They stay in the session storage of this browser tab and are removed from the URL. The service has no endpoint for them.
import { store } from './store.js';

const TOKENS = 'access tokens';
const ROLE = 'role';

if (location.hash.length > 1) {
  sessionStorage.setItem(TOKENS, location.hash.slice(1));
  sessionStorage.removeItem(ROLE);
  history.replaceState(null, '', location.pathname);
}

const tokens = new URLSearchParams(sessionStorage.getItem(TOKENS) ?? '');

export const roles = [...tokens.keys()];
export const role = store(sessionStorage.getItem(ROLE) ?? roles.at(-1) ?? '');

export function pick(name) {
  sessionStorage.setItem(ROLE, name);
  role.set(name);
}

export const accessToken = () => tokens.get(role.get());
