"""The attack table, by the attacked part; `tests/security/test_attacks.py` runs the attacks."""
