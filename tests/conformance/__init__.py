"""One suite, every transport."""
