// Rate, latency and accuracy over time, drawn by uPlot.

import { ask, byId, clock, make } from "./dom.js";

const SPANS = [["5 min", 300], ["1 h", 3600], ["6 h", 21600], ["1 day", 86400], ["7 days", 604800]];
const HEIGHT = 158;
const GRADED = 400;

let span = SPANS[0][1];
let points = [];
let step = 1;
let due = 0;
let asking = false;
let charts = [];
let onLately = () => {};

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();

export function begin(lately) {
  onLately = lately;
  byId("spans").append(...SPANS.map(([name, seconds]) => {
    const button = make("button", { type: "button", "aria-pressed": String(seconds === span) }, name);
    button.addEventListener("click", () => {
      span = seconds;
      for (const other of byId("spans").children) other.setAttribute("aria-pressed", String(other === button));
      forget();
    });
    return button;
  }));
  build();
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", build);
  new ResizeObserver(() => charts.forEach(({ chart, place }) =>
    chart.setSize({ width: place.clientWidth, height: HEIGHT }))).observe(byId("chart-throughput"));
}

/** Read all anew at the next look. */
export function forget() {
  points = [];
  due = 0;
}

export async function look(at) {
  if (asking || document.hidden || performance.now() < due) return;
  asking = true;
  const wanted = span;
  try {
    const since = points.length ? points.at(-1).at : 0;
    const told = await ask(`/api/history?seconds=${span}&since=${since}`);
    if (wanted !== span) return;
    step = told.step;
    const first = told.points[0]?.at ?? Infinity;
    points = points.filter((point) => point.at < first && point.at > at - span - step).concat(told.points);
    onLately(told);
    redraw(at);
    due = performance.now() + Math.max(1000, 500 * step);
  } catch {
    due = performance.now() + 3000;
  } finally {
    asking = false;
  }
}

function build() {
  for (const { chart } of charts) chart.destroy();
  charts = [
    one("chart-throughput", [["answered", "--chart-1", (v) => v.toFixed(1), true]], "zero"),
    one("chart-latency", [["median", "--chart-1", (v) => `${v.toFixed(1)} ms`],
      ["95th", "--chart-2", (v) => `${v.toFixed(1)} ms`]], "zero"),
    one("chart-accuracy", [["right", "--chart-3", (v) => `${v.toFixed(2)}%`]], "percent"),
  ];
  if (points.length) redraw(Date.now() / 1000);
}

function one(id, series, kind) {
  const place = byId(id);
  place.replaceChildren();
  const axis = { stroke: colour("--soft"), font: "11px system-ui, sans-serif", ticks: { show: false },
    grid: { stroke: colour("--line"), width: 1 } };
  const state = { place, range: [0, 1] };
  const note = make("p", { class: "empty" });
  state.chart = new uPlot({
    width: place.clientWidth || 300,
    height: HEIGHT,
    cursor: { sync: { key: "time" }, drag: { x: false, y: false }, points: { size: 6 } },
    scales: { x: { time: true, range: () => state.range }, y: { range: (_, low, high) => limits(kind, low, high) } },
    axes: [{ ...axis, size: 28, space: 64, values: (_, times) => times.map(moment) }, { ...axis, size: 44, space: 30 }],
    series: [{ label: "at", value: (_, at) => (at == null ? "–" : clock(at)) }, ...series.map(([label, name, value, fills]) => ({
      label, stroke: colour(name), width: 1.75, points: { show: false },
      fill: fills ? `${colour(name)}22` : undefined,
      value: (_, v) => (v == null ? "–" : value(v)) }))],
  }, [[], ...series.map(() => [])], place);
  place.append(note);
  state.empty = (text) => { note.textContent = text; note.hidden = !text; };
  return state;
}

/** A time on the axis: with seconds on a short span, with the day on a long one. */
function moment(seconds) {
  const day = span > 86400 ? { day: "numeric", month: "short" } : {};
  const time = span > 86400 ? {} : { hour: "2-digit", minute: "2-digit" };
  return new Date(seconds * 1000).toLocaleString("en-GB", { ...day, ...time });
}

function limits(kind, low, high) {
  if (low == null) return kind === "percent" ? [0, 100] : [0, 1];
  if (kind === "percent") return [Math.max(0, Math.floor(low - 2)), Math.min(100, Math.ceil(high + 1))];
  return [0, (high || 1) * 1.12];
}

/** A gap is a time in which nothing was answered. */
function spread() {
  const full = [];
  for (const point of points) {
    const before = full.at(-1);
    if (before && point.at - before.at > 2.5 * step) {
      full.push({ at: before.at + step, throughput: 0 }, { at: point.at - step, throughput: 0 });
    }
    full.push(point);
  }
  return full;
}

function redraw(at) {
  const full = spread();
  if (full.length && at - full.at(-1).at > 2.5 * step) {
    full.push({ at: full.at(-1).at + step, throughput: 0 }, { at: at - step, throughput: 0 });
  }
  const times = full.map((point) => point.at);
  const columns = [
    [full.map((p) => p.throughput)],
    [full.map((p) => p.latency_p50_ms ?? null), full.map((p) => p.latency_p95_ms ?? null)],
    [rolling(full)],
  ];
  const words = ["No answers in this span", "No answers in this span", "No graded answers in this span"];
  charts.forEach((state, index) => {
    state.range = [at - span, at];
    state.chart.setData([times, ...columns[index]]);
    if (state.chart.cursor.idx == null) state.chart.setLegend({ idx: points.length ? times.lastIndexOf(points.at(-1).at) : null });
    state.empty(columns[index][0].some((value) => value != null) ? "" : words[index]);
  });
}

/** The share that was right, of about the last GRADED answers at each time. */
function rolling(full) {
  let from = 0;
  let graded = 0;
  let correct = 0;
  return full.map((point) => {
    graded += point.graded ?? 0;
    correct += point.correct ?? 0;
    while (graded - (full[from].graded ?? 0) >= GRADED) {
      graded -= full[from].graded ?? 0;
      correct -= full[from].correct ?? 0;
      from += 1;
    }
    return point.graded ? (100 * correct) / graded : null;
  });
}
