// The login: one field for the token.

import { html, useState } from "../lib.js";
import { loadSession, post } from "../api.js";
import { t } from "../i18n.js";
import { errorText } from "../components/basics.js";
import { Mark } from "../components/icons.js";

export async function login(token) {
  await post("login", { token });
  await loadSession();
}

export function Login({ fault }) {
  const [token, setToken] = useState("");
  const [error, setError] = useState(fault);
  const [busy, setBusy] = useState(false);
  const send = async (event) => {
    event.preventDefault();
    setBusy(true);
    try {
      await login(token.trim());
    } catch (caught) {
      setError(caught);
      setBusy(false);
    }
  };
  return html`
    <main class="alone">
      <section class="card login">
        <form onSubmit=${send}>
          <div class="brand"><${Mark} />pabal</div>
          <h1>${t("login.title")}</h1>
          <p class="soft">${t("login.about")}</p>
          <div class="field">
            <label for="token">${t("login.token")}</label>
            <input
              id="token"
              class="input mono"
              type="password"
              autocomplete="current-password"
              required
              autofocus
              value=${token}
              aria-invalid=${error ? "true" : "false"}
              onInput=${(event) => setToken(event.target.value)}
            />
          </div>
          ${error && html`<p class="fault" role="alert">${errorText(error)}</p>`}
          <button type="submit" class="button primary" disabled=${busy}>${t("login.do")}</button>
        </form>
      </section>
    </main>
  `;
}
