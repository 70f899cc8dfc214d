// Texts by key, in the chosen language, or else the browser's.

import { Store } from "./lib.js";
import { en } from "./i18n/en.js";
import { ko } from "./i18n/ko.js";

const texts = { en, ko };

function initialLanguage() {
  const saved = loadPreference("pabal.language");
  if (saved in texts) return saved;
  return navigator.languages.some((one) => one.toLowerCase().startsWith("ko")) ? "ko" : "en";
}

export function loadPreference(name) {
  try {
    return localStorage.getItem(name);
  } catch {
    return null; // storage may be blocked; the choice then lasts as long as the page
  }
}

export function savePreference(name, value) {
  try {
    localStorage.setItem(name, value);
  } catch {
    // as above
  }
}

export const language = new Store(initialLanguage());
document.documentElement.lang = language.get();

export function setLanguage(code) {
  savePreference("pabal.language", code);
  document.documentElement.lang = code;
  language.set(code);
}

/** Return the text of a key with its {names} filled in; if `n` is 1, in the singular (key `.one`). */
export function t(key, values = {}) {
  const table = texts[language.get()];
  const text = (values.n === 1 && table[`${key}.one`]) || table[key] || key;
  return text.replace(/\{(\w+)\}/g, (_, name) =>
    typeof values[name] === "number" ? values[name].toLocaleString(language.get()) : (values[name] ?? ""),
  );
}

/** Return a sentence from the server, which sends a Korean translation with each. */
export const localized = (one, name) => (language.get() === "ko" && one[`${name}_ko`]) || one[name];

export const has = (key) => key in texts[language.get()];
