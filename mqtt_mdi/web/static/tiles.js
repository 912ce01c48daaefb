// Many devices: a tile for each, changed only where something changed, and what they do together.

import { byId, make, MOODS, plural, rate, say, whole } from "./dom.js";

const place = byId("tiles");
let tiles = new Map();
let order = "";

/** `choose` is told the name of a device that was clicked. */
export function begin(choose) {
  place.addEventListener("click", (event) => {
    const name = event.target.closest("[data-device]")?.dataset.device;
    if (name) choose(name);
  });
}

export function show(now) {
  const names = now.tiles.map(([name]) => name).join("\n");
  if (names !== order) lay(now.tiles, names);
  const longest = Math.max(32, now.tiles.reduce((most, tile) => Math.max(most, tile[3], tile[4]), 0));
  for (const told of now.tiles) update(tiles.get(told[0]), told, longest);
  summary(now);
}

/** Put tiles in place, those that are there already as they are. */
function lay(told, names) {
  order = names;
  tiles = new Map(told.map(([name, role]) => [name, tiles.get(name) ?? tile(name, role)]));
  place.replaceChildren(...[...tiles.values()].map((parts) => parts.element));
}

function tile(name, role) {
  const [input, output] = [make("i", { class: "in" }), make("i", { class: "out" })];
  const element = make("li", { class: `tiny ${role}`, "data-device": name }, make("b", {}, name), input, output);
  return { element, input, output, key: "" };
}

function update(parts, [name, , health, queued, leaving], longest) {
  const key = `${health} ${queued} ${leaving} ${longest}`;
  if (parts.key === key) return;
  parts.key = key;
  const { element, input, output } = parts;
  if (element.dataset.health !== health) {
    element.dataset.health = health;
    element.classList.remove("good", "warn", "bad");
    element.classList.add(MOODS[health]);
  }
  const there = health !== "offline";
  input.style.transform = `scaleX(${there ? queued / longest : 0})`;
  output.style.transform = `scaleX(${there ? leaving / longest : 0})`;
  element.title = `${name}: ${health}${there ? `, ${plural(queued, "task")} in, ${whole(leaving)} out` : ""}`;
}

/** What they do together, and the names of some that are in trouble. */
function summary(now) {
  const sum = (at) => now.tiles.reduce((all, tile) => all + tile[at], 0);
  const holders = now.holders.map((count, index) => `${index + 1} on ${whole(count)}`).join(", ");
  say(byId("crowd-sum"), `${whole(sum(3))} tasks queued in, ${whole(sum(4))} out · ${rate(now.bytes_s)} of tasks received · `
    + `stages: ${holders}`);
  const words = ["offline", "silent"].map((health) => [health, now.tiles.filter((tile) => tile[2] === health)])
    .filter(([, some]) => some.length)
    .map(([health, some]) => `${whole(some.length)} ${health}: ${some.slice(0, 6).map(([name]) => name).join(", ")}${some.length > 6 ? ", …" : ""}`);
  say(byId("crowd-trouble"), words.join(" · ") || "All are online.");
  byId("crowd-trouble").classList.toggle("wrong", words.length > 0);
}
