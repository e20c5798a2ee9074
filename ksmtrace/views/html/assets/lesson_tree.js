// A scanner's tree as a drawing: the root on top, contents in order from the left.
"use strict";

const TREE = { box: 30, level: 64, letter: 7.7, margin: 13, least: 0.8, large: 32 };
/** For so many places: how long a label may be, its room within, and between neighbours. */
const CROWDS = [[12, 28, 11, 14], [24, 16, 9, 10], [Infinity, 11, 8, 8]];

/** A new element of a drawing; text goes in as text. */
function draw(tag, attributes, ...children) {
  const element = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
}

/** A tree's places in order of content, with their depth and parent. */
function placesOf(root) {
  const places = [];
  const walk = (node, depth, parent) => {
    if (!node) return null;
    const place = { node, depth, parent, x: 0 };
    place.left = walk(node.left, depth + 1, place);
    places.push(place);
    place.right = walk(node.right, depth + 1, place);
    return place;
  };
  walk(root, 0, null);
  return places;
}

/** A large tree near the way down only: what is more than two places off it is folded away. */
function folded(root, way, own) {
  const all = placesOf(root);
  if (all.length < TREE.large || !all.some(({ node }) => way.includes(node.key))) return root;
  const fold = (node, near) => {
    if (!node) return null;
    const here = way.includes(node.key) || (own !== null && node.pages.includes(own)) ? 2 : near - 1;
    const kept = here > 0;
    return {
      ...node, hidden: node.hidden || (!kept && Boolean(node.left || node.right)),
      left: kept ? fold(node.left, here) : null, right: kept ? fold(node.right, here) : null,
    };
  };
  return fold(root, 2);
}

/** Gives each place its middle: neighbours on a level don't touch, parents stand between children. */
function arrangePlaces(root, gap) {
  const settle = (place) => {
    if (!place) return [];
    const half = place.width / 2;
    const left = settle(place.left);
    const right = settle(place.right);
    let apart = 0;
    for (let i = 0; i < Math.min(left.length, right.length); i += 1) {
      apart = Math.max(apart, left[i][1] - right[i][0] + gap);
    }
    const lone = place.left ? place.left.width / 2 : place.right ? place.right.width / 2 : 0;
    const both = place.left && place.right;
    const aside = both ? apart / 2 : (half + lone) / 2 + 2;
    place.shifts = [-aside, aside];
    const extent = [[-half, half]];
    for (let i = 0; i < Math.max(left.length, right.length); i += 1) {
      const ends = [];
      if (left[i]) ends.push([left[i][0] - aside, left[i][1] - aside]);
      if (right[i]) ends.push([right[i][0] + aside, right[i][1] + aside]);
      extent.push([Math.min(...ends.map((e) => e[0])), Math.max(...ends.map((e) => e[1]))]);
    }
    return extent;
  };
  const extent = settle(root);
  const move = (place, x) => {
    if (!place) return;
    place.x = x;
    move(place.left, x + place.shifts[0]);
    move(place.right, x + place.shifts[1]);
  };
  const least = Math.min(...extent.map((e) => e[0]));
  move(root, TREE.margin - least);
  return Math.max(...extent.map((e) => e[1])) - least + 2 * TREE.margin;
}

/** A label cut in its middle: the end often tells more than what is before it. */
function shortened(label, longest) {
  if (label.length <= longest) return label;
  const end = Math.floor(longest / 2);
  return `${label.slice(0, longest - end - 1)}~${label.slice(-end)}`;
}

function placeWords(node) {
  const words = [node.label];
  if (node.dead) words.push("its page is gone, and ksmd has not noticed yet");
  if (node.pages.length) words.push(`${node.pages.slice(0, 8).join(", ")}${node.pages.length > 8 ? ` and ${node.pages.length - 8} more` : ""}`);
  if (node.hidden) words.push("more places below that are not shown");
  return words.join(": ");
}

/** A tree's drawing, within its own frame. path: keys compared with, in order; own: a page's name. */
function drawTree(tree, path, own) {
  const places = placesOf(tree.root);
  const [, longest, pad, gap] = CROWDS.find(([most]) => places.length <= most);
  for (const place of places) {
    place.mine = own !== null && place.node.pages.includes(own);
    place.label = (place.mine ? "▸ " : "") + shortened(place.node.label, longest);
    place.width = Math.max(40, place.label.length * TREE.letter + 2 * pad);
    place.step = path.indexOf(place.node.key) + 1;
  }
  const root = places.find((place) => place.parent === null);
  const width = arrangePlaces(root, gap);
  const deepest = Math.max(...places.map((place) => place.depth));
  const hidden = places.some((place) => place.node.hidden);
  const height = deepest * TREE.level + TREE.box + 2 * TREE.margin + (hidden ? 14 : 0);
  const lines = draw("g", {});
  const boxes = draw("g", {});
  for (const place of places) {
    const y = TREE.margin + place.depth * TREE.level;
    if (place.parent) {
      const from = TREE.margin + place.parent.depth * TREE.level + TREE.box;
      const bend = (from + y) / 2;
      const along = place.step > 0 && place.parent.step > 0;
      lines.append(draw("path", {
        class: along ? "edge along" : "edge",
        d: `M${place.parent.x} ${from}C${place.parent.x} ${bend} ${place.x} ${bend} ${place.x} ${y}`,
      }));
    }
    boxes.append(drawPlace(place, y));
  }
  const inOrder = places.map((place) => place.node.label).join(", ");
  const drawing = draw("svg", {
    class: "tree", role: "img", width: Math.ceil(width), height, viewBox: `0 0 ${Math.ceil(width)} ${height}`,
    "aria-label": `${tree.words}. In order: ${inOrder}`, style: `max-width:${Math.ceil(width)}px;min-width:${Math.ceil(TREE.least * width)}px`,
  }, lines, boxes);
  const frame = make("div", { class: "scroll tree-frame", tabindex: "0", role: "region", "aria-label": `the ${tree.kind} tree, drawn` }, drawing);
  const seen = places.find((place) => place.mine) ?? places.filter((place) => place.step).pop() ?? root;
  frame.showPlace = () => {
    const scale = frame.scrollWidth / width;
    const both = Math.abs(seen.x - root.x) * scale < frame.clientWidth - 120;
    frame.scrollLeft = (both ? (seen.x + root.x) / 2 : seen.x) * scale - frame.clientWidth / 2;
  };
  return frame;
}

function drawPlace(place, y) {
  const { node, width, x, step, mine } = place;
  const kinds = ["place", node.red ? "red" : "black"];
  if (step) kinds.push("on-way");
  if (mine) kinds.push("mine");
  if (node.dead) kinds.push("dead");
  const group = draw("g", { class: kinds.join(" "), transform: `translate(${x - width / 2} ${y})` });
  group.append(
    draw("title", {}, placeWords(node)),
    draw("rect", { class: "ring", x: -4, y: -4, width: width + 8, height: TREE.box + 8, rx: 12 }),
    draw("rect", { class: "box", width, height: TREE.box, rx: 8 }),
    draw("text", { class: "label", x: width / 2, y: TREE.box / 2 }, place.label),
  );
  if (step) {
    group.append(draw("circle", { class: "step", cx: 1, cy: 1, r: 9 }), draw("text", { class: "step-number", x: 1, y: 1 }, String(step)));
  }
  if (node.hidden) group.append(draw("text", { class: "more", x: width / 2, y: TREE.box + 12 }, "…"));
  return group;
}

/** What the signs of these drawings mean: only those that are seen. */
function treeLegend(trees, path, own) {
  const places = trees.flatMap((tree) => [...placesOf(tree.root).map((place) => place.node), ...tree.listed]);
  const shaped = trees.some((tree) => tree.root && tree.places > 1);
  const keys = [
    [shaped && places.some((node) => node.red), make("i", { class: "sign red" }), "red place"],
    [shaped && places.some((node) => !node.red), make("i", { class: "sign black" }), "black place"],
    [places.some((node) => path.includes(node.key)), make("i", { class: "sign step" }, "1"), "compared on the way down, in order"],
    [own !== null && places.some((node) => node.pages.includes(own)), make("i", { class: "sign mine" }, "▸"), "where the visited page is"],
    [places.some((node) => /×\d+$/.test(node.label)), make("i", { class: "sign" }, "×2"), "so many pages are on it"],
    [places.some((node) => node.dups.length), make("i", { class: "sign" }, "×3+1"), "a chain: a KSM page of three, one of one"],
    [places.some((node) => node.dead), make("i", { class: "sign dead" }, "abc"), "its page is gone"],
    [places.some((node) => node.hidden), make("i", { class: "sign" }, "…"), "more below"],
  ];
  return make("ul", { class: "tree-legend" }, ...keys.filter(([seen]) => seen).map(([, sign, words]) => make("li", {}, sign, words)));
}
