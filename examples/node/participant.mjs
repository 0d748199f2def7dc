// A connection that is made again, the queue for answers, and confirmed publishing.
// See docs/reference/wire-client.md, "Connect" and "Declare a queue for answers".

import { randomBytes } from "node:crypto";
import os from "node:os";
import { setTimeout as sleep } from "node:timers/promises";
import amqp from "amqplib";
import { KeyRing } from "./encryption.mjs";
import { BusError, tabled } from "./message.mjs";
import { Security } from "./security.mjs";
import { declareExchanges } from "./topology.mjs";

const CONFIRM = 10_000; // ms to wait for the confirm of one attempt

export class Participant {
  consumers = []; // functions that declare and consume again on each connection
  lost = []; // functions to call if the connection is lost
  answers = () => {}; // the client's receiver of replies and updates
  returnedRequest = () => {};
  inFlight = new Map(); // mandatory publishes without a confirm: message id and key to { returned }
  stopped = false;

  /** @param {{service: string, url: string, key: string, jwks: string, grants: string, ring?: string}} options */
  static async connect(options) {
    const one = new Participant();
    Object.assign(one, { service: options.service, url: new URL(options.url), security: new Security(options) });
    one.ring = options.ring && new KeyRing(options.ring);
    one.url.searchParams.set("heartbeat", "10");
    await one.open();
    return one;
  }

  async open() {
    this.connection = await amqp.connect(this.url.href, { clientProperties: { connection_name: this.service } });
    this.connection.on("error", () => {}); // "close" follows
    let live = false; // a connection that is lost before it is ready makes this function fail instead
    this.connection.once("close", () => live && !this.stopped && this.reopen());
    [this.durable, this.fast] = [await this.channel(true), await this.channel(false)];
    await declareExchanges(this.durable);
    this.replyTo = `${this.service}.replies.${os.hostname().replace(/[^\w-]/g, "-").slice(0, 30)}-${process.pid}-${randomBytes(6).toString("hex")}`;
    await this.fast.assertQueue(this.replyTo, { exclusive: true, durable: false });
    for (const exchange of ["bus.replies", "bus.updates"]) await this.fast.bindQueue(this.replyTo, exchange, this.replyTo);
    await this.fast.consume(this.replyTo, (delivery) => delivery && this.answers(delivery), { noAck: true });
    for (const start of this.consumers) await start();
    live = true;
  }

  /** Open a channel. A channel that the broker closes ends the connection, which is then made again. */
  async channel(confirms) {
    const { connection } = this;
    const channel = confirms ? await connection.createConfirmChannel() : await connection.createChannel();
    channel.on("error", () => connection.close().catch(() => {}));
    channel.on("return", ({ properties: { messageId }, fields: { routingKey } }) => {
      const waiting = this.inFlight.get(`${messageId} ${routingKey}`);
      if (confirms && waiting) waiting.returned = true;
      else this.returnedRequest(messageId);
    });
    return channel;
  }

  async reopen() {
    for (const tell of this.lost) tell();
    while (!this.stopped) {
      await sleep(500 + Math.random() * 500);
      try { return await this.open(); } catch { await this.connection.close().catch(() => {}); }
    }
  }

  /** Consume on a channel of its own, now and after each lost connection. `declare` returns the queue. */
  async consume(declare, prefetch, handle) {
    let channel, consumerTag;
    const running = new Set();
    const start = async () => {
      channel = await this.channel(true);
      await channel.prefetch(prefetch);
      const [own, queue] = [channel, await declare(channel)];
      const take = (delivery) => {
        if (!delivery) return void own.close().catch(() => {}).then(() => this.connection.close()).catch(() => {}); // cancelled by the broker
        const done = handle(own, delivery, queue).catch((error) => this.requeue(own, delivery, error)).finally(() => running.delete(done));
        running.add(done);
      };
      ({ consumerTag } = await own.consume(queue, take));
    };
    await start();
    this.consumers.push(start);
    return async () => { // stop: cancel, and finish the deliveries that run
      this.consumers = this.consumers.filter((other) => other !== start);
      await channel.cancel(consumerTag).catch(() => {});
      await Promise.race([Promise.all(running), sleep(20_000, null, { ref: false })]);
    };
  }

  requeue(channel, delivery, error) {
    console.error(`${this.service}: ${delivery.properties.type} is requeued: ${error.code ?? error.name}`);
    try { channel.nack(delivery); } catch { /* the channel is closed: the broker delivers the message again */ }
  }

  send(channel, exchange, key, body, { mandatory = false, ...own }) {
    channel.publish(exchange, key, body, { ...own, mandatory, headers: tabled(own.headers) });
  }

  /** Publish once and wait for the confirm. Reject with `returned` set if no queue takes the message. */
  async confirmed(exchange, key, body, { mandatory = false, ...own }) {
    const [state, id] = [{ returned: false }, `${own.messageId} ${key}`];
    this.inFlight.set(id, state);
    try {
      await new Promise((resolve, reject) => {
        const timer = setTimeout(() => reject(new BusError("unavailable", `${own.type}: no confirm`, { maybeExecuted: true })), CONFIRM);
        const end = (error) => (clearTimeout(timer), error ? reject(new BusError("unavailable", `${own.type}: not confirmed`, { maybeExecuted: true })) : resolve());
        try { this.durable.publish(exchange, key, body, { ...own, mandatory, headers: tabled(own.headers) }, end); } catch (error) { end(error); }
      });
    } finally {
      this.inFlight.delete(id);
    }
    if (state.returned) throw Object.assign(new BusError("unavailable", `${own.type}: no service serves this type`), { returned: true });
  }

  /** Encrypt a body if the contract requires it, and set the header. */
  async encoded(value, own, { encrypted }) {
    const body = Buffer.from(JSON.stringify(value));
    if (!encrypted) return body;
    if (!this.ring) throw new BusError("failed_precondition", `${own.type} must be encrypted, but there are no encryption keys`);
    own.headers.encryption = "jwe";
    return this.ring.encrypt(own, body);
  }

  /** Decrypt a body if the contract requires it. */
  async plain(own, body, { encrypted }) {
    if (!encrypted && own.headers.encryption === undefined) return body;
    if (own.headers.encryption === undefined) throw new BusError("invalid_argument", `${own.type}: the payload must be encrypted`);
    if (!this.ring) throw new BusError("unavailable", `${own.type}: there are no encryption keys`);
    return this.ring.decrypt(own, body);
  }

  /** Close the connection. Stop the consumers first. */
  async close() {
    this.stopped = true;
    await this.connection.close().catch(() => {});
  }
}
