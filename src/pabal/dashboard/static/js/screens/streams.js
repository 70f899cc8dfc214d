// Aggregates, and the history of one.

import { html, useEffect, useState } from "../lib.js";
import { useLoaded } from "../api.js";
import { t } from "../i18n.js";
import { number } from "../format.js";
import { navigate, to } from "../router.js";
import { Card, EmptyState, Loaded, PageHeader, StreamLink } from "../components/basics.js";
import { EventTable } from "./events.js";

function Search({ query }) {
  const [text, setText] = useState(query.prefix ?? "");
  useEffect(() => setText(query.prefix ?? ""), [query.prefix]);
  const apply = (event) => {
    event.preventDefault();
    navigate(to(["streams"], { prefix: text.trim() }));
  };
  return html`
    <form class="filters" role="search" onSubmit=${apply} aria-label=${t("filter")}>
      <div class="field">
        <label for="prefix">${t("streams.prefix")}</label>
        <input id="prefix" class="input mono" autocomplete="off" value=${text} onInput=${(event) => setText(event.target.value)} data-first />
      </div>
      <div class="row">
        <button type="submit" class="button primary">${t("filter.apply")}</button>
        ${query.prefix && html`<a class="button plain" href=${to(["streams"])}>${t("filter.clear")}</a>`}
      </div>
    </form>
  `;
}

export function Streams({ query }) {
  const loaded = useLoaded("streams", { prefix: query.prefix, after: query.after });
  return html`
    <${PageHeader} title=${t("nav.streams")} about=${t("streams.about")} />
    <${Card}><${Search} query=${query} /><//>
    <${Card} busy=${loaded.loading && loaded.data !== null}>
      <${Loaded}
        loaded=${loaded}
        lines=${10}
        empty=${(data) => !data.items.length}
        blank=${html`<${EmptyState} icon="streams" title=${t(query.prefix ? "streams.nothing" : "streams.none")}>
          ${t(query.prefix ? "streams.nothing.about" : "streams.none.about")}
        <//>`}
      >
        ${(data) => html`
          <div class="scroll" tabindex="0" role="region" aria-label=${t("nav.streams")}>
            <table>
              <thead>
                <tr>
                  <th scope="col">${t("stream")}</th>
                  <th scope="col" class="right">${t("version")}</th>
                </tr>
              </thead>
              <tbody>
                ${data.items.map(
                  (row) => html`
                    <tr key=${`${row.aggregate_type}/${row.aggregate_id}`}>
                      <td><${StreamLink} type=${row.aggregate_type} id=${row.aggregate_id} /></td>
                      <td class="right">${number(row.version)}</td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          </div>
          <div class="pager">
            <span>${t("streams.count", { n: data.items.length })}</span>
            <span class="row push">
              ${query.after && html`<a class="button" href=${to(["streams"], { prefix: query.prefix })}>${t("page.first")}</a>`}
              ${data.next && html`<a class="button" rel="next" href=${to(["streams"], { prefix: query.prefix, after: data.next })}>${t("page.next")}</a>`}
            </span>
          </div>
        `}
      <//>
    <//>
  `;
}

export function Stream({ type, id, query }) {
  const path = `streams/${encodeURIComponent(type)}/${encodeURIComponent(id)}`;
  const loaded = useLoaded(path, { after: query.after });
  const crumb = html`<a href=${to(["streams"])}>${t("nav.streams")}</a><span>/</span>${type !== "-" && html`<span>${type}</span>`}`;
  return html`
    <${PageHeader} title=${id} crumb=${crumb} about=${loaded.data ? t("stream.about", { n: loaded.data.version }) : ""} />
    <${Card} busy=${loaded.loading && loaded.data !== null}>
      <${Loaded} loaded=${loaded} lines=${10} empty=${(data) => !data.items.length} blank=${html`<${EmptyState} icon="streams" title=${t("stream.none")} />`}>
        ${(data) => html`
          <${EventTable} rows=${data.items} stream />
          <div class="pager">
            <span>${t("events.count", { n: data.items.length })}</span>
            <span class="row push">
              ${query.after && html`<a class="button" href=${to(["streams", type, id])}>${t("page.first")}</a>`}
              ${data.next && html`<a class="button" rel="next" href=${to(["streams", type, id], { after: data.next })}>${t("page.next")}</a>`}
            </span>
          </div>
        `}
      <//>
    <//>
  `;
}
