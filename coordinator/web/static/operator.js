// What takes the operator's token: it goes into a header of requests and nowhere else.

import { hasToken, model, post, Refused, useToken } from "./api.js";
import { byId, element, say } from "./dom.js";
import { bytes } from "./format.js";

const trouble = (error) => (error instanceof Refused ? error.message : "the coordinator cannot be reached");

export function showOperator(reader, paused) {
  say("operator-note", reader.operator
    ? "You act as the operator. The token is forgotten when this page is reloaded or closed."
    : reader.token_exists
      ? "Read-only. Whoever shows the operator's token sees names, pauses, resumes and takes models."
      : "Read-only: this coordinator has no token for its HTTP port (coordinator.http_token_file).");
  byId("token-form").hidden = !reader.token_exists;
  byId("forget").hidden = !reader.operator;
  byId("controls").hidden = !reader.operator;
  byId("pause").disabled = paused;
  byId("resume").disabled = false;
  say("versions-note", "The model is not public: it can tell of the images it was trained on."
    + (reader.operator ? " You can take the versions that are kept." : " Taking one needs the operator's token."));
}

/** changed(): the reader is another one now, or the run was told something. */
export function listen(changed) {
  byId("token-form").addEventListener("submit", async (event) => {
    event.preventDefault();
    useToken(byId("token").value.trim());
    byId("token").value = "";
    say("operator-said", "");
    await changed();
    if (hasToken()) say("operator-said", "The token is accepted.");
  });
  byId("forget").addEventListener("click", async () => {
    useToken("");
    say("operator-said", "The token is forgotten.");
    await changed();
    byId("token").focus();
  });
  for (const [id, done] of [["pause", "The run pauses after this round."], ["resume", "The run goes on."]]) {
    byId(id).addEventListener("click", async () => {
      try {
        await post(id);
        say("operator-said", done);
      } catch (error) {
        say("operator-said", trouble(error));
      }
      await changed();
    });
  }
}

export async function take(row) {
  try {
    const blob = await model(row.number, (done, all) =>
      say("download", `Version ${row.number}: ${bytes(done)} of ${bytes(all)}`));
    const address = URL.createObjectURL(blob);
    const link = element("a", { href: address, download: `version-${row.number}.safetensors` });
    link.click();
    setTimeout(() => URL.revokeObjectURL(address), 60000);
    say("download", `Version ${row.number} is in your downloads (${bytes(blob.size)}).`);
  } catch (error) {
    say("download", `Version ${row.number}: ${trouble(error)}`);
  }
}
