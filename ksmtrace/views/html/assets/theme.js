// Light, dark, or as the system has it. Runs before anything is drawn, so that nothing flashes.
"use strict";
{
  const order = ["system", "light", "dark"];
  const root = document.documentElement;
  const stored = () => {
    try { return localStorage.getItem("ksmtrace-theme"); } catch { return null; }
  };
  let theme = order.includes(stored()) ? stored() : "system";
  const apply = () => {
    if (theme === "system") delete root.dataset.theme;
    else root.dataset.theme = theme;
    const button = document.getElementById("theme");
    if (button) button.textContent = `Theme: ${theme}`;
    document.dispatchEvent(new Event("themechange"));
  };
  apply();
  document.addEventListener("DOMContentLoaded", () => {
    const button = document.getElementById("theme");
    button.hidden = false;
    button.addEventListener("click", () => {
      theme = order[(order.indexOf(theme) + 1) % order.length];
      try { localStorage.setItem("ksmtrace-theme", theme); } catch { /* it lasts as long as the page */ }
      apply();
    });
    apply();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", apply);
  // What is drawn on a canvas keeps its colours on paper: it is drawn anew in light ones.
  addEventListener("beforeprint", () => { root.dataset.theme = "light"; document.dispatchEvent(new Event("themechange")); });
  addEventListener("afterprint", apply);
}
