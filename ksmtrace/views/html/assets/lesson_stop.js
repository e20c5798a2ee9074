// One stop of a lesson as elements: its words and question, what was decided and why, what is known.
"use strict";

const LETTERS = "abcdefghi";
const FEW_PAGES = 24;
const MOST_ROWS = 120;
const MANY_CELLS = 700;
const MOST_EVENTS = 12;

/** Text in which backticks enclose code. */
function proseOf(text) {
  const parts = text.replace(/\s+/g, " ").trim().split("`");
  if (parts.length % 2 === 0) return [parts.join("`")];
  return parts.map((part, number) => (number % 2 ? make("code", {}, part) : part));
}

/** Text whose empty lines part paragraphs. */
function paragraphsOf(text, attributes = {}) {
  return text.split(/\n\s*\n/).filter((part) => part.trim()).map((part) => make("p", attributes, ...proseOf(part)));
}

/** The whole stop. before: the stop before it, or null. state: {answer, answered(choice), score()}. */
function showStop(plan, stop, before, state) {
  const shown = make("div", { class: `stop kind-${stop.kind.replace(/ /g, "-")}` });
  const main = [...whereOf(stop), ...wordsOf(plan, stop, state)];
  if (stop.question) main.push(showQuestion(stop.question, state));
  const known = stop.views.map((view, number) => {
    const earlier = before?.views[number];
    return knownOf(plan, view, earlier?.on === view.on ? earlier : null);
  });
  if (stop.kind === "opening") shown.append(stage(main, []));
  else if (stop.views.length > 1) shown.append(...showSeveral(plan, stop, main, known));
  else {
    const [view] = stop.views;
    shown.append(stage([...main, ...visitOf(stop, view)], [showCounters(plan, view), ...eventsOf(view)]));
    shown.append(...known[0].map((part) => make("section", { class: "card" }, part)));
  }
  return shown;
}

/** The card that is read first, with figures beside it. */
function stage(main, side) {
  return make("section", { class: "card stage", "aria-label": "This stop" }, make("div", { class: "main" }, ...main), ...(side.length ? [make("div", { class: "side" }, ...side)] : []));
}

/** Several scanners side by side: what each did and counts, then what each knows. */
function showSeveral(plan, stop, main, known) {
  const beside = (cards) => make("div", { class: "scanners" }, ...cards.map(([view, parts]) => make("section", { class: "card scanner" }, make("h2", { class: "on" }, view.on), ...parts)));
  const parts = [];
  if (main.some((part) => !part.matches(".on-paper"))) parts.push(stage(main, []));
  const shown = plan.shown.filter((name) => stop.views.some((view) => view.counters[name] || view.usual.includes(name)));
  const differ = new Set(shown.filter((name) => new Set(stop.views.filter((view) => name in view.counters).map((view) => view.counters[name])).size > 1));
  parts.push(beside(stop.views.map((view) => {
    const did = [...visitOf(stop, view), ...eventsOf(view)];
    if (!did.length && stop.kind === "visit") did.push(make("p", { class: "muted" }, "No visit of its own here."));
    return [view, [...did, showCounters(plan, view, shown, differ)]];
  })));
  const knowing = stop.views.map((view, number) => [view, known[number]]).filter(([, one]) => one.length);
  if (knowing.length > 1) parts.push(beside(knowing));
  else parts.push(...knowing.flatMap(([, one]) => one.map((part) => make("section", { class: "card" }, part))));
  return parts;
}

/** Where this is, which on a screen the stepper says; and what the step does. */
function whereOf(stop) {
  const parts = [make("p", { class: "where on-paper" }, stop.where)];
  if (stop.does && (stop.kind === "before a step" || stop.kind === "step done")) {
    parts.push(make("p", { class: stop.text.trim() || stop.question ? "where" : "where lead" }, stop.kind === "step done" ? "Done: " : "Next: ", make("code", {}, stop.does)));
  }
  return parts;
}

function wordsOf(plan, stop, state) {
  const parts = [];
  if (stop.kind === "opening") {
    parts.push(...paragraphsOf(plan.about || stop.text, { class: "lead" }));
    if (plan.goal) parts.push(make("p", {}, make("b", {}, "Afterwards you can: "), ...proseOf(plan.goal)));
    parts.push(make("p", { class: "muted" }, `${plan.facts}.`));
    return parts;
  }
  parts.push(...paragraphsOf(stop.text, { class: stop.kind === "visit" ? "words" : "words lead" }));
  if (stop.note) parts.push(make("p", { class: "muted" }, ...proseOf(stop.note)));
  if (stop.kind === "closing") {
    const score = state.score();
    if (score) parts.push(score);
    if (plan.reading.length) parts.push(make("p", { class: "muted" }, `Read on: ${plan.reading.join(", ")}`));
  }
  return parts;
}

/** A question with its answers as buttons; once one is pressed, which was right, and why. */
function showQuestion(question, state) {
  const answered = state.answer !== null;
  const buttons = question.answers.map((answer, number) => {
    const right = answered && number === question.right;
    const wrong = answered && number === state.answer && !right;
    return make("li", {}, make("button", {
      type: "button", class: `answer${right ? " right" : ""}${wrong ? " wrong" : ""}`, "aria-disabled": answered ? "true" : null,
      onclick: () => { if (!answered) state.answered(number); },
    },
    make("span", { class: "letter", "aria-hidden": "true" }, right ? "✓" : wrong ? "✗" : LETTERS[number]),
    make("span", { class: "answer-words" }, ...proseOf(answer)),
    right || wrong ? make("b", { class: "verdict-word" }, right ? (state.answer === number ? "right" : "this is right") : "no") : ""));
  });
  const parts = [make("p", { class: "asks" }, "What will happen?"), make("p", { class: "question-words" }, ...proseOf(question.question)), make("ol", { class: "answers" }, ...buttons)];
  if (answered) parts.push(make("div", { class: "because", tabindex: "-1" }, ...paragraphsOf(question.because)));
  return make("section", { class: "question", "aria-label": "A question" }, ...parts);
}

/** The page looked at, and what was decided about it, in order; the last is what came of it. */
function visitOf(stop, view) {
  if (view.page === null) return [];
  const page = view.pages.find((one) => one.looked_at);
  const facts = page ? [["holds", `“${page.holds}”`], ["checksum kept", page.checksum]] : [];
  if (page && view.pages.some((one) => one.age || one.skips)) facts.push(["age", String(page.age)], ["skips to come", String(page.skips)]);
  const card = make("div", { class: "visit" },
    make("h2", {}, `${view.on.startsWith("uksm") ? "UKSM" : "ksmd"} looks at `, make("bdi", { class: "mono" }, view.page)),
    make("dl", { class: "facts" }, ...facts.map(([name, value]) => make("div", {}, make("dt", {}, name), make("dd", { class: "mono" }, value)))));
  const last = view.decisions.length - 1;
  const steps = view.decisions.map((step, number) => make("li", { class: `${number === last ? "outcome" : ""}${step.merges ? " merges" : ""}` },
    make("div", { class: "decision" }, step.words, step.path.length ? make("span", { class: "compared" }, ` ${step.path.length} compared`) : ""),
    make("p", { class: "rule" }, step.says, " ", make("span", { class: "source" }, step.source))));
  return [card, make("ol", { class: "decisions" }, ...steps)];
}

function eventsOf(view) {
  const parts = [];
  if (view.events.length) {
    parts.push(make("h3", {}, "Events"), make("ul", { class: "events" }, ...view.events.slice(0, MOST_EVENTS).map((event) => make("li", { class: "mono" }, event))));
    const more = view.events.length - MOST_EVENTS + view.events_left_out;
    if (more > 0) parts.push(make("p", { class: "muted" }, `and ${words.count(more)} more`));
  }
  if (view.refused) parts.push(make("div", { class: "note" }, `Refused: ${view.refused}`));
  return parts;
}

/** [name, before, now], or null where a counter stays. */
function changeOf(view, name) {
  return view.changed.find((change) => change[0] === name) ?? null;
}

function valueOf(view, name) {
  const change = changeOf(view, name);
  const now = words.count(view.counters[name]);
  if (!change) return [make("span", { class: "now" }, now)];
  return [make("span", { class: "then" }, words.count(change[1] ?? 0)), make("span", { class: "arrow" }, " → "), make("span", { class: "now" }, words.count(change[2]))];
}

function nameOf(plan, name) {
  return plan.meanings[name] ? make("abbr", { title: plan.meanings[name] }, name) : name;
}

/** Counters in one order at all stops; those that changed here stand out. differ: on other scanners. */
function showCounters(plan, view, shown = plan.shown.filter((name) => name in view.counters), differ = new Set()) {
  const rows = shown.map((name) => make("div", { class: `counter${changeOf(view, name) ? " changed" : ""}${differ.has(name) ? " differs" : ""}`, "data-counter": name },
    make("dt", {}, nameOf(plan, name), differ.has(name) ? make("span", { class: "differ", title: "another number there" }, " ≠") : ""),
    make("dd", {}, ...valueOf(view, name))));
  return make("div", { class: "counting" }, make("h3", {}, "Counters"), make("dl", { class: "counters" }, ...rows));
}

/** What a scanner knows: its trees, figures and pages. */
function knownOf(plan, view, earlier) {
  if (!view.pages.length && !view.trees.length) return [];
  const parts = [showTrees(view, earlier)];
  if (Object.keys(view.figures).length || Object.keys(view.groups).length) parts.push(showFigures(view));
  if (view.pages.length) parts.push(showPages(plan, view));
  return parts;
}

function showTrees(view, earlier) {
  const ways = { stable: [], unstable: [] };
  for (const step of view.decisions) for (const key of step.path) if (ways[step.tree] && !ways[step.tree].includes(key)) ways[step.tree].push(key);
  const trees = [...view.trees];
  for (const kind of ["stable", "unstable"]) if (!trees.some((tree) => tree.kind === kind)) trees.push({ kind, node: 0, words: `${kind} tree: empty`, places: 0, root: null, listed: [] });
  const near = trees.map((tree) => ({ ...tree, root: folded(tree.root, ways[tree.kind] ?? [], view.page) }));
  const drawn = near.map((tree) => {
    const [name, ...rest] = tree.words.split(": ");
    const part = make("div", { class: `a-tree ${tree.kind}` }, make("h3", {}, name[0].toUpperCase() + name.slice(1)), make("p", { class: "muted" }, rest.join(": ")));
    if (tree.root) part.append(drawTree(tree, ways[tree.kind] ?? [], view.page));
    else if (tree.listed.length) part.append(showListed(tree, ways[tree.kind] ?? [], view.page));
    if (part.querySelector("svg")?.getAttribute("width") > 400) part.classList.add("wide");
    const left = leftTree(tree, ways[tree.kind] ?? [], earlier, view.trees.filter((one) => one.kind === tree.kind));
    if (left) part.append(make("p", { class: "muted" }, left));
    return part;
  });
  const way = [...ways.stable, ...ways.unstable];
  const legend = treeLegend(near, way, view.page);
  return make("div", { class: "known" }, make("h2", {}, "Trees"), make("div", { class: "trees" }, ...drawn), ...(legend.children.length ? [legend] : []));
}

/** Words on places that were compared and aren't drawn: taken out since, or deeper than is drawn. */
function leftTree(tree, way, earlier, now) {
  const keysOf = (one) => [...placesOf(one.root).map((place) => place.node), ...one.listed];
  const here = new Set(now.flatMap(keysOf).map((node) => node.key));
  const then = new Map((earlier?.trees ?? []).filter((one) => one.kind === tree.kind && one.node === tree.node).flatMap(keysOf).map((node) => [node.key, node.label]));
  const missing = way.map((key, number) => [key, number + 1]).filter(([key]) => !here.has(key));
  const gone = missing.filter(([key]) => then.has(key));
  const deeper = now.some((one) => keysOf(one).some((node) => node.hidden)) ? missing.length - gone.length : 0;
  const parts = [];
  if (gone.length) parts.push(`Compared, and then taken out of this tree: ${gone.map(([key]) => then.get(key)).join(", ")}.`);
  if (deeper) parts.push(`${words.count(deeper)} more compared further down, where nothing is drawn.`);
  return parts.join(" ");
}

function showListed(tree, way, own) {
  const chips = tree.listed.map((node) => {
    const mine = own !== null && node.pages.includes(own);
    const kinds = ["chip", node.dead ? "dead" : "", mine ? "mine" : "", way.includes(node.key) ? "on-way" : ""].filter(Boolean).join(" ");
    return make("li", { class: kinds, title: placeWords(node) }, `${mine ? "▸ " : ""}${node.label}`);
  });
  const left = (number, where) => (number ? [make("li", { class: "muted" }, `${words.count(number)} ${where}`)] : []);
  const list = make("ol", { class: "chips" }, ...left(tree.left_out_before, "before these …"), ...chips, ...left(tree.left_out_after, "more …"));
  const frame = make("div", { class: "scroll list-frame", tabindex: "0", role: "region", "aria-label": `the ${tree.kind} tree, listed` }, list);
  frame.showPlace = () => {
    const chip = list.querySelector(".mine, .on-way");
    if (chip) frame.scrollTop = chip.offsetTop - frame.clientHeight / 2;
  };
  return frame;
}

function showFigures(view) {
  const parts = [make("h2", {}, "Figures")];
  const figures = Object.entries(view.figures);
  if (figures.length) parts.push(make("dl", { class: "counters" }, ...figures.map(([name, value]) => make("div", { class: "counter" }, make("dt", {}, name), make("dd", {}, value)))));
  for (const [title, rows] of Object.entries(view.groups)) {
    if (!rows.length) continue;
    const heads = Object.keys(rows[0]);
    parts.push(make("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": title }, make("table", {},
      make("caption", {}, title[0].toUpperCase() + title.slice(1)),
      make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col" }, head)))),
      make("tbody", {}, ...rows.map((row) => make("tr", {}, ...heads.map((head) => make("td", {}, row[head] || "–"))))))));
  }
  return make("div", { class: "known" }, ...parts);
}

/** The class and mark of how a page stands. */
function keyOf(plan, page, attributes = {}) {
  const state = plan.states[page.standing];
  return make("span", { ...attributes, class: `key ${state.class}${page.looked_at ? " looked-at" : ""}` }, state.mark);
}

/** All pages: a cell each where they are many, and a table in a frame of its own. */
function showPages(plan, view) {
  const parts = [make("h2", {}, "Pages")];
  if (view.pages.length > FEW_PAGES) parts.push(...pageCells(plan, view));
  const aged = view.pages.some((page) => page.age || page.skips);
  const heads = ["page", "holds", "stands", "checksum kept", ...(aged ? ["age", "skips"] : [])];
  const cursor = view.pages.findIndex((page) => page.looked_at);
  const first = Math.max(0, Math.min(cursor - MOST_ROWS / 2, view.pages.length - MOST_ROWS));
  const listed = view.pages.slice(first, first + MOST_ROWS);
  const rows = listed.map((page) => make("tr", { class: page.looked_at ? "looked-at" : "" },
    make("td", { class: "mono page" }, make("span", { class: "cursor", "aria-hidden": "true" }, page.looked_at ? "▸" : ""), make("bdi", {}, page.page)),
    make("td", {}, page.holds), make("td", { class: "stands" }, keyOf(plan, page, { "aria-hidden": "true" }), make("span", {}, page.stands)), make("td", { class: "mono" }, page.checksum),
    ...(aged ? [make("td", { class: "number" }, page.checksum === "–" && !page.age ? "–" : String(page.age)), make("td", { class: "number" }, page.checksum === "–" && !page.age ? "–" : String(page.skips))] : [])));
  const frame = make("div", { class: "scroll pages", tabindex: "0", role: "region", "aria-label": "pages" }, make("table", {},
    make("thead", {}, make("tr", {}, ...heads.map((head) => make("th", { scope: "col", class: head === "age" || head === "skips" ? "number" : null }, head)))),
    make("tbody", {}, ...rows)));
  frame.showPlace = () => {
    const at = cursor - first;
    if (cursor >= 0) frame.scrollTop = rows[Math.max(0, at - 4)].offsetTop - rows[0].offsetTop;
  };
  parts.push(frame);
  if (view.pages.length > listed.length) parts.push(make("p", { class: "muted" }, `Listed: ${words.count(listed.length)} of these pages, from ${listed[0].page} on.`));
  if (view.pages_left_out) parts.push(make("p", { class: "muted" }, `And ${words.count(view.pages_left_out)} more pages, not shown here.`));
  return make("div", { class: "known" }, ...parts);
}

function pageCells(plan, view) {
  const regions = new Map();
  for (const page of view.pages) {
    const region = page.page.split("[")[0];
    if (!regions.has(region)) regions.set(region, []);
    regions.get(region).push(page);
  }
  const kind = view.pages.length > MANY_CELLS ? "cells tiny" : "cells";
  const parts = [...regions].map(([region, pages]) => make("div", { class: "region" }, make("bdi", { class: "mono" }, region),
    make("div", { class: kind }, ...pages.map((page) => keyOf(plan, page, { title: `${page.page}: ${page.holds}; ${page.stands}` })))));
  const counts = new Map();
  for (const page of view.pages) counts.set(page.standing, (counts.get(page.standing) ?? 0) + 1);
  const legend = Object.entries(plan.states).filter(([name]) => counts.has(name))
    .map(([standing, state]) => make("li", {}, keyOf(plan, { standing }), `${state.words}: ${words.count(counts.get(standing))}`));
  return [make("div", { class: "scroll map-frame", tabindex: "0", role: "region", "aria-label": "pages as cells" }, ...parts), make("ul", { class: "legend" }, ...legend)];
}
