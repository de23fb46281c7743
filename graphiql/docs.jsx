// The documentation: an introduction first, and without the fields and types that only a federation router uses.
import { DOC_EXPLORER_PLUGIN } from '@graphiql/plugin-doc-explorer';
import { useEffect, useRef } from 'react';

export const INTRODUCTION = `This service maps users to their customers at payment gateways.

To read, start at **Query**: \`customerGatewayTokens\` lists tokens, the other fields find one.

To write, start at **Mutation**: claim, create the customer at the gateway, then save.

Errors that you can fix are in \`userErrors\`.`;

const { content: DocExplorer } = DOC_EXPLORER_PLUGIN;

function Docs() {
  const root = useRef(null);
  useEffect(() => {
    const hide = () => root.current.querySelectorAll('a').forEach(hideIfInternal);
    const observer = new MutationObserver(hide);
    observer.observe(root.current, { childList: true, subtree: true });
    hide();
    return () => observer.disconnect();
  }, []);
  return (
    <div ref={root}>
      <DocExplorer />
    </div>
  );
}

const INTERNAL = /^(_[a-zA-Z]|link__|CacheControlScope$)/;

// Each line of a list begins with the name of the field or type.
function hideIfInternal(link) {
  const line = link.parentElement;
  if (line.firstElementChild === link && INTERNAL.test(line.textContent.trim())) line.hidden = true;
}

export const docs = { ...DOC_EXPLORER_PLUGIN, content: Docs };
