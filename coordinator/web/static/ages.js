// Times that grow older on the page: "5 s ago".

import { now } from "./api.js";
import { element } from "./dom.js";
import { clock, duration } from "./format.js";

export function age(seconds) {
  if (seconds === null || seconds === undefined) return "never, since the coordinator's start";
  const made = element("time", { datetime: new Date(seconds * 1000).toISOString(), title: clock(seconds) });
  made.dataset.at = seconds;
  write(made);
  return made;
}

function write(place) {
  const text = `${duration(now() - Number(place.dataset.at))} ago`;
  if (place.textContent !== text) place.textContent = text;
}

export function refresh() {
  for (const place of document.querySelectorAll("time[data-at]")) write(place);
}
