// Requests, events and jobs. See docs/reference/wire-client.md, from "Send a request" to "Submit a job".

import { setTimeout as sleep } from "node:timers/promises";
import { BusError, WEEK, decode, digest, owner, properties } from "./message.mjs";

/** @typedef {{type: string, permission: string, kind: "request"|"job"|"event", encrypted?: boolean, idempotent?: boolean}} Contract */

export class Client {
  waiting = new Map(); // message id to a call or job that has not ended

  /** @param {import("./participant.mjs").Participant} participant */
  constructor(participant) {
    this.participant = participant;
    participant.answers = (delivery) => this.take(delivery);
    participant.returnedRequest = (id) => this.waiting.get(id)?.reject(new BusError("unavailable", `${this.waiting.get(id).type}: no service serves this type`));
    participant.lost.push(() => {
      for (const { reject, type } of this.waiting.values())
        reject(new BusError("unavailable", `${type}: the connection was lost`, { maybeExecuted: true }));
    });
  }

  /** Take an answer: check it first, and drop it if it proves nothing. */
  async take({ properties: answer, content }) {
    const call = this.waiting.get(answer.correlationId);
    if (!call) return;
    const { contract, type, job } = call;
    try {
      await this.participant.security.checkAnswer(answer, content, call);
    } catch (error) {
      call.dropped = error.message; // any client of the broker can send one, so it must not end the call
      return;
    }
    try {
      if (answer.type === "bus.error.v1") {
        const { code, message, retryable, maybe_executed: maybeExecuted = false } = decode(content, type);
        if (typeof code !== "string" || typeof message !== "string") throw new BusError("invalid_argument", `${type}: the error is malformed`);
        call.reject(new BusError(code, message, { retryable, maybeExecuted }));
      } else if (answer.type === `${type}.reply`) {
        call.resolve(decode(await this.participant.plain(answer, content, contract), answer.type));
      } else if (job && answer.type === `${type}.progress`) {
        call.progress?.(decode(await this.participant.plain(answer, content, contract), answer.type));
      } else if (!job) {
        call.reject(new BusError("unknown", `${type}: the answer has another type`, { maybeExecuted: true }));
      }
    } catch (error) {
      call.reject(error);
    }
  }

  /** Wait for the end of a call or job; the caller may end the wait with `reject`. */
  expecting(contract, id, sent, timeout, progress) {
    const call = { contract, type: contract.type, job: contract.kind === "job", sent: new Set([digest(sent)]), progress };
    const end = new Promise((resolve, reject) => {
      const late = () => call.reject(new BusError("deadline_exceeded",
        `${contract.type}: no reply within ${timeout} ms${call.dropped ? `; an answer was dropped: ${call.dropped}` : ""}`, { maybeExecuted: true }));
      const timer = setTimeout(late, timeout);
      const ending = (finish) => (value) => { clearTimeout(timer); this.waiting.delete(id); finish(value); };
      Object.assign(call, { resolve: ending(resolve), reject: ending(reject) });
    });
    end.catch(() => {}); // the caller may still wait for the confirm
    this.waiting.set(id, call);
    return end;
  }

  /** Send a request and return its reply. `cause` has the properties of the message that is being handled. */
  async request(contract, value, timeout, { cause, until = Infinity } = {}) {
    const { participant, participant: { service, security } } = this;
    const left = Math.floor(Math.min(timeout, until - Date.now()));
    if (left <= 0) throw new BusError("deadline_exceeded", `${contract.type}: no time is left`);
    const own = properties(service, contract.type, { replyTo: participant.replyTo, expiration: String(left), deliveryMode: 1, mandatory: true },
      { deadline: Date.now() + left }, cause);
    const body = await participant.encoded(value, own, contract);
    Object.assign(own.headers, await security.token(owner(contract.type)));
    const reply = this.expecting(contract, own.messageId, own.headers.authorization, left);
    try {
      participant.send(participant.fast, "bus.requests", contract.type, body, own);
    } catch {
      this.waiting.get(own.messageId)?.reject(new BusError("unavailable", `${contract.type}: not sent, there is no connection`));
    }
    return reply;
  }

  /** Publish until the broker confirms, with the same id and a new proof each time. */
  async deliver(exchange, contract, own, body, limit = 30_000) {
    const end = Date.now() + limit;
    for (;;) {
      Object.assign(own.headers, await this.participant.security.proof(own, body));
      this.waiting.get(own.messageId)?.sent.add(digest(own.headers.proof));
      try {
        return await this.participant.confirmed(exchange, contract.type, body, own);
      } catch (error) {
        if (error.returned || Date.now() >= end) throw error;
        await sleep(500);
      }
    }
  }

  /** Publish an event of this service, and return when the broker has confirmed it. */
  async publish(contract, value, cause) {
    const own = properties(this.participant.service, contract.type, { deliveryMode: 2 }, { expires: Date.now() + WEEK, attempt: 1 }, cause);
    await this.deliver("bus.events", contract, own, await this.participant.encoded(value, own, contract));
    return own.messageId;
  }

  /** Submit a job. Return its id and a promise of its result when the broker has confirmed it. */
  async submit(contract, value, { timeout, progress, cause }) {
    const own = properties(this.participant.service, contract.type, { replyTo: this.participant.replyTo, deliveryMode: 2, mandatory: true },
      { expires: Date.now() + WEEK, attempt: 1 }, cause);
    const body = await this.participant.encoded(value, own, contract);
    const result = this.expecting(contract, own.messageId, "", timeout, progress);
    try {
      await this.deliver("bus.jobs", contract, own, body);
    } catch (error) {
      this.waiting.get(own.messageId)?.reject(error);
      throw error;
    }
    return { id: own.messageId, result };
  }
}
