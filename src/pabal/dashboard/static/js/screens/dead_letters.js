// Dead letters, grouped by subscription and error: fix the cause once, retry the whole group.

import { html, useState } from "../lib.js";
import { useLoaded } from "../api.js";
import { localized, t } from "../i18n.js";
import { number } from "../format.js";
import { navigate, to } from "../router.js";
import { canAct, disabledReason, DiscardDialog, EditDialog, RetryDialog } from "../actions.js";
import { Badge, Button, Card, EmptyState, ErrorNotice, EventLink, Loaded, PageHeader, RelativeTime, StreamLink, Time } from "../components/basics.js";
import { Json } from "../components/json.js";
import { Attempt } from "./event.js";

const FIELDS = ["subscription", "error_type", "event_type"];
const filterOf = (query) => Object.fromEntries(FIELDS.filter((name) => query[name]).map((name) => [name, query[name]]));

const LetterState = ({ row }) =>
  row.state === "retrying" ? html`<${Badge} kind="info">${t("letter.retrying")}<//>` : html`<${Badge} kind="bad">${t("letter.parked")}<//>`;

function ActionDialog({ pendingAction, onDone, onClose }) {
  if (!pendingAction) return null;
  const { kind, ...rest } = pendingAction;
  const Question = { retry: RetryDialog, discard: DiscardDialog, edit: EditDialog }[kind];
  return html`<${Question} ...${rest} onDone=${onDone} onClose=${onClose} />`;
}

// -- all, in groups ----------------------------------------------------------------------------------------------

const Group = ({ group, onAsk }) => {
  const filter = { subscription: group.subscription, error_type: group.error_type };
  const selection = { filter, count: group.count };
  return html`
    <article class="card group" aria-label=${`${group.subscription}: ${group.error_type}`}>
      <header>
        <div>
          <h2>
            <a class="row-link" href=${to(["dead-letters"], filter)}>${group.subscription}</a>
            ${" "}<span class="error">${group.error_type ?? t("no-error")}</span>
          </h2>
          <p class="message">${localized(group, "message")}</p>
          <p class="small faint">
            ${group.event_types.map((type) => html`<span class="tag">${type}</span>${" "}`)} ${t("group.first")} <${RelativeTime} at=${group.first_parked_at} />
            ${group.count > 1 && html`, ${t("group.last")} <${RelativeTime} at=${group.last_parked_at} />`}
          </p>
        </div>
        <div class="right">
          <span class="badge bad">${t("group.count", { n: group.count })}</span>
          <a class="button" href=${to(["dead-letters"], filter)}>${t("look")}</a>
          <${Button} icon="trash" kind="danger" disabled=${!canAct()} title=${disabledReason()} onClick=${() => onAsk({ kind: "discard", selection })}>${t("discard")}<//>
          <${Button} icon="retry" kind="primary" disabled=${!canAct()} title=${disabledReason()} onClick=${() => onAsk({ kind: "retry", selection })}>
            ${t("retry.all", { n: group.count })}
          <//>
        </div>
      </header>
    </article>
  `;
};

const NoLetters = () => html`
  <${Card}><${EmptyState} icon="check" title=${t("dead-letters.none")}>${t("dead-letters.none.about")}<//><//>
`;

function Groups() {
  const loaded = useLoaded("dead-letters/groups", {}, { every: 3000 });
  const [pendingAction, setPendingAction] = useState(null);
  const total = loaded.data?.total ?? 0;
  const all = { filter: {}, count: total };
  return html`
    <${PageHeader}
      title=${t("nav.dead-letters")}
      about=${t("dead-letters.about")}
      right=${total > 0 &&
      html`
        <a class="button" href=${to(["dead-letters"], { view: "list" })}>${t("dead-letters.list")}</a>
        <${Button} icon="retry" disabled=${!canAct()} title=${disabledReason()} onClick=${() => setPendingAction({ kind: "retry", selection: all })}>
          ${t("retry.everything", { n: total })}
        <//>
      `}
    />
    <${Loaded} loaded=${loaded} empty=${(data) => !data.groups.length} blank=${html`<${NoLetters} />`}>
      ${(data) => data.groups.map((group) => html`<${Group} key=${`${group.subscription} ${group.error_type}`} group=${group} onAsk=${setPendingAction} />`)}
    <//>
    <${ActionDialog} pendingAction=${pendingAction} onDone=${loaded.reload} onClose=${() => setPendingAction(null)} />
  `;
}

// -- a list of single ones ---------------------------------------------------------------------------------------

function Letters({ query }) {
  const filter = filterOf(query);
  const loaded = useLoaded("dead-letters", { ...filter, after: query.after }, { every: 3000 });
  const [chosen, setChosen] = useState(() => new Set());
  const [pendingAction, setPendingAction] = useState(null);
  const items = loaded.data?.items ?? [];
  const picked = items.filter((row) => chosen.has(row.id)).map((row) => row.id);
  const matching = loaded.data?.count ?? 0;
  const toggle = (id) => () => {
    const next = new Set(chosen);
    if (!next.delete(id)) next.add(id);
    setChosen(next);
  };
  const all = items.length > 0 && picked.length === items.length;
  const done = () => {
    setChosen(new Set());
    loaded.reload();
  };
  const selection = picked.length ? { ids: picked } : { filter, count: matching };
  const many = picked.length || matching;
  const crumb = html`<a href=${to(["dead-letters"])}>${t("nav.dead-letters")}</a><span>/</span>`;
  const title = filter.subscription ?? t("dead-letters.list");
  return html`
    <${PageHeader}
      title=${title}
      crumb=${crumb}
      about=${html`${filter.error_type && html`<span class="tag">${filter.error_type}</span> `}${filter.event_type && html`<span class="tag">${filter.event_type}</span> `}${t("group.count", { n: matching })}`}
      right=${items.length > 0 &&
      html`
        <${Button} icon="trash" kind="danger" disabled=${!canAct()} title=${disabledReason()} onClick=${() => setPendingAction({ kind: "discard", selection })}>
          ${t(picked.length ? "discard.picked" : "discard.matching", { n: many })}
        <//>
        <${Button} icon="retry" kind="primary" disabled=${!canAct()} title=${disabledReason()} onClick=${() => setPendingAction({ kind: "retry", selection })}>
          ${t(picked.length ? "retry.picked" : "retry.matching", { n: many })}
        <//>
      `}
    />
    <${Card}>
      <${Loaded} loaded=${loaded} empty=${(data) => !data.items.length} blank=${html`<${EmptyState} icon="check" title=${t("dead-letters.gone")}>${t("dead-letters.gone.about")}<//>`}>
        ${(data) => html`
          <div class="scroll" tabindex="0" role="region" aria-label=${t("nav.dead-letters")}>
            <table class="cards">
              <thead>
                <tr>
                  <th scope="col">
                    <input type="checkbox" class="checks" aria-label=${t("pick.all")} checked=${all} onChange=${() => setChosen(new Set(all ? [] : items.map((row) => row.id)))} />
                  </th>
                  <th scope="col">${t("event-type")}</th>
                  <th scope="col">${t("aggregate")}</th>
                  <th scope="col">${t("error")}</th>
                  <th scope="col" class="right">${t("attempts")}</th>
                  <th scope="col">${t("parked")}</th>
                  <th scope="col">${t("state")}</th>
                </tr>
              </thead>
              <tbody>
                ${data.items.map(
                  (row) => html`
                    <tr key=${row.id}>
                      <td class="tight">
                        <input type="checkbox" class="checks" aria-label=${t("pick", { id: row.id })} checked=${chosen.has(row.id)} onChange=${toggle(row.id)} />
                      </td>
                      <td class="whole nowrap">
                        <a class="row-link" href=${to(["dead-letters", String(row.id)])}>${row.event_type}</a>
                        ${!filter.subscription && html`<div class="small faint">${row.subscription}</div>`}
                      </td>
                      <td class="whole"><${StreamLink} type=${row.aggregate_type} id=${row.aggregate_id} /></td>
                      <td class="whole"><span class="fault">${row.error_type ?? ""}</span> <span class="soft">${localized(row, "message")}</span></td>
                      <td class="right" data-label=${t("attempts")}>${number(row.attempts)}</td>
                      <td class="tight" data-label=${t("parked")}><${RelativeTime} at=${row.parked_at} /></td>
                      <td class="tight"><${LetterState} row=${row} /></td>
                    </tr>
                  `,
                )}
              </tbody>
            </table>
          </div>
          <div class="pager">
            <span>${t("dead-letters.count", { n: data.items.length, all: data.count })}</span>
            <span class="row push">
              ${query.after && html`<a class="button" href=${to(["dead-letters"], { ...filter, view: "list" })}>${t("page.first")}</a>`}
              ${data.next && html`<a class="button" rel="next" href=${to(["dead-letters"], { ...filter, view: "list", after: data.next })}>${t("page.next")}</a>`}
            </span>
          </div>
        `}
      <//>
    <//>
    <${ActionDialog} pendingAction=${pendingAction} onDone=${done} onClose=${() => setPendingAction(null)} />
  `;
}

export const DeadLetters = ({ query }) =>
  query.view === "list" || FIELDS.some((name) => query[name]) ? html`<${Letters} query=${query} />` : html`<${Groups} />`;

// -- one ---------------------------------------------------------------------------------------------------------

export function DeadLetter({ id }) {
  const loaded = useLoaded(`dead-letters/${encodeURIComponent(id)}`, {}, { every: 2000, fresh: true });
  const [pendingAction, setPendingAction] = useState(null);
  const { data, error } = loaded;
  const crumb = html`<a href=${to(["dead-letters"])}>${t("nav.dead-letters")}</a><span>/</span>${data &&
  html`<a href=${to(["dead-letters"], { subscription: data.letter.subscription })}>${data.letter.subscription}</a><span>/</span>`}`;
  if (error?.code === "gone") {
    return html`
      <${PageHeader} title=${t("dead-letter", { id })} crumb=${crumb} />
      <${Card}>
        <${EmptyState} icon="check" title=${t("letter.gone")} action=${html`<a class="button" href=${to(["dead-letters"])}>${t("nav.dead-letters")}</a>`}>
          ${t("letter.gone.about")}
        <//>
      <//>
    `;
  }
  const letter = data?.letter;
  const busy = letter?.state === "retrying";
  const act = (kind, rest) => () => setPendingAction({ kind, ...rest });
  const after = () => {
    if (pendingAction.kind === "discard") navigate(to(["dead-letters"]));
    else loaded.reload();
  };
  return html`
    <${PageHeader}
      title=${letter?.event_type ?? t("dead-letter", { id })}
      crumb=${crumb}
      right=${letter &&
      html`
        <${Button} icon="trash" kind="danger" disabled=${!canAct()} title=${disabledReason()} onClick=${act("discard", { selection: { ids: [letter.id] } })}>${t("discard")}<//>
        <${Button} icon="edit" disabled=${!canAct() || busy} title=${disabledReason(!busy, "why.retrying")} onClick=${act("edit", { letter })}>${t("edit")}<//>
        <${Button} icon="retry" kind="primary" disabled=${!canAct() || busy} title=${disabledReason(!busy, "why.retrying")} onClick=${act("retry", { selection: { ids: [letter.id] } })}>${t("retry")}<//>
      `}
    />
    ${error && data && html`<${ErrorNotice} error=${error} />`}
    <${Loaded} loaded=${loaded} lines=${10}>
      ${({ letter }) => html`
        <div class="columns wide-left">
          <div class="stack">
            <${Card} title=${t("attempts.failed")} right=${html`<${LetterState} row=${letter} />`}>
              ${letter.attempts.length
                ? html`<div class="body"><ol class="attempts">${letter.attempts.map((attempt) => html`<${Attempt} attempt=${attempt} />`)}</ol></div>`
                : html`<div class="body soft">${localized(letter, "reason")}</div>`}
            <//>
            <${Card} title=${t("payload")} about=${letter.masked ? t("payload.masked") : ""}><${Json} value=${letter.payload} /><//>
          </div>
          <${Card} title=${t("about-letter")}>
            <div class="body">
              <dl class="facts">
                <dt>${t("subscription")}</dt>
                <dd><a href=${to(["dead-letters"], { subscription: letter.subscription })}>${letter.subscription}</a></dd>
                <dt>${t("reason")}</dt>
                <dd>${localized(letter, "reason")}</dd>
                <dt>${t("event")}</dt>
                <dd><${EventLink} id=${letter.event_id} cls="mono">${letter.event_id}<//></dd>
                <dt>${t("position")}</dt>
                <dd class="num">${number(letter.position)}</dd>
                <dt>${t("stream")}</dt>
                <dd><${StreamLink} type=${letter.aggregate_type} id=${letter.aggregate_id} /></dd>
                <dt>${t("parked")}</dt>
                <dd><${Time} at=${letter.parked_at} /></dd>
                ${letter.key !== null && html`<dt>${t("key")}</dt><dd>${letter.key}${letter.queued > 0 ? ` · ${t("queued", { n: letter.queued })}` : ""}</dd>`}
              </dl>
            </div>
          <//>
        </div>
      `}
    <//>
    <${ActionDialog} pendingAction=${pendingAction} onDone=${after} onClose=${() => setPendingAction(null)} />
  `;
}
