// A client in JavaScript that calls library.py and submits a job to it. README.md has the commands.

import { contracts, settings } from "./catalogue.mjs";
import { Client } from "./client.mjs";
import { Participant } from "./participant.mjs";

const participant = await Participant.connect(settings("visitor"));
const client = new Client(participant);
const told = (error) => console.log(`error: ${error.code}: ${error.message}`);

console.log("answer:", await client.request(contracts.find, { title: "Emma" }, 5000));
await client.request(contracts.find, { title: "Emmma" }, 5000).catch(told);
await client.request(contracts.burn, {}, 5000).catch(told);
await client.request(contracts.engrave, { title: "Emma" }, 5000).catch(told); // no grant: a signed refusal

const progress = ({ progress, note }) => console.log(`progress ${progress}: ${note}`);
const { result } = await client.submit(contracts.scan, { title: "Emma" }, { timeout: 30_000, progress });
console.log("result:", await result);
await participant.close();
