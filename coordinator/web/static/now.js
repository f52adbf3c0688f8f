// The run at the top of the page: phase, waiting, deadline, progress; and what protects it.

import { now } from "./api.js";
import { byId, element, say } from "./dom.js";
import { clock, duration, number, plural, words } from "./format.js";

const PHASES = {
  waiting: "Waiting for clients", training: "Training", unmasking: "Opening the masked sum", committing: "Committing",
  paused: "Paused", halted: "Halted: the operator must look", drained: "Drained", finished: "Finished",
};
let deadline = null;

function meter(id, label, value, most, sentence) {
  byId(id).max = Math.max(1, most);
  byId(id).value = Math.min(value, Math.max(1, most));
  say(label, sentence);
}

export function showNow({ run, phase, cohort, population, version }) {
  const where = phase.attempt ? `, round ${phase.round} of ${run.rounds}${phase.attempt > 1 ? `, attempt ${phase.attempt}` : ""}` : "";
  const wish = phase.draining ? ", draining" : phase.paused && phase.name !== "paused" ? ", pausing after this round" : "";
  say("phase", `${PHASES[phase.name] ?? words(phase.name)}${where}${wish}`);
  const unnamed = phase.awaited ? `${plural(phase.awaited, "client")} awaited` : "";
  say("waiting", phase.waiting_for || unnamed);
  const goal = phase.goal ?? 0;
  meter("round-progress", "round-label", cohort.uploaded, goal,
    goal ? `Updates of this round: ${cohort.uploaded} of ${goal}` : "No round is under way");
  meter("run-progress", "run-label", version.number, run.rounds, `Rounds committed: ${version.number} of ${run.rounds}`);
  say("population", `${plural(population.workers, "worker")}; ${population.connected} of ${plural(population.registered, "client")} connected`
    + (population.revoked ? `, ${population.revoked} revoked` : ""));
  say("run", `${run.method}, ${run.mode}; run ${run.id}; ${run.build}; up since ${clock(run.started_at)}`);
  document.title = `${PHASES[phase.name] ?? phase.name}${phase.attempt ? ` ${phase.round}/${run.rounds}` : ""} – federation`;
  deadline = phase.deadline_at ?? null;
  tick();
}

/** Called every second; not a live region, or it would never be silent. */
export function tick() {
  if (deadline === null) say("deadline", "");
  else {
    const left = deadline - now();
    say("deadline", left > 0 ? `deadline in ${duration(left)}` : "the deadline has passed");
  }
}

function fact(name, value) {
  return [element("dt", {}, name), element("dd", {}, value)];
}

let shown = "";

export function showProtection(secure, privacy) {
  const both = JSON.stringify([secure, privacy]);
  if (both === shown) return;
  shown = both;
  const facts = [];
  if (secure.level === "off") {
    facts.push(...fact("Secure aggregation", "off: the coordinator sees every update"));
  } else {
    facts.push(...fact("Secure aggregation", `level ${secure.level}: the coordinator sees sums only`));
    facts.push(...fact("Phase", secure.phase ? words(secure.phase) : "no sum is under way"));
    facts.push(...fact("Participants", `${secure.participants} workers, ${secure.uploaded} uploaded`
      + (secure.survivors ? `, ${secure.survivors} in the sum` : "")));
    facts.push(...fact("Awaited", secure.awaited ? `${secure.awaited}${secure.awaited_workers ? `: ${secure.awaited_workers.join(", ")}` : ""}` : "nobody"));
  }
  if (privacy.mechanism === "off") {
    facts.push(...fact("Differential privacy", "off"));
  } else {
    facts.push(...fact("Differential privacy", `${privacy.mechanism}, clip norm ${number(privacy.clip_norm)}, noise multiplier ${number(privacy.noise_multiplier)}`));
    if (privacy.epsilon !== undefined) facts.push(...fact("Epsilon so far", `${number(privacy.epsilon)} at delta ${number(privacy.delta)}`));
    facts.push(...fact("In words", privacy.described));
  }
  byId("protection-facts").replaceChildren(...facts);
}
