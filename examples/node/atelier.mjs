// A service in JavaScript: a request, a job with retries and dead letters, and an event in each direction.

import { contracts, settings } from "./catalogue.mjs";
import { Client } from "./client.mjs";
import { BusError } from "./message.mjs";
import { Participant } from "./participant.mjs";
import { serve } from "./server.mjs";
import { work } from "./worker.mjs";

/** Return the body if it has the text `title`, or refuse it. The text of the error has no value of the body. */
function titled(body) {
  if (typeof body?.title !== "string") throw new BusError("invalid_argument", "title: must be a text");
  return body;
}

const participant = await Participant.connect(settings("atelier"));
const client = new Client(participant);

const engrave = async ({ title }) => {
  if (title.length > 20) throw new BusError("out_of_range", "the title is too long for a cover");
  return { text: title.toUpperCase() };
};

const bind = async ({ title }, { job, progress, attempt }) => {
  console.log(`${title}: attempt ${attempt}`);
  if (title === "Ulysses" && attempt === 1) throw new BusError("unavailable", "the press is busy");
  if (title === "Sand" && !job.headers.replays) throw new BusError("invalid_argument", "a book of sand cannot be bound");
  await progress(0.5, "half");
  await client.publish(contracts.bound, { title }, job);
  return { pages: 4 };
};

const heard = async ({ title }) => console.log(`event: ${title} is scanned`);

const stops = [
  await serve(participant, contracts.engrave, { check: titled, act: engrave }),
  await work(participant, contracts.bind, { check: titled, act: bind, tiers: ["1s"] }),
  await work(participant, contracts.scanned, { check: titled, act: heard, tiers: ["1s"] }),
];
console.log("ready");

for (const signal of ["SIGINT", "SIGTERM"])
  process.once(signal, async () => {
    await Promise.all(stops.map((stop) => stop()));
    await participant.close();
    console.log("stopped");
  });
