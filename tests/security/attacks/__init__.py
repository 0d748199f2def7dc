"""The attack table, by what is attacked; `tests/security/test_attacks.py` carries them out."""
