// Starts the report: the charts, the page maps, and which section is being read.
"use strict";
{
  const links = new Map([...document.querySelectorAll("nav a")].map((link) => [link.hash.slice(1), link]));
  const seen = new IntersectionObserver((entries) => {
    for (const { target, isIntersecting } of entries) {
      if (!isIntersecting) continue;
      for (const link of links.values()) link.removeAttribute("aria-current");
      links.get(target.id)?.setAttribute("aria-current", "location");
    }
  }, { rootMargin: "-20% 0px -70% 0px" });
  for (const section of document.querySelectorAll("section[id]")) seen.observe(section);

  const PAPER = 660;
  const start = async () => {
    const charts = await drawCharts();
    const maps = await drawPageMaps();
    addEventListener("beforeprint", () => { charts?.fit(PAPER); maps?.fit(PAPER); });
    addEventListener("afterprint", () => { charts?.fit(); maps?.fit(); });
    globalThis.ksmtrace = { charts, maps, moment };
    document.documentElement.dataset.ready = "yes";
  };
  start().catch((error) => {
    const words = "The charts and page maps could not be drawn: this browser may be too old. The tables are whole.";
    document.getElementById("main").prepend(make("div", { class: "note bad" }, words));
    console.error(error);
  });
}
