// Which series share a chart, and which come first.

import { byId, element } from "./dom.js";
import { plural, words } from "./format.js";
import { figure } from "./chart.js";

const MOST_CHARTS = 24;
const SCOPES = { global: "all pairs", intra: "within clients", inter: "between clients" };
const FEATURES = { h: "encoder", z: "projection" };

/** "z_uniformity_inter" -> ["Uniformity", "projection, between clients"] */
function taken(name) {
  const [kind, ...rest] = name.split("_");
  const feature = FEATURES[kind] ?? kind;
  const scope = SCOPES[rest[rest.length - 1]];
  const measure = words((scope ? rest.slice(0, -1) : rest).join("_"));
  const title = measure.charAt(0).toUpperCase() + measure.slice(1);
  return scope ? [`${title}, ${feature}`, scope] : [title, feature];
}

function charts({ training, representation, evaluation }) {
  const found = new Map();
  const add = (title, name, points) => {
    if (points.length === 0) return;
    if (!found.has(title)) found.set(title, []);
    found.get(title).push([name, points]);
  };
  const losses = Object.entries(training).sort(([a], [b]) => b.startsWith("loss") - a.startsWith("loss"));
  for (const [name, points] of losses) if (name.startsWith("loss")) add(`Training: ${words(name)}`, words(name), points);
  for (const [name, points] of Object.entries(representation)) add(...taken(name), points);
  for (const [name, points] of Object.entries(evaluation)) add(`Evaluation: ${words(name)}`, words(name), points);
  for (const [name, points] of losses) if (!name.startsWith("loss")) add(`Training: ${words(name)}`, words(name), points);
  return [...found];
}

export function showCurves(body) {
  const place = byId("charts");
  const all = charts(body);
  const shown = all.slice(0, MOST_CHARTS).map(([title, lines]) => figure(title, lines));
  if (shown.length === 0) {
    shown.push(element("p", { class: "note" }, "No round has been committed yet: there is nothing to draw."));
  }
  const more = all.length - MOST_CHARTS + body.left_out;
  if (all.length > MOST_CHARTS) shown.push(element("p", { class: "note" }, `${plural(more, "further series")} are not drawn.`));
  const open = [...place.querySelectorAll("figure")].filter((each) => each.querySelector("details[open]"))
    .map((each) => each.querySelector("figcaption").textContent);
  place.replaceChildren(...shown);
  for (const each of place.querySelectorAll("figure")) {
    if (open.includes(each.querySelector("figcaption").textContent)) each.querySelector("details").open = true;
  }
}
