// Verifies a message proof with a JWT library that is independent of the bus, and creates another.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { SignJWT, createLocalJWKSet, decodeProtectedHeader, importJWK, jwtVerify } from "jose";

const { jwks, proof, token, message, body, now, own } = JSON.parse(readFileSync(0, "utf8"));
const keys = createLocalJWKSet(jwks);
const bytes = Buffer.from(body, "base64");
const currentDate = new Date(now * 1000);

const checked = await jwtVerify(proof, keys, { typ: "msg+jwt", algorithms: ["EdDSA", "ES256"], requiredClaims: ["jti", "type", "iat", "exp", "dig"], currentDate });
const service = await jwtVerify(token, keys, { typ: "svc+jwt", audience: "ledger", issuer: "office", currentDate });
const dig = createHash("sha256").update(bytes).digest("base64url");
const key = jwks.keys.find(({ kid }) => kid === decodeProtectedHeader(proof).kid);

const made = await new SignJWT({ jti: message.id, type: message.type, iss: message.source, cid: message.correlation_id, dig, rto: message.reply_to })
  .setProtectedHeader({ alg: own.alg, kid: own.kid, typ: "msg+jwt" })
  .setIssuedAt(Math.floor(now))
  .setExpirationTime(message.expires / 1000)
  .sign(await importJWK(own, own.alg));

console.log(JSON.stringify({
  bound: checked.payload.dig === dig && checked.payload.jti === message.id && checked.payload.exp * 1000 === message.expires,
  issuer: checked.payload.iss === key.iss,
  scope: service.payload.scope,
  made,
}));
