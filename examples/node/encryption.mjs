// Encrypted bodies. See docs/reference/wire-security.md, "Encrypt".

import { createHash } from "node:crypto";
import { readFileSync } from "node:fs";
import { FlattenedEncrypt, flattenedDecrypt } from "jose";
import { BusError, decode } from "./message.mjs";

const KNOWN = new Set(["alg", "enc", "kid", "typ", "cty"]);

/** Return the SHA-256 of the context that binds a body to its message. */
function context({ messageId, type, appId, correlationId, headers }) {
  const text = JSON.stringify([messageId, type, appId, headers["correlation-id"] ?? "", correlationId ?? null]);
  const ascii = text.replace(/[^\x00-\x7e]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, "0")}`);
  return createHash("sha256").update(ascii).digest();
}

export class KeyRing {
  constructor(file) {
    this.keys = JSON.parse(readFileSync(file, "utf8")).keys.map(({ kid, k }) => ({ kid, key: Buffer.from(k, "base64url") }));
  }

  /** Return the encrypted body. The first key encrypts. The caller sets the header `encryption`. */
  async encrypt(message, body) {
    const [{ kid, key }] = this.keys;
    const jwe = await new FlattenedEncrypt(body).setProtectedHeader({ alg: "A256KW", enc: "A256GCM", kid })
      .setAdditionalAuthenticatedData(context(message)).encrypt(key);
    return Buffer.from(JSON.stringify(jwe));
  }

  async decrypt(message, body) {
    const refuse = () => { throw new BusError("invalid_argument", `${message.type}: the payload cannot be decrypted`); };
    const jwe = decode(body, message.type);
    let header;
    try { header = JSON.parse(Buffer.from(jwe.protected, "base64url")); } catch { refuse(); }
    if (message.headers.encryption !== "jwe" || !header || !Object.keys(header).every((name) => KNOWN.has(name))) refuse();
    if (["unprotected", "recipients"].some((name) => name in jwe)) refuse();
    if (Object.entries(jwe.header ?? {}).some(([name, value]) => name !== "kid" || value !== header.kid)) refuse(); // older versions repeat the kid there
    const found = this.keys.find(({ kid }) => kid === header.kid);
    if (!found) throw new BusError("unavailable", `${message.type}: the key of the payload is missing`);
    const options = { keyManagementAlgorithms: ["A256KW"], contentEncryptionAlgorithms: ["A256GCM"] };
    const { header: _, ...rest } = jwe; // jose refuses a name that is in both headers
    const bound = { ...rest, aad: context(message).toString("base64url") };
    return Buffer.from((await flattenedDecrypt(bound, found.key, options).catch(refuse)).plaintext);
  }
}
