// The projections in the file: how far each is, and whether it is being rebuilt.

import { html } from "../lib.js";
import { useLoaded } from "../api.js";
import { t } from "../i18n.js";
import { number, short } from "../format.js";
import { Badge, Card, EmptyState, Loaded, PageHeader } from "../components/basics.js";

const ProgressBar = ({ name, lag, head }) => {
  const done = head ? Math.max(0, Math.min(1, 1 - lag / head)) : 1;
  const text = `${Math.floor(done * 1000) / 10}%`;
  return html`<progress class="reach" max="1" value=${done} title=${text} aria-label=${t("reach", { name, v: text })}></progress>`;
};

const Rebuild = ({ row, head }) =>
  row.rebuild === null
    ? html`<span class="faint">–</span>`
    : html`<span class="row">
        <${Badge} kind="info">${t("projections.version", { v: row.rebuild.version })}<//>
        <span class="small nowrap">${t("projections.at", { n: number(row.rebuild.position) })}</span>
        <${ProgressBar} name=${t("projections.rebuild.of", row)} lag=${row.rebuild.lag} head=${head} />
      </span>`;

export function Projections() {
  const loaded = useLoaded("projections", {}, { every: 5000 });
  return html`
    <${PageHeader} title=${t("nav.projections")} about=${t("projections.about")} />
    <${Card}>
      <${Loaded}
        loaded=${loaded}
        empty=${(data) => !data.items.length}
        blank=${html`<${EmptyState} icon="projections" title=${t("projections.none")}>${t("projections.none.about")}<//>`}
      >
        ${(data) => html`
          <div class="scroll" tabindex="0" role="region" aria-label=${t("nav.projections")}>
            <table class="cards">
              <thead>
                <tr>
                  <th scope="col">${t("name")}</th>
                  <th scope="col" class="right">${t("version")}</th>
                  <th scope="col" class="right">${t("position")}</th>
                  <th scope="col" class="right">${t("lag")}</th>
                  <th scope="col" class="reach-column"><span class="unseen">${t("reached")}</span></th>
                  <th scope="col">${t("projections.tables")}</th>
                  <th scope="col">${t("projections.rebuild")}</th>
                </tr>
              </thead>
              <tbody>
                ${data.items.map(
                  (row) => html`
                    <tr key=${row.name}>
                      <td class="whole first"><strong class="name">${row.name}</strong></td>
                      <td class="right" data-label=${t("version")}>${number(row.version)}</td>
                      <td class="right" data-label=${t("position")}>${number(row.position)}</td>
                      <td class="right" data-label=${t("lag")}>${short(row.lag)}</td>
                      <td class="tight wide-only reach-column"><${ProgressBar} name=${row.name} lag=${row.lag} head=${data.head} /></td>
                      <td class="whole mono small" data-label=${t("projections.tables")}>${row.tables.join(", ") || "–"}</td>
                      <td class="whole" data-label=${t("projections.rebuild")}><${Rebuild} row=${row} head=${data.head} /></td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          </div>
        `}
      <//>
    <//>
  `;
}
