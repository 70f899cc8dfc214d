// The entry point: the session, the screen for the address, and keyboard shortcuts.

import { html, render, useEffect, useRef, useState, useStore } from "./lib.js";
import { loadSession, session } from "./api.js";
import { language, t } from "./i18n.js";
import { updateConnection } from "./live.js";
import { navigate, to, useRoute } from "./router.js";
import "./theme.js";
import { EmptyState, ErrorNotice } from "./components/basics.js";
import { Dialog } from "./components/dialog.js";
import { SECTIONS, Shell } from "./components/shell.js";
import { Audit } from "./screens/audit.js";
import { DeadLetter, DeadLetters } from "./screens/dead_letters.js";
import { Event } from "./screens/event.js";
import { Events } from "./screens/events.js";
import { Login, login } from "./screens/login.js";
import { Overview } from "./screens/overview.js";
import { Projections } from "./screens/projections.js";
import { Stream, Streams } from "./screens/streams.js";
import { Subscriptions } from "./screens/subscriptions.js";

/** Return the entry in the navigation, and the screen. */
function screenOf({ parts: [place, first, second], query }) {
  if (place === undefined) return ["overview", html`<${Overview} query=${query} />`];
  if (place === "subscriptions") return [place, html`<${Subscriptions} />`];
  if (place === "events" && first) return [place, html`<${Event} key=${first} id=${first} />`];
  if (place === "events") return [place, html`<${Events} query=${query} />`];
  if (place === "streams" && second !== undefined) {
    return [place, html`<${Stream} key=${`${first}/${second}`} type=${first} id=${second} query=${query} />`];
  }
  if (place === "streams") return [place, html`<${Streams} query=${query} />`];
  if (place === "projections") return [place, html`<${Projections} />`];
  if (place === "dead-letters" && first) return [place, html`<${DeadLetter} key=${first} id=${first} />`];
  if (place === "dead-letters") return [place, html`<${DeadLetters} query=${query} />`];
  if (place === "audit") return [place, html`<${Audit} query=${query} />`];
  return ["", html`<${EmptyState} icon="search" title=${t("nowhere")} action=${html`<a class="button" href=${to([])}>${t("nav.overview")}</a>`} />`];
}

const KEYS = [
  ["g o", "nav.overview"],
  ["g s", "nav.subscriptions"],
  ["g e", "nav.events"],
  ["g t", "nav.streams"],
  ["g p", "nav.projections"],
  ["g d", "nav.dead-letters"],
  ["g a", "nav.audit"],
  ["/", "keys.filter"],
  ["j", "keys.down"],
  ["k", "keys.up"],
  ["?", "keys.help"],
];
const SECTION_KEYS = { o: "overview", s: "subscriptions", e: "events", t: "streams", p: "projections", d: "dead-letters", a: "audit" };

const ShortcutsDialog = ({ onClose }) => html`
  <${Dialog} title=${t("keys")} onSubmit=${() => undefined} onClose=${onClose}>
    <dl class="keys">
      ${KEYS.map(([keys, text]) => html`<dt>${keys.split(" ").map((key) => html`<kbd>${key}</kbd>${" "}`)}</dt><dd>${t(text)}</dd>`)}
    </dl>
  <//>
`;

function moveFocus(direction) {
  const links = [...document.querySelectorAll("main .row-link")];
  const at = links.indexOf(document.activeElement);
  links[Math.max(0, Math.min(links.length - 1, at + direction))]?.focus();
}

function useShortcuts(onHelp) {
  const prefixPressedAt = useRef(0);
  useEffect(() => {
    const press = (event) => {
      if (event.metaKey || event.ctrlKey || event.altKey || event.defaultPrevented) return;
      if (event.target.closest("input, textarea, select, dialog")) return;
      const hasPrefix = Date.now() - prefixPressedAt.current < 1200;
      prefixPressedAt.current = 0;
      if (hasPrefix && SECTION_KEYS[event.key]) {
        navigate(to(SECTIONS.find(([name]) => name === SECTION_KEYS[event.key])[1]));
      } else if (event.key === "g") prefixPressedAt.current = Date.now();
      else if (event.key === "/") {
        const first = document.querySelector("[data-first]");
        if (!first) return;
        event.preventDefault();
        first.focus();
      } else if (event.key === "j") moveFocus(1);
      else if (event.key === "k") moveFocus(-1);
      else if (event.key === "?") onHelp();
    };
    document.addEventListener("keydown", press);
    return () => document.removeEventListener("keydown", press);
  }, []);
}

function App() {
  const route = useRoute();
  const currentSession = useStore(session);
  const currentLanguage = useStore(language);
  const [help, setHelp] = useState(false);
  const path = route.parts.join("/");
  const previousPath = useRef(path);
  useShortcuts(() => setHelp(true));
  const [place, screen] = screenOf(route);
  useEffect(() => {
    document.title = `${place ? t(`nav.${place}`) : t("nowhere")} · pabal`;
    if (previousPath.current !== path) {
      previousPath.current = path;
      document.querySelector("main h1")?.focus({ preventScroll: true });
    }
  }, [path, currentLanguage]);
  if (!currentSession.user) return html`<${Login} fault=${currentSession.fault} />`;
  return html`
    <${Shell} place=${place} onKeys=${() => setHelp(true)}>${screen}<//>
    ${help && html`<${ShortcutsDialog} onClose=${() => setHelp(false)} />`}
  `;
}

/** The link printed at start has the token after a #, which is sent to no server and appears in no log. */
async function loadSessionOrLogin() {
  const token = new URLSearchParams(location.hash.slice(1)).get("token");
  if (location.hash) history.replaceState(null, "", location.pathname + location.search);
  await loadSession();
  if (token && !session.get().user) {
    try {
      await login(token);
    } catch (fault) {
      session.set({ ...session.get(), fault });
    }
  }
}

const root = document.getElementById("root");

async function start() {
  try {
    await loadSessionOrLogin();
  } catch (error) {
    render(html`<main class="alone"><${ErrorNotice} error=${error} retry=${start} /></main>`, root);
    return;
  }
  render(html`<${App} />`, root);
  updateConnection();
}

start();
