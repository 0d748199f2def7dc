// Decrypts messages of the bus with a JOSE library that is independent of it, hears its refusals,
// and makes an encrypted and signed job.
import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { FlattenedEncrypt, SignJWT, base64url, createLocalJWKSet, flattenedDecrypt, importJWK, jwtVerify } from "jose";

const { now, jwks, ring, own, messages, refusals, job } = JSON.parse(readFileSync(0, "utf8"));
const keys = createLocalJWKSet(jwks);
const key = await importJWK(ring, "A256KW");
const sha256 = (data) => createHash("sha256").update(data);

// JSON.stringify writes no spaces. The ids here are ASCII.
const aad = (message) => sha256(JSON.stringify([message.message_id, message.type, message.app_id, message.headers["correlation-id"] ?? "", message.correlation_id ?? null])).digest();

async function decrypt(message) {
  const jwe = { ...JSON.parse(Buffer.from(message.body, "base64")), aad: base64url.encode(aad(message)) };
  const { plaintext } = await flattenedDecrypt(jwe, key, { keyManagementAlgorithms: ["A256KW"], contentEncryptionAlgorithms: ["A256GCM"] });
  return JSON.parse(new TextDecoder().decode(plaintext));
}

// The code of a refusal that proves to answer `asked`. Null for the refusal of another message.
async function hear(asked, refusal, credential) {
  const { payload } = await jwtVerify(refusal.headers.proof, keys, { typ: "msg+jwt", issuer: "ledger", audience: asked.app_id, requiredClaims: ["jti", "iat", "exp", "dig", "irt", "ref"], currentDate: new Date(now * 1000) });
  const body = Buffer.from(refusal.body, "base64");
  if (payload.irt !== asked.message_id || payload.dig !== sha256(body).digest("base64url")) throw new Error("another message");
  return payload.ref === sha256(credential).digest("base64url") ? JSON.parse(body).code : null;
}

const opened = {};
for (const message of messages) opened[message.type] = await decrypt(message);

const heard = [];
for (const [asked, refusal] of refusals) {
  const credential = asked.headers.authorization ?? asked.headers.proof ?? "";
  heard.push([await hear(asked, refusal, credential), await hear(asked, refusal, `${credential}x`)]);
}

const sealed = await new FlattenedEncrypt(new TextEncoder().encode(JSON.stringify(job.payload)))
  .setProtectedHeader({ kid: ring.kid, cty: "json", enc: "A256GCM", alg: "A256KW" })
  .setAdditionalAuthenticatedData(aad(job))
  .encrypt(key);
const body = JSON.stringify(sealed, null, 1);
const proof = await new SignJWT({ jti: job.message_id, type: job.type, iss: job.app_id, cid: job.headers["correlation-id"], rto: job.reply_to, enc: "jwe", dig: sha256(body).digest("base64url") })
  .setProtectedHeader({ alg: own.alg, kid: own.kid, typ: "msg+jwt" })
  .setIssuedAt(now)
  .setExpirationTime(job.headers.expires / 1000)
  .sign(await importJWK(own, own.alg));

console.log(JSON.stringify({ opened, heard, body, proof }));
