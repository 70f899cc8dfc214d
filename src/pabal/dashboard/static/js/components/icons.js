// Line icons on a grid of 20, drawn for this dashboard.

import { html } from "../lib.js";

const SHAPES = {
  overview: ["M3 11.5 6.5 7l3.5 5 3-8 4 10"],
  subscriptions: ["M3 5h9", "M3 10h6", "M3 15h9", "M14 7.5 17 10l-3 2.5"],
  events: ["M4 4.5h12", "M4 10h12", "M4 15.5h7"],
  streams: ["M5 3v14", "M5 6.5h6", "M5 13.5h8", "M13 6.5a1.6 1.6 0 1 0 3.2 0a1.6 1.6 0 1 0-3.2 0", "M15 13.5h.01"],
  projections: ["M3.5 4.5h13v11h-13z", "M3.5 8h13", "M8 8v7.5"],
  deadLetters: ["M3 5.5h14v9.5H3z", "m3.5 6 6.5 5 6.5-5", "M8 14.8l4-4"],
  audit: ["M6 3h8v14H6z", "M8.5 7h3", "M8.5 10h3", "M8.5 13h2"],
  moon: ["M16 11.5A6.5 6.5 0 1 1 8.5 4a5.2 5.2 0 0 0 7.5 7.5z"],
  sun: ["M10 6.5a3.5 3.5 0 1 0 0 7 3.5 3.5 0 0 0 0-7z", "M10 2v1.5M10 16.5V18M2 10h1.5M16.5 10H18M4.3 4.3l1.1 1.1M14.6 14.6l1.1 1.1M15.7 4.3l-1.1 1.1M5.4 14.6l-1.1 1.1"],
  keyboard: ["M2.5 5.5h15v9h-15z", "M5.5 8.5h.01M8.5 8.5h.01M11.5 8.5h.01M14.5 8.5h.01M7 11.5h6"],
  exit: ["M8 4H4v12h4", "M8.5 10H17", "m14 7 3 3-3 3"],
  retry: ["M4 10a6 6 0 1 0 1.8-4.3", "M5.5 2.8v3.2h3.2"],
  pause: ["M7 5v10M13 5v10"],
  play: ["M7 4.5v11l8-5.5z"],
  reset: ["M10 4v9", "m6 9.5 4 4 4-4", "M4 16.5h12"],
  edit: ["m4 16 .8-3.2L13 4.6l2.4 2.4-8.2 8.2z"],
  trash: ["M4 6h12", "M8 6V4h4v2", "M5.5 6l.8 10.5h7.4L14.5 6"],
  search: ["M9 3.5a5.5 5.5 0 1 0 0 11 5.5 5.5 0 0 0 0-11z", "m13.2 13.2 3.3 3.3"],
  warning: ["M10 3.5 17.5 16.5h-15z", "M10 8.5v3.5M10 14.2v.01"],
  check: ["m4.5 10.5 3.5 3.5 7.5-8"],
  close: ["M5 5l10 10M15 5 5 15"],
  next: ["m8 5 5 5-5 5"],
  back: ["m12 5-5 5 5 5"],
  copy: ["M7 7h9v9H7z", "M13 7V4H4v9h3"],
  link: ["M8.5 11.5a3 3 0 0 0 4.2 0l2.6-2.6a3 3 0 0 0-4.2-4.2l-1 1", "M11.5 8.5a3 3 0 0 0-4.2 0l-2.6 2.6a3 3 0 0 0 4.2 4.2l1-1"],
  empty: ["M4 8l2-4h8l2 4v8H4z", "M4 8h4l1 2h2l1-2h4"],
  down: ["m5 8 5 5 5-5"],
  up: ["m5 12 5-5 5 5"],
};

export const Icon = ({ name }) => html`
  <svg class="icon" viewBox="0 0 20 20" aria-hidden="true" focusable="false">
    ${SHAPES[name].map((d) => html`<path d=${d} />`)}
  </svg>
`;

/** Three stations on a line; the message has reached the last. */
export const Mark = () => html`
  <svg viewBox="0 0 26 26" aria-hidden="true" focusable="false">
    <rect width="26" height="26" rx="7" fill="currentColor" opacity=".14" />
    <path d="M6.5 17.5 13 9l6.5 8.5" fill="none" stroke="currentColor" stroke-width="2" stroke-linecap="round" stroke-linejoin="round" />
    <circle cx="6.5" cy="17.5" r="2.4" fill="currentColor" />
    <circle cx="13" cy="9" r="2.4" fill="currentColor" />
    <circle cx="19.5" cy="17.5" r="2.4" fill="currentColor" />
  </svg>
`;
