// The page: one stream of what is, and whoever shows parts of it.

import { ask, byId, chip, make, number, percent, plural, say, whole } from "./dom.js";
import * as charts from "./charts.js";
import * as graph from "./graph.js";
import * as policy from "./policy.js";
import * as tables from "./tables.js";
import * as tiles from "./tiles.js";

const SILENT_MS = 6000;
const AGAIN_MS = 2000;

let about = null;
let now = null;
let heard = 0;
let stream = null;
let lately = null;
let loaded = "";

async function begin() {
  try {
    about = await ask("/api/about");
  } catch {
    live("no coordinator", "bad");
    banner("The coordinator does not answer. Trying again.");
    setTimeout(begin, AGAIN_MS);
    return;
  }
  loaded = JSON.stringify(about);
  document.title = `${about.pipeline} · mqtt-mdi`;
  say(byId("pipeline"), about.pipeline);
  say(byId("about"), `mqtt-mdi ${about.version} · model ${about.model}, ${about.stages} stages · broker ${about.broker}`);
  graph.begin(about);
  tables.begin(about);
  tiles.begin(tables.find);
  charts.begin((told) => { lately = told; });
  policy.begin(about).catch((error) => banner(error.message));
  listen();
  setInterval(watch, 1000);
  document.addEventListener("visibilitychange", () => document.hidden || charts.forget());
}

function listen() {
  stream?.close();
  stream = new EventSource("/api/events");
  heard = performance.now();
  stream.onmessage = (event) => {
    heard = performance.now();
    now = JSON.parse(event.data);
    show();
  };
}

/** A stream that ended or fell silent is opened anew; after that, the coordinator may be another. */
async function watch() {
  const quiet = performance.now() - heard;
  if (quiet > SILENT_MS || (stream.readyState === EventSource.CLOSED && quiet > AGAIN_MS)) {
    listen();
    charts.forget();
    const told = await ask("/api/about").catch(() => null);
    if (told && JSON.stringify(told) !== loaded) location.reload();
  }
  if (stream.readyState !== EventSource.OPEN) {
    live("reconnecting", "bad");
    banner("No connection to the coordinator: what is shown is what it said last. Trying again.");
  }
}

const live = (text, mood) => chip(byId("chip-live"), text, mood);

function banner(text) {
  const place = byId("banner");
  say(place, text);
  place.hidden = !text;
  place.classList.toggle("bad", Boolean(text));
}

function show() {
  live("live", "good");
  chip(byId("chip-broker"), now.connected ? "broker" : "broker lost", now.connected ? "good" : "bad");
  chip(byId("chip-storage"), now.storage_error ? "database stuck" : "database", now.storage_error ? "bad" : "good");
  chip(byId("chip-policy"), `policy v${now.policy_version}`);
  banner(trouble());
  numbers();
  exits();
  planner();
  devices();
  tables.look(now);
  charts.look(now.at);
  policy.look(now);
}

/** What stands in the way, the worst first. */
function trouble() {
  if (!now.connected) return `The coordinator has no connection to the broker ${about.broker}: start it, or look at its log. Frames and policies wait.`;
  if (now.storage_error) return `Results wait for the database: ${now.storage_error}`;
  const missing = now.holders.flatMap((count, index) => (count ? [] : [index + 1]));
  if (known() && missing.length) {
    return `Nobody holds stage ${missing.join(", ")}: frames that need it fail. Start a device with --stages ${missing.join(",")}.`;
  }
  return "";
}

/** How many devices and sources have told of themselves. */
const known = () => now.roles.device[1] + now.roles.source[1];

/** Few devices as a graph, many as tiles, and all of them in the table. */
function devices() {
  const many = now.tiles.length > 0;
  byId("graph").hidden = many;
  byId("key-flow").hidden = many;
  byId("crowd").hidden = !many;
  if (many) tiles.show(now);
  else graph.show(now);
  tables.devices(now);
}

function numbers() {
  const { device: devices, source: sources } = now.roles;
  say(byId("now-throughput"), number(now.throughput));
  say(byId("now-answered"), `${whole(now.answered)} answered in all`);
  say(byId("now-accuracy"), now.graded ? percent(now.correct / now.graded, 2) : "–");
  say(byId("now-graded"), now.graded ? `of ${plural(now.graded, "graded answer")}` : "no answer has been graded");
  say(byId("now-p50"), number(now.latency_p50_ms));
  say(byId("now-p95"), `95th percentile ${number(now.latency_p95_ms)}${now.latency_p95_ms == null ? "" : " ms"}`);
  say(byId("now-devices"), devices.join(" of "));
  say(byId("now-roles"), `online; ${sources.join(" of ")} ${sources[1] === 1 ? "source" : "sources"}`);
  say(byId("now-failed"), whole(now.failed));
  say(byId("now-doubled"), `${whole(now.duplicates)} answered twice`);
}

/** Shares of the last seconds where there are any, else of all; both in words. */
function exits() {
  const place = byId("exits");
  const all = now.exits.reduce((a, b) => a + b, 0);
  if (!all) {
    place.replaceChildren(make("p", { class: "empty" }, "No frame has been answered yet."));
    return;
  }
  const recent = lately?.exits_lately ?? [];
  const sum = recent.reduce((a, b) => a + b, 0);
  if (place.children.length !== now.exits.length || !place.querySelector(".bar")) {
    place.replaceChildren(...now.exits.map((_, index) => make("div", { class: "exit", "data-exit": index + 1 },
      make("span", {}, `Exit ${index + 1}`), make("span", { class: "bar" }, make("span")), make("b"),
      make("span", { class: "note" }))));
  }
  say(byId("exits-span"), sum ? `bars: last ${lately.lately_s} s` : "bars: all answers");
  now.exits.forEach((count, index) => {
    const row = place.children[index];
    const share = sum ? (recent[index] ?? 0) / sum : count / all;
    const threshold = now.thresholds[index];
    row.dataset.count = count;
    row.dataset.share = share.toFixed(4);
    row.querySelector(".bar span").style.width = `${100 * share}%`;
    say(row.querySelector("b"), percent(share, share < 0.1 ? 1 : 0));
    const rule = threshold == null ? "what is left" : `score ≥ ${Number(threshold.toFixed(3))}`;
    say(row.querySelector(".note"), `${rule} · ${whole(count)} in all (${percent(count / all)}) · `
      + `${percent(about.macs_shares[index], 0)} of the work`);
  });
}

function planner() {
  const place = byId("planner");
  say(byId("planner-strategy"), `strategy ${now.strategy}`);
  const plans = about.planned.includes(now.strategy);
  const doing = plans && now.planner ? `Now ${now.planner}.` : now.decision && !plans ? "The strategy in force does not plan; this was before." : "";
  const last = now.decision ?? (plans ? "No plan yet." : "The strategy in force does not plan.");
  const key = `${last}\n${doing}`;
  if (place.dataset.key === key) return;
  place.dataset.key = key;
  place.replaceChildren(make("p", { class: now.decision ? "decision" : "empty" }, last),
    doing ? make("p", { class: "note" }, doing) : "");
}

begin();
