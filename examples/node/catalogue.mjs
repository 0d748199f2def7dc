// The contracts of library.py, as `bus contracts show TYPE` prints them.

/** @type {Record<string, import("./client.mjs").Contract>} */
export const contracts = {
  find: { type: "library.find.v1", permission: "library.find", kind: "request", idempotent: true },
  scan: { type: "library.scan.v1", permission: "library.scan", kind: "job", encrypted: true },
  scanned: { type: "library.scanned.v1", permission: "library.scanned", kind: "event" },
  burn: { type: "library.burn.v1", permission: "library.burn", kind: "request" }, // no service serves it
  engrave: { type: "atelier.engrave.v1", permission: "atelier.engrave", kind: "request", encrypted: true },
  bind: { type: "atelier.bind.v1", permission: "atelier.bind", kind: "job", encrypted: true },
  bound: { type: "atelier.bound.v1", permission: "atelier.bound", kind: "event" },
};

/** Return the options of a participant from the environment variables that Python services use, too. */
export const settings = (service, { BUS_URL, BUS_KEY, BUS_JWKS, BUS_GRANTS, BUS_ENCRYPTION_KEYS } = process.env) => ({
  service, url: BUS_URL, key: `${BUS_KEY}/${service}.key`, jwks: BUS_JWKS, grants: BUS_GRANTS, ring: BUS_ENCRYPTION_KEYS,
});
