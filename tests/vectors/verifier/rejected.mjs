// A document that is rejected, with its reason (section 9).

export class Rejected extends Error {
  constructor(reason, detail = "") {
    super(`${reason}: ${detail}`);
    this.reason = reason;
  }
}

/** Throw Rejected unless a condition holds. */
export function require(condition, reason, detail) {
  if (!condition) throw new Rejected(reason, detail);
}

/** Return the reason for which a call rejects, null if it does not. Other errors pass through. */
export function reasonOf(call) {
  try {
    call();
  } catch (error) {
    if (error instanceof Rejected) return error.reason;
    throw error;
  }
  return null;
}
