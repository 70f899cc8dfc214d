// The overview: what is stuck, why, and a button to fix it; below, the figures, now and over time.

import { html, useMemo, useState, useStore } from "../lib.js";
import { useLoaded } from "../api.js";
import { has, localized, t } from "../i18n.js";
import { duration, durationParts, rate, short } from "../format.js";
import { report, unreadable } from "../live.js";
import { navigate, to } from "../router.js";
import { canAct, disabledReason, resume, RetryDialog } from "../actions.js";
import { Button, Card, EmptyState, ErrorNotice, PageHeader, RelativeTime, SegmentedControl, Skeleton } from "../components/basics.js";
import { Chart } from "../components/chart.js";
import { showError } from "../components/toasts.js";
import { SubscriptionTable } from "./subscriptions.js";

const RANGES = ["15m", "1h", "6h", "24h", "7d"];
const TONE = { ok: "ok", degraded: "warn", failing: "bad" };

function TroubleActions({ trouble, onRetry }) {
  const { subscription, error_type: error } = trouble;
  const letters = to(["dead-letters"], { subscription, error_type: error });
  if (["dead-letters", "queued", "forgotten"].includes(trouble.code)) {
    return html`
      <a class="button" href=${letters}>${t("mend.look")}</a>
      ${trouble.code === "dead-letters" &&
      html`<${Button} icon="retry" kind="primary" disabled=${!canAct()} title=${disabledReason()} onClick=${onRetry}>
        ${t("mend.retry", { n: trouble.n })}
      <//>`}
    `;
  }
  if (trouble.code === "halted" || trouble.code === "paused") {
    const resumeSubscription = () => resume(subscription).catch(showError);
    return html`
      <a class="button" href=${to(["subscriptions"])}>${t("mend.look")}</a>
      <${Button} icon="play" kind="primary" disabled=${!canAct()} title=${disabledReason()} onClick=${resumeSubscription}>${t("mend.resume")}<//>
    `;
  }
  return subscription ? html`<a class="button" href=${to(["subscriptions"])}>${t("mend.look")}</a>` : null;
}

const sentence = (trouble) => (has(`trouble.${trouble.code}`) ? t(`trouble.${trouble.code}`, trouble) : localized(trouble, "text"));

function Troubles({ now }) {
  const [retrying, setRetrying] = useState(null);
  const { status } = now.health;
  const n = now.troubles.length + now.more_troubles;
  return html`
    <section class=${`card ${TONE[status]}`} aria-label=${t("health")}>
      <div class="verdict" role="status">
        <span class=${`dot ${TONE[status]}`}></span>
        <div>
          <strong>${t(`verdict.${status}`)}</strong>
          <div class="small soft">${n ? t("verdict.count", { n }) : t("verdict.none")}</div>
        </div>
      </div>
      <ul class="troubles">
        ${now.troubles.map(
          (trouble) => html`
            <li key=${`${trouble.code} ${trouble.subscription} ${trouble.error_type}`}>
              <span class=${`dot ${trouble.level}`}></span>
              <div>
                <div class="what">${sentence(trouble)}</div>
                <div class="why">
                  ${trouble.error_type && html`<span class="tag">${trouble.error_type}</span> `}${localized(trouble, "detail")}
                  ${trouble.since && html`${trouble.detail || trouble.error_type ? " · " : ""}<${RelativeTime} at=${trouble.since} />`}
                </div>
              </div>
              <div class="row"><${TroubleActions} trouble=${trouble} onRetry=${() => setRetrying(trouble)} /></div>
            </li>
          `,
        )}
        ${now.more_troubles > 0 && html`<li key="more"><div class="more">${t("verdict.more", { n: now.more_troubles })}</div></li>`}
      </ul>
      ${retrying &&
      html`<${RetryDialog}
        selection=${{ filter: { subscription: retrying.subscription, error_type: retrying.error_type }, count: retrying.n }}
        onClose=${() => setRetrying(null)}
      />`}
    </section>
  `;
}

const Tile = ({ label, value, unit, then, kind = "" }) => html`
  <div class=${`tile ${kind}`}>
    <dt>${label}</dt>
    <dd>${value}${unit && html`<small>${unit}</small>`}</dd>
    <dd class="then">${then}</dd>
  </div>
`;

function Tiles({ now }) {
  const { totals, rates, latency } = now;
  const [p99, unit] = durationParts(latency?.p99);
  return html`
    <dl class="tiles" aria-label=${t("figures")}>
      <${Tile} label=${t("tile.throughput")} value=${rate(rates.published)} unit=${t("per-second")} then=${t("tile.handled", { v: rate(rates.handled) })} />
      <${Tile} label=${t("tile.lag")} value=${short(totals.lag)} then=${t("tile.in-flight", { n: totals.in_flight })} kind=${totals.lag > 10_000 ? "warn" : ""} />
      <${Tile} label=${t("tile.latency")} value=${p99} unit=${unit} then=${latency ? t("tile.p50", { v: duration(latency.p50) }) : t("tile.no-latency")} />
      <${Tile} label=${t("tile.retries")} value=${short(totals.retrying)} then=${totals.retrying ? t("tile.retries.then") : ""} kind=${totals.retrying ? "warn" : ""} />
      <${Tile} label=${t("tile.dead-letters")} value=${short(totals.dead_letters)} then=${totals.dead_letters ? t("tile.dead-letters.then") : ""} kind=${totals.dead_letters ? "bad" : ""} />
    </dl>
  `;
}

const REFRESH_MILLIS = { "15m": 5000, "1h": 10_000, "6h": 30_000, "24h": 60_000, "7d": 60_000 };

function Charts({ range }) {
  const { data, error, reload } = useLoaded("series", { range }, { every: REFRESH_MILLIS[range] });
  const series = data?.series;
  const columns = useMemo(() => {
    if (!series) return null;
    const of = (...names) => [series.at, ...names.map((name) => series[name])];
    return {
      throughput: of("published", "handled"),
      lag: of("lag"),
      latency: of("p50", "p99"),
      trouble: of("retrying", "dead_letters"),
    };
  }, [series]);
  if (error && !data) return html`<${ErrorNotice} error=${error} retry=${reload} />`;
  if (data && !series) return html`<${Card}><${EmptyState} icon="overview" title=${t("chart.none")}>${t("chart.none.about")}<//><//>`;
  if (!columns) return html`<div class="columns">${[1, 2, 3, 4].map(() => html`<div class="card"><${Skeleton} lines=${7} /></div>`)}</div>`;
  const lines = {
    throughput: Object.assign([{ label: t("line.published"), tone: 1, fill: true }, { label: t("line.handled"), tone: 2 }], { floor: 1 }),
    lag: Object.assign([{ label: t("line.lag"), tone: 3, fill: true }], { floor: 10 }),
    latency: Object.assign([{ label: "p50", tone: 1 }, { label: "p99", tone: 2 }], { floor: 0.001 }),
    trouble: Object.assign([{ label: t("line.retrying"), tone: 3 }, { label: t("line.dead-letters"), tone: 4, fill: true }], { floor: 4 }),
  };
  return html`
    <div class="columns">
      <${Chart} title=${t("chart.throughput")} lines=${lines.throughput} columns=${columns.throughput} show=${rate} />
      <${Chart} title=${t("chart.lag")} lines=${lines.lag} columns=${columns.lag} show=${short} />
      <${Chart} title=${t("chart.latency")} lines=${lines.latency} columns=${columns.latency} show=${duration} />
      <${Chart} title=${t("chart.trouble")} lines=${lines.trouble} columns=${columns.trouble} show=${short} />
    </div>
  `;
}

export function Overview({ query }) {
  const now = useStore(report);
  const isOld = useStore(unreadable) !== null; // the last known health says nothing about the present
  const range = RANGES.includes(query.range) ? query.range : "15m";
  const selectRange = (one) => navigate(to([], { range: one === "15m" ? "" : one }), { replace: true });
  return html`
    <${PageHeader} title=${t("nav.overview")} />
    ${now ? html`${!isOld && html`<${Troubles} now=${now} />`}<${Tiles} now=${now} />` : html`<div class="card"><${Skeleton} lines=${4} /></div>`}
    <div class="head">
      <h2>${t("over-time")}</h2>
      <div class="right">
        <${SegmentedControl} label=${t("range")} value=${range} options=${RANGES.map((one) => [one, t(`range.${one}`)])} onChange=${selectRange} />
      </div>
    </div>
    <${Charts} range=${range} />
    ${now &&
    html`<${Card}
      title=${t("nav.subscriptions")}
      right=${html`<a class="small" href=${to(["subscriptions"])}>${t("all")}</a>`}
    >
      <${SubscriptionTable} rows=${now.subscriptions} head=${now.head} plain />
    <//>`}
  `;
}
