// Light or dark: as chosen here, or else as set in the system, even if that changes.

import { Store } from "./lib.js";
import { remember, remembered } from "./i18n.js";
import { themed } from "./components/chart.js";

const system = window.matchMedia("(prefers-color-scheme: dark)");
const chosen = () => remembered("pabal.theme");

export const theme = new Store("");

function apply() {
  const wanted = chosen() ?? (system.matches ? "dark" : "light");
  document.documentElement.dataset.theme = wanted;
  theme.set(wanted);
  themed.set(themed.get() + 1);
}

export function toggleTheme() {
  remember("pabal.theme", theme.get() === "dark" ? "light" : "dark");
  apply();
}

system.addEventListener("change", apply);
apply();
