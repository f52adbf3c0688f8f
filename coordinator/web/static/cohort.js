// The cohort as a map: a sign and a colour for each client. With names, each cell tells whose it is.

import { byId, element } from "./dom.js";

export const PARTS = {
  uploaded: ["✓", "uploaded"], trained: ["●", "trained, not uploaded yet"], training: ["◐", "training"],
  invited: ["○", "invited"], away: ["–", "not connected"], failed: ["✕", "failed"],
};
const MOST_CELLS = 2000;

const cell = (part, title) => element("span", { class: `cell part-${part}`, ...(title ? { title } : {}) }, PARTS[part][0]);

function told(counts) {
  const parts = Object.keys(PARTS).filter((part) => counts[part]).map((part) => `${counts[part]} ${PARTS[part][1]}`);
  return parts.length ? `Cohort: ${parts.join(", ")}` : "No round is under way";
}

/** counts: by part; rows: the clients in order, or null without names. */
export function showCohort(counts, rows) {
  byId("legend").replaceChildren(...Object.entries(PARTS).map(([part, [, text]]) =>
    element("li", {}, cell(part), ` ${text}: ${counts[part]}`)));
  const map = byId("map");
  map.setAttribute("aria-label", told(counts));
  const cells = rows
    ? rows.filter((row) => row.part in PARTS).map((row) => cell(row.part, `${row.client}: ${PARTS[row.part][1]}`))
    : Object.keys(PARTS).flatMap((part) => Array.from({ length: Math.min(counts[part], MOST_CELLS) }, () => cell(part)));
  map.replaceChildren(...cells.slice(0, MOST_CELLS));
}
