// One event: its payload, its delivery to every subscription, its causes and effects.

import { html } from "../lib.js";
import { useLoaded } from "../api.js";
import { t } from "../i18n.js";
import { number, place } from "../format.js";
import { to } from "../router.js";
import { Badge, Card, CopyButton, EmptyState, EventLink, Loaded, PageHeader, RelativeTime, StreamLink, Time } from "../components/basics.js";
import { Graph } from "../components/graph.js";
import { Json } from "../components/json.js";

const TONE = { finished: "ok", retrying: "warn", parked: "bad", queued: "warn", pending: "info" };

export const Attempt = ({ attempt }) => html`
  <li>
    <div class="row">
      <span class="num soft">${t("attempt", { v: attempt.attempt })}</span>
      <${Time} at=${attempt.failed_at} />
    </div>
    <div class="error">${attempt.error_type}${attempt.message ? `: ${attempt.message}` : ""}</div>
    ${attempt.traceback &&
    html`<details>
      <summary>${t("traceback")}</summary>
      <pre class="trace" tabindex="0">${attempt.traceback}</pre>
    </details>`}
  </li>
`;

const Delivery = ({ delivery }) => html`
  <li>
    <div class="row">
      <strong>${delivery.subscription}</strong>
      <${Badge} kind=${TONE[delivery.state] ?? ""}>${t(`delivery.${delivery.state}`)}<//>
      ${delivery.due_at && html`<span class="small soft">${t("due")} <${RelativeTime} at=${delivery.due_at} /></span>`}
      ${delivery.dead_letter_id &&
      html`<a class="small push" href=${to(["dead-letters", String(delivery.dead_letter_id)])}>${t("to-dead-letter")}</a>`}
    </div>
    ${delivery.attempts.length > 0 &&
    html`<ol class="attempts">
      ${delivery.attempts.map((attempt) => html`<${Attempt} attempt=${attempt} />`)}
      ${delivery.finished_at && html`<li><div class="row"><span class="soft">${t("attempt.succeeded")}</span><${Time} at=${delivery.finished_at} /></div></li>`}
    </ol>`}
  </li>
`;

const Facts = ({ event }) => html`
  <dl class="facts">
    <dt>${t("event-id")}</dt>
    <dd class="row with-copy"><span class="mono">${event.event_id}</span><${CopyButton} text=${event.event_id} /></dd>
    <dt>${t("position")}</dt>
    <dd class="num">${place(event.cursor)}</dd>
    <dt>${t("stream")}</dt>
    <dd>
      <${StreamLink} type=${event.aggregate_type} id=${event.aggregate_id} />
      ${event.stream_version !== null && html`<span class="faint"> · ${t("version")} ${number(event.stream_version)}</span>`}
    </dd>
    <dt>${t("occurred")}</dt>
    <dd><${Time} at=${event.occurred_at} /></dd>
    <dt>${t("recorded")}</dt>
    <dd><${Time} at=${event.recorded_at} /></dd>
    <dt>${t("schema-version")}</dt>
    <dd class="num">${event.schema_version}</dd>
    <dt>${t("correlation")}</dt>
    <dd>
      ${event.correlation_id
        ? html`<a class="mono" href=${to(["events"], { correlation: event.correlation_id })}>${event.correlation_id}</a>`
        : html`<span class="faint">${t("correlation.root")}</span>`}
    </dd>
    <dt>${t("causation")}</dt>
    <dd>
      ${event.causation_id
        ? html`<${EventLink} id=${event.causation_id} cls="mono">${event.causation_id}<//>`
        : html`<span class="faint">${t("causation.none")}</span>`}
    </dd>
    ${event.metadata &&
    Object.keys(event.metadata).length > 0 &&
    html`<dt>${t("metadata")}</dt><dd class="mono small">${JSON.stringify(event.metadata)}</dd>`}
  </dl>
`;

function Content({ data }) {
  const { event, deliveries, graph } = data;
  return html`
    <div class="columns wide-left">
      <div class="stack">
        <${Card} title=${t("payload")} about=${event.masked ? t("payload.masked") : ""} right=${!event.masked && html`<${CopyButton} text=${JSON.stringify(event.payload, null, 2)} />`}>
          <${Json} value=${event.payload} />
        <//>
        <${Card} title=${t("deliveries")} about=${t("deliveries.about")}>
          ${deliveries.length
            ? html`<ul class="deliveries">${deliveries.map((delivery) => html`<${Delivery} delivery=${delivery} />`)}</ul>`
            : html`<${EmptyState} icon="subscriptions" title=${t("deliveries.none")} />`}
        <//>
      </div>
      <${Card} title=${t("about-event")}><div class="body"><${Facts} event=${event} /></div><//>
    </div>
    <${Card} title=${t("event.graph")} about=${t(graph.truncated ? "graph.truncated" : "graph.about", { n: graph.nodes.length })}>
      ${graph.nodes.length > 1 ? html`<${Graph} graph=${graph} here=${event.event_id} />` : html`<${EmptyState} icon="link" title=${t("graph.alone")} />`}
    <//>
  `;
}

export function Event({ id }) {
  const loaded = useLoaded(`events/${encodeURIComponent(id)}`, {}, { fresh: true });
  const crumb = html`<a href=${to(["events"])}>${t("nav.events")}</a><span>/</span>`;
  return html`
    <${PageHeader} title=${loaded.data?.event.event_type ?? t("event")} crumb=${crumb} />
    <${Loaded} loaded=${loaded} lines=${10}>${(data) => html`<${Content} data=${data} />`}<//>
  `;
}
