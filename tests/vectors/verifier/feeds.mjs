// Pages of feeds, and answers with envelopes (section 7.9).

import { documentHash } from "./hash.mjs";
import { checkForm } from "./schema.mjs";

/** Return what a reader at a cursor of a feed makes of a page. */
export function verdictOnPage(feed, cursor, page) {
  checkForm("feed-answer", page);
  const start = page.get("feed") === feed ? cursor : 0;
  if (page.get("cursor") < start) return "misbehaves";
  if (page.get("cursor") > start) return "more";
  return page.get("ids").length ? "misbehaves" : "end";
}

const NOTHING = { given: null, gone: null, left: null };

/** Return which of the ids that were asked for are in an answer; nulls if the node misbehaves. */
export function readAnswer(ids, answer) {
  checkForm("envelopes-answer", answer);
  const gone = answer.get("gone");
  const given = answer.get("envelopes").map((envelope) => documentHash("envelope", envelope));
  const expected = ids.filter((id) => !gone.includes(id));
  const left = expected.slice(given.length);
  const fits =
    gone.every((id) => ids.includes(id)) &&
    given.every((id, at) => id === expected[at]) &&
    left[0] !== ids[0];
  return fits ? { given, gone, left } : NOTHING;
}
