"""The simulator of the policies: many callers of one server, in virtual time.

usage: python -m benchmarks.resilience

The callers use the real policies of `stacks.call_policies`. Only the broker, the server and the
time are models. The command draws the curves of `docs/explanation/resilience.md`.
"""
