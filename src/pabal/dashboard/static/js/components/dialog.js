// Confirmation dialogs. The browser's <dialog> keeps the focus inside and restores it at the end.

import { html, useEffect, useId, useRef, useState } from "../lib.js";
import { t } from "../i18n.js";
import { errorText } from "./basics.js";

/** If `onSubmit` throws, the dialog stays open with the error and the input; if it returns false, it stays too. */
export function Dialog({ title, submit, kind = "primary", broad, blocked, onSubmit, onClose, children }) {
  const box = useRef(null);
  const id = useId();
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState(null);
  useEffect(() => {
    const node = box.current;
    node.showModal();
    return () => node.close(); // this restores the focus
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
        ${children} ${error && html`<p class="fault" role="alert">${errorText(error)}</p>`}
        <div class="actions">
          <button type="button" class="button" onClick=${onClose}>${submit ? t("cancel") : t("close")}</button>
          ${submit &&
          html`<button type="submit" class=${`button ${kind}`} disabled=${busy || blocked}>${busy ? t("working") : submit}</button>`}
        </div>
      </form>
    </dialog>
  `;
}
