// The timeline's charts: one time axis for all, zoomed together, a cursor that all show.
"use strict";

const SHOWN_CELLS = 300;
const CHART_HEIGHT = 150;

/** What charts and page maps share: the moment looked at (seconds), and who wants to know. */
const moment = {
  seconds: 0,
  listeners: [],
  set(seconds) {
    this.seconds = seconds;
    for (const tell of this.listeners) tell(seconds);
  },
};

const inUnit = {
  bytes: words.size,
  count: words.count,
  per_s: (n) => (n === null ? "–" : `${n >= 100 || n === 0 ? words.count(n) : n.toPrecision(3)}/s`),
  s: words.seconds,
  percent: (n) => (n === null ? "–" : `${n === 0 || n >= 10 ? n.toFixed(0) : n.toPrecision(2)} %`),
};

/** Steps of an axis where uPlot's own would not be round: powers of two of bytes, whole pages. */
const STEPS = {
  bytes: Array.from({ length: 60 }, (_, power) => 2 ** power),
  count: Array.from({ length: 14 }, (_, power) => [1, 2, 5].map((n) => n * 10 ** power)).flat(),
};

class Charts {
  constructor(holder, data, arrays) {
    this.data = data;
    this.length = data.cell_s * data.cells;
    this.range = [0, this.length];
    this.plots = [];
    this.dragged = null;
    this.scanEnds = arrays.scan_ends;
    for (const chart of data.charts) this.plots.push(this.plot(holder, chart, arrays[chart.name]));
    new ResizeObserver(() => this.fit()).observe(holder);
    document.addEventListener("themechange", () => this.redraw());
    moment.listeners.push(() => this.plots.forEach(({ u }) => u.redraw(false)));
    this.zoom(0, this.length);
  }

  /** The cells from..to, joined so that a few hundred are left: one x for all, and each line's y. */
  joined(values, join, first, last, by) {
    const out = [];
    for (let cell = first; cell < last; cell += by) {
      let most = null, sum = 0, told = 0;
      for (let i = cell; i < Math.min(cell + by, values.length); i += 1) {
        const value = values[i];
        if (Number.isNaN(value)) continue;
        told += 1;
        sum += value;
        if (most === null || value > most) most = value;
      }
      out.push(told ? (join === "most" ? most : sum / told) : null);
    }
    return out;
  }

  zoom(from, to) {
    const least = this.data.cell_s * Math.min(8, this.data.cells);
    if (to - from < least) {
      const middle = (from + to) / 2;
      [from, to] = [middle - least / 2, middle + least / 2];
    }
    const width = Math.min(to - from, this.length);
    from = Math.min(Math.max(0, from), this.length - width);
    this.range = [from, from + width];
    const cell = this.data.cell_s;
    const by = 2 ** Math.max(0, Math.floor(Math.log2(Math.max(1, width / cell / SHOWN_CELLS))));
    const first = Math.max(0, Math.floor(from / cell / by) * by);
    const last = Math.min(this.data.cells, Math.ceil((from + width) / cell / by) * by);
    const x = [];
    for (let at = first; at < last; at += by) x.push(at * cell);
    x.push(Math.min(last, this.data.cells) * cell);
    for (const { u, series } of this.plots) {
      const lines = series.map(({ array, join }) => {
        const y = this.joined(array, join, first, last, by);
        y.push(y.at(-1));
        return y;
      });
      u.batch(() => {
        u.setData([x, ...lines], false);
        u.setScale("x", { min: from, max: from + width });
      });
    }
    const all = document.getElementById("zoom-out");
    if (all) all.disabled = width >= this.length;
  }

  zoomBy(factor, at = null) {
    const [from, to] = this.range;
    const about = at === null ? (from + to) / 2 : at;
    this.zoom(about - (about - from) * factor, about + (to - about) * factor);
  }

  move(share) {
    const [from, to] = this.range;
    this.zoom(from + share * (to - from), to + share * (to - from));
  }

  key(event) {
    const acts = {
      "+": () => this.zoomBy(0.5), "=": () => this.zoomBy(0.5), "-": () => this.zoomBy(2),
      ArrowLeft: () => this.move(-0.2), ArrowRight: () => this.move(0.2),
      Escape: () => this.zoom(0, this.length), Home: () => this.zoom(0, this.range[1] - this.range[0]),
      End: () => this.zoom(this.length - this.range[1] + this.range[0], this.length),
    };
    if (event.ctrlKey || event.altKey || event.metaKey || !acts[event.key]) return;
    event.preventDefault();
    acts[event.key]();
  }

  plot(holder, chart, arrays) {
    const series = chart.series.map((one, i) => ({ ...one, array: arrays[i], shown: true }));
    const place = make("div", { class: "plot", tabindex: "0", role: "group", onkeydown: (e) => this.key(e),
      "aria-label": `${chart.title}: a chart over time. Plus and minus zoom, arrows move, Escape shows all.` });
    const values = make("ul", { class: "values" });
    const box = make("div", { class: "chart", "data-chart": chart.name }, make("h3", {}, chart.title), place, values);
    holder.append(box);
    const form = inUnit[chart.unit];
    const self = this;
    const items = [];
    const u = new uPlot({
      width: Math.max(200, holder.clientWidth), height: CHART_HEIGHT,
      legend: { show: false }, padding: [6, 18, 0, 0],
      scales: { x: { time: false }, y: { range: (_, low, high) => [0, high > 0 ? high * 1.06 : 1] } },
      cursor: {
        sync: { key: "ksmtrace", setSeries: false }, points: { show: false }, y: false,
        drag: { x: true, y: false, setScale: false, dist: 4 },
        bind: { dblclick: () => () => { self.zoom(0, self.length); return null; } },
      },
      axes: [
        { ...this.axis(), values: (_, splits) => splits.map((s) => (s === null ? "" : `${+s.toFixed(6)} s`)), space: 70, size: 26, gap: 4 },
        { ...this.axis(), values: (_, splits) => splits.map((v) => (v === null ? "" : form(v).replace(/\.0+(?= )/, ""))), size: 78,
          incrs: STEPS[chart.unit] },
      ],
      series: [{}, ...series.map((one) => ({
        label: one.label, width: 1.5, points: { show: false }, paths: uPlot.paths.stepped({ align: 1 }), spanGaps: false,
        stroke: () => themeColour(one.colour),
        fill: series.length === 1 ? () => themeColour(one.colour).replace(/^rgb\((.*)\)$/, "rgba($1, 0.14)") : undefined,
      }))],
      hooks: {
        drawClear: [(plot) => this.behind(plot)],
        draw: [(plot) => this.marker(plot)],
        setCursor: [(plot) => tell(plot)],
        setData: [(plot) => tell(plot)],
        setSelect: [(plot) => {
          const { left, width } = plot.select;
          // The selection is shown in all charts; the one that was dragged across zooms them.
          if (width > 3 && this.dragged === plot) this.zoom(plot.posToVal(left, "x"), plot.posToVal(left + width, "x"));
          plot.setSelect({ left: 0, width: 0, top: 0, height: 0 }, false);
        }],
        ready: [(plot) => {
          let at = null;
          plot.over.addEventListener("mousedown", (e) => { at = e.clientX; this.dragged = plot; });
          plot.over.addEventListener("mouseup", (e) => {
            if (at !== null && Math.abs(e.clientX - at) < 4 && e.detail < 2) moment.set(plot.posToVal(plot.cursor.left, "x"));
            at = null;
          });
        }],
      },
    }, [[0, 1], ...series.map(() => [null, null])], place);
    series.forEach((one, i) => {
      const value = make("b");
      items.push(value);
      const button = make("button", { type: "button", "aria-pressed": "true", title: one.meaning, onclick: () => {
        one.shown = !one.shown;
        button.setAttribute("aria-pressed", one.shown);
        u.setSeries(i + 1, { show: one.shown });
      } }, make("i", { style: `background:var(${one.colour})` }), one.label);
      values.append(make("li", {}, button, value));
    });
    function tell(plot) {
      const at = plot.cursor.idx;
      const there = at !== null && at !== undefined && plot.cursor.left >= 0;
      items.forEach((value, i) => {
        const line = plot.data[i + 1];
        value.textContent = there ? form(line[at] ?? null) : "";
      });
    }
    return { u, series, box, name: chart.name };
  }

  axis() {
    return {
      stroke: () => themeColour("--muted"), font: "12px system-ui, sans-serif",
      grid: { stroke: () => themeColour("--line"), width: 1 }, ticks: { show: false },
    };
  }

  /** Ends of scans as fine lines where there is room, losses as red bands. */
  behind(plot) {
    const { ctx, bbox } = plot;
    const [from, to] = this.range;
    const x = (seconds) => Math.round(plot.valToPos(seconds, "x", true));
    ctx.save();
    ctx.beginPath();
    ctx.rect(bbox.left, bbox.top, bbox.width, bbox.height);
    ctx.clip();
    const seen = this.scanEnds.filter((end) => end >= from && end <= to);
    if (seen.length && seen.length < bbox.width / devicePixelRatio / 12) {
      ctx.strokeStyle = themeColour("--line");
      ctx.setLineDash([2 * devicePixelRatio, 3 * devicePixelRatio]);
      for (const end of seen) {
        ctx.beginPath();
        ctx.moveTo(x(end), bbox.top);
        ctx.lineTo(x(end), bbox.top + bbox.height);
        ctx.stroke();
      }
    }
    ctx.fillStyle = themeColour("--bad");
    ctx.globalAlpha = 0.35;
    for (const cell of this.data.lost_cells) {
      const left = x(cell * this.data.cell_s);
      ctx.fillRect(left, bbox.top, Math.max(3 * devicePixelRatio, x((cell + 1) * this.data.cell_s) - left), bbox.height);
    }
    ctx.restore();
  }

  /** The moment that the page maps show. */
  marker(plot) {
    const { ctx, bbox } = plot;
    const [from, to] = this.range;
    if (moment.seconds < from || moment.seconds > to) return;
    const x = Math.round(plot.valToPos(moment.seconds, "x", true));
    ctx.save();
    ctx.strokeStyle = themeColour("--accent");
    ctx.lineWidth = 2 * devicePixelRatio;
    ctx.beginPath();
    ctx.moveTo(x, bbox.top);
    ctx.lineTo(x, bbox.top + bbox.height);
    ctx.stroke();
    ctx.restore();
  }

  fit(given = null) {
    for (const { u, box } of this.plots) {
      const width = Math.max(200, given ?? box.clientWidth);
      if (u.width !== width) u.setSize({ width, height: CHART_HEIGHT });
    }
  }

  redraw() {
    for (const { u } of this.plots) u.redraw(false, true);
  }
}

async function drawCharts() {
  const holder = document.getElementById("charts");
  const data = pageData("charts");
  if (!holder || !data) return null;
  if (!data.charts.length) {
    holder.append(make("p", { class: "muted" }, "Nothing was sampled that could be drawn."));
    return null;
  }
  const arrays = { scan_ends: await unpack(data.scan_ends) };
  for (const chart of data.charts) arrays[chart.name] = await Promise.all(chart.series.map((one) => unpack(one.values)));
  const charts = new Charts(holder, data, arrays);
  const controls = make("div", { class: "controls no-print" },
    make("button", { type: "button", onclick: () => charts.zoomBy(0.5) }, "Zoom in"),
    make("button", { type: "button", onclick: () => charts.zoomBy(2) }, "Zoom out"),
    make("button", { type: "button", id: "zoom-out", disabled: true, onclick: () => charts.zoom(0, charts.length) }, "Show all"));
  holder.before(controls);
  return charts;
}
