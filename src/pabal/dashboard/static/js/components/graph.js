// Causes and effects as a tree: time runs to the right, each event is next to its cause.

import { html } from "../lib.js";
import { t } from "../i18n.js";
import { clock } from "../format.js";
import { to } from "../router.js";

const WIDTH = 188;
const HEIGHT = 44;
const ACROSS = 44;
const DOWN = 12;

/** Assign each node a column (the number of causes before it) and a row (leaves below each other). */
function place(nodes, edges) {
  const children = new Map(nodes.map((node) => [node.event_id, []]));
  const hasCause = new Set();
  for (const [cause, effect] of edges) {
    if (children.has(cause) && children.has(effect)) {
      children.get(cause).push(effect);
      hasCause.add(effect);
    }
  }
  const spots = new Map();
  let row = 0;
  const visit = (id, column) => {
    if (spots.has(id)) return;
    spots.set(id, { column, row });
    const below = children.get(id).filter((child) => !spots.has(child));
    for (const child of below) visit(child, column + 1);
    if (!below.length) row += 1;
    else {
      const rows = below.map((child) => spots.get(child).row);
      spots.get(id).row = (Math.min(...rows) + Math.max(...rows)) / 2;
    }
  };
  for (const node of nodes) if (!hasCause.has(node.event_id)) visit(node.event_id, 0);
  for (const node of nodes) visit(node.event_id, 0); // nodes that are reachable only through a cycle
  return { spots, rows: row, columns: 1 + Math.max(...[...spots.values()].map((spot) => spot.column)) };
}

const cut = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export function Graph({ graph, here }) {
  const { spots, rows, columns } = place(graph.nodes, graph.edges);
  const x = (spot) => 2 + spot.column * (WIDTH + ACROSS);
  const y = (spot) => 2 + spot.row * (HEIGHT + DOWN);
  const width = columns * (WIDTH + ACROSS) - ACROSS + 4;
  const height = rows * (HEIGHT + DOWN) - DOWN + 4;
  return html`
    <div class="graph" tabindex="0" role="region" aria-label=${t("event.graph")}>
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`}>
        ${graph.edges
          .filter(([cause, effect]) => spots.has(cause) && spots.has(effect))
          .map(([cause, effect]) => {
            const [from, till] = [spots.get(cause), spots.get(effect)];
            const [x1, y1] = [x(from) + WIDTH, y(from) + HEIGHT / 2];
            const [x2, y2] = [x(till), y(till) + HEIGHT / 2];
            const middle = (x1 + x2) / 2;
            return html`<path class="edge" d=${`M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`} />`;
          })}
        ${graph.nodes.map((node) => {
          const spot = spots.get(node.event_id);
          const trouble = node.parked ? "bad" : "";
          const label = `${node.event_type}, ${node.aggregate_id ?? ""}${trouble ? `, ${t(`graph.${trouble}`)}` : ""}`;
          return html`
            <a
              key=${node.event_id}
              href=${to(["events", node.event_id])}
              class=${node.event_id === here ? "here" : ""}
              aria-current=${node.event_id === here ? "true" : undefined}
              aria-label=${label}
            >
              <rect x=${x(spot)} y=${y(spot)} width=${WIDTH} height=${HEIGHT} rx="7" />
              <text x=${x(spot) + 11} y=${y(spot) + 18}>${cut(node.event_type, trouble ? 21 : 24)}</text>
              <text class="sub" x=${x(spot) + 11} y=${y(spot) + 34}>
                ${cut(`${clock(node.occurred_at)}${node.aggregate_id ? ` · ${node.aggregate_id}` : ""}`, 27)}
              </text>
              ${trouble && html`<circle class=${trouble} cx=${x(spot) + WIDTH - 13} cy=${y(spot) + 14} r="4" />`}
            </a>
          `;
        })}
      </svg>
    </div>
  `;
}

