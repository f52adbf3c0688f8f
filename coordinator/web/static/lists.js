// The page's tables: cohort, rounds, versions, workers, clients.

import { age } from "./ages.js";
import { PARTS } from "./cohort.js";
import { byId, element } from "./dom.js";
import { bytes, duration, words } from "./format.js";
import { PagedTable, Table } from "./table.js";

function drop(found) {
  return found ? element("span", {}, `${words(found.reason)} (round ${found.round}, attempt ${found.attempt}, `, age(found.at), ")") : "";
}

export const cohortTable = (changed) => new PagedTable(byId("cohort-list"), "the cohort", [
  { title: "client", head: true, cell: (row) => row.client },
  { title: "worker", cell: (row) => row.worker || "–" },
  { title: "state", cell: (row) => `${PARTS[row.part]?.[0] ?? ""} ${PARTS[row.part]?.[1] ?? row.part}` },
  { title: "steps", number: true, cell: (row) => (row.steps ? `${row.steps[0]} of ${row.steps[1]}` : "–") },
  { title: "failures", number: true, cell: (row) => row.failures },
  { title: "reason", cell: (row) => words(row.reason) },
], (row) => row.client, changed);

export const workersTable = (changed) => new PagedTable(byId("workers-list"), "workers", [
  { title: "worker", head: true, cell: (row) => row.worker },
  { title: "state", cell: (row) => (row.connected ? "✓ connected" : `✕ gone: ${words(row.left)}`) },
  { title: "last contact", cell: (row) => age(row.last_contact) },
  { title: "clients", number: true, cell: (row) => row.clients },
  { title: "device", cell: (row) => row.device + (row.evaluates ? ", evaluates" : "") },
  { title: "last refused upload", cell: (row) => drop(row.refused) },
], (row) => row.worker, changed);

const SIGNS = { connected: "✓ connected", away: "– not connected", revoked: "✕ revoked" };

export const clientsTable = (changed) => new PagedTable(byId("clients-list"), "clients", [
  { title: "client", head: true, cell: (row) => row.client },
  { title: "state", cell: (row) => SIGNS[row.state] ?? row.state },
  { title: "worker", cell: (row) => row.worker || row.belongs_to || "–" },
  { title: "last contact", cell: (row) => age(row.last_contact) },
  { title: "last round", number: true, cell: (row) => row.last_round || "–" },
  { title: "index", number: true, cell: (row) => row.index ?? "–" },
  { title: "last failure", cell: (row) => drop(row.failure) },
], (row) => row.client, changed,
[["", "all"], ["connected", "connected"], ["away", "not connected"], ["revoked", "revoked"], ["failed", "have failed"]]);

const OUTCOMES = { committed: "✓ committed", abandoned: "✕ abandoned", open: "◐ open", closed: "◐ closing" };

export function roundsTable() {
  const table = new Table("rounds", [
    { title: "round", number: true, head: true, cell: (row) => row.round },
    { title: "attempt", number: true, cell: (row) => row.attempt },
    { title: "outcome", cell: (row) => OUTCOMES[row.outcome] ?? row.outcome },
    { title: "updates", number: true, cell: (row) => `${row.accepted} of ${row.invited}` },
    { title: "opened", cell: (row) => age(row.opened_at) },
    { title: "took", number: true, cell: (row) => (row.seconds === undefined ? "–" : row.seconds < 10 ? `${row.seconds.toFixed(1)} s` : duration(row.seconds)) },
    { title: "up", number: true, cell: (row) => (row.bytes_up === undefined ? "–" : bytes(row.bytes_up)) },
    { title: "down", number: true, cell: (row) => (row.bytes_down === undefined ? "–" : bytes(row.bytes_down)) },
    { title: "why", cell: (row) => row.reason },
  ], (row) => `${row.round}.${row.attempt}`);
  byId("rounds-list").replaceChildren(table.box);
  return table;
}

/** take(version) is called for a click on a download; only an operator sees the buttons. */
export function versionsTable(take) {
  const table = new Table("model versions", [
    { title: "version", number: true, head: true, cell: (row) => row.number },
    { title: "digest", cell: (row) => element("code", { title: row.digest }, row.digest.slice(0, 16)) },
    { title: "committed", cell: (row) => (row.committed_at === null ? "initial" : age(row.committed_at)) },
    { title: "clients", number: true, cell: (row) => row.clients },
    { title: "model", number: true, cell: (row) => bytes(row.bytes) },
    { title: "delta", number: true, cell: (row) => (row.delta_bytes === null ? "–" : bytes(row.delta_bytes)) },
    { title: "take it", cell: (row) => {
      if (!row.kept) return "not kept";
      if (!row.allowed) return "with the token";
      const button = element("button", { type: "button", "aria-label": `Download version ${row.number}` }, "Download");
      button.addEventListener("click", () => take(row));
      return button;
    } },
  ], (row) => row.number);
  byId("versions-list").replaceChildren(table.box);
  return table;
}
