// Access tokens that the service's terminal handed over behind the # of the address, and which of them is picked.
//
// They stay in this tab of the browser: the address forgets them, and nothing ever asks the service for them.
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
