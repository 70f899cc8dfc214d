// The log, newest first. The filter is in the address, so a view can be shared as a link.

import { html, useEffect, useState, useStore } from "../lib.js";
import { useLoaded } from "../api.js";
import { t } from "../i18n.js";
import { number, place } from "../format.js";
import { report } from "../live.js";
import { navigate, to } from "../router.js";
import { Button, Card, EmptyState, EventLink, Loaded, PageHeader, shortId, StreamLink, Time } from "../components/basics.js";

const FIELDS = ["type", "aggregate", "since", "until", "correlation"];

export const EventTable = ({ rows, stream }) => html`
  <div class="scroll" tabindex="0" role="region" aria-label=${t("nav.events")}>
    <table class="cards">
      <thead>
        <tr>
          <th scope="col" class="right">${t(stream ? "version" : "position")}</th>
          <th scope="col">${t("time")}</th>
          <th scope="col">${t("event-type")}</th>
          ${!stream && html`<th scope="col">${t("aggregate")}</th>`}
          <th scope="col">${t("payload")}</th>
          <th scope="col">${t("event-id")}</th>
        </tr>
      </thead>
      <tbody>
        ${rows.map(
          (row) => html`
            <tr key=${row.cursor}>
              <td class="right tight faint" data-label=${t(stream ? "version" : "position")}>
                ${stream ? number(row.stream_version) : place(row.cursor)}
              </td>
              <td class="tight" data-label=${t("time")}><${Time} at=${row.occurred_at} /></td>
              <td class="nowrap whole"><${EventLink} id=${row.event_id}>${row.event_type}<//></td>
              ${!stream && html`<td class="whole stream"><${StreamLink} type=${row.aggregate_type} id=${row.aggregate_id} /></td>`}
              <td class="whole preview"><div class="clip mono faint">${row.preview}</div></td>
              <td class="tight wide-only"><span class="mono faint" title=${row.event_id}>${shortId(row.event_id)}</span></td>
            </tr>
          `,
        )}
      </tbody>
    </table>
  </div>
`;

/** A `datetime-local` value has no zone: it is in the user's own. */
const toLocalInput = (iso) => {
  if (!iso) return "";
  const date = new Date(iso);
  if (Number.isNaN(date.getTime())) return "";
  return new Date(date.getTime() - date.getTimezoneOffset() * 60_000).toISOString().slice(0, 19);
};

const Field = ({ name, label, hint, children }) => html`
  <div class="field">
    <label for=${`filter-${name}`}>${label}</label>
    ${children}
    ${hint && html`<span class="hint">${hint}</span>`}
  </div>
`;

function Filters({ query, types }) {
  const [draft, setDraft] = useState(query);
  const key = FIELDS.map((name) => query[name] ?? "").join("\n");
  useEffect(() => setDraft(query), [key]);
  const setField = (name) => (event) => setDraft({ ...draft, [name]: event.target.value });
  const setTimeField = (name) => (event) => {
    const { value } = event.target;
    setDraft({ ...draft, [name]: value ? new Date(value).toISOString() : "" });
  };
  const apply = (event) => {
    event.preventDefault();
    navigate(to(["events"], Object.fromEntries(FIELDS.map((name) => [name, (draft[name] ?? "").trim()]))));
  };
  const isFiltered = FIELDS.some((name) => query[name]);
  return html`
    <form class="filters" onSubmit=${apply} role="search" aria-label=${t("filter")}>
      <${Field} name="type" label=${t("event-type")}>
        <input id="filter-type" class="input mono" list="types" autocomplete="off" placeholder="order.*" value=${draft.type ?? ""} onInput=${setField("type")} data-first />
        <datalist id="types">${types.map((one) => html`<option value=${one}></option>`)}</datalist>
      <//>
      <${Field} name="aggregate" label=${t("filter.aggregate")}>
        <input id="filter-aggregate" class="input mono" autocomplete="off" placeholder="order/o-1" value=${draft.aggregate ?? ""} onInput=${setField("aggregate")} />
      <//>
      <${Field} name="correlation" label=${t("filter.correlation")}>
        <input id="filter-correlation" class="input mono" autocomplete="off" placeholder="0198…" value=${draft.correlation ?? ""} onInput=${setField("correlation")} />
      <//>
      <${Field} name="since" label=${t("filter.since")}>
        <input id="filter-since" class="input" type="datetime-local" step="1" value=${toLocalInput(draft.since)} onInput=${setTimeField("since")} />
      <//>
      <${Field} name="until" label=${t("filter.until")}>
        <input id="filter-until" class="input" type="datetime-local" step="1" value=${toLocalInput(draft.until)} onInput=${setTimeField("until")} />
      <//>
      <div class="row">
        <button type="submit" class="button primary">${t("filter.apply")}</button>
        ${isFiltered && html`<a class="button plain" href=${to(["events"])}>${t("filter.clear")}</a>`}
      </div>
    </form>
  `;
}

function NewEventsButton({ since, query }) {
  const now = useStore(report);
  const fresh = now && since !== null ? now.head - since : 0;
  if (fresh <= 0 || query.before) return null;
  const text = FIELDS.some((name) => query[name]) ? t("events.moved") : t("events.fresh", { n: fresh });
  return html`<${Button} icon="up" onClick=${() => window.dispatchEvent(new CustomEvent("pabal:reload"))}>${text}<//>`;
}

export function Events({ query }) {
  const params = Object.fromEntries([...FIELDS, "before", "after"].map((name) => [name, query[name]]));
  const loaded = useLoaded("events", params);
  const types = useLoaded("types");
  useEffect(() => {
    window.addEventListener("pabal:reload", loaded.reload);
    return () => window.removeEventListener("pabal:reload", loaded.reload);
  }, [loaded.reload]);
  const { data } = loaded;
  const page = (more) => to(["events"], { ...params, before: "", after: "", ...more });
  const isFiltered = FIELDS.some((name) => query[name]);
  return html`
    <${PageHeader} title=${t("nav.events")} about=${t("events.about")} right=${html`<${NewEventsButton} since=${data?.head ?? null} query=${query} />`} />
    <${Card}><${Filters} query=${query} types=${types.data?.types ?? []} /><//>
    <${Card} busy=${loaded.loading && data !== null}>
      <${Loaded}
        loaded=${loaded}
        lines=${14}
        empty=${(found) => !found.items.length && found.complete}
        blank=${html`<${EmptyState}
          icon=${isFiltered ? "search" : "events"}
          title=${t(isFiltered ? "events.nothing" : "events.none")}
          action=${isFiltered && html`<a class="button" href=${to(["events"])}>${t("filter.clear")}</a>`}
        >
          ${t(isFiltered ? "events.nothing.about" : "events.none.about")}
        <//>`}
      >
        ${(found) => html`
          <${EventTable} rows=${found.items} />
          <div class="pager">
            <span class="num">
              ${found.complete || found.items.length >= found.limit
                ? t("events.count", { n: found.items.length })
                : t("events.searched", { n: found.items.length, from: place(found.searched_to) })}
            </span>
            <span class="row push">
              ${query.before && html`<a class="button" href=${page({})}>${t("page.newest")}</a>`}
              ${found.next && html`<a class="button" href=${page({ before: found.next })} rel="next">${t(found.items.length < found.limit ? "page.search-on" : "page.older")}</a>`}
            </span>
          </div>
        `}
      <//>
    <//>
  `;
}
