// Actions on subscriptions and dead letters, with the same dialogs on every screen.

import { html, useState } from "./lib.js";
import { get, parse, post, session } from "./api.js";
import { t } from "./i18n.js";
import { number } from "./format.js";
import { Dialog } from "./components/dialog.js";
import { showToast } from "./components/toasts.js";

export const canAct = () => Boolean(session.get()?.can_act);

/** Return why a button is disabled, or nothing if it is enabled. */
export const disabledReason = (possible = true, reason = "") =>
  !canAct() ? t("why.read-only") : possible ? undefined : t(reason);

// -- dead letters ------------------------------------------------------------------------------------------------

/** `selection`: {ids} or {filter, count}; the count is the one on the page, so that a stale page changes nothing. */
export function RetryDialog({ selection, onDone, onClose }) {
  const n = selection.ids?.length ?? selection.count;
  const send = async () => {
    const { begun, left } = await post("dead-letters/retry", selection);
    showToast(left ? t("retry.some", { n: begun, left }) : t("retry.done", { n: begun }));
    onDone?.();
  };
  return html`
    <${Dialog} title=${t("retry.title", { n })} submit=${t("retry.do", { n })} onSubmit=${send} onClose=${onClose}>
      <${FilterSummary} selection=${selection} />
      <p class="soft">${t("retry.about")}</p>
    <//>
  `;
}

export function DiscardDialog({ selection, onDone, onClose }) {
  const n = selection.ids?.length ?? selection.count;
  const send = async () => {
    const { discarded } = await post("dead-letters/discard", selection);
    showToast(t("discard.done", { n: discarded }));
    onDone?.();
  };
  return html`
    <${Dialog} title=${t("discard.title", { n })} submit=${t("discard.do", { n })} kind="danger" onSubmit=${send} onClose=${onClose}>
      <${FilterSummary} selection=${selection} />
      <p class="soft">${t("discard.about")}</p>
    <//>
  `;
}

const FilterSummary = ({ selection }) => {
  const { subscription, error_type: error, event_type: type } = selection.filter ?? {};
  if (!subscription && !error && !type) return null;
  return html`
    <dl class="facts">
      ${subscription && html`<dt>${t("subscription")}</dt><dd><span class="tag">${subscription}</span></dd>`}
      ${error && html`<dt>${t("error")}</dt><dd><span class="tag">${error}</span></dd>`}
      ${type && html`<dt>${t("event-type")}</dt><dd><span class="tag">${type}</span></dd>`}
    </dl>
  `;
};

export function EditDialog({ letter, onDone, onClose }) {
  const [text, setText] = useState(JSON.stringify(letter.payload, null, 2));
  let fault = null;
  let payload = null;
  try {
    payload = parse(text);
    if (payload === null || typeof payload !== "object" || Array.isArray(payload)) fault = t("edit.object");
  } catch (error) {
    fault = t("edit.syntax", { detail: error.message });
  }
  const send = async () => {
    await post(`dead-letters/${letter.id}/edit`, { payload, revision: letter.revision });
    showToast(t("edit.done"));
    onDone?.();
  };
  return html`
    <${Dialog} broad title=${t("edit.title")} submit=${t("edit.do")} blocked=${fault !== null} onSubmit=${send} onClose=${onClose}>
      <p class="soft">${t("edit.about", { subscription: letter.subscription })}</p>
      <div class="field">
        <label for="payload">${t("payload")} · <span class="mono">${letter.event_type}</span></label>
        <textarea
          id="payload"
          class="input"
          spellcheck="false"
          autocomplete="off"
          aria-invalid=${fault ? "true" : "false"}
          aria-describedby="payload-hint"
          value=${text}
          onInput=${(event) => setText(event.target.value)}
        ></textarea>
        <span id="payload-hint" class=${fault ? "fault" : "hint"}>${fault ?? (letter.masked ? t("edit.masked") : t("edit.hint"))}</span>
      </div>
    <//>
  `;
}

// -- subscriptions -----------------------------------------------------------------------------------------------

export async function pause(name) {
  await post("subscriptions/pause", { name });
  showToast(t("pause.done", { name }));
}

export async function resume(name) {
  await post("subscriptions/resume", { name });
  showToast(t("resume.done", { name }));
}

const STARTS = ["beginning", "now", "position", "time"];
// In a log with several partitions each has its own positions, so a position alone is ambiguous.
const hasPositions = () => ["sqlite", "memory"].includes(session.get()?.source.kind);

export function ResetDialog({ subscription, onDone, onClose }) {
  const { name, watermark } = subscription;
  const [startKind, setStartKind] = useState("beginning");
  const [position, setPosition] = useState("");
  const [time, setTime] = useState("");
  const [typed, setTyped] = useState("");
  const [plan, setPlan] = useState(null);
  const start = {
    beginning: "beginning",
    now: "now",
    position: /^\d+$/.test(position) ? Number(position) : null,
    time: time ? new Date(time).toISOString() : null,
  }[startKind];
  const change = (setter) => (event) => {
    setter(event.target.value);
    setPlan(null);
  };
  const send = async () => {
    if (plan === null) {
      setPlan(await get("subscriptions/reset", { name, start }));
      return false;
    }
    await post("subscriptions/reset", { name, start, watermark, confirm: typed });
    showToast(t("reset.done", { name }));
    onDone?.();
    return true;
  };
  const isReady = start !== null && (plan === null || typed === name);
  return html`
    <${Dialog}
      title=${t("reset.title", { name })}
      submit=${plan === null ? t("reset.look") : t("reset.do")}
      kind=${plan === null ? "primary" : "danger"}
      blocked=${!isReady}
      onSubmit=${send}
      onClose=${onClose}
    >
      <p class="soft">${t("reset.about")}</p>
      <div class="field">
        <label for="reset-where">${t("reset.where")}</label>
        <select id="reset-where" class="input" value=${startKind} onChange=${change(setStartKind)}>
          ${STARTS.filter((kind) => kind !== "position" || hasPositions()).map((kind) => html`<option value=${kind}>${t(`reset.${kind}`)}</option>`)}
        </select>
      </div>
      ${startKind === "position" &&
      html`<div class="field">
        <label for="reset-position">${t("reset.after")}</label>
        <input id="reset-position" class="input" inputmode="numeric" value=${position} onInput=${change(setPosition)} />
      </div>`}
      ${startKind === "time" &&
      html`<div class="field">
        <label for="reset-time">${t("reset.since")}</label>
        <input id="reset-time" class="input" type="datetime-local" step="1" value=${time} onInput=${change(setTime)} />
      </div>`}
      ${plan &&
      html`
        <div class="notice warn">
          <div>${t("reset.plan", { from: number(plan.watermark), till: number(plan.start), n: plan.again, skipped: plan.skipped })}</div>
        </div>
        <div class="field">
          <label for="reset-confirm">${t("reset.confirm", { name })}</label>
          <input id="reset-confirm" class="input mono" autocomplete="off" value=${typed} onInput=${(event) => setTyped(event.target.value)} />
        </div>
      `}
    <//>
  `;
}
