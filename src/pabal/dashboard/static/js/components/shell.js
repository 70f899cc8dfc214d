// The frame around every screen: navigation, the log's health, and its name.

import { html, useStore } from "../lib.js";
import { hasStreams, post, loadSession, session } from "../api.js";
import { language, localized, setLanguage, t } from "../i18n.js";
import { short } from "../format.js";
import { link, report, unreadable } from "../live.js";
import { to } from "../router.js";
import { toggleTheme, theme } from "../theme.js";
import { Icon, Mark } from "./icons.js";
import { Toasts } from "./toasts.js";

export const SECTIONS = [
  ["overview", [], "overview"],
  ["subscriptions", ["subscriptions"], "subscriptions"],
  ["events", ["events"], "events"],
  ["streams", ["streams"], "streams"],
  ["projections", ["projections"], "projections"],
  ["dead-letters", ["dead-letters"], "deadLetters"],
  ["audit", ["audit"], "audit"],
];

const TONE = { ok: "ok", degraded: "warn", failing: "bad" };

const Nav = ({ place, letters }) => html`
  <nav class="nav" aria-label=${t("nav")}>
    ${SECTIONS.filter(([name]) => hasStreams() || !["streams", "projections"].includes(name)).map(
      ([name, parts, icon]) => html`
        <a href=${to(parts)} aria-current=${place === name ? "page" : undefined}>
          <${Icon} name=${icon} />
          <span>${t(`nav.${name}`)}</span>
          ${name === "dead-letters" &&
          letters > 0 &&
          html`<span class="badge bad count">${short(letters)}<span class="unseen"> ${t("nav.parked")}</span></span>`}
        </a>
      `,
    )}
  </nav>
`;

function Tools({ onKeys }) {
  const dark = useStore(theme) === "dark";
  const otherLanguage = useStore(language) === "ko" ? "en" : "ko";
  const { login } = session.get();
  const logOut = async () => {
    await post("logout");
    await loadSession();
  };
  const name = otherLanguage === "ko" ? "한국어" : "English";
  return html`
    <div class="side-tools">
      <button type="button" class="button plain" lang=${otherLanguage} onClick=${() => setLanguage(otherLanguage)}>${name}</button>
      <button
        type="button"
        class="button plain icon-only"
        aria-label=${t(dark ? "theme.light" : "theme.dark")}
        title=${t(dark ? "theme.light" : "theme.dark")}
        onClick=${toggleTheme}
      >
        <${Icon} name=${dark ? "sun" : "moon"} />
      </button>
      <button type="button" class="button plain icon-only" aria-label=${t("keys")} title=${t("keys")} onClick=${onKeys}>
        <${Icon} name="keyboard" />
      </button>
      ${login &&
      html`<button type="button" class="button plain icon-only" aria-label=${t("logout")} title=${t("logout")} onClick=${logOut}>
        <${Icon} name="exit" />
      </button>`}
    </div>
  `;
}

function skip(event) {
  event.preventDefault();
  document.getElementById("main").focus();
}

export function Shell({ place, onKeys, children }) {
  const now = useStore(report);
  const problem = useStore(unreadable);
  const connection = useStore(link);
  const state = problem && connection === "live" ? "old" : connection;
  const currentSession = useStore(session);
  const status = now?.health.status;
  return html`
    <div class="frame">
      <a class="skip" href=${to([])} onClick=${skip}>${t("skip")}</a>
      <aside class="side" aria-label=${t("side")}>
        <a class="brand" href=${to([])}><${Mark} />pabal</a>
        <${Nav} place=${place} letters=${now?.totals.dead_letters ?? 0} />
        <div class="side-foot">
          <${Tools} onKeys=${onKeys} />
          <span>pabal ${currentSession.version} · ${t(currentSession.can_act ? "may-act" : "read-only")}</span>
        </div>
      </aside>
      <div class="page">
        <header class="bar">
          ${status &&
          !problem &&
          html`<a class=${`badge ${TONE[status]}`} href=${to([])}><span class=${`dot ${TONE[status]}`}></span>${t(`health.${status}`)}</a>`}
          <span class="source clip" title=${currentSession.source.name}>${currentSession.title || currentSession.source.name}</span>
          <span class="right" role="status">
            ${state === "lost" || state === "old"
              ? html`<span class="badge warn"><span class="dot warn"></span>${t(`live.${state}`)}</span>`
              : html`<span class="row faint small nowrap"
                  ><span class=${`dot ${state === "live" ? "live" : ""}`}></span>${t(`live.${state}`)}</span
                >`}
          </span>
          <span class="only-phone"><${Tools} onKeys=${onKeys} /></span>
        </header>
        <main id="main" tabindex="-1">
          ${problem &&
          html`
            <div class="notice bad" role="alert">
              <${Icon} name="warning" />
              <div><strong>${t("live.trouble")}</strong><br />${localized(problem, "message")}</div>
            </div>
          `}
          ${children}
        </main>
      </div>
      <${Toasts} />
    </div>
  `;
}
