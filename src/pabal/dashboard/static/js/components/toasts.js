// Short notices after an action. Screen readers announce them; they disappear, but errors stay until closed.

import { Store, html, useStore } from "../lib.js";
import { t } from "../i18n.js";
import { errorText } from "./basics.js";
import { Icon } from "./icons.js";

const toasts = new Store([]);
let last = 0;

export function showToast(text, kind = "ok") {
  const id = ++last;
  toasts.set([...toasts.get().slice(-3), { id, text, kind }]);
  if (kind === "ok") setTimeout(() => drop(id), 6000);
}

export const showError = (error) => showToast(errorText(error), "bad");

const drop = (id) => toasts.set(toasts.get().filter((toast) => toast.id !== id));

export const Toasts = () => html`
  <div class="toasts" role="status" aria-live="polite">
    ${useStore(toasts).map(
      ({ id, text, kind }) => html`
        <div key=${id} class=${`toast ${kind}`}>
          <span>${text}</span>
          <button type="button" class="button plain icon-only" aria-label=${t("close")} onClick=${() => drop(id)}>
            <${Icon} name="close" />
          </button>
        </div>
      `,
    )}
  </div>
`;
