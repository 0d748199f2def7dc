// Keys, tokens, proofs and grants. See docs/reference/wire-security.md, "Sign" and "Check a token".

import { randomUUID } from "node:crypto";
import { readFileSync, statSync } from "node:fs";
import { CompactSign, compactVerify, importJWK } from "jose";
import { parse } from "smol-toml";
import { BusError, digest, owner } from "./message.mjs";

const LEEWAY = 30; // s
const REPLY_TTL = 300; // s
const now = () => Date.now() / 1000;
const isTime = (value) => typeof value === "number" && value > 0 && value < 2 ** 40;
const refuse = (text, code = "unauthenticated") => { throw new BusError(code, text, { retryable: false }); };
const require = (condition, text) => condition || refuse(text);

function validAt(key, time) {
  return time >= (key.not_before ?? -Infinity) && time < Math.min(key.retired_at ?? Infinity, key.compromised_since ?? Infinity);
}

/** Tell whether `replyTo` is a reply queue of `service`. Only requests may use direct reply-to. */
export function permittedAddress(replyTo, service, direct) {
  if (direct && replyTo.startsWith("amq.rabbitmq.reply-to.")) return true;
  const prefix = `${service}.replies.`;
  return replyTo.startsWith(prefix) && /^[A-Za-z0-9_.-]+$/.test(replyTo.slice(prefix.length));
}

export class Security {
  /** @param {{service: string, key: string, jwks: string, grants: string}} options names of files */
  constructor({ service, key, jwks, grants }) {
    require((statSync(key).mode & 0o077) === 0, `${key}: only its owner may read the file. Run chmod 600.`);
    Object.assign(this, { service, files: { key, jwks, grants } });
    this.read();
  }

  /** Read the keys and the grants. If a file cannot be read, keep the last ones. */
  read() {
    const load = (name, parser) => parser(readFileSync(this.files[name], "utf8"));
    try {
      const all = load("jwks", JSON.parse).keys.filter((one) => one.d === undefined && one.iss && one.kid);
      const own = load("key", JSON.parse);
      [this.public, this.private] = [new Map(all.map((one) => [one.kid, one])), own.keys ?? [own]];
      this.grants = load("grants", parse);
    } catch (error) {
      if (!this.public) throw error;
    }
    this.readAt = now();
  }

  /** Read again after `age` seconds: 60 in general, 10 for an unknown key or a missing right. */
  refresh(age = 60) { if (now() - this.readAt >= age) this.read(); }

  may(service, list, permission) { return this.grants.services?.[service]?.[list]?.includes(permission) ?? false; }
  knows(service) { return service in (this.grants.services ?? {}) || (this.grants.clients ?? []).includes(service); }

  async made(typ, claims) {
    this.refresh();
    const listed = this.private.map((own) => [own, this.public.get(own.kid)])
      .filter(([, listed]) => listed?.iss === this.service && validAt(listed, now()))
      .sort(([, a], [, b]) => (b.not_before ?? 0) - (a.not_before ?? 0));
    require(listed.length, `${this.service}: no key of the key file is valid and in the key set`);
    const [{ alg, kid }] = listed[0];
    return new CompactSign(Buffer.from(JSON.stringify(claims)))
      .setProtectedHeader({ alg, kid, typ }).sign(await importJWK(listed[0][0], alg));
  }

  /** Return the header of a request or an admitted reply. */
  async token(aud, scope = (this.grants.services?.[this.service]?.call ?? []).join(" ")) {
    const iat = Math.floor(now());
    const claims = { iss: this.service, aud, scope, iat, nbf: iat, exp: iat + REPLY_TTL, jti: randomUUID() };
    return { authorization: `Bearer ${await this.made("svc+jwt", claims)}` };
  }

  /** Return the header that proves one message. `question` and `ref` belong to answers. */
  async proof({ messageId, type, replyTo, correlationId, headers }, body, question, ref) {
    const iat = Math.floor(now());
    const exp = question ? iat + REPLY_TTL : headers.expires / 1000;
    const claims = { jti: messageId, type, iss: this.service, iat, exp, cid: headers["correlation-id"] ?? "", dig: digest(body),
      rto: replyTo, enc: headers.encryption, irt: correlationId, aud: question?.appId, ref };
    return { proof: await this.made("msg+jwt", claims) };
  }

  /** Check steps 1 to 10 of "Check a token", and return the claims. */
  async checked(text, typ, role = "service") {
    require(typeof text === "string" && text.length <= 8192, "the message has no token, or one that is too long");
    const parts = text.split(".");
    require(parts.length === 3 && parts.every((part) => Buffer.from(part, "base64url").toString("base64url") === part), "the token is malformed");
    let header;
    try { header = JSON.parse(Buffer.from(parts[0], "base64url")); } catch { refuse("the token's header is malformed"); }
    require(header && Object.keys(header).sort().join() === "alg,kid,typ", "the token's header has other members");
    require(header.typ === typ && ["EdDSA", "ES256"].includes(header.alg), "the token has another typ or alg");
    this.refresh(this.public.has(header.kid) ? 60 : 10);
    const key = this.public.get(header.kid);
    if (!key) throw Object.assign(new BusError("unauthenticated", "the signing key is unknown"), { parks: true });
    require(key.alg === header.alg, "the token has another alg than its key");
    let claims;
    try {
      claims = JSON.parse(Buffer.from((await compactVerify(text, await importJWK(key, key.alg))).payload));
    } catch { refuse("the signature or the claims are invalid"); }
    require(claims.iss === key.iss && (key.role ?? "service") === role, "the key belongs to another service");
    require(isTime(claims.iat) && isTime(claims.exp), "a time of the token is missing");
    require(claims.iat <= now() + LEEWAY && validAt(key, claims.iat), "the key was not valid at the token's time");
    return claims;
  }

  async checkToken({ appId, headers }) {
    const text = headers.authorization;
    require(typeof text === "string" && text.startsWith("Bearer "), "the message has no token");
    const claims = await this.checked(text.slice(7), "svc+jwt");
    require(claims.aud === this.service && typeof claims.jti === "string" && claims.jti, "the token is for another service");
    require(isTime(claims.nbf) && claims.nbf <= now() + LEEWAY && claims.exp + LEEWAY > now() && claims.exp - claims.iat <= 900, "the token has expired");
    require(claims.iss === appId && typeof claims.scope === "string", "the token is another service's");
    return claims;
  }

  async checkProof({ messageId, type, appId, replyTo, headers }, body) {
    const claims = await this.checked(headers.proof, "msg+jwt");
    require(claims.jti === messageId && claims.type === type && claims.iss === appId, "the proof is of another message");
    require(claims.cid === (headers["correlation-id"] ?? "") && claims.dig === digest(body), "the message was changed");
    require(claims.rto === replyTo && claims.enc === headers.encryption, "the message was changed");
    require(claims.exp - claims.iat <= 2678400, "the proof lives too long");
    return claims;
  }

  missing(service, permission) {
    this.refresh(10);
    return Object.assign(new BusError("permission_denied", `${service} has no right to ${permission}`), { parks: true });
  }

  /** Admit a request, or throw. See "A request". */
  async admitRequest(request, { permission }) {
    const { scope, iss } = await this.checkToken(request);
    require(!request.replyTo || permittedAddress(request.replyTo, iss, true), "reply_to is not a reply queue of the sender");
    if (!scope.split(" ").includes(permission) || !this.may(iss, "call", permission)) throw this.missing(iss, permission);
  }

  /** Admit an event or a job, or throw. See "An event or a job". */
  async admitDurable(message, body, { permission, kind }, queue) {
    const claims = await this.checkProof(message, body);
    require(claims.irt === undefined && claims.aud === undefined, "the proof is of an answer");
    const until = message.headers["counter-proof"] ? await this.checkOverride(message, queue) : claims.exp;
    require(Math.round(until * 1000) === message.headers.expires, "expires was changed");
    if (until <= now()) refuse(`${message.type}: the message expired before it was handled. Send it again.`, "deadline_exceeded");
    require(kind !== "event" || claims.iss === owner(message.type), "the event is another service's");
    require(!message.replyTo || permittedAddress(message.replyTo, claims.iss), "reply_to is not a reply queue of the sender");
    if (!this.may(claims.iss, kind === "event" ? "publish" : "call", permission)) throw this.missing(claims.iss, permission);
  }

  /** Check an operator's expiry override, and return its `exp`. */
  async checkOverride({ messageId, headers }, queue) {
    const { jti, prf, queue: of, iat, exp, actor, reason, n } = await this.checked(headers["counter-proof"], "ctr+jwt", "operator");
    require(jti === messageId && prf === digest(headers.proof) && of === queue, "the override is of another message");
    require(exp - iat <= 2678400 && [1, 2, 3].includes(n), "the override is malformed");
    require([actor, reason].every((text) => typeof text === "string" && text.trim()), "the override names no actor or reason");
    return exp;
  }

  /** Check an answer to a call or job, or throw. See "An answer". `sent` has the digests of its tokens. */
  async checkAnswer(answer, body, { type, job, sent }) {
    require(answer.appId === owner(type), "the answer is another service's");
    if (!job && !answer.headers.proof) {
      require((await this.checkToken(answer)).scope === "bus/reply", "the answer's token has another scope");
      return;
    }
    const claims = await this.checkProof(answer, body);
    require(claims.irt === answer.correlationId && claims.aud === this.service && claims.exp + LEEWAY > now(), "the answer is another call's");
    require(claims.ref === undefined || sent.has(claims.ref), "the refusal is of another message");
  }

  /** Tell whether a refusal may be sent to `reply_to`. See "Refuse". */
  mayRefuse({ replyTo, appId }, { permission, kind }) {
    if (!replyTo || !permittedAddress(replyTo, appId, kind === "request") || !this.knows(appId)) return false;
    return appId !== this.service || this.may(appId, "call", permission);
  }
}
