"""The peers under the same ledger: durable queues and persistent messages, everything else at its default."""
