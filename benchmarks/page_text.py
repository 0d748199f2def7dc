"""The fixed texts of the page docs/benchmarks.md."""

__all__ = ["HEAD", "READ"]

HEAD = """# Benchmarks

`make bench` writes this page; do not edit it.
All figures are from one run on {date}, with {rounds}.

The machine: {machine}.
The broker: RabbitMQ {rabbitmq}, {broker}.
Clients, servers and the broker ran on this one machine and shared its cores.
{others}

![Messages per second, by workload and peer](benchmarks.svg)

## Targets

A figure without a unit is a ratio within this run: the median of the ratios of the rounds.
"""
READ = """## How to read it

- **One run, in turns.** In each round every peer has a turn of about a second, one after another
  (A B C A B C …). A busy minute of the machine therefore affects all peers. A rate is the median
  of the rounds, with the lowest and highest beside it. A ratio is the median of the ratios within
  each round, and not the quotient of two medians.
- **CPU µs** is processor time for each message, from the CPU clocks of the processes (the sum that
  `getrusage` reports). It hardly depends on other load on the machine; rates do. The broker's value
  is that of the node's process.
- **The same message.** Each message is a JSON body of 300 bytes and one pydantic model. The
  receiver validates every message, requests and replies; the sender builds it with the model, too.
  A wrong or missing reply fails the run. A message that is consumed twice or not at all fails it,
  too. Client and server are separate processes, warm before round 1.
- **Latency** at a share of the peak is measured in an open loop. Requests leave at fixed times,
  independent of the answers, and each latency counts from the time at which the request was due.
  Slow answers cannot delay later requests (no coordinated omission). The rate is a share of the
  peer's own peak, measured a few seconds before.
- **Durable jobs** have an id, and a result that any process can read. The clock starts at the first
  submission, and stops when the database has the result of every job. After that, the submitter
  reads each result by its id and compares it; a peer that loses a result fails. One peer at a time
  runs, because an idle peer that polls would take time from the others. PostgreSQL has its durable
  defaults, and each turn has a new database. The time to the start counts from the time at which
  the submission was due.
- **Memory** is the peak resident memory of a fresh consumer process. It is measured once while
  messages pass through an empty queue. It is measured again with a queue that Trunkline's publisher
  has filled. The peers consume the same messages from the same queue.

## What it does not measure

The figures do not cover a network, a cluster, TLS or other message sizes.
They do not cover handlers that do work, brokers under an alarm, or days of running.
The peers may have faster settings that we do not know; each runs with the settings named above.
The C programs check nothing and decode nothing.
They show the limit that the broker sets, and are not a model for a service.

[benchmarks.json](benchmarks.json) has the figures of each round.
Run the benchmarks again with `make bench`, or with `make bench ARGS="--only rpc"`.
`make bench ARGS=--quick` takes two minutes and writes no page.
"""
