// Durable subscriptions: position, rate, what holds them up, and actions.

import { html, useState, useStore } from "../lib.js";
import { localized, t } from "../i18n.js";
import { duration, number, rate, short } from "../format.js";
import { report } from "../live.js";
import { to } from "../router.js";
import { canAct, disabledReason, pause, ResetDialog, resume } from "../actions.js";
import { Badge, Button, Card, EmptyState, PageHeader, RelativeTime, Skeleton } from "../components/basics.js";
import { showError } from "../components/toasts.js";

const TONE = {
  active: "ok",
  running: "ok",
  elsewhere: "info",
  standby: "info",
  starting: "info",
  paused: "warn",
  idle: "",
  halted: "bad",
};

const State = ({ row }) => html`
  <${Badge} kind=${TONE[row.state] ?? ""}>${t(`state.${row.state}`)}<//>
`;

const rowClass = (row) => (row.state === "halted" || row.parked ? "marked" : row.state === "paused" ? "watched" : "");

function RowActions({ row, onReset }) {
  const [busy, setBusy] = useState(false);
  const isStopped = row.state === "paused" || row.state === "halted";
  const toggle = async () => {
    setBusy(true);
    try {
      await (isStopped ? resume(row.name) : pause(row.name));
    } catch (error) {
      showError(error);
    } finally {
      setBusy(false);
    }
  };
  const possible = isStopped ? row.can.resume : row.can.pause;
  return html`
    <div class="row levers">
      <${Button}
        icon=${isStopped ? "play" : "pause"}
        kind=${isStopped ? "primary" : ""}
        disabled=${!canAct() || busy || !possible}
        title=${disabledReason(possible, "why.not-here")}
        aria-label=${t(isStopped ? "resume.name" : "pause.name", row)}
        onClick=${toggle}
      >
        ${t(isStopped ? "resume" : "pause")}
      <//>
      <${Button}
        icon="reset"
        kind="plain"
        disabled=${!canAct() || !row.can.reset}
        title=${disabledReason(row.can.reset, "why.in-use") ?? t("reset.name", row)}
        aria-label=${t("reset.name", row)}
        onClick=${() => onReset(row)}
      >
        <span class="lever-text">${t("reset")}</span>
      <//>
    </div>
  `;
}

const ProgressBar = ({ row, head }) => {
  const done = head ? Math.max(0, Math.min(1, 1 - row.lag / head)) : 1;
  const text = `${Math.floor(done * 1000) / 10}%`;
  return html`<progress class="reach" max="1" value=${done} title=${text} aria-label=${t("reach", { name: row.name, v: text })}></progress>`;
};

/** `plain`: for the overview, without actions and the less common columns. */
export function SubscriptionTable({ rows, head, plain, onReset }) {
  if (!rows.length) return html`<${EmptyState} icon="subscriptions" title=${t("subscriptions.none")}>${t("subscriptions.none.about")}<//>`;
  return html`
    <div class="scroll" tabindex="0" role="region" aria-label=${t("nav.subscriptions")}>
      <table class="cards">
        <thead>
          <tr>
            <th scope="col">${t("name")}</th>
            <th scope="col">${t("state")}</th>
            <th scope="col" class="right">${t("lag")}</th>
            <th scope="col" class="reach-column"><span class="unseen">${t("reached")}</span></th>
            <th scope="col" class="right">${t("rate")}</th>
            <th scope="col" class="right">${t("in-flight")}</th>
            <th scope="col" class="right">p50</th>
            <th scope="col" class="right">p99</th>
            <th scope="col" class="right">${t("retrying")}</th>
            <th scope="col" class="right">${t("dead-letters")}</th>
            ${!plain && html`<th scope="col"><span class="unseen">${t("levers")}</span></th>`}
          </tr>
        </thead>
        <tbody>
          ${rows.map(
            (row) => html`
              <tr key=${row.name} class=${rowClass(row)}>
                <td class="whole first">
                  <strong class="name">${row.name}</strong>
                  ${!plain && html`<${Details} row=${row} />`}
                </td>
                <td data-label=${t("state")}><${State} row=${row} /></td>
                <td class="right" data-label=${t("lag")}>${short(row.lag)}</td>
                <td class="tight wide-only reach-column"><${ProgressBar} row=${row} head=${head} /></td>
                <td class="right" data-label=${t("rate")}>${row.rate === null ? "–" : `${rate(row.rate)}/s`}</td>
                <td class="right" data-label=${t("in-flight")}>${number(row.in_flight)}</td>
                <td class="right" data-label="p50">${duration(row.p50)}</td>
                <td class="right" data-label="p99">${duration(row.p99)}</td>
                <td class="right" data-label=${t("retrying")}>${row.retrying ? html`<${Badge} kind="warn">${number(row.retrying)}<//>` : html`<span class="faint">0</span>`}</td>
                <td class="right" data-label=${t("dead-letters")}>
                  ${row.parked
                    ? html`<a href=${to(["dead-letters"], { subscription: row.name })}><${Badge} kind="bad">${number(row.parked)}<//></a>`
                    : html`<span class="faint">0</span>`}
                </td>
                ${!plain && html`<td class="tight whole"><${RowActions} row=${row} onReset=${onReset} /></td>`}
              </tr>
            `,
          )}
        </tbody>
      </table>
    </div>
  `;
}

const Details = ({ row }) => html`
  <div class="small faint">
    ${row.reason
      ? html`<span class="fault">${localized(row, "reason")}</span>`
      : html`${t("watermark", { n: row.watermark })}${row.queued ? ` · ${t("queued", { n: row.queued })}` : ""}${row.updated_at &&
        html` · <${RelativeTime} at=${row.updated_at} />`}`}
  </div>
`;

export function Subscriptions() {
  const now = useStore(report);
  const [reset, setReset] = useState(null);
  return html`
    <${PageHeader} title=${t("nav.subscriptions")} about=${t("subscriptions.about")} />
    <${Card}>
      ${now ? html`<${SubscriptionTable} rows=${now.subscriptions} head=${now.head} onReset=${setReset} />` : html`<${Skeleton} />`}
    <//>
    ${reset && html`<${ResetDialog} subscription=${reset} onClose=${() => setReset(null)} />`}
  `;
}
