// A client that uses wire format 1 with amqplib, without the Python library.
// docs/reference/wire-client.md describes the steps.
// Run the service with `BUS_AUTH=off bus run examples.node.library:router`, then: npm install && BUS_URL=amqp://… node client.mjs

import { once } from "node:events";
import { randomBytes, randomUUID } from "node:crypto";
import os from "node:os";
import amqp from "amqplib";

const SERVICE = "reader";
const WEEK = 7 * 24 * 3600 * 1000; // ms

export class BusError extends Error {
  constructor(code, message, retryable = false) {
    super(message);
    Object.assign(this, { code, retryable });
  }
}

// Return the properties and headers that every message has.
function attributes(type, extra, headers) {
  const messageId = randomUUID();
  return {
    messageId,
    type,
    appId: SERVICE,
    contentType: "application/json",
    timestamp: Math.floor(Date.now() / 1000),
    ...extra,
    headers: {
      "correlation-id": messageId, // its own id; a handler copies this header of its message
      traceparent: `00-${randomBytes(16).toString("hex")}-${randomBytes(8).toString("hex")}-01`,
      ...headers,
    },
  };
}

const encoded = (body) => Buffer.from(JSON.stringify(body));

export class Client {
  waiting = new Map(); // calls without a reply: message id to { resolve, reject, progress }

  static async connect(url) {
    const client = new Client();
    client.connection = await amqp.connect(url, { heartbeat: 10, clientProperties: { connection_name: SERVICE } });
    client.channel = await client.connection.createConfirmChannel();
    await client.declare();
    return client;
  }

  // Declare the exchanges, as every service does, and a queue for replies and updates.
  async declare() {
    for (const name of ["bus.requests", "bus.jobs", "bus.events"]) await this.channel.assertExchange(name, "topic");
    for (const name of ["bus.replies", "bus.updates"]) await this.channel.assertExchange(name, "topic");
    this.replyTo = `${SERVICE}.replies.${os.hostname().slice(0, 30)}-${process.pid}-${randomBytes(6).toString("hex")}`;
    await this.channel.assertQueue(this.replyTo, { exclusive: true, durable: false });
    await this.channel.bindQueue(this.replyTo, "bus.replies", this.replyTo);
    await this.channel.bindQueue(this.replyTo, "bus.updates", this.replyTo);
    await this.channel.consume(this.replyTo, (message) => message && this.take(message), { noAck: true });
    this.channel.on("return", (message) =>
      this.settle(message.properties.messageId, "reject", new BusError("unavailable", "no service serves this type", true)));
  }

  // Receive replies, errors and progress updates.
  take({ properties: { type, correlationId }, content }) {
    const body = JSON.parse(content.toString());
    if (type.endsWith(".progress")) this.waiting.get(correlationId)?.progress?.(body);
    else if (type === "bus.error.v1")
      this.settle(correlationId, "reject", new BusError(body.code, body.message, body.retryable));
    else this.settle(correlationId, "resolve", body);
  }

  settle(id, how, value) {
    this.waiting.get(id)?.[how](value); // a reply for which no call waits is dropped
    this.waiting.delete(id);
  }

  expecting(id, timeout, progress) {
    return new Promise((resolve, reject) => {
      const late = () => this.settle(id, "reject", new BusError("deadline_exceeded", `no reply within ${timeout} ms`, true));
      const timer = setTimeout(late, timeout);
      const ending = (end) => (value) => (clearTimeout(timer), end(value));
      this.waiting.set(id, { resolve: ending(resolve), reject: ending(reject), progress });
    });
  }

  // Send a request. It is mandatory and not persistent, and has a deadline.
  request(type, body, timeout) {
    const own = { replyTo: this.replyTo, expiration: String(timeout), deliveryMode: 1, mandatory: true };
    const options = attributes(type, own, { deadline: Date.now() + timeout });
    const answer = this.expecting(options.messageId, timeout);
    this.channel.publish("bus.requests", type, encoded(body), options);
    return answer;
  }

  // Submit a job. It is mandatory and persistent, and is submitted only when the broker has confirmed it.
  async submit(type, body, { timeout, progress }) {
    const own = { replyTo: this.replyTo, deliveryMode: 2, mandatory: true };
    const options = attributes(type, own, { expires: Date.now() + WEEK, attempt: 1 });
    const result = this.expecting(options.messageId, timeout, progress);
    this.channel.publish("bus.jobs", type, encoded(body), options);
    await Promise.race([this.channel.waitForConfirms(), result]); // the broker returns an unroutable job before it confirms, which rejects `result`
    return result;
  }

  // Subscribe to an event with a separate queue. The broker deletes this queue when the connection ends.
  async subscribe(type, handle) {
    const { queue } = await this.channel.assertQueue("", { exclusive: true, durable: false });
    await this.channel.bindQueue(queue, "bus.events", type);
    await this.channel.consume(queue, (message) => {
      handle(JSON.parse(message.content.toString()), message.properties);
      this.channel.ack(message);
    });
  }

  async close() {
    await this.connection.close();
  }
}

async function main() {
  const client = await Client.connect(process.env.BUS_URL ?? "amqp://guest:guest@localhost:5672/");
  const told = new Promise((resolve) => client.subscribe("library.scanned.v1", (body) => resolve(body)));

  console.log("answer:", await client.request("library.find.v1", { title: "Emma" }, 5000));
  await client.request("library.find.v1", { title: "Emmma" }, 5000)
    .catch((error) => console.log(`error reply: ${error.code}: ${error.message}`));
  await client.request("library.find.v1", { titel: "Emma" }, 5000)
    .catch((error) => console.log(`error reply: ${error.code}: ${error.message}`));
  await client.request("library.burn.v1", {}, 5000)
    .catch((error) => console.log(`returned: ${error.code}: ${error.message}`));

  const progress = ({ progress, note }) => console.log(`progress ${progress}: ${note}`);
  console.log("result:", await client.submit("library.scan.v1", { title: "Emma" }, { timeout: 60000, progress }));
  console.log("event:", await told);
  await client.submit("library.burn.v1", {}, { timeout: 60000 })
    .catch((error) => console.log(`returned: ${error.code}: ${error.message}`));
  await client.close();
}

await main();
