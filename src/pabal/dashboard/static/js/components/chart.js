// A line chart in the theme's colours and its container's width, which updates without flicker.

import { Plot, Store, html, useEffect, useRef, useState, useStore } from "../lib.js";
import { language } from "../i18n.js";
import { clock } from "../format.js";

/** Incremented when the theme changes, because canvases have to be repainted then. */
export const themeVersion = new Store(0);

const sync = Plot.sync("overview");
const HEIGHT = 176;

function colour(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(name).trim();
}

function options(width, lines, show, onHover) {
  const text = colour("--text-faint");
  const axis = {
    stroke: text,
    font: `11px ${colour("--font")}`,
    grid: { stroke: colour("--chart-grid"), width: 1 },
    ticks: { show: false },
  };
  return {
    width,
    height: HEIGHT,
    legend: { show: false },
    padding: [8, 8, 0, 0],
    cursor: {
      sync: { key: sync.key },
      points: { size: 7 },
      drag: { x: false, y: false },
    },
    hooks: { setCursor: [(plot) => onHover(plot.cursor.idx ?? null)] },
    scales: { y: { range: (_, low, high) => [0, Math.max(high * 1.15, lines.floor ?? 1)] } },
    axes: [
      { ...axis, space: 70, values: (_, ticks) => ticks.map((at) => clock(at * 1000).slice(0, 5)) },
      { ...axis, size: 58, space: 34, values: (_, ticks) => ticks.map((tick) => show(tick)) },
    ],
    series: [
      {},
      ...lines.map(({ tone, fill }) => ({
        stroke: colour(`--chart-${tone}`),
        width: 1.75,
        fill: fill ? `${colour(`--chart-${tone}`)}1f` : undefined,
        points: { show: false },
        spanGaps: false,
      })),
    ],
  };
}

/** `lines`: [{label, tone, fill}], `columns`: [times in seconds, values of the first line, …]. */
export function Chart({ title, lines, columns, show }) {
  const container = useRef(null);
  const plot = useRef(null);
  const [hovered, setHovered] = useState(null);
  const themeChanges = useStore(themeVersion);
  const currentLanguage = useStore(language);
  const shown = useRef(columns);
  shown.current = columns;

  useEffect(() => {
    const node = container.current;
    const makePlot = () => new Plot(options(node.clientWidth, lines, show, setHovered), shown.current, node);
    plot.current = makePlot();
    const resizeObserver = new ResizeObserver(() => {
      if (node.clientWidth) plot.current.setSize({ width: node.clientWidth, height: HEIGHT });
    });
    resizeObserver.observe(node);
    return () => {
      resizeObserver.disconnect();
      plot.current.destroy();
      plot.current = null;
    };
  }, [themeChanges, currentLanguage]);

  useEffect(() => {
    plot.current?.setData(columns);
  }, [columns]);

  const last = columns[0].length - 1;
  const at = hovered !== null && hovered <= last ? hovered : latest(columns);
  const currentValues = lines.map(({ label }, index) => `${label} ${show(columns[index + 1][at] ?? null)}`).join(", ");
  return html`
    <section class="card">
      <header>
        <h2>${title}</h2>
        <div class="legend">
          ${lines.map(
            ({ label, tone }, index) => html`
              <span><i class=${`swatch c${tone}`}></i>${label} <b>${show(columns[index + 1][at] ?? null)}</b></span>
            `,
          )}
        </div>
      </header>
      <div class="chart" role="img" aria-label=${`${title}: ${currentValues}`}><div ref=${container}></div></div>
    </section>
  `;
}

/** The last time with any known value. */
function latest(columns) {
  for (let index = columns[0].length - 1; index >= 0; index--) {
    if (columns.slice(1).some((column) => column[index] !== null && column[index] !== undefined)) return index;
  }
  return columns[0].length - 1;
}
