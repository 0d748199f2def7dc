// A worker for jobs and a subscriber to events. See docs/reference/wire-client.md, "Handle an event or a job".

import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import { BusError, answering, checkForm, decode, digest, errorBody } from "./message.mjs";
import { declareWorkQueue } from "./topology.mjs";

const LOST = 10; // lost deliveries, from which on a message is dead-lettered

/** Return the properties of a copy: no expiration, no user id, no header of the broker. */
function copied({ expiration, userId, headers, ...own }, changes, dropped = /^x-/) {
  const kept = Object.entries(headers).filter(([name, value]) => !dropped.test(name) && ["string", "number", "boolean"].includes(typeof value));
  return { ...own, deliveryMode: 2, mandatory: true, headers: { ...Object.fromEntries(kept), ...changes } };
}

/**
 * Handle the messages of a job or an event.
 * `done` is the inbox: `get(key)` returns a stored outcome and `set(key, outcome)` stores it. Keep it in your database,
 * since a map forgets everything at a restart. `tiers` are the waits before each next attempt, such as ["1s", "5s"].
 */
export function work(participant, contract, { check, act, tiers = ["1s", "5s", "30s", "10m"], prefetch = 10, done = new Map() }) {
  const { security, service } = participant;
  const isJob = contract.kind === "job";

  const declare = (channel) => declareWorkQueue(channel, service, contract, tiers);

  /** Publish a copy until it is confirmed, for at most a minute. See the last row of "Settle it". */
  async function moved(exchange, queue, body, own) {
    for (const end = Date.now() + 60_000; ;) {
      try { return await participant.confirmed(exchange, queue, body, own); } catch (error) {
        if (Date.now() >= end) throw error;
        await sleep(1000);
        if (error.returned) await declare(participant.durable);
      }
    }
  }

  /** Send a progress update, a result or a failure. */
  async function update(job, type, value, { confirm = true, ref, headers } = {}) {
    if (!isJob || !job.replyTo) return;
    const own = { ...answering(service, type, job, headers), mandatory: confirm };
    const body = await participant.encoded(value, own, ref === undefined ? contract : {});
    Object.assign(own.headers, await security.proof(own, body, job, ref));
    if (confirm) await participant.confirmed("bus.updates", job.replyTo, body, own);
    else participant.send(participant.durable, "bus.updates", job.replyTo, body, own);
  }

  /** Send a result and ack. A submitter that is away gets 30 s, in which a stop does not wait for it. */
  async function result(job, value, ack) {
    try {
      await update(job, `${contract.type}.reply`, value);
    } catch (error) {
      if (!error.returned) throw error; // not confirmed: the job is delivered again, and the inbox has its result
      again(job, value).catch(() => {});
    }
    ack();
  }

  async function again(job, value) {
    for (const end = Date.now() + 30_000; Date.now() < end && !participant.stopped; ) {
      await sleep(1000, null, { ref: false });
      try { return await update(job, `${contract.type}.reply`, value); } catch (error) { if (!error.returned) throw error; }
    }
  }

  async function bury(job, body, queue, error) {
    const content = errorBody(error);
    const attempts = job.headers.attempt ?? 1;
    const own = copied(job, { "first-failed-at": job.headers["first-failed-at"] ?? Date.now(), "dead-code": content.code,
      "dead-error": error.name, "dead-reason": content.message.slice(0, 1000), "dead-attempts": attempts, "dead-at": Date.now(),
      "dead-queue": queue, "dead-by": service, "dead-host": os.hostname() }, /^(x|dead)-/);
    await moved("bus.dead", queue, body, own);
    if (!security.mayRefuse(job, contract)) return;
    await update(job, "bus.error.v1", content, { ref: digest(job.headers.proof ?? ""), headers: { error: content.code } })
      .catch(() => {}); // the dead letter exists; a submitter that is away is not told
  }

  async function retry(job, body, queue, error) {
    const attempt = job.headers.attempt ?? 1;
    const tier = tiers[attempt - 1];
    await moved(`${service}.retry.${tier}`, queue, body,
      copied(job, { attempt: attempt + 1, "first-failed-at": job.headers["first-failed-at"] ?? Date.now() }));
    const note = `attempt ${attempt} of ${tiers.length + 1} failed, the next is in ${tier}: ${errorBody(error).message}`;
    await update(job, `${contract.type}.progress`, { progress: 0, note, error: errorBody(error).code }, { confirm: false }).catch(() => {});
  }

  async function handle(channel, delivery, queue) {
    const { properties: job, content } = delivery;
    let acked = false;
    const ack = () => { if (!acked) channel.ack(delivery); acked = true; };
    const key = JSON.stringify([queue, job.appId, job.messageId]);
    let value;
    try {
      if ((job.headers["x-delivery-count"] ?? 0) >= LOST) throw new BusError("process_lost", `${contract.type}: the message was lost ${LOST} times`, { retryable: false });
      await security.admitDurable(job, content, contract, queue);
      const stored = await done.get(key);
      if (stored) return await result(job, stored.value, ack);
      checkForm(job, contract.type);
    } catch (error) {
      if (error.parks && !job.headers["parked-at"])
        await moved(`${service}.retry.30s`, queue, content, copied(job, { "parked-at": Date.now() }));
      else if (error instanceof BusError) await bury(job, content, queue, error);
      else throw error;
      return ack();
    }
    try {
      const message = check(decode(await participant.plain(job, content, contract), contract.type));
      const progress = (fraction, note) => update(job, `${contract.type}.progress`, { progress: fraction, note, error: null }, { confirm: false }).catch(() => {});
      value = (await act(message, { job, progress, attempt: job.headers.attempt ?? 1 })) ?? null;
    } catch (error) {
      const temporary = error instanceof BusError ? error.retryable : true;
      const last = (job.headers.attempt ?? 1) > tiers.length;
      await (temporary && !last ? retry : bury)(job, content, queue, error);
      return ack();
    }
    await done.set(key, { value });
    return isJob ? result(job, value, ack) : ack();
  }

  return participant.consume(declare, prefetch, handle);
}
