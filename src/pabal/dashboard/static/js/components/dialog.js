// Questions before something is done. The browser's own dialog keeps the focus inside and gives it back.

import { html, useEffect, useId, useRef, useState } from "../lib.js";
import { t } from "../i18n.js";
import { reasonOf } from "./basics.js";

/** `onSubmit` may throw: the dialog then stays, says why, and keeps what was typed. So it does after `false`. */
export function Dialog({ title, submit, kind = "primary", broad, blocked, onSubmit, onClose, children }) {
  const box = useRef(null);
  const id = useId();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    const node = box.current;
    node.showModal();
    return () => node.close(); // which gives the focus back to where it was
  }, []);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    setError(null);
    try {
      if ((await onSubmit()) === false) setBusy(false);
      else onClose();
    } catch (fault) {
      setError(fault);
      setBusy(false);
    }
  };
  const cancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`
    <dialog ref=${box} class=${broad ? "broad" : ""} aria-labelledby=${id} onCancel=${cancel}>
      <form onSubmit=${send}>
        <h2 id=${id}>${title}</h2>
        ${children} ${error && html`<p class="fault" role="alert">${reasonOf(error)}</p>`}
        <div class="actions">
          <button type="button" class="button" onClick=${onClose}>${submit ? t("cancel") : t("close")}</button>
          ${submit &&
          html`<button type="submit" class=${`button ${kind}`} disabled=${busy || blocked}>${busy ? t("working") : submit}</button>`}
        </div>
      </form>
    </dialog>
  `;
}
