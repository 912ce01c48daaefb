// The devices as boxes, one below the other; what the source sends on the left, what devices send on the right.

import { byId, draw, make, plural, rate } from "./dom.js";

const GAPS = [14, 46];
const ROOM = 320;
const HEIGHT = 72;
const NARROW = 560;
const NARROW_SIDE = 70;
const LABEL = 68;
const APEX = 0.75; // of the reach of a curve's handles, how far it gets
const MOST_CHIPS = 8;
const MOST_LABELS = 8;
const MOST_LINKS = 40;
const MOST_MOVING = 12; // more lines that move than this cost frames
const STAY = 1.5; // by how much a line has to be outdone before it goes

const place = byId("graph");
let drawn = { key: "", nodes: new Map(), links: new Map() };
let last = null;
let stages = 0;

export function begin(about) {
  stages = about.stages;
  new ResizeObserver(() => last && show(last)).observe(place);
}

export function show(now) {
  last = now;
  const width = Math.floor(place.clientWidth);
  if (!width) return; // hidden
  const links = wanted(now.links);
  const key = JSON.stringify([width, now.devices.map((d) => [d.device, d.role]), links.map((l) => l.id)]);
  if (key !== drawn.key) rebuild(key, width, now, links);
  const longest = Math.max(32, ...now.devices.map((d) => Math.max(d.input_queue, d.output_queue)));
  for (const device of now.devices) update(drawn.nodes.get(device.device), device, longest);
  for (const link of links) drawn.links.get(link.id)?.(link);
}

/** Links with a flow, by direction, and one line for each pair without; the busiest where they are many. */
function wanted(links) {
  const busy = links.filter((link) => link.bytes_s >= 1);
  const pairs = new Set(busy.map((link) => [link.from, link.to].sort().join(" ")));
  const found = busy.map((link) => ({ ...link, busy: true, id: `${link.from}>${link.to}` }));
  for (const link of links) {
    const pair = [link.from, link.to].sort().join(" ");
    if (pairs.has(pair)) continue;
    pairs.add(pair);
    found.push({ ...link, busy: false, id: `${pair}-` });
  }
  if (found.length <= MOST_LINKS) return found;
  const weight = (link) => (link.bytes_s ?? 0) * (drawn.links.has(link.id) ? STAY : 1);
  const chosen = new Set([...found].sort((a, b) => weight(b) - weight(a)).slice(0, MOST_LINKS));
  return found.filter((link) => chosen.has(link));
}

function rebuild(key, width, now, links) {
  drawn = { key, nodes: new Map(), links: new Map() };
  if (!now.devices.length) {
    place.replaceChildren(make("p", { class: "empty" },
      "No devices have told of themselves yet. Start one on each board: mqtt-mdi device --broker mqtt://GATEWAY"));
    return;
  }
  const { boxes, height } = layout(width, now.devices);
  const wires = draw("g");
  const labels = draw("g");
  const nodes = draw("g");
  const loud = new Set([...links].sort((a, b) => (b.bytes_s ?? 0) - (a.bytes_s ?? 0)).slice(0, MOST_LABELS));
  for (const link of links) {
    const from = boxes.get(link.from);
    const to = boxes.get(link.to);
    if (from && to) drawn.links.set(link.id, wire(link, from, to, wires, loud.has(link) ? labels : null));
  }
  for (const device of now.devices) {
    drawn.nodes.set(device.device, node(device, boxes.get(device.device), nodes));
  }
  const still = links.filter((link) => link.busy).length > MOST_MOVING;
  place.replaceChildren(draw("svg", { class: still && "still", width, height, viewBox: `0 0 ${width} ${height}`, role: "img",
    "aria-label": "Graph of devices" }, tip(), wires, nodes, labels));
}

/** The head of an arrow. */
const tip = () => draw("marker", { id: "tip", viewBox: "0 0 8 8", refX: 7, refY: 4, markerWidth: 9, markerHeight: 9,
  markerUnits: "userSpaceOnUse", orient: "auto" }, draw("path", { class: "tip", d: "M0 0 8 4 0 8Z" }));

function layout(width, devices) {
  const sources = devices.filter((d) => d.role === "source");
  const others = devices.filter((d) => d.role !== "source");
  const boxes = new Map();
  const most = Math.max(sources.length, others.length);
  const gap = Math.max(GAPS[0], Math.min(GAPS[1], (ROOM - most * HEIGHT) / Math.max(1, most - 1)));
  const put = (list, x, w, top) => list.forEach((d, index) =>
    boxes.set(d.device, { x, w, y: top + index * (HEIGHT + gap), row: HEIGHT + gap, span: most - 1,
      source: d.role === "source" }));
  const tall = (count) => Math.max(0, count * (HEIGHT + gap) - gap);
  if (width < NARROW) {
    const side = 58;
    put(sources, side, width - 2 * side, 2);
    put(others, side, width - 2 * side, 2 + (sources.length ? tall(sources.length) + gap : 0));
    return { boxes, height: 4 + tall(sources.length) + (sources.length ? gap : 0) + tall(others.length) };
  }
  const height = Math.max(tall(sources.length), tall(others.length)) + 4;
  const sourceWidth = Math.min(200, width * 0.27);
  const fan = Math.max(90, width * 0.15);
  const arcs = Math.max(90, Math.min(220, width * 0.24));
  put(sources, 1, sourceWidth, (height - tall(sources.length)) / 2);
  const left = sources.length ? sourceWidth + fan : 1;
  put(others, left, width - left - arcs, (height - tall(others.length)) / 2);
  return { boxes, height };
}

function wire(link, from, to, wires, labels) {
  const { path, x, y, anchor } = route(from, to, from.x === to.x);
  const title = draw("title");
  const line = draw("path", { class: link.busy ? "link busy" : "link", d: path,
    "marker-end": link.busy && "url(#tip)" }, title);
  const label = draw("text", { class: "rate", x, y, "text-anchor": anchor });
  wires.append(line);
  if (labels && link.busy) labels.append(label);
  return (now) => {
    if (now.busy) line.style.strokeWidth = `${Math.min(6, 1.5 + 1.2 * Math.log10(1 + now.bytes_s / 1000))}px`;
    const delay = now.delay_s == null ? "" : `, ${(1000 * now.delay_s).toFixed(1)} ms away`;
    title.textContent = `${now.from} to ${now.to}: ${now.busy ? rate(now.bytes_s) : "no tasks"}${delay}`;
    label.textContent = now.busy ? rate(now.bytes_s) : "";
  };
}

/** A curve between two boxes, and where its label goes. */
function route(from, to, stacked) {
  const middle = (box) => box.y + HEIGHT / 2;
  if (!stacked) {
    const onward = from.x < to.x;
    const x1 = onward ? from.x + from.w : from.x;
    const x2 = onward ? to.x : to.x + to.w;
    const [y1, y2] = [middle(from) + (onward ? -5 : 5), middle(to) + (onward ? -5 : 5)];
    const half = (x1 + x2) / 2;
    return { path: `M${x1} ${y1} C${half} ${y1} ${half} ${y2} ${x2} ${y2}`, x: (onward ? x2 : x1) - 14,
      y: onward ? y2 - 7 : y1 + 16, anchor: "end" };
  }
  const down = to.y > from.y;
  const left = from.source || to.source;
  const sign = left ? -1 : 1;
  const edge = left ? from.x : from.x + from.w;
  const [y1, y2] = down ? [middle(from) + 10, middle(to) - 10] : [middle(from) - 16, middle(to) + 16];
  const room = left ? from.x : place.clientWidth - edge;
  const steps = Math.round(Math.abs(to.y - from.y) / from.row);
  const tight = room < NARROW_SIDE;
  const farthest = tight ? room * 1.2 : (room - LABEL) / APEX;
  const unit = Math.min(44, farthest / (from.span + 0.5));
  const reach = Math.min(farthest, unit * (steps + (down ? 0 : 0.5))) * sign;
  const device = from.source ? middle(to) - 17 : middle(from) + 25;
  return {
    path: `M${edge} ${y1} C${edge + reach} ${y1} ${edge + reach} ${y2} ${edge} ${y2}`,
    x: tight ? edge + sign * (room - 2) : edge + APEX * reach + 5 * sign,
    y: left ? device : (y1 + y2) / 2 + (down ? 14 : -4),
    anchor: (sign > 0) === tight ? "end" : "start",
  };
}

function node(device, box, nodes) {
  const parts = {
    group: draw("g", { transform: `translate(${box.x} ${box.y})` }),
    dot: draw("circle", { class: "dot", cx: 16, cy: 19, r: 5 }),
    state: draw("text", { class: "sub state", x: box.w - 14, y: 23, "text-anchor": "end" }),
    sub: draw("text", { class: "sub", x: 14, y: 53 }),
    chips: [],
  };
  const room = Math.max(6, Math.floor((box.w - 110) / 7.4));
  const name = device.device.length > room ? `${device.device.slice(0, room - 1)}…` : device.device;
  parts.title = draw("title");
  parts.group.append(parts.title, draw("rect", { class: "box", width: box.w, height: HEIGHT, rx: 10 }), parts.dot,
    draw("text", { class: "name", x: 28, y: 23 }, name), parts.state, parts.sub);
  const few = stages <= Math.min(MOST_CHIPS, Math.floor((box.w - 120) / 24));
  if (device.role !== "source" || device.stages.length) {
    for (let stage = 1; few && stage <= stages; stage += 1) {
      const x = 13 + (stage - 1) * 24;
      const square = draw("rect", { class: "stage", x, y: 39, width: 20, height: 20, rx: 5 });
      const digit = draw("text", { class: "digit", x: x + 10, y: 53 }, String(stage));
      parts.chips.push([square, digit]);
      parts.group.append(square, digit);
    }
    const bar = Math.min(150, box.w - (few ? 24 * stages : 60) - 66);
    parts.bars = [["in", 40], ["out", 54]].map(([kind, y]) => {
      const x = box.w - 40 - bar;
      const full = draw("rect", { class: `fill ${kind}`, x, y, width: 0, height: 6, rx: 3 });
      const count = draw("text", { class: "sub", x: box.w - 14, y: y + 7.5, "text-anchor": "end" });
      parts.group.append(draw("rect", { class: "track", x, y, width: bar, height: 6, rx: 3 }), full, count);
      return { full, count, bar };
    });
  }
  nodes.append(parts.group);
  parts.few = few && parts.chips.length > 0;
  return parts;
}

function update(parts, device, longest) {
  if (!parts) return;
  const word = device.health;
  parts.group.setAttribute("class", word);
  parts.group.dataset.device = device.device;
  parts.group.dataset.health = word;
  parts.state.textContent = device.service_s && word === "online"
    ? `${(1000 * device.service_s).toPrecision(2)} ms a task` : word;
  parts.title.textContent = `${device.device}: ${word}, holds ${device.stages.join(", ") || "no stages"}`;
  parts.chips.forEach(([square, digit], index) => {
    const held = device.stages.includes(index + 1);
    square.classList.toggle("held", held);
    digit.classList.toggle("held", held);
  });
  (parts.bars ?? []).forEach(({ full, count, bar }, index) => {
    const tasks = device.online ? [device.input_queue, device.output_queue][index] : 0;
    full.setAttribute("width", tasks ? Math.max(3, (bar * tasks) / longest) : 0);
    count.textContent = device.online ? String(tasks) : "";
  });
  if (parts.few) parts.sub.textContent = "";
  else if (parts.bars) parts.sub.textContent = ranges(device.stages);
  else {
    const { admitted = 0, answered = 0, failed = 0 } = device.counters;
    parts.sub.textContent = device.online ? `${plural(admitted - answered - failed, "frame")} owed` : "";
  }
}

/** 1, 2, 3, 5 as "1–3, 5". */
function ranges(list) {
  const runs = [];
  for (const stage of list) {
    const run = runs.at(-1);
    if (run && run[1] === stage - 1) run[1] = stage;
    else runs.push([stage, stage]);
  }
  return runs.map(([a, b]) => (a === b ? `${a}` : `${a}–${b}`)).join(", ") || "no stages";
}
