// Which series share a chart, and which come first.

import { arrange, byId, element } from "./dom.js";
import { plural, words } from "./format.js";
import { Figure } from "./chart.js";

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

const figures = new Map();
const note = element("p", { class: "note" });

export function showCurves(body) {
  const all = charts(body);
  const shown = all.slice(0, MOST_CHARTS).map(([title, lines]) => {
    if (!figures.has(title)) figures.set(title, new Figure(title));
    figures.get(title).show(lines);
    return figures.get(title).box;
  });
  const more = Math.max(0, all.length - MOST_CHARTS) + body.left_out;
  if (all.length === 0) note.textContent = "No round has been committed yet: there is nothing to draw.";
  else note.textContent = more ? `${plural(more, "further chart")} not drawn.` : "";
  arrange(byId("charts"), note.textContent ? [...shown, note] : shown);
}
