// A server of requests. See docs/reference/wire-client.md, "Serve requests".

import { BusError, answering, checkForm, decode, digest, errorBody } from "./message.mjs";
import { declareRequestQueue } from "./topology.mjs";

const LEEWAY = 30_000; // ms

/** Return the end of a request in milliseconds since the epoch. */
function endOf({ expiration, headers: { deadline } }, arrival) {
  if (expiration === undefined && deadline === undefined) return arrival + 10_000;
  return Math.min(expiration === undefined ? Infinity : arrival + Number(expiration), deadline === undefined ? Infinity : deadline + LEEWAY);
}

/** Run `act`, and fail at `end`. The signal tells `act` to stop. */
async function within(end, type, act) {
  const controller = new AbortController();
  let timer;
  const late = new Promise((_, reject) => {
    timer = setTimeout(() => (controller.abort(), reject(new BusError("deadline_exceeded", `${type}: the handler was too slow`, { maybeExecuted: true }))), end - Date.now());
  });
  try { return await Promise.race([act(controller.signal), late]); } finally { clearTimeout(timer); }
}

/**
 * Serve a request. `check` turns a body into a request or throws a BusError; `act(request, context)` returns the reply.
 * Return a function that stops the server.
 */
export function serve(participant, contract, { check, act, prefetch = 10 }) {
  const { security, service } = participant;

  async function answer(channel, request, own, body) {
    if (!request.replyTo) return;
    const direct = request.replyTo.startsWith("amq.rabbitmq.reply-to.");
    participant.send(channel, direct ? "" : "bus.replies", request.replyTo, body, { ...own, mandatory: true }); // a returned one is ignored: the caller is gone
  }

  async function fail(channel, request, error, refused) {
    const content = errorBody(error);
    const own = answering(service, "bus.error.v1", request, { error: content.code });
    const body = Buffer.from(JSON.stringify(content));
    Object.assign(own.headers, refused
      ? await security.proof(own, body, request, digest(request.headers.authorization ?? ""))
      : await security.token(request.appId, "bus/reply"));
    await answer(channel, request, own, body);
  }

  async function handle(channel, { properties: request, content, fields }, delivery) {
    const end = endOf(request, Date.now());
    let acked = false;
    const ack = () => { if (!acked) channel.ack(delivery); acked = true; };
    try {
      await security.admitRequest(request, contract);
    } catch (error) {
      if (security.mayRefuse(request, contract)) await fail(channel, request, error, true);
      return ack();
    }
    try {
      if (end <= Date.now()) throw new BusError("deadline_exceeded", `${contract.type}: the request expired before it was handled`, { retryable: false });
      checkForm(request, contract.type);
      const value = check(decode(await participant.plain(request, content, contract), contract.type));
      if (!contract.idempotent) {
        ack();
        if (fields.redelivered) throw new BusError("unavailable", `${contract.type}: the request was delivered before`, { maybeExecuted: true });
      }
      const reply = await within(end, contract.type, (signal) => act(value, { request, signal, until: end }));
      const own = answering(service, `${contract.type}.reply`, request);
      const body = await participant.encoded(reply ?? null, own, contract);
      Object.assign(own.headers, await security.token(request.appId, "bus/reply"));
      await answer(channel, request, own, body);
    } catch (error) {
      await fail(channel, request, error, false);
    }
    ack();
  }

  return participant.consume((channel) => declareRequestQueue(channel, service, contract), prefetch, (channel, delivery) => handle(channel, delivery, delivery));
}
