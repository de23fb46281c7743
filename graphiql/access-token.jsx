// The menu that picks the access token to send. A token in the headers editor takes precedence.
import { useSyncExternalStore } from 'react';

import { pick, role, roles } from './roles.js';

export function AccessToken() {
  const picked = useSyncExternalStore(role.subscribe, role.get);
  if (roles.length === 0) return null;
  return (
    <label className="access-token">
      as
      <select aria-label="Access token" value={picked} onChange={(event) => pick(event.target.value)}>
        <option value="">anonymous</option>
        {roles.map((name) => (
          <option key={name}>{name}</option>
        ))}
      </select>
    </label>
  );
}
