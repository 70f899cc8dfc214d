// Causes and effects as a tree: time runs to the right, each event is next to its cause.

import { html } from "../lib.js";
import { t } from "../i18n.js";
import { clock } from "../format.js";
import { to } from "../router.js";

const WIDTH = 188;
const HEIGHT = 44;
const COLUMN_GAP = 44;
const ROW_GAP = 12;

/** Assign each node a column (the number of causes before it) and a row (leaves below each other). */
function layout(nodes, edges) {
  const children = new Map(nodes.map((node) => [node.event_id, []]));
  const hasCause = new Set();
  for (const [cause, effect] of edges) {
    if (children.has(cause) && children.has(effect)) {
      children.get(cause).push(effect);
      hasCause.add(effect);
    }
  }
  const cells = new Map();
  let row = 0;
  const visit = (id, column) => {
    if (cells.has(id)) return;
    cells.set(id, { column, row });
    const effects = children.get(id).filter((child) => !cells.has(child));
    for (const child of effects) visit(child, column + 1);
    if (!effects.length) row += 1;
    else {
      const rows = effects.map((child) => cells.get(child).row);
      cells.get(id).row = (Math.min(...rows) + Math.max(...rows)) / 2;
    }
  };
  for (const node of nodes) if (!hasCause.has(node.event_id)) visit(node.event_id, 0);
  for (const node of nodes) visit(node.event_id, 0); // nodes that are reachable only through a cycle
  return { cells, rows: row, columns: 1 + Math.max(...[...cells.values()].map((cell) => cell.column)) };
}

const truncate = (text, length) => (text.length > length ? `${text.slice(0, length - 1)}…` : text);

export function Graph({ graph, here }) {
  const { cells, rows, columns } = layout(graph.nodes, graph.edges);
  const x = (cell) => 2 + cell.column * (WIDTH + COLUMN_GAP);
  const y = (cell) => 2 + cell.row * (HEIGHT + ROW_GAP);
  const width = columns * (WIDTH + COLUMN_GAP) - COLUMN_GAP + 4;
  const height = rows * (HEIGHT + ROW_GAP) - ROW_GAP + 4;
  return html`
    <div class="graph" tabindex="0" role="region" aria-label=${t("event.graph")}>
      <svg width=${width} height=${height} viewBox=${`0 0 ${width} ${height}`}>
        ${graph.edges
          .filter(([cause, effect]) => cells.has(cause) && cells.has(effect))
          .map(([cause, effect]) => {
            const [from, till] = [cells.get(cause), cells.get(effect)];
            const [x1, y1] = [x(from) + WIDTH, y(from) + HEIGHT / 2];
            const [x2, y2] = [x(till), y(till) + HEIGHT / 2];
            const middle = (x1 + x2) / 2;
            return html`<path class="edge" d=${`M${x1} ${y1}C${middle} ${y1} ${middle} ${y2} ${x2} ${y2}`} />`;
          })}
        ${graph.nodes.map((node) => {
          const cell = cells.get(node.event_id);
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
              <rect x=${x(cell)} y=${y(cell)} width=${WIDTH} height=${HEIGHT} rx="7" />
              <text x=${x(cell) + 11} y=${y(cell) + 18}>${truncate(node.event_type, trouble ? 21 : 24)}</text>
              <text class="sub" x=${x(cell) + 11} y=${y(cell) + 34}>
                ${truncate(`${clock(node.occurred_at)}${node.aggregate_id ? ` · ${node.aggregate_id}` : ""}`, 27)}
              </text>
              ${trouble && html`<circle class=${trouble} cx=${x(cell) + WIDTH - 13} cy=${y(cell) + 14} r="4" />`}
            </a>
          `;
        })}
      </svg>
    </div>
  `;
}

