// Messages and errors. See docs/reference/wire-client.md, "Fill in a message".

import { createHash, randomBytes, randomUUID } from "node:crypto";

export const WEEK = 7 * 24 * 3600 * 1000; // ms
const RETRYABLE = new Set(["unavailable", "deadline_exceeded", "aborted", "resource_exhausted", "internal"]);

/** An error with a code of docs/reference/errors.md. */
export class BusError extends Error {
  constructor(code, message, { retryable = RETRYABLE.has(code), maybeExecuted = false } = {}) {
    super(message);
    Object.assign(this, { code, retryable, maybeExecuted });
  }
}

/** Return the SHA-256 of bytes or UTF-8 text in base64url. */
export const digest = (value) => createHash("sha256").update(value).digest("base64url");

export const owner = (type) => type.split(".")[0];
export const correlation = ({ headers, messageId }) => headers["correlation-id"] ?? messageId;

/** Remove headers without a value, and mark every number as an integer of 64 bits. */
export function tabled(headers) {
  const present = Object.entries(headers).filter(([, value]) => value !== undefined && value !== null);
  return Object.fromEntries(present.map(([name, value]) =>
    [name, Number.isInteger(value) ? { "!": "int64", value } : value]));
}

function trace(cause) {
  const id = /^00-([0-9a-f]{32})-/.exec(cause?.headers.traceparent ?? "")?.[1] ?? randomBytes(16).toString("hex");
  return `00-${id}-${randomBytes(8).toString("hex")}-01`;
}

/** Return the properties of a new message; `cause` has those of the message that is being handled. */
export function properties(service, type, own, headers, cause) {
  const messageId = randomUUID();
  return {
    messageId, type, appId: service, contentType: "application/json",
    timestamp: Math.floor(Date.now() / 1000), ...own,
    headers: {
      "correlation-id": cause ? correlation(cause) : messageId,
      "causation-id": cause?.messageId,
      traceparent: trace(cause), tracestate: cause?.headers.tracestate, ...headers,
    },
  };
}

/** Return the properties of an answer to `question`, which keep its trace. */
export function answering(service, type, question, headers = {}) {
  const { traceparent, tracestate } = question.headers;
  return properties(service, type, { deliveryMode: 1, correlationId: question.messageId },
    { traceparent, tracestate, ...headers }, question);
}

/** Return the body and headers of an error reply or a failure. See wire-format.md, "Errors". */
export function errorBody(error) {
  const known = error instanceof BusError;
  return {
    code: known ? error.code : "internal",
    message: known ? error.message : "the service failed. Look for the message id in its log.",
    retryable: known ? error.retryable : true,
    maybe_executed: known ? error.maybeExecuted : true,
  };
}

const TEXTS = ["correlation-id", "causation-id", "traceparent", "tracestate", "error"];
const NUMBERS = ["deadline", "expires", "attempt", "parked-at", "first-failed-at", "replays", "replayed-at"];

/** Refuse a message that wire-format.md, "What a receiver refuses", excludes. */
export function checkForm({ messageId, type, appId, contentType, headers }, served) {
  const refuse = (text) => { throw new BusError("invalid_argument", `${served}: ${text}`); };
  if (!messageId || !type || !appId) refuse("a property is missing");
  if (contentType !== "application/json") refuse("content_type must be application/json");
  if (type !== served) throw new BusError("unimplemented", `${served}: the queue serves another type`);
  for (const name of TEXTS)
    if (headers[name] !== undefined && !(typeof headers[name] === "string" && headers[name].length <= 1024))
      refuse(`header ${name} is malformed`);
  for (const name of NUMBERS)
    if (headers[name] !== undefined && !(Number.isSafeInteger(headers[name]) && headers[name] > 0))
      refuse(`header ${name} is malformed`);
}

/** Decode a body strictly: UTF-8 without a byte order mark, and then JSON. */
export function decode(bytes, type) {
  try {
    return JSON.parse(new TextDecoder("utf-8", { fatal: true, ignoreBOM: true }).decode(bytes));
  } catch {
    throw new BusError("invalid_argument", `${type}: the body is not JSON in UTF-8`);
  }
}
