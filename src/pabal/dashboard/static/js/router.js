// The address holds the state: screen, filter and page. None of it is kept elsewhere.

import { Store, useStore } from "./lib.js";

const base = new URL(document.baseURI).pathname;

function read() {
  const path = location.pathname.startsWith(base) ? location.pathname.slice(base.length) : "";
  return {
    parts: path.split("/").filter(Boolean).map(decodeURIComponent),
    query: Object.fromEntries(new URLSearchParams(location.search)),
    href: location.pathname + location.search,
  };
}

const route = new Store(read());

window.addEventListener("popstate", () => route.set(read()));

/** Return an address below the dashboard's own, with escaped parts and without empty parameters. */
export function to(parts, query = {}) {
  const path = parts.map((part) => encodeURIComponent(part)).join("/");
  const search = new URLSearchParams();
  for (const [name, value] of Object.entries(query)) {
    if (value !== undefined && value !== null && value !== "") search.set(name, value);
  }
  const text = search.toString();
  return base + path + (text ? `?${text}` : "");
}

export function navigate(href, { replace = false } = {}) {
  if (replace) history.replaceState(null, "", href);
  else history.pushState(null, "", href);
  const before = route.get();
  route.set(read());
  if (before.parts.join("/") !== route.get().parts.join("/")) window.scrollTo(0, 0);
}

export const useRoute = () => useStore(route);

/** Follow links within the dashboard without loading a new page. */
document.addEventListener("click", (event) => {
  if (event.defaultPrevented || event.button !== 0) return;
  if (event.metaKey || event.ctrlKey || event.shiftKey || event.altKey) return;
  const link = event.target.closest?.("a[href]");
  if (!link || link.hasAttribute("download")) return;
  const href = typeof link.href === "string" ? link.href : link.href.baseVal;
  const url = new URL(href, document.baseURI);
  if (url.origin !== location.origin || !url.pathname.startsWith(base) || url.hash) return;
  event.preventDefault();
  navigate(url.pathname + url.search);
});
