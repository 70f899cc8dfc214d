// A payload as coloured text. It is always text, so nothing in an event is interpreted as markup.

import { html } from "../lib.js";

const MASK = "•••";
const TOKENS = /("(?:\\.|[^"\\])*")(\s*:)?|\b(true|false|null)\b|-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

export function Json({ value }) {
  const text = JSON.stringify(value, null, 2);
  const parts = [];
  let from = 0;
  for (const match of text.matchAll(TOKENS)) {
    parts.push(text.slice(from, match.index));
    const [whole, string, colon, word] = match;
    if (string && colon) parts.push(html`<span class="k">${string}</span>`, colon);
    else if (string === `"${MASK}"`) parts.push(html`<span class="hidden">${MASK}</span>`);
    else parts.push(html`<span class=${string ? "s" : word ? "w" : "n"}>${whole}</span>`);
    from = match.index + whole.length;
  }
  parts.push(text.slice(from));
  return html`<pre class="code" tabindex="0">${parts}</pre>`;
}
