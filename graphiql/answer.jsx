// The status line below an answer: HTTP status, time and request id. Errors are also underlined in the query.
import { useGraphiQL, useMonaco } from '@graphiql/react';
import { useEffect, useSyncExternalStore } from 'react';

import { answered } from './ask.js';

export function Answer() {
  const answer = useSyncExternalStore(answered.subscribe, answered.get);
  const tab = useGraphiQL((state) => state.activeTabIndex);
  useEffect(() => answered.set(null), [tab]);
  const editor = useGraphiQL((state) => state.queryEditor);
  useEffect(() => editor?.updateOptions({ wordWrap: 'on' }), [editor]);
  useMarks(editor?.getModel(), answer?.errors);
  if (answer === null) return 'Press Ctrl-Enter to run the query. To send an access token, open Headers.';
  return (
    <>
      HTTP {answer.status} · {answer.ms} ms · request id <code>{answer.requestId}</code>
      {answer.errors.map((error, index) => (
        <div className="problem" key={index}>
          {place(error)}
          {error.message}
          {help(error)}
        </div>
      ))}
    </>
  );
}

function place({ locations = [], path }) {
  const line = locations.length > 0 && `line ${locations[0].line}, column ${locations[0].column}`;
  const where = [line, path?.join('.')].filter(Boolean).join(', ');
  return where && <strong>{where}: </strong>;
}

function help({ extensions }) {
  if (!extensions?.help?.startsWith?.('/help/')) return null;
  return (
    <a href={extensions.help} target="_blank" rel="noopener">
      What this means
    </a>
  );
}

function useMarks(model, errors) {
  const monaco = useMonaco((state) => state.monaco);
  useEffect(() => {
    if (!model || !errors) return undefined;
    const mark = (marks) => monaco.editor.setModelMarkers(model, 'answer', marks);
    mark(errors.flatMap((error) => (error.locations ?? []).map((location) => marked(monaco, model, error, location))));
    const edited = model.onDidChangeContent(() => mark([]));
    return () => {
      edited.dispose();
      mark([]);
    };
  }, [errors, model, monaco]);
}

function marked(monaco, model, { message }, { line, column }) {
  const word = model.getWordAtPosition({ lineNumber: line, column });
  return {
    severity: monaco.MarkerSeverity.Error,
    message,
    startLineNumber: line,
    startColumn: column,
    endLineNumber: line,
    endColumn: word?.endColumn ?? column + 1,
  };
}
