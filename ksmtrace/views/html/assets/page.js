// What every page's scripts share: its data, its colours, amounts in words, elements.
"use strict";

/** The JSON value that the page was made with under this name, or null. */
function pageData(name) {
  const holder = document.getElementById(`data-${name}`);
  return holder && JSON.parse(holder.textContent);
}

/** A colour variable of page.css as the present theme has it: "rgb(...)", for a canvas. */
function themeColour(variable) {
  const probe = document.createElement("span");
  probe.style.color = `var(${variable})`;
  probe.hidden = true;
  document.body.append(probe);
  const colour = getComputedStyle(probe).color;
  probe.remove();
  return colour;
}

/** A new element. Whatever is not an element goes in as text, never as markup. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) {
      element.setAttribute(name, value === true ? "" : value);
    }
  }
  element.append(...children);
  return element;
}

/** Amounts in words, as everywhere in ksmtrace. An unknown one is a dash, never a zero. */
const words = {
  count: (n) => (n === null || n === undefined ? "–" : Math.round(n).toLocaleString("en-US")),
  size(bytes) {
    if (bytes === null || bytes === undefined) return "–";
    const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
    let unit = 0;
    while (Math.abs(bytes) >= 1024 && unit < units.length - 1) { bytes /= 1024; unit += 1; }
    const digits = unit ? 1 : 0;
    return `${bytes.toLocaleString("en-US", { minimumFractionDigits: digits, maximumFractionDigits: digits })} ${units[unit]}`;
  },
  seconds(s) {
    if (s === null || s === undefined) return "–";
    if (Math.abs(s) < 0.9995) return `${(s * 1000).toFixed(Math.abs(s) < 0.01 ? 1 : 0)} ms`;
    if (Math.abs(s) < 120) return `${s.toFixed(2)} s`;
    const whole = Math.round(s);
    return `${Math.floor(whole / 60)} min ${String(whole % 60).padStart(2, "0")} s`;
  },
};
