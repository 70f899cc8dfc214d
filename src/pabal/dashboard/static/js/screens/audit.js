// The audit log: who did what, when, and with what result.

import { html } from "../lib.js";
import { useLoaded } from "../api.js";
import { has, localized, t } from "../i18n.js";
import { to } from "../router.js";
import { Badge, Card, EmptyState, Loaded, PageHeader, Time } from "../components/basics.js";

const name = (action) => (has(`action.${action}`) ? t(`action.${action}`) : action);

export function Audit({ query }) {
  const loaded = useLoaded("audit", { before: query.before }, { every: 5000 });
  return html`
    <${PageHeader} title=${t("nav.audit")} about=${t("audit.about")} />
    <${Card}>
      <${Loaded} loaded=${loaded} empty=${(data) => !data.items.length} blank=${html`<${EmptyState} icon="audit" title=${t("audit.none")}>${t("audit.none.about")}<//>`}>
        ${(data) => html`
          <div class="scroll" tabindex="0" role="region" aria-label=${t("nav.audit")}>
            <table class="cards">
              <thead>
                <tr>
                  <th scope="col">${t("time")}</th>
                  <th scope="col">${t("who")}</th>
                  <th scope="col">${t("action")}</th>
                  <th scope="col">${t("target")}</th>
                  <th scope="col">${t("outcome")}</th>
                </tr>
              </thead>
              <tbody>
                ${data.items.map(
                  (row) => html`
                    <tr key=${row.id}>
                      <td class="tight"><${Time} at=${row.at} millis=${false} /></td>
                      <td class="tight" data-label=${t("who")}>${row.actor}</td>
                      <td class="nowrap" data-label=${t("action")}>${name(row.action)}</td>
                      <td class="whole mono small">${row.subject}</td>
                      <td class="whole"><${Badge} kind=${row.succeeded === null ? "warn" : row.succeeded ? "ok" : "bad"}>${localized(row, "result") || t("outcome.open")}<//></td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          </div>
          ${(data.next || query.before) &&
          html`<div class="pager">
            <span class="row push">
              ${query.before && html`<a class="button" href=${to(["audit"])}>${t("page.newest")}</a>`}
              ${data.next && html`<a class="button" rel="next" href=${to(["audit"], { before: data.next })}>${t("page.older")}</a>`}
            </span>
          </div>`}
        `}
      <//>
    <//>
  `;
}
