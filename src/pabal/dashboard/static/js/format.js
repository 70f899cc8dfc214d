// Format numbers, times and durations in the chosen language, without useless digits.

import { language, t } from "./i18n.js";

const formatters = new Map();

function formatter(kind, options) {
  const key = language.get() + kind.name + JSON.stringify(options);
  if (!formatters.has(key)) formatters.set(key, new kind(language.get(), options));
  return formatters.get(key);
}

const NONE = "–";

export function number(value) {
  if (value === null || value === undefined) return NONE;
  return formatter(Intl.NumberFormat, { maximumFractionDigits: 0 }).format(value);
}

/** The place of an event: a position, or on a server a partition and the position in it. */
export function place(cursor) {
  return cursor?.includes(":") ? cursor : number(cursor || null);
}

/** Numbers like 12,345 in full; larger ones in thousands and millions (만, 억). */
export function short(value) {
  if (value === null || value === undefined) return NONE;
  if (Math.abs(value) < 100_000) return number(value);
  return formatter(Intl.NumberFormat, { notation: "compact", maximumFractionDigits: 1 }).format(value);
}

export function rate(value) {
  if (value === null || value === undefined) return NONE;
  const digits = value >= 100 || value === 0 ? 0 : value >= 10 ? 1 : 2;
  if (value >= 100_000) return short(value);
  return formatter(Intl.NumberFormat, { maximumFractionDigits: digits }).format(value);
}

/** A duration in seconds, in its two largest useful units. */
export function duration(seconds) {
  if (seconds === null || seconds === undefined) return NONE;
  if (seconds < 0.001) return t("unit.us", { v: Math.round(seconds * 1e6) });
  if (seconds < 1) return t("unit.ms", { v: round(seconds * 1e3) });
  if (seconds < 60) return t("unit.s", { v: round(seconds) });
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return t("unit.min", { v: minutes });
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return minutes % 60 ? t("unit.h-min", { h: hours, m: minutes % 60 }) : t("unit.h", { v: hours });
  return t("unit.d", { v: Math.floor(hours / 24) });
}

/** A number and its unit separately, for the large figures. */
export function durationParts(seconds) {
  const text = duration(seconds);
  const match = /^([\d.,–]+)\s*(.*)$/.exec(text);
  return match ? [match[1], match[2]] : [text, ""];
}

function round(value) {
  return formatter(Intl.NumberFormat, { maximumSignificantDigits: value < 100 ? 2 : 3 }).format(value);
}

export function clock(iso, { millis = false } = {}) {
  if (!iso) return NONE;
  const options = { hour: "2-digit", minute: "2-digit", second: "2-digit", hourCycle: "h23" };
  if (millis) options.fractionalSecondDigits = 3;
  return formatter(Intl.DateTimeFormat, options).format(new Date(iso));
}

/** The time; for other days than today, with the date. */
export function moment(iso, { millis = false } = {}) {
  if (!iso) return NONE;
  const date = new Date(iso);
  if (date.toDateString() === new Date().toDateString()) return clock(iso, { millis });
  const day = formatter(Intl.DateTimeFormat, { year: "numeric", month: "2-digit", day: "2-digit" }).format(date);
  return `${day} ${clock(iso, { millis })}`;
}

export function full(iso) {
  if (!iso) return "";
  return formatter(Intl.DateTimeFormat, { dateStyle: "full", timeStyle: "long" }).format(new Date(iso));
}

export function ago(iso, now = Date.now()) {
  if (!iso) return NONE;
  const seconds = (now - new Date(iso).getTime()) / 1000;
  if (Math.abs(seconds) < 5) return t("time.now");
  const relative = formatter(Intl.RelativeTimeFormat, { numeric: "always", style: "narrow" });
  const units = [
    ["day", 86400],
    ["hour", 3600],
    ["minute", 60],
    ["second", 1],
  ];
  const [unit, size] = units.find(([, length]) => Math.abs(seconds) >= length) ?? units[3];
  return relative.format(-Math.round(seconds / size), unit);
}
