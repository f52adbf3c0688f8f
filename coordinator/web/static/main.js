// Asks for the status again and again, and for the rest when the status says that it has changed.

import { refresh } from "./ages.js";
import { dropRefused, get, Refused } from "./api.js";
import { showCohort } from "./cohort.js";
import { showCurves } from "./curves.js";
import { byId, say } from "./dom.js";
import { clientsTable, cohortTable, roundsTable, versionsTable, workersTable } from "./lists.js";
import { showNow, showProtection, tick } from "./now.js";
import { listen, showOperator, take } from "./operator.js";

const SECONDS = 2;
const SECONDS_HIDDEN = 30;
const MOST_MAPPED = 1000;
const LISTS_EVERY = 3; // polls

let asked = 0;
let polls = 0;
let wanted = true; // somebody asked for another page, or is another reader now
let timer = 0;
let running = null;
let last = null; // the newest status
const seen = { curves: "", rounds: "" };

const rounds = roundsTable();
const versions = versionsTable(take);
const cohort = cohortTable(ask);
const workers = workersTable(ask);
const clients = clientsTable(ask);
byId("cohort-details").addEventListener("toggle", ask);

async function people(table, path) {
  table.show((await get(`${path}?${table.query}`)).body);
}

async function showNames(names) {
  if (!names) {
    const why = "Names of workers and clients are shown on the coordinator's own machine, if it has no token file, and with the operator's token.";
    for (const table of [cohort, workers, clients]) table.refuse(why);
    showCohort(last.cohort, null);
    return;
  }
  const { body } = await get(`cohort?limit=${MOST_MAPPED}`);
  showCohort(last.cohort, body.rows);
  polls += 1;
  if (!wanted && polls % LISTS_EVERY) return;
  wanted = false;
  if (byId("cohort-details").open) await people(cohort, "cohort");
  await people(workers, "workers");
  await people(clients, "clients");
}

async function update() {
  const { body, changed } = await get("status");
  last = body;
  if (changed) {
    showNow(body);
    showProtection(body.secure_aggregation, body.privacy);
    showOperator(body.reader, body.phase.paused);
  }
  await showNames(body.reader.names);
  const curves = `${body.run.id} ${body.curves} ${body.reader.operator}`;
  if (seen.curves !== curves) {
    showCurves((await get("curves")).body);
    const listed = (await get("versions")).body.versions;
    versions.show(listed.map((row) => ({ ...row, allowed: body.reader.operator })));
    seen.curves = curves;
  }
  const attempt = `${body.run.id} ${body.phase.name} ${body.phase.round} ${body.phase.attempt} ${body.curves} ${body.reader.names}`;
  if (seen.rounds !== attempt) {
    rounds.show((await get("rounds")).body.rounds);
    seen.rounds = attempt;
  }
  say("trouble", "");
  say("updated", `As of ${new Date().toLocaleTimeString()}`);
}

async function attempt() {
  try {
    await update();
  } catch (error) {
    if (error instanceof Refused && [401, 403].includes(error.status) && error.shown) {
      dropRefused(error);
      say("operator-said", error.message);
      asked += 1;
    } else if (error instanceof Refused) {
      say("trouble", `The coordinator refused: ${error.message}`);
    } else {
      say("trouble", "The coordinator cannot be reached. This page asks again by itself; what it shows is old.");
    }
  }
}

/** Ask for everything now; if a question is under way, once more after it. */
function ask() {
  asked += 1;
  wanted = true;
  return poll();
}

async function poll() {
  if (running) return running;
  running = (async () => {
    clearTimeout(timer);
    for (let begun = -1; begun !== asked;) {
      begun = asked;
      await attempt();
    }
    running = null;
    timer = setTimeout(poll, (document.hidden ? SECONDS_HIDDEN : SECONDS) * 1000);
  })();
  return running;
}

document.addEventListener("visibilitychange", () => { if (!document.hidden) ask(); });
setInterval(() => { tick(); refresh(); }, 1000);
listen(ask);
ask();
