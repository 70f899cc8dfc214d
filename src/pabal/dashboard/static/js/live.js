// Live reports: the server sends the current state once a second, over server-sent events.

import { Store } from "./lib.js";
import { apiUrl, loadSession, session } from "./api.js";

/** The last report, or null before the first. */
export const report = new Store(null);
/** "connecting", "live" or "lost". */
export const link = new Store("connecting");
/** Why the server itself cannot read the log, or null. */
export const unreadable = new Store(null);

let source = null;
let lostTimer = 0;

function open() {
  close();
  source = new EventSource(apiUrl("live"));
  source.addEventListener("report", (event) => {
    report.set(JSON.parse(event.data));
    markLive(null);
  });
  source.addEventListener("trouble", (event) => markLive(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    // It reconnects automatically; tell the user only if that takes a while.
    lostTimer ||= setTimeout(() => link.set("lost"), 2500);
    if (source?.readyState === EventSource.CLOSED) setTimeout(reconnect, 3000);
  });
}

/** The server has refused the stream, and not said why: ask whether the session has ended. */
async function reconnect() {
  try {
    await loadSession();
  } catch {
    // still unreachable
  }
  updateConnection();
}

function markLive(problem) {
  clearTimeout(lostTimer);
  lostTimer = 0;
  unreadable.set(problem);
  link.set("live");
}

function close() {
  source?.close();
  source = null;
}

/** Listen while the user is logged in and the page is visible. */
export function updateConnection() {
  if (session.get()?.user && !document.hidden) {
    if (!source || source.readyState === EventSource.CLOSED) open();
  } else close();
}

document.addEventListener("visibilitychange", updateConnection);
session.subscribe(updateConnection);
window.addEventListener("pagehide", close);
