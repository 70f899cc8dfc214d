// Live reports: the server sends the current state once a second, over server-sent events.

import { Store } from "./lib.js";
import { address, session } from "./api.js";

/** The last report, or null before the first. */
export const report = new Store(null);
/** "connecting", "live" or "lost". */
export const link = new Store("connecting");
/** Why the server itself cannot read the log, or null. */
export const unreadable = new Store(null);

let source = null;
let patience = 0;

function open() {
  close();
  source = new EventSource(address("live"));
  source.addEventListener("report", (event) => {
    report.set(JSON.parse(event.data));
    heard(null);
  });
  source.addEventListener("trouble", (event) => heard(JSON.parse(event.data)));
  source.addEventListener("error", () => {
    // It reconnects automatically; tell the user only if that takes a while.
    patience ||= setTimeout(() => link.set("lost"), 2500);
    if (source?.readyState === EventSource.CLOSED) setTimeout(follow, 3000);
  });
}

function heard(fault) {
  clearTimeout(patience);
  patience = 0;
  unreadable.set(fault);
  link.set("live");
}

function close() {
  source?.close();
  source = null;
}

/** Listen while the user is logged in and the page is visible. */
export function follow() {
  if (session.get()?.user && !document.hidden) {
    if (!source || source.readyState === EventSource.CLOSED) open();
  } else close();
}

document.addEventListener("visibilitychange", follow);
session.follow(follow);
window.addEventListener("pagehide", close);
