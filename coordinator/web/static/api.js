// Asks the coordinator. The token lives in this module alone: not in a cookie, not in any storage; a reload forgets it.

const PIECE = 4 << 20;
const known = new Map(); // path -> {etag, body}
let token = "";
let skew = 0; // milliseconds the coordinator's clock is ahead of ours

export class Refused extends Error {
  constructor(status, sentence, shown = "") {
    super(sentence);
    this.status = status;
    this.shown = shown; // the token that was shown
  }
}

export function useToken(text) {
  token = text;
  known.clear(); // what the other reader saw is not this one's
}

export const hasToken = () => token !== "";

/** Forget a token that was refused, unless it is another one by now. */
export function dropRefused(error) {
  const mine = error.shown !== "" && error.shown === token;
  if (mine) useToken("");
  return mine;
}

/** Unix seconds by the coordinator's clock. */
export const now = () => (Date.now() + skew) / 1000;

function sentence(status, text) {
  try {
    return String(JSON.parse(text).error);
  } catch {
    return text.slice(0, 300) || `the coordinator answered ${status}`;
  }
}

async function ask(path, options = {}) {
  const headers = { ...options.headers };
  const shown = token;
  if (shown) headers.Authorization = `Bearer ${shown}`;
  const reply = await fetch(`api/v1/${path}`, {
    ...options, headers, cache: "no-store", credentials: "omit", referrerPolicy: "no-referrer", redirect: "error",
  });
  const date = Date.parse(reply.headers.get("Date") ?? "");
  if (Number.isFinite(date) && Math.abs(date - Date.now() - skew) > 2000) skew = date - Date.now();
  if (reply.status >= 400) {
    throw new Refused(reply.status, sentence(reply.status, await reply.text()), shown);
  }
  return reply;
}

/** {body, changed}: the JSON at a path, and whether it is new since it was last asked for. */
export async function get(path) {
  const before = known.get(path);
  const reply = await ask(path, before ? { headers: { "If-None-Match": before.etag } } : {});
  if (reply.status === 304) return { body: before.body, changed: false };
  const body = await reply.json();
  if (known.size > 64) known.clear(); // pages and searches that nobody looks at any more
  known.set(path, { etag: reply.headers.get("ETag"), body });
  return { body, changed: true };
}

export const post = async (path) => (await ask(path, { method: "POST" })).json();

/** A model as a Blob, fetched in pieces; `told(done, all)` after each. */
export async function model(number, told) {
  const pieces = [];
  let done = 0;
  let all = 1;
  while (done < all) {
    const reply = await ask(`versions/${number}/model`, {
      headers: { Range: `bytes=${done}-${done + PIECE - 1}` },
    });
    all = Number(reply.headers.get("Content-Range").split("/")[1]);
    const piece = await reply.blob();
    if (piece.size === 0) throw new Refused(502, "a piece of the model was empty");
    pieces.push(piece);
    done += piece.size;
    told(done, all);
  }
  return new Blob(pieces, { type: "application/octet-stream" });
}
