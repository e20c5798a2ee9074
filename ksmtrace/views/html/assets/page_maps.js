// Page maps: each cell a page (or a power of two of them), its states at the moment of the slider.
"use strict";

const DOUBTFUL = 5;
const STATE_COLOURS = ["--state-never", "--state-waiting", "--state-merged", "--state-inherited", "--state-zero", "--state-merged", "--state-broken", "--surface"];

/** How many pages of each cell are in each state, at a moment; moves forth and back by changes. */
class States {
  constructor(data, arrays) {
    this.states = data.states.length;
    this.maps = data.maps;
    const cells = data.maps.reduce((sum, map) => sum + map.cells, 0);
    this.counts = new Int32Array(cells * this.states);
    for (const map of data.maps) {
      for (let cell = 0; cell < map.cells; cell += 1) {
        const pages = Math.min(map.pages_per_cell, map.pages - cell * map.pages_per_cell);
        this.counts[(map.first_cell + cell) * this.states] = pages;
      }
    }
    this.arrays = arrays;
    this.starts = new Uint32Array(data.moments + 1);
    for (let i = 0; i < data.moments; i += 1) this.starts[i + 1] = this.starts[i] + arrays.of_moment[i];
    this.cell = new Uint32Array(arrays.cell_step.length);
    for (let m = 0; m < data.moments; m += 1) {
      for (let i = this.starts[m], at = 0; i < this.starts[m + 1]; i += 1) { at += arrays.cell_step[i]; this.cell[i] = at; }
    }
    this.moment = -1;
  }

  go(moment) {
    const forth = moment > this.moment;
    const from = this.starts[(forth ? this.moment : moment) + 1];
    const to = this.starts[(forth ? moment : this.moment) + 1];
    const { state, pages } = this.arrays;
    for (let i = from; i < to; i += 1) {
      const change = forth ? pages[i] : -pages[i];
      this.counts[this.cell[i] * this.states + state[i]] += change;
      this.counts[this.cell[i] * this.states] -= change;
    }
    this.moment = moment;
  }

  /** Of a cell: pages in each state. */
  of(cell) {
    return this.counts.subarray(cell * this.states, (cell + 1) * this.states);
  }

  /** Of a whole map. */
  sums(map) {
    const sums = new Array(this.states).fill(0);
    for (let cell = 0; cell < map.cells; cell += 1) this.of(map.first_cell + cell).forEach((pages, state) => { sums[state] += pages; });
    return sums;
  }
}

/** The lives of single pages, for what is told of a cell. */
class Singly {
  constructor(arrays) {
    this.arrays = arrays;
    this.place = new Float64Array(arrays.place_step.length);
    this.ofKsmPage = new Map();
    for (let i = 0, at = 0; i < this.place.length; i += 1) {
      at += arrays.place_step[i];
      this.place[i] = at;
      const page = arrays.ksm_page[i];
      if (page < 0) continue;
      if (!this.ofKsmPage.has(page)) this.ofKsmPage.set(page, []);
      this.ofKsmPage.get(page).push(i);
    }
  }

  at(place, moment) {
    let low = 0, high = this.place.length;
    while (low < high) { const middle = (low + high) >> 1; if (this.place[middle] < place) low = middle + 1; else high = middle; }
    let found = -1;
    for (let i = low; i < this.place.length && this.place[i] === place; i += 1) if (this.covers(i, moment)) found = i;
    return found;
  }

  covers(life, moment) {
    return this.arrays.begin[life] <= moment && this.arrays.end[life] > moment;
  }

  sharers(page, moment) {
    return this.ofKsmPage.get(page).filter((life) => this.covers(life, moment)).length;
  }
}

/** One map on a canvas, with what is told of it below. */
class Drawing {
  constructor(view, map) {
    Object.assign(this, { view, map, chosen: -1 });
    const { data } = view;
    const size = words.size(map.pages * data.page_bytes);
    const cell = map.pages_per_cell > 1 ? `; each cell is ${words.count(map.pages_per_cell)} pages, filled by the share in each state` : "";
    this.canvas = make("canvas", { tabindex: "0", role: "img", "aria-label":
      `Page map of ${map.name} of ${map.process}. Arrow keys go from cell to cell; below it is told what is there.`,
      onkeydown: (e) => this.key(e), onmousemove: (e) => this.point(e), onmouseleave: () => this.choose(-1), onblur: () => this.choose(-1) });
    this.counts = make("p", { class: "counts" });
    this.told = make("p", { class: "told", "aria-live": "polite" });
    this.box = make("div", { class: "map", "data-map": `${map.process} ${map.name}` },
      make("h3", {}, make("bdi", {}, map.process), " · ", make("bdi", {}, map.name)),
      make("p", { class: "about" }, `from ${map.start}, ${words.count(map.pages)} pages, ${size}${cell}`),
      this.canvas, make("div", { class: "below" }, this.counts, this.told));
  }

  fit(given = null) {
    const width = Math.max(120, given ?? this.box.clientWidth);
    const { cells } = this.map;
    // Large enough to see, small enough that a map stays below a third of a screen.
    let side = 16;
    while (side > 3 && Math.ceil(cells / Math.floor(width / side)) * side > 280) side -= 1;
    let row = Math.max(1, Math.floor(width / side));
    row = Math.min(cells, row >= 32 ? row - (row % 16) : row);
    this.side = side;
    this.row = row;
    const scale = devicePixelRatio || 1;
    this.canvas.style.width = `${row * side}px`;
    this.canvas.style.height = `${Math.ceil(cells / row) * side}px`;
    this.canvas.width = Math.round(row * side * scale);
    this.canvas.height = Math.round(Math.ceil(cells / row) * side * scale);
    this.scale = scale;
  }

  draw() {
    if (!this.side) this.fit();
    const { map, side, row, scale, view } = this;
    const context = this.canvas.getContext("2d");
    const { colours, states, data } = view;
    context.setTransform(scale, 0, 0, scale, 0, 0);
    context.clearRect(0, 0, row * side, Math.ceil(map.cells / row) * side);
    const gap = side >= 5 ? 1 : 0;
    const inner = side - gap;
    const marked = side >= 12 && map.pages_per_cell === 1;
    context.font = `700 ${side - 5}px ui-monospace, monospace`;
    context.textAlign = "center";
    context.textBaseline = "middle";
    const { counts } = states;
    for (let cell = 0; cell < map.cells; cell += 1) {
      const first = (map.first_cell + cell) * states.states;
      const x = (cell % row) * side, y = Math.floor(cell / row) * side;
      let pages = 0;
      for (let state = 0; state < states.states; state += 1) pages += counts[first + state];
      let top = y;
      for (const state of view.order) {
        const here = counts[first + state];
        if (!here) continue;
        const height = (inner * here) / pages;
        context.fillStyle = colours[state];
        // Not merged is a dot in its place, so that it differs by more than its colour.
        const inset = state === 0 && map.pages_per_cell === 1 && side >= 6 ? Math.floor(inner / 3) : 0;
        context.globalAlpha = state === 0 && !inset ? 0.45 : 1;
        context.fillRect(x + inset, top + inset, inner - 2 * inset, height - 2 * inset);
        context.globalAlpha = 1;
        if (state === DOUBTFUL) this.hatch(context, x, top, inner, height);
        if (state === 7) this.frame(context, x, top, inner, height);
        if (marked && data.states[state].mark) {
          context.fillStyle = view.ink[state];
          context.fillText(data.states[state].mark, x + inner / 2, y + inner / 2 + 0.5);
        }
        top += height;
      }
    }
    if (this.chosen >= 0) {
      context.strokeStyle = view.text;
      context.lineWidth = 2;
      context.strokeRect((this.chosen % row) * side, Math.floor(this.chosen / row) * side, side - 1, side - 1);
    }
    const sums = states.sums(map);
    const told = view.order.filter((state) => sums[state]).map((state) => `${words.count(sums[state])} ${data.states[state].label}`);
    this.counts.textContent = told.join(" · ");
    this.counts.dataset.sums = JSON.stringify(Object.fromEntries(data.states.map((state, i) => [state.name, sums[i]])));
    this.tell();
  }

  hatch(context, x, y, width, height) {
    context.save();
    context.beginPath();
    context.rect(x, y, width, height);
    context.clip();
    context.strokeStyle = this.view.surface;
    context.lineWidth = 1;
    for (let at = -height; at < width; at += 4) {
      context.beginPath();
      context.moveTo(x + at, y + height);
      context.lineTo(x + at + height, y);
      context.stroke();
    }
    context.restore();
  }

  frame(context, x, y, width, height) {
    context.strokeStyle = this.view.quiet;
    context.lineWidth = 1;
    context.strokeRect(x + 0.5, y + 0.5, Math.max(0, width - 1), Math.max(0, height - 1));
  }

  point(event) {
    const box = this.canvas.getBoundingClientRect();
    const column = Math.floor((event.clientX - box.left) / this.side);
    const cell = Math.floor((event.clientY - box.top) / this.side) * this.row + column;
    this.choose(column >= 0 && column < this.row && cell >= 0 && cell < this.map.cells ? cell : -1);
  }

  key(event) {
    const steps = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -this.row, ArrowDown: this.row, Home: -Infinity, End: Infinity };
    if (!(event.key in steps)) return;
    event.preventDefault();
    this.choose(Math.min(this.map.cells - 1, Math.max(0, (this.chosen < 0 && steps[event.key] !== Infinity ? 0 : this.chosen + steps[event.key]))));
  }

  choose(cell) {
    if (cell === this.chosen) return;
    this.chosen = cell;
    this.draw();
  }

  tell() {
    const { map, view, chosen } = this;
    if (chosen < 0) { this.told.textContent = ""; return; }
    const { data, states, singly } = view;
    const per = BigInt(map.pages_per_cell) * BigInt(data.page_bytes);
    const address = (BigInt(`0x${map.start}`) + BigInt(chosen) * per).toString(16);
    const counts = states.of(map.first_cell + chosen);
    if (map.pages_per_cell > 1) {
      const told = view.order.filter((state) => counts[state]).map((state) => `${words.count(counts[state])} ${data.states[state].label}`);
      this.told.textContent = `${address} and what follows: ${told.join(", ")}`;
      return;
    }
    const state = counts.findIndex((pages) => pages > 0);
    let more = "";
    if (singly) {
      const life = singly.at(map.first_place + chosen, states.moment);
      if (life >= 0) {
        const page = singly.arrays.ksm_page[life];
        more = `; ${data.how[singly.arrays.how[life]].replaceAll("_", " ")}`;
        if (page >= 0) more += `; KSM page ${page}, mapped ${words.count(singly.sharers(page, states.moment))} times in these maps`;
      }
    }
    this.told.textContent = `${address}: ${data.states[state].label} (${data.states[state].meaning})${more}`;
  }
}

class PageMaps {
  constructor(holder, data, states, singly) {
    Object.assign(this, { data, states, singly });
    this.order = [2, 3, 4, 5, 1, 6, 7, 0];
    let place = 0;
    for (const map of data.maps) { map.first_place = place; place += map.pages; }
    this.slider = make("input", { type: "range", min: 0, max: data.moments - 1, step: 1, value: data.moments - 1, id: "moment",
      "aria-label": "Moment that the page maps show", oninput: () => this.go(Number(this.slider.value), true) });
    this.output = make("output", { for: "moment" });
    this.playing = null;
    this.player = make("button", { type: "button", onclick: () => this.play() }, "Play");
    const bar = make("div", { class: "timebar no-print" }, make("div", { class: "row" }, this.player, this.slider, this.output));
    const processes = [...new Set(data.maps.map((map) => map.process))];
    this.picked = processes.length > 6 ? processes[0] : "";
    if (processes.length > 1) {
      const select = make("select", { id: "process", onchange: () => { this.picked = select.value; this.pick(); } },
        make("option", { value: "" }, `all that are drawn (${processes.length})`),
        ...processes.map((name) => make("option", { value: name, selected: name === this.picked }, name)));
      bar.append(make("div", { class: "controls" }, make("label", { for: "process" }, "Process"), select));
    }
    this.place = make("div");
    holder.append(bar, this.place);
    this.drawings = data.maps.map((map) => new Drawing(this, map));
    document.addEventListener("themechange", () => { this.paint(); this.draw(); });
    moment.listeners.push((seconds) => this.go(Math.round((seconds / data.duration_s) * (data.moments - 1)), false));
    let width = 0;
    new ResizeObserver(() => {
      if (this.place.clientWidth === width) return;
      width = this.place.clientWidth;
      this.fit();
    }).observe(this.place);
    this.paint();
    this.pick();
    moment.set((data.first_shown / (data.moments - 1)) * data.duration_s);
  }

  paint() {
    this.colours = STATE_COLOURS.map(themeColour);
    this.text = themeColour("--text");
    this.surface = themeColour("--surface");
    this.quiet = themeColour("--line");
    this.muted = themeColour("--muted");
    this.ink = this.colours.map((_, state) => (state === 2 ? "#ffffff" : state === 7 ? this.muted : state === DOUBTFUL ? this.text : "#0b0f14"));
  }

  pick() {
    this.shown = this.drawings.filter(({ map }) => !this.picked || map.process === this.picked);
    this.place.replaceChildren(...this.shown.map(({ box }) => box));
    this.fit();
  }

  fit(width = null) {
    for (const drawing of this.shown) drawing.fit(width);
    this.draw();
  }

  go(number, byHand) {
    number = Math.min(this.data.moments - 1, Math.max(0, number));
    this.states.go(number);
    this.slider.value = number;
    const seconds = (number / (this.data.moments - 1)) * this.data.duration_s;
    this.output.textContent = words.seconds(seconds);
    this.slider.setAttribute("aria-valuetext", words.seconds(seconds));
    if (byHand) moment.set(seconds);
    else this.draw();
  }

  play() {
    if (this.playing) { clearInterval(this.playing); this.playing = null; this.player.textContent = "Play"; return; }
    if (Number(this.slider.value) >= this.data.moments - 1) this.go(0, true);
    this.player.textContent = "Pause";
    this.playing = setInterval(() => {
      const next = Number(this.slider.value) + 5;
      this.go(next, true);
      if (next >= this.data.moments - 1) this.play();
    }, 60);
  }

  draw() {
    for (const drawing of this.shown ?? []) drawing.draw();
  }
}

async function drawPageMaps() {
  const holder = document.getElementById("maps-drawn");
  const data = pageData("maps");
  if (!holder || !data) return null;
  const states = new States(data, await unpackAll(data.changes));
  const singly = data.lives ? new Singly(await unpackAll(data.lives)) : null;
  return new PageMaps(holder, data, states, singly);
}
