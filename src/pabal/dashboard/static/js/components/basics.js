// The small components used on every screen.

import { html, useEffect, useRef, useState } from "../lib.js";
import { has, localized, t } from "../i18n.js";
import { hasStreams } from "../api.js";
import { ago, clock, full, moment } from "../format.js";
import { to } from "../router.js";
import { Icon } from "./icons.js";

export const Badge = ({ kind = "", children }) => html`<span class=${`badge ${kind}`}>${children}</span>`;

export const Card = ({ title, about, right, kind = "", busy = false, children, label, id }) => html`
  <section class=${`card ${kind}`} aria-busy=${busy ? "true" : "false"} aria-label=${label} id=${id}>
    ${title &&
    html`<header>
      <h2>${title}</h2>
      ${about && html`<span class="small faint">${about}</span>`} ${right && html`<div class="right">${right}</div>`}
    </header>`}
    ${children}
  </section>
`;

export const PageHeader = ({ title, about, right, crumb }) => html`
  <div class="head">
    <div>
      ${crumb && html`<nav class="crumb" aria-label=${t("crumb")}>${crumb}</nav>`}
      <h1 tabindex="-1">${title}</h1>
      ${about && html`<p class="about">${about}</p>`}
    </div>
    ${right && html`<div class="right">${right}</div>`}
  </div>
`;

export const Skeleton = ({ lines = 6 }) => html`
  <div class="bones" role="status" aria-label=${t("loading")}>${Array.from({ length: lines }, () => html`<span></span>`)}</div>
`;

export const EmptyState = ({ icon = "empty", title, children, action }) => html`
  <div class="blank">
    <${Icon} name=${icon} />
    <strong>${title}</strong>
    ${children && html`<p>${children}</p>`} ${action}
  </div>
`;

/** Describe an error in the user's language if there is a translation, else as the server did. */
export function errorText(error) {
  const key = `error.${error.code}`;
  return has(key) ? t(key, error.fields) : localized(error, "message");
}

export const ErrorNotice = ({ error, retry }) => html`
  <div class="notice bad" role="alert">
    <${Icon} name="warning" />
    <div>${errorText(error)}</div>
    ${retry && html`<button type="button" class="button" onClick=${retry}>${t("again")}</button>`}
  </div>
`;

/** Show a skeleton while loading, the error, `blank` if there is nothing, or the content. */
export function Loaded({ loaded, empty, blank, lines, children }) {
  const { data, error, reload } = loaded;
  if (error && !data) return html`<div class="body"><${ErrorNotice} error=${error} retry=${reload} /></div>`;
  if (!data) return html`<${Skeleton} lines=${lines} />`;
  if (empty?.(data)) return blank;
  return children(data);
}

/** A relative time such as "2 min ago", which updates itself, with the exact time in its title. */
export function RelativeTime({ at }) {
  const [, rerender] = useState(0);
  useEffect(() => {
    const timer = setInterval(() => rerender((n) => n + 1), 10_000);
    return () => clearInterval(timer);
  }, []);
  if (!at) return html`<span class="faint">–</span>`;
  return html`<time datetime=${at} title=${full(at)} class="nowrap">${ago(at)}</time>`;
}

export const Time = ({ at, millis = true }) => html`
  <time datetime=${at ?? ""} title=${full(at)} class="num nowrap">${moment(at, { millis })}</time>
`;

export const Clock = ({ at }) => html`<time datetime=${at} title=${full(at)} class="num nowrap">${clock(at)}</time>`;

export const Button = ({ icon, kind = "", children, ...rest }) => html`
  <button type="button" class=${`button ${kind}`} ...${rest}>${icon && html`<${Icon} name=${icon} />`}${children}</button>
`;

export const SegmentedControl = ({ label, value, options, onChange }) => html`
  <div class="segments" role="group" aria-label=${label}>
    ${options.map(
      ([key, text]) => html`
        <button type="button" aria-pressed=${key === value ? "true" : "false"} onClick=${() => onChange(key)}>${text}</button>
      `,
    )}
  </div>
`;

export function CopyButton({ text }) {
  const [done, setDone] = useState(false);
  const timer = useRef(0);
  useEffect(() => () => clearTimeout(timer.current), []);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      return; // not allowed here; the user can select the text by hand
    }
    setDone(true);
    clearTimeout(timer.current);
    timer.current = setTimeout(() => setDone(false), 1500);
  };
  return html`<button type="button" class="button plain icon-only" title=${t("copy")} aria-label=${t("copy")} onClick=${copy}>
    <${Icon} name=${done ? "check" : "copy"} />
  </button>`;
}

/** A short form of an id that still distinguishes two: a UUIDv7 begins with the time. */
export const shortId = (id) => (id && id.length === 36 ? `…${id.slice(-8)}` : id);

export const EventLink = ({ id, children, cls = "row-link" }) => html`
  <a class=${cls} href=${to(["events", id])}>${children ?? html`<span class="mono">${shortId(id)}</span>`}</a>
`;

export const StreamLink = ({ type, id }) =>
  id === null || id === undefined
    ? html`<span class="faint">–</span>`
    : html`<a href=${hasStreams() ? to(["streams", type || "-", id]) : to(["events"], { aggregate: `${type ?? ""}/${id}` })}><span class="faint">${type ? `${type}/` : ""}</span>${id}</a>`;
