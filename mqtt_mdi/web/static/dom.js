// Elements and words. Everything that comes from outside is put in as text, never as HTML.

export const byId = (id) => document.getElementById(id);

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value != null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child != null));
  return element;
}

export const make = (tag, attributes = {}, ...children) =>
  fill(document.createElement(tag), attributes, children);

export const draw = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS(SVG, tag), attributes, children);

/** Write text only where it changed, so that selections and screen readers are left in peace. */
export function say(element, text) {
  const words = text ?? "";
  if (element.textContent !== words) element.textContent = words;
}

export function chip(element, text, mood) {
  say(element, text);
  element.classList.remove("good", "warn", "bad");
  if (mood) element.classList.add(mood);
}

const LOCALE = "en-GB";

export const whole = (value) => (value == null ? "–" : Math.round(value).toLocaleString(LOCALE));

/** About three digits: 0.42, 7.31, 42.5, 1,377. */
export function number(value) {
  if (value == null) return "–";
  const digits = Math.abs(value) >= 100 ? 0 : Math.abs(value) >= 10 ? 1 : 2;
  return value.toLocaleString(LOCALE, { minimumFractionDigits: digits, maximumFractionDigits: digits });
}

export const percent = (share, digits = 1) => (share == null ? "–" : `${(100 * share).toFixed(digits)}%`);

export function rate(bytes) {
  for (const [unit, size] of [["GB", 1e9], ["MB", 1e6], ["kB", 1e3]]) {
    if (bytes >= size) return `${(bytes / size).toFixed(bytes >= 100 * size ? 0 : 1)} ${unit}/s`;
  }
  return `${Math.round(bytes)} B/s`;
}

export function ago(seconds) {
  if (seconds < 1.5) return "now";
  if (seconds < 100) return `${Math.round(seconds)} s ago`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} min ago`;
  if (seconds < 129600) return `${Math.round(seconds / 3600)} h ago`;
  return `${Math.round(seconds / 86400)} days ago`;
}

export function clock(seconds) {
  const at = new Date(seconds * 1000);
  const time = at.toLocaleTimeString(LOCALE);
  return at.toDateString() === new Date().toDateString() ? time : `${at.toLocaleDateString(LOCALE)} ${time}`;
}

export const plural = (count, one, many = `${one}s`) => `${whole(count)} ${count === 1 ? one : many}`;

/** The class of each health. */
export const MOODS = { online: "good", silent: "warn", offline: "bad" };

/** JSON from our own server; an Error with the server's words for anything else. */
export async function ask(path, options = {}) {
  const response = await fetch(path, { cache: "no-store", ...options });
  const told = await response.json().catch(() => ({}));
  if (!response.ok && !("accepted" in told)) throw new Error(told.error ?? `${path}: HTTP ${response.status}`);
  return told;
}
