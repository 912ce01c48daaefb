// The tables: health of devices, last answers, dead letters, comings and goings.

import { ago, ask, byId, clock, health, make, number, percent } from "./dom.js";

const QUIET_MS = 1200;
const written = new Map();
let due = 0;
let seen = "";
let asking = false;

/** Columns are [title, class]; a cell is text or an element. */
function table(id, columns, rows, nothing) {
  const key = JSON.stringify(rows.map((row) => row.key));
  if (written.get(id) === key) return;
  written.set(id, key);
  const head = make("thead", {}, make("tr", {}, ...columns.map(([title, kind]) =>
    make("th", { class: kind, scope: "col" }, title))));
  const body = make("tbody", {}, ...rows.map((row) => make("tr", { class: row.mood, "data-row": row.id },
    ...row.cells.map((cell, index) => make("td", { class: columns[index][1] }, cell ?? "–")))));
  if (!rows.length) body.append(make("tr", {}, make("td", { colspan: columns.length, class: "empty" }, nothing)));
  byId(id).replaceChildren(head, body);
}

const code = (text) => make("code", {}, text);

export function devices(now) {
  const columns = [["Device", ""], ["Health", ""], ["Role", ""], ["Stages", ""], ["Queued in", "number"],
    ["out", "number"], ["A task takes", "number"], ["Policy", "number"], ["Heard", "number"], ["Counted", "wrap"]];
  const rows = now.devices.map((device) => {
    const { word, mood } = health(device, now.silence_s);
    const behind = device.online && device.policy_version < now.policy_version;
    const counted = Object.entries(device.counters).filter(([, count]) => count)
      .map(([name, count]) => `${name.replaceAll("_", " ")} ${count}`).join(", ");
    const told = [device.device, word, device.role, device.stages.join(", ") || "none",
      String(device.input_queue), String(device.output_queue),
      device.service_s ? `${number(1000 * device.service_s)} ms` : "–",
      `${device.policy_version}${behind ? " (behind)" : ""}`, ago(device.age_s), counted || "–"];
    const cells = [...told];
    cells[0] = make("b", {}, device.device);
    cells[1] = make("span", { class: `health ${mood}` }, word);
    return { id: device.device, key: told, cells, mood: device.online ? "" : "bad-row" };
  });
  table("devices", columns, rows, "Nobody has told of itself on this pipeline yet.");
}

/** The rows of the database, read when something has changed, and now and then. */
export async function look(now) {
  const state = `${now.answered} ${now.failed} ${now.graded} ${now.devices.map((d) => d.online)}`;
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
    return { id: row.frame_id, key: [row.id, graded, truth], mood: failed ? "bad-row" : "", cells: [
      clock(row.received_at), row.sensor, code(row.frame_id), make("b", {}, name),
      make("span", { class: graded || "muted" }, graded ? `${graded === "right" ? "✓" : "✗"} ${truth}` : truth),
      failed ? "–" : percent(row.score), row.exit_stage == null ? "–" : String(row.exit_stage), row.device ?? "–",
      String(row.hops), `${number(row.latency_ms)} ms`, String(row.policy_version)] };
  });
  table("answers", columns, rows, "No frame has been answered yet. Send one: mosquitto_pub -t "
    + "mdi/v1/PIPELINE/frames/cam1 -f picture.jpg");
}

function letters(list) {
  const columns = [["At", ""], ["Reporter", ""], ["Topic and reason", "wrap"], ["First bytes", "wrap"], ["Size", "number"]];
  const rows = list.map((row) => ({ id: row.id, key: row.id, cells: [clock(row.at), row.reporter,
    make("span", {}, code(row.topic), make("br"), row.reason), code(row.first_bytes || "none"), `${row.size} B`] }));
  table("letters", columns, rows, "None: everything that came could be understood.");
}

function changes(list) {
  const columns = [["At", ""], ["Device", ""], ["Became", ""], ["Stages", ""]];
  const rows = list.map((row) => ({ id: row.id, key: row.id, cells: [clock(row.at), make("b", {}, row.device),
    make("span", { class: `health ${row.online ? "good" : "bad"}` }, row.online ? "online" : "offline"),
    row.stages.join(", ") || "none"] }));
  table("changes", columns, rows, "No device has come or gone yet.");
}
