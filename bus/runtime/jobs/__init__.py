"""Durable jobs of a service with a store: recording, claims, leases and ends of attempts.

The *recorder* of a work queue writes each job to the store, and then acks its message. The *feed*
claims rows, and hands them to the normal receiver as deliveries. ADR 0044 has the reasons.
"""
