// Exchanges, queues and bindings, with exactly the arguments of docs/reference/topology.md.

const TIERS = { "1s": 1, "5s": 5, "30s": 30, "2m": 120, "10m": 600, "1h": 3600, "6h": 21600, "24h": 86400 }; // s
const ENDLESS = { "x-queue-type": "quorum", "x-delivery-limit": 1000000 };

export async function declareExchanges(channel) {
  for (const name of ["requests", "jobs", "events", "replies", "updates", "dead"])
    await channel.assertExchange(`bus.${name}`, "topic", { durable: true });
}

/** Return the name of a queue: of a request, a job, or the subscription to an event. */
export function queueOf(service, { type, kind }) {
  const part = kind === "event" ? type : type.slice(type.indexOf(".") + 1);
  return `${service}.${kind}s.${part}`;
}

export async function declareRequestQueue(channel, service, contract) {
  const queue = queueOf(service, contract);
  await channel.assertQueue(queue, { durable: true, arguments: { "x-expires": 60000 } });
  await channel.bindQueue(queue, "bus.requests", contract.type);
  return queue;
}

/** Declare the work queue, its dead letters, the return path and the retry tiers. */
export async function declareWorkQueue(channel, service, contract, tiers) {
  const queue = queueOf(service, contract);
  const [back, lost] = [`${service}.return`, `${service}.unroutable.dead`];
  await channel.assertExchange(lost, "fanout", { durable: true });
  await channel.assertQueue(lost, { durable: true, arguments: ENDLESS });
  await channel.bindQueue(lost, lost, "");
  await channel.assertExchange(back, "direct", { durable: true, alternateExchange: lost });
  for (const tier of new Set([...tiers, "30s"])) { // 30s: parked messages
    const name = `${service}.retry.${tier}`;
    await channel.assertExchange(name, "fanout", { durable: true });
    await channel.assertQueue(name, { durable: true, arguments: { "x-queue-type": "quorum", "x-message-ttl": TIERS[tier] * 1000,
      "x-dead-letter-exchange": back, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish" } });
    await channel.bindQueue(name, name, "");
  }
  await channel.assertQueue(`${queue}.dead`, { durable: true, arguments: ENDLESS });
  await channel.bindQueue(`${queue}.dead`, "bus.dead", queue);
  await channel.assertQueue(queue, { durable: true, arguments: { "x-queue-type": "quorum", "x-dead-letter-exchange": "bus.dead",
    "x-dead-letter-routing-key": queue, "x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish", "x-delivery-limit": 100 } });
  await channel.bindQueue(queue, `bus.${contract.kind}s`, contract.type);
  await channel.bindQueue(queue, back, queue);
  return queue;
}
