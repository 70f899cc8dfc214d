// Light or dark: as chosen here, or else as set in the system, even if that changes.

import { Store } from "./lib.js";
import { loadPreference, savePreference } from "./i18n.js";
import { themeVersion } from "./components/chart.js";

const system = window.matchMedia("(prefers-color-scheme: dark)");
const chosen = () => loadPreference("pabal.theme");

export const theme = new Store("");

function apply() {
  const wanted = chosen() ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = wanted;
  theme.set(wanted);
  themeVersion.set(themeVersion.get() + 1);
}

export function toggleTheme() {
  savePreference("pabal.theme", theme.get() === "dark" ? "light" : "dark");
  apply();
}

system.addEventListener("change", apply);
apply();
