// The stepper: where one is in a lesson, what each button and key does, and the score.
"use strict";

/** Stops, read one by one: the first line tells of all, each further line is a stop. */
class Stops {
  constructor(text) {
    this.lines = text.split("\n");
    this.plan = JSON.parse(this.lines.shift());
  }

  get count() { return this.lines.length; }

  /** A stop, from 0; null beyond the ends. Pages that stand alike share a row of the plan. */
  get(number) {
    if (number < 0 || number >= this.count) return null;
    const stop = JSON.parse(this.lines[number]);
    for (const view of stop.views) {
      view.pages = view.pages.map((row, place) => ({ ...this.plan.rows[row], looked_at: place === view.looked_at }));
    }
    return stop;
  }

  /** The next stop that way which is no visit. */
  beyondVisits(number, direction) {
    let at = number + direction;
    while (this.plan.kinds[at] === "v") at += direction;
    return Math.max(0, Math.min(this.count - 1, at));
  }

  /** Where each scan begins: [scan, stop]. */
  scans() {
    const found = [];
    let reached = 0;
    for (let at = 0; at < this.count; at += 1) {
      if (this.plan.scans[at] > reached && this.plan.kinds[at] !== "b") {
        reached = this.plan.scans[at];
        found.push([reached, at]);
      }
    }
    return found;
  }
}

class Stepper {
  constructor(stops) {
    this.stops = stops;
    this.at = 0;
    this.answers = new Map();
    this.right = new Map();
    this.holder = document.getElementById("lesson");
    this.scans = stops.scans();
    this.build();
  }

  build() {
    const button = (id, press, title, ...content) => make("button", { type: "button", id, title, onclick: press }, ...content);
    this.back = button("back", () => this.go(this.at - 1), "one stop back (left, b)", "← Back");
    this.next = button("next", () => this.go(this.at + 1), "on to the next stop (right, space, n)", "Next →");
    this.next.className = "primary";
    this.skip = button("next-step", () => this.go(this.stops.beyondVisits(this.at, 1)), "on to the end of this scan, or the next step (s)", "Next step ⇥");
    this.position = make("output", { id: "position" });
    this.jump = make("select", { id: "scan", onchange: () => this.go(Number(this.jump.value)) },
      make("option", { value: "0" }, "beginning"), ...this.scans.map(([scan, at]) => make("option", { value: String(at) }, `scan ${scan}`)));
    this.slider = make("input", { type: "range", id: "slider", min: "0", max: String(Math.max(0, this.stops.count - 1)), step: "1", value: "0", "aria-label": "stop", oninput: () => this.go(Number(this.slider.value)) });
    this.help = this.helpDialog();
    const help = button("help", () => this.help.showModal(), "all keys (?)", "?");
    help.setAttribute("aria-label", "keys");
    this.bar = make("div", { class: "stepper no-print", role: "toolbar", "aria-label": "Steps" },
      make("div", { class: "row" }, this.back, this.next, this.skip, this.position,
        make("span", { class: "jump", hidden: this.scans.length === 0 }, make("label", { for: "scan" }, "Scan"), this.jump), help),
      make("div", { class: "track" }, this.marks(), this.slider));
    this.said = make("div", { class: "said", role: "status" });
    this.place = make("div", { id: "stop" });
    this.holder.append(this.bar, this.said, this.place, this.help);
  }

  /** Where scans begin and questions are asked, over the slider. */
  marks() {
    const left = (at) => `left:${(100 * at) / Math.max(1, this.stops.count - 1)}%`;
    this.scanMarks = this.scans.map(([scan, at]) => make("span", { class: "scan-mark", style: left(at), "data-stop": String(at), title: `scan ${scan}` }, String(scan)));
    this.dots = new Map(this.stops.plan.asks.map((at) => [at, make("span", { class: "ask-mark", style: left(at), title: "a question" })]));
    const strip = make("div", { class: "marks", "aria-hidden": "true", onclick: ({ target }) => { if (target.dataset.stop) this.go(Number(target.dataset.stop)); } }, ...this.scanMarks, ...this.dots.values());
    new ResizeObserver(() => this.thinMarks()).observe(strip);
    return strip;
  }

  /** Names only so many scans as there is room for. */
  thinMarks() {
    let free = -Infinity;
    for (const mark of this.scanMarks) {
      const named = mark.offsetLeft >= free;
      const word = free === -Infinity ? `scan ${this.scans[0][0]}` : mark.title.slice(5);
      mark.textContent = named ? word : "";
      if (named) free = mark.offsetLeft + 14 + 7 * word.length;
    }
  }

  helpDialog() {
    const rows = [
      [["→", "space", "n"], "the next stop"], [["←", "b", "p"], "the stop before"],
      [["s"], "on to the end of this scan, or the next step"], [["S"], "back to the step before"],
      [["g"], "choose a scan to jump to"], [["Home", "End"], "the first stop, the last"],
      [["1", "2", "…"], "answer a question; so do its letters a, b, …"], [["?"], "this list; Esc leaves it"],
    ];
    const dialog = make("dialog", { class: "keys", "aria-label": "Keys" }, make("h2", {}, "Keys"),
      make("dl", {}, ...rows.map(([keys, meaning]) => make("div", {}, make("dt", {}, ...keys.flatMap((key) => [make("kbd", {}, key), " "])), make("dd", {}, meaning)))),
      make("p", { class: "muted" }, "An address that ends in #stop-12 opens the page at that stop."),
      make("button", { type: "button", class: "primary", onclick: () => dialog.close() }, "Close"));
    return dialog;
  }

  /** Shows a stop; beyond the ends nothing happens. */
  go(number, { keepAddress = false } = {}) {
    if (!Number.isInteger(number) || number < 0 || number >= this.stops.count) return;
    this.at = number;
    this.stop = this.stops.get(number);
    this.show();
    if (!keepAddress) history.replaceState(null, "", `#stop-${number + 1}`);
  }

  show() {
    const { at, stop, stops } = this;
    this.place.replaceChildren(showStop(stops.plan, stop, stops.get(at - 1), {
      answer: this.answers.get(at) ?? null,
      answered: (choice) => this.answer(choice),
      score: () => this.score(),
    }));
    for (const frame of this.place.querySelectorAll(".scroll")) frame.showPlace?.();
    this.position.replaceChildren(make("b", {}, `stop ${words.count(at + 1)} of ${words.count(stops.count)}`), make("span", {}, `: ${stop.where}`));
    this.slider.value = String(at);
    this.slider.setAttribute("aria-valuetext", this.position.textContent);
    this.back.disabled = at === 0;
    this.next.disabled = this.skip.disabled = at === stops.count - 1;
    this.jump.value = String(this.scans.filter(([, begin]) => begin <= at).pop()?.[1] ?? 0);
    this.said.textContent = [this.position.textContent, ...stop.views.flatMap((view) => (view.page === null ? [] : [`${view.page}: ${view.decisions.map((step) => step.words).join("; ")}`]))].join(". ");
  }

  answer(choice) {
    const { at, stop } = this;
    if (!stop.question || this.answers.has(at) || choice >= stop.question.answers.length) return;
    this.answers.set(at, choice);
    const right = choice === stop.question.right;
    this.right.set(at, right);
    this.dots.get(at).classList.add(right ? "right" : "wrong");
    this.show();
    this.place.querySelector(".because")?.focus({ preventScroll: true });
    this.said.textContent = `${right ? "Right" : "No"}. ${stop.question.because}`;
  }

  /** How many questions were answered rightly, and where the others are; null without questions. */
  score() {
    const { asks } = this.stops.plan;
    if (!asks.length) return null;
    const right = asks.filter((at) => this.right.get(at)).length;
    const link = (at) => make("a", { href: `#stop-${at + 1}` }, `stop ${at + 1}`);
    const list = (places) => places.flatMap((at, number) => [number ? ", " : "", link(at)]);
    const wrong = asks.filter((at) => this.right.get(at) === false);
    const open = asks.filter((at) => !this.right.has(at));
    const parts = [make("b", {}, `${right} of ${asks.length} questions answered rightly.`)];
    if (wrong.length) parts.push(" Look again at ", ...list(wrong), ".");
    if (open.length) parts.push(" Not answered: ", ...list(open), ".");
    return make("p", { class: "score" }, ...parts);
  }

  press(event) {
    if (event.ctrlKey || event.altKey || event.metaKey || this.help.open) return;
    const { target, key } = event;
    if (target.closest("select, textarea, input:not([type=range])")) return;
    const onControl = target.closest("button, a, summary, input");
    if ((key === " " || key === "Enter") && onControl) return;
    if (target === this.slider && /^(Arrow|Home|End|Page)/.test(key)) return;
    const frame = target.closest(".scroll");
    if (frame && frame.scrollWidth > frame.clientWidth && /^Arrow/.test(key)) return;
    const act = this.action(key);
    if (act) {
      event.preventDefault();
      act();
    }
  }

  action(key) {
    const question = this.stop.question;
    if (question && !this.answers.has(this.at)) {
      const choice = /^[1-9]$/.test(key) ? Number(key) - 1 : LETTERS.indexOf(key);
      if (choice >= 0 && choice < question.answers.length) return () => this.answer(choice);
    }
    const forth = () => this.go(this.at + 1);
    const back = () => this.go(this.at - 1);
    return {
      ArrowRight: forth, " ": forth, n: forth, ArrowLeft: back, b: back, p: back,
      s: () => this.go(this.stops.beyondVisits(this.at, 1)), S: () => this.go(this.stops.beyondVisits(this.at, -1)),
      g: () => this.jump.focus(), Home: () => this.go(0), End: () => this.go(this.stops.count - 1), "?": () => this.help.showModal(),
    }[key];
  }

  /** The stop that the address names, from 0; null: none. */
  addressed() {
    const found = /^#stop-(\d{1,6})$/.exec(location.hash);
    return found ? Math.min(this.stops.count, Math.max(1, Number(found[1]))) - 1 : null;
  }
}

{
  const inWords = document.getElementById("transcript");
  const start = async () => {
    const text = new TextDecoder().decode(await unpack(pageData("lesson")));
    const stepper = new Stepper(new Stops(text));
    inWords.open = false;
    stepper.go(stepper.addressed() ?? 0, { keepAddress: true });
    addEventListener("hashchange", () => {
      const number = stepper.addressed();
      if (number === null) return;
      stepper.go(number, { keepAddress: true });
      scrollTo({ top: 0 });
    });
    document.addEventListener("keydown", (event) => stepper.press(event));
    let wasOpen = false;
    addEventListener("beforeprint", () => { wasOpen = inWords.open; for (const one of [inWords, ...inWords.querySelectorAll("details")]) one.open = true; });
    addEventListener("afterprint", () => { inWords.open = wasOpen; });
    globalThis.ksmtrace = { stepper };
    document.documentElement.dataset.ready = "yes";
  };
  start().catch((error) => {
    document.getElementById("lesson").replaceChildren(make("div", { class: "note bad" }, "The stepper could not be started: this browser may be too old. The lesson is below in words."));
    inWords.open = true;
    console.error(error);
  });
}
