// Line charts as SVG, each with its figures as a table. Lines differ by dash and by a label, not by colour alone.

import { element, svg } from "./dom.js";
import { number } from "./format.js";
import { Table } from "./table.js";

const WIDTH = 340;
const HEIGHT = 180;
const EDGE = { left: 46, right: 10, top: 10, bottom: 26 };
const MOST_LINES = 4;

/** Round steps for about `wanted` ticks between low and high. */
export function ticks(low, high, wanted) {
  const span = high - low || Math.abs(high) || 1;
  const rough = span / wanted;
  const power = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 5, 10].map((factor) => factor * power).find((each) => each >= rough);
  const found = [];
  for (let at = Math.ceil(low / step) * step; at <= high + step * 1e-9; at += step) found.push(Number(at.toPrecision(12)));
  return found;
}

function extent(values) {
  let low = Infinity;
  let high = -Infinity;
  for (const value of values) {
    if (value < low) low = value;
    if (value > high) high = value;
  }
  if (low === high) return [low - (Math.abs(low) || 1) * 0.05, high + (Math.abs(high) || 1) * 0.05];
  return [low, high];
}

function summary(title, lines) {
  const said = lines.map(([name, points]) => {
    const [first, last] = [points[0], points[points.length - 1]];
    const values = points.map((point) => point[1]);
    const [low, high] = [Math.min(...values), Math.max(...values)];
    return `${name}: ${number(first[1])} at version ${first[0]}, ${number(last[1])} at version ${last[0]}, `
      + `lowest ${number(low)}, highest ${number(high)}`;
  });
  return `${title}, line chart over model versions. ${said.join(". ")}.`;
}

function drawing(title, lines) {
  const [x0, x1] = extent(lines.flatMap(([, points]) => points.map((point) => point[0])));
  const [y0, y1] = extent(lines.flatMap(([, points]) => points.map((point) => point[1])));
  const across = (x) => EDGE.left + ((x - x0) / (x1 - x0)) * (WIDTH - EDGE.left - EDGE.right);
  const up = (y) => HEIGHT - EDGE.bottom - ((y - y0) / (y1 - y0)) * (HEIGHT - EDGE.top - EDGE.bottom);
  const picture = svg("svg", { viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: "img", "aria-label": summary(title, lines) });
  for (const y of ticks(y0, y1, 4)) {
    picture.append(
      svg("line", { class: "grid", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: up(y), y2: up(y) }),
      svg("text", { x: EDGE.left - 4, y: up(y) + 4, "text-anchor": "end" }, number(y)));
  }
  for (const x of ticks(x0, x1, 5).filter(Number.isInteger)) {
    picture.append(svg("text", { x: across(x), y: HEIGHT - 8, "text-anchor": "middle" }, number(x)));
  }
  picture.append(svg("line", { class: "axis", x1: EDGE.left, x2: WIDTH - EDGE.right, y1: HEIGHT - EDGE.bottom, y2: HEIGHT - EDGE.bottom }));
  lines.forEach(([, points], at) => {
    const path = points.map(([x, y], index) => `${index ? "L" : "M"}${across(x).toFixed(1)} ${up(y).toFixed(1)}`).join("");
    picture.append(svg("path", { class: `series series-${at}`, d: path }));
    const [x, y] = points[points.length - 1];
    picture.append(svg("circle", { class: `dot-${at}`, cx: across(x), cy: up(y), r: 3 }));
  });
  return picture;
}

/** A figure that is drawn anew with every version, while its table stays as the reader left it. */
export class Figure {
  constructor(title) {
    this.title = title;
    this.lines = [];
    this.picture = element("div");
    this.table = null;
    this.details = element("details", {}, element("summary", {}, "Figures as a table"));
    this.details.addEventListener("toggle", () => this.fill());
    this.box = element("figure", {}, element("figcaption", {}, title), this.picture, this.details);
  }

  /** lines: [[name, [[version, value], ...]], ...], none empty; the first four are drawn. */
  show(lines) {
    this.lines = lines.slice(0, MOST_LINES);
    const named = this.lines.length > 1 ? [key(this.lines)] : [];
    this.picture.replaceChildren(drawing(this.title, this.lines), ...named);
    this.fill();
  }

  /** The table is made when somebody opens it. */
  fill() {
    if (!this.details.open) return;
    const names = JSON.stringify(this.lines.map(([name]) => name));
    if (this.table?.names !== names) {
      this.table?.box.remove();
      this.table = figures(this.title, this.lines);
      this.table.names = names;
      this.details.append(this.table.box);
    }
    const rows = new Map();
    this.lines.forEach(([, points], at) => points.forEach(([x, y]) => {
      if (!rows.has(x)) rows.set(x, [x, ...this.lines.map(() => null)]);
      rows.get(x)[at + 1] = y;
    }));
    this.table.show([...rows.values()].sort((a, b) => b[0] - a[0]));
  }
}

function key(lines) {
  return element("ul", { class: "legend" }, ...lines.map(([name], at) => {
    const sample = svg("svg", { viewBox: "0 0 28 8", width: 28, height: 8, "aria-hidden": "true", class: "sample" });
    sample.append(svg("line", { class: `series series-${at}`, x1: 0, x2: 28, y1: 4, y2: 4 }));
    return element("li", {}, sample, " ", name);
  }));
}

const figures = (title, lines) => new Table(title, [
  { title: "version", cell: (row) => row[0], number: true, head: true },
  ...lines.map(([name], at) => ({
    title: name, number: true, cell: (row) => (row[at + 1] === null ? "–" : number(row[at + 1])),
  })),
], (row) => row[0]);
