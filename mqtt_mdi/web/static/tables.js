// The tables: health of devices, last answers, dead letters, comings and goings.

import { ago, ask, byId, clock, make, MOODS, number, percent, rate, say, whole } from "./dom.js";

const QUIET_MS = 1200;
const written = new Map();
let due = 0;
let seen = "";
let asking = false;
let pipeline = "";

/** Columns are [title, class]; a row's cells, made only where its key changed, are text or elements. */
function table(id, columns, rows, nothing) {
  if (!written.has(id)) written.set(id, begun(id, columns));
  const { body, lines } = written.get(id);
  const after = rows.map((row) => [row.id, drawn(row, lines.get(row.id), columns)]);
  lines.clear();
  for (const [name, line] of after) lines.set(name, line);
  const elements = rows.length ? after.map(([, line]) => line.element)
    : [make("tr", {}, make("td", { colspan: columns.length, class: "empty" }, nothing))];
  const same = rows.length && elements.length === body.children.length
    && elements.every((element, index) => element === body.children[index]);
  if (!same) body.replaceChildren(...elements);
}

function drawn(row, line, columns) {
  const key = JSON.stringify(row.key);
  if (line?.key === key) return line;
  const cells = row.cells().map((cell, index) => make("td", { class: columns[index][1] }, cell ?? "–"));
  return { key, element: make("tr", { class: row.mood, "data-row": row.id }, ...cells) };
}

function begun(id, columns) {
  const body = make("tbody");
  byId(id).replaceChildren(make("thead", {}, make("tr", {}, ...columns.map(([title, kind]) =>
    make("th", { class: kind, scope: "col" }, title)))), body);
  return { body, lines: new Map() };
}

const code = (text) => make("code", {}, text);

/** Where in a long list of devices the table is; `due` is when to read it anew. */
const page = { first: 0, search: "", found: 0, rows: 0, due: 0, asking: false };

export function begin(about) {
  pipeline = about.pipeline;
  byId("find").addEventListener("input", (event) => turn(0, event.target.value.trim()));
  byId("page-back").addEventListener("click", () => turn(Math.max(0, page.first - page.rows), page.search));
  byId("page-on").addEventListener("click", () => turn(page.first + page.rows, page.search));
}

/** Look for a device by its name. */
export function find(name) {
  byId("find").value = name;
  turn(0, name);
  byId("finder").scrollIntoView({ block: "center" });
}

function turn(first, search) {
  Object.assign(page, { first, search, due: 0 });
}

/** Few devices as the stream tells them, of many one page that is asked for. */
export async function devices(now) {
  const many = now.tiles.length > 0;
  byId("finder").hidden = !many;
  if (!many) {
    health(now.devices, now);
    return;
  }
  if (page.asking || document.hidden || performance.now() < page.due) return;
  page.asking = true;
  const { first, search } = page;
  try {
    const told = await ask(`/api/devices?first=${first}&search=${encodeURIComponent(search)}`);
    if (first !== page.first || search !== page.search) return;
    if (first && !told.devices.length) {
      turn(0, search);
      return;
    }
    Object.assign(page, { found: told.found, rows: told.rows, due: performance.now() + QUIET_MS });
    health(told.devices, now, search ? "No device has this in its name." : undefined);
    const last = first + told.devices.length;
    say(byId("found"), page.found ? `${whole(first + 1)} to ${whole(last)} of ${whole(page.found)}, trouble first` : "none");
    byId("page-back").disabled = first === 0;
    byId("page-on").disabled = last >= page.found;
  } catch {
    page.due = performance.now() + QUIET_MS;
  } finally {
    page.asking = false;
  }
}

function health(list, now, nothing = "Nobody has told of itself on this pipeline yet.") {
  const columns = [["Device", ""], ["Health", ""], ["Role", ""], ["Stages", ""], ["Queued in", "number"],
    ["out", "number"], ["Tasks received", "number"], ["A task takes", "number"], ["Policy", "number"],
    ["Heard", "number"], ["Counted", "wrap"]];
  const rows = list.map((device) => {
    const behind = device.online && device.policy_version < now.policy_version;
    const counted = Object.entries(device.counters).filter(([, count]) => count)
      .map(([name, count]) => `${name.replaceAll("_", " ")} ${count}`).join(", ");
    const told = [device.device, device.health, device.role, device.stages.join(", ") || "none",
      String(device.input_queue), String(device.output_queue), device.bytes_s == null ? "–" : rate(device.bytes_s),
      device.service_s ? `${number(1000 * device.service_s)} ms` : "–",
      `${device.policy_version}${behind ? " (behind)" : ""}`, ago(device.age_s), counted || "–"];
    const cells = () => [make("b", {}, device.device), make("span", { class: `health ${MOODS[device.health]}` }, device.health),
      ...told.slice(2)];
    return { id: device.device, key: told, cells, mood: device.online ? "" : "bad-row" };
  });
  table("devices", columns, rows, nothing);
}

/** The rows of the database, read when something has changed, and now and then. */
export async function look(now) {
  const state = `${now.answered} ${now.failed} ${now.graded} ${JSON.stringify(now.roles)}`;
  const wait = state === seen ? 4 * QUIET_MS : QUIET_MS;
  if (asking || document.hidden || performance.now() < due + wait) return;
  asking = true;
  try {
    const told = await ask("/api/recent");
    seen = state;
    answers(told.answers);
    letters(told.dead_letters);
    changes(told.device_changes);
  } catch {
    seen = "";
  } finally {
    due = performance.now();
    asking = false;
  }
}

function answers(list) {
  const columns = [["At", ""], ["Sensor", ""], ["Frame", ""], ["Answer", ""], ["Truth", ""], ["Score", "number"],
    ["Left at exit", "number"], ["Device", ""], ["Hops", "number"], ["Latency", "number"], ["Policy", "number"]];
  const rows = list.map((row) => {
    const failed = row.status !== "ok";
    const name = failed ? `failed: ${row.reason ?? ""}` : row.class_name ?? String(row.label);
    const graded = row.correct == null ? "" : row.correct ? "right" : "wrong";
    const truth = row.truth_name ?? (row.truth == null ? "not known" : String(row.truth));
    return { id: row.id, key: [graded, truth], mood: failed ? "bad-row" : "", cells: () => [
      clock(row.received_at), row.sensor, code(row.frame_id), make("b", {}, name),
      make("span", { class: graded || "muted" }, graded ? `${graded === "right" ? "✓" : "✗"} ${truth}` : truth),
      failed ? "–" : percent(row.score), row.exit_stage == null ? "–" : String(row.exit_stage), row.device ?? "–",
      String(row.hops), `${number(row.latency_ms)} ms`, String(row.policy_version)] };
  });
  table("answers", columns, rows, "No frame has been answered yet. Send one: mosquitto_pub -t "
    + `mdi/v1/${pipeline}/frames/cam1 -f picture.jpg`);
}

function letters(list) {
  const columns = [["At", ""], ["Reporter", ""], ["Topic and reason", "wrap"], ["First bytes", "wrap"], ["Size", "number"]];
  const rows = list.map((row) => ({ id: row.id, key: row.id, cells: () => [clock(row.at), row.reporter,
    make("span", {}, code(row.topic), make("br"), row.reason), code(row.first_bytes || "none"), `${row.size} B`] }));
  table("letters", columns, rows, "None: everything that came could be understood.");
}

function changes(list) {
  const columns = [["At", ""], ["Device", ""], ["Became", ""], ["Stages", ""]];
  const rows = list.map((row) => ({ id: row.id, key: row.id, cells: () => [clock(row.at), make("b", {}, row.device),
    make("span", { class: `health ${row.online ? "good" : "bad"}` }, row.online ? "online" : "offline"),
    row.stages.join(", ") || "none"] }));
  table("changes", columns, rows, "No device has come or gone yet.");
}
