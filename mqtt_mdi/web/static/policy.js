// The policy: its versions, and an editor that checks what it publishes.

import { Validator } from "./vendor/json-schema/index.js";
import { ask, byId, clock, make, say } from "./dom.js";

const BY_HAND = "policy/set";
const TRIES = 4;
const PAUSE_MS = 200;

let validator = null;
let about = null;
let base = null;
let history = [];
let judged = null;
const own = new Set();
let loading = false;
const patchField = byId("patch");

export async function begin(told) {
  about = told;
  byId("strategy").append(...Object.keys(about.strategies).map((name) => make("option", { value: name }, name)));
  byId("strategy").addEventListener("change", (event) => put("strategy", event.target.value));
  patchField.addEventListener("input", check);
  byId("reset").addEventListener("click", () => startOver(""));
  byId("editor").addEventListener("submit", (event) => {
    event.preventDefault();
    publish();
  });
  for (const left of ["mouseleave", "focusout"]) byId("versions").addEventListener(left, () => setTimeout(versions));
  sliders();
  validator = new Validator(await ask("/api/schema"), "2020-12", false);
}

/** A look at the version in force: read it when it is another than the one shown. */
export async function look(now) {
  if (loading || !validator || document.hidden) return;
  if (base?.version === now.policy_version && settled()) return;
  loading = true;
  try {
    await read();
  } catch (error) {
    verdict(error.message, "bad");
  } finally {
    setTimeout(() => { loading = false; }, 700);
  }
}

/** Whether the history, which comes by way of the database, tells of the version in force. */
const settled = () => history[0]?.version === base.version;

/** Take in what is in force; true when another person changed it since the last time. */
async function read() {
  const told = await ask("/api/policy");
  base = told.policy;
  history = told.history;
  say(byId("policy-version"), `version ${base.version}`);
  say(byId("policy-body"), JSON.stringify(base, null, 2));
  versions();
  byId("fields").disabled = false;
  const byHand = judged != null
    && history.some(({ version, origin }) => version > judged && origin === BY_HAND && !own.has(version));
  judged = history[0]?.version ?? judged;
  if (!patchField.value.trim()) controls(base);
  else if (byHand) verdict(`Version ${base.version} was published meanwhile. Look at it; yours would change that one.`, "warn");
  return byHand;
}

function sliders() {
  byId("thresholds").append(...Array.from({ length: about.stages - 1 }, (_, index) => {
    const range = make("input", { type: "range", min: 0, max: 1, step: 0.01, "aria-label": `Threshold of exit ${index + 1}` });
    const exact = make("input", { type: "number", min: 0, max: 1, step: "any", "aria-label": `Threshold of exit ${index + 1}, exact` });
    range.addEventListener("input", () => { exact.value = range.value; thresholds(); });
    exact.addEventListener("input", () => { range.value = exact.value; thresholds(); });
    return make("label", {}, `Exit ${index + 1}`, range, exact);
  }));
}

const exacts = () => [...byId("thresholds").querySelectorAll("input[type=number]")];
const thresholds = () => put("thresholds", exacts().map((input) => Number(input.value)));

/** Show a policy in the controls. */
function controls(policy) {
  exacts().forEach((input, index) => {
    const value = policy.thresholds?.[index];
    if (value == null || input === document.activeElement) return;
    input.value = Number(value.toFixed(4));
    input.previousElementSibling.value = value;
  });
  if (policy.strategy) byId("strategy").value = policy.strategy;
  say(byId("strategy-about"), about.strategies[byId("strategy").value]);
}

/** Put one field into the patch that is being written. */
function put(name, value) {
  let patch = {};
  try {
    patch = JSON.parse(patchField.value || "{}");
  } catch { /* what is there cannot be read: begin anew */ }
  write({ ...patch, [name]: value });
}

function write(patch) {
  const lines = Object.entries(patch).map(([name, value]) => `  ${JSON.stringify(name)}: ${JSON.stringify(value)}`);
  patchField.value = lines.length ? `{\n${lines.join(",\n")}\n}` : "";
  check();
}

/** The patch as it stands if it may be published, with its faults told. */
function check() {
  const text = patchField.value.trim();
  const { patch, fault } = text ? judge(text) : {};
  patchField.setAttribute("aria-invalid", String(Boolean(fault)));
  byId("publish").disabled = !patch;
  if (!text && base) controls(base);
  else if (patch) controls({ ...base, ...patch });
  verdict(fault ?? (patch ? "Fits the schema. The coordinator has the last word." : ""), fault ? "bad" : "");
  return patch;
}

function judge(text) {
  let patch;
  try {
    patch = JSON.parse(text);
  } catch (error) {
    return { fault: `Not JSON yet: ${error.message}` };
  }
  const { valid, errors } = validator.validate(patch);
  if (!valid) {
    const deepest = errors.reduce((a, b) => (b.instanceLocation.length > a.instanceLocation.length ? b : a));
    return { fault: `${deepest.instanceLocation.replace(/^#\/?/, "").replaceAll("/", ".") || "change"}: ${deepest.error}` };
  }
  if (patch.thresholds && patch.thresholds.length !== about.stages - 1) {
    return { fault: `thresholds: ${patch.thresholds.length} values, this network has ${about.stages - 1} early exits` };
  }
  return Object.keys(patch).length ? { patch } : { fault: "Changes nothing." };
}

async function publish() {
  const patch = check();
  if (!patch) return;
  byId("publish").disabled = true;
  try {
    await send(patch);
  } catch (error) {
    verdict(error.message, "bad");
    byId("publish").disabled = false;
  }
}

/** Publish for the version shown; again for a later one if no person made it (a planner may, twice a second). */
async function send(patch) {
  for (let tried = 0; tried < TRIES; tried += 1) {
    const expected = base.version;
    const reply = await ask("/api/policy", { method: "POST", headers: { "Content-Type": "application/json" },
      body: JSON.stringify({ patch, expected }) });
    if (reply.accepted) {
      own.add(reply.version);
      startOver(`Published as version ${reply.version}.`);
      return;
    }
    verdict(`Rejected: ${reply.reason}`, "bad");
    byId("publish").disabled = false;
    if (reply.version === expected || await anotherPerson()) return;
  }
}

/** Whether a person made the version in force, or nobody knows. */
async function anotherPerson() {
  for (let tried = 0; tried < 2 * TRIES; tried += 1) {
    if (await read()) return true;
    if (settled()) return false;
    await new Promise((resolve) => { setTimeout(resolve, PAUSE_MS); });
  }
  return true;
}

function startOver(words) {
  patchField.value = "";
  check();
  verdict(words, words ? "good" : "");
}

function verdict(text, mood) {
  const place = byId("verdict");
  say(place, text);
  place.className = `verdict ${mood}`;
}

/** The list of versions, but not while somebody is about to choose from it. */
function versions() {
  if (byId("versions").matches(":hover, :focus-within")) return;
  byId("versions").replaceChildren(...history.map((entry) => {
    const back = make("button", { type: "button", class: "small", "aria-label": `Bring back version ${entry.version}` }, "Bring back");
    back.addEventListener("click", () => {
      write(difference(base, entry.policy));
      patchField.focus();
    });
    const names = Object.keys(entry.changed);
    const what = names.length ? names.map((name) => `${name} ${brief(entry.changed[name])}`).join(", ") : entry.version === 1 ? "the first" : "as before";
    return make("li", {}, make("b", {}, `v${entry.version}`), make("span", { class: "what" }, what),
      entry.version === base.version ? make("span", { class: "chip plain" }, "in force") : back,
      make("span", { class: "note" }, `${clock(entry.at)} · ${entry.origin}`));
  }));
}

function brief(value) {
  const text = JSON.stringify(value, (_, part) => (typeof part === "number" ? Number(part.toFixed(4)) : part)) ?? "default";
  return text.length > 140 ? `${text.slice(0, 139)}…` : text;
}

/** The patch that makes one policy the other. */
function difference(from, to) {
  const plain = (value) => value !== null && typeof value === "object" && !Array.isArray(value);
  const patch = {};
  for (const name of new Set([...Object.keys(from), ...Object.keys(to)])) {
    if (name === "version" || JSON.stringify(from[name]) === JSON.stringify(to[name])) continue;
    const both = plain(from[name]) && plain(to[name]);
    patch[name] = both ? difference(from[name], to[name]) : to[name] ?? null;
  }
  return patch;
}
