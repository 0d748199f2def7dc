"""The demonstration: a recording goes in, its transcript, a note and documents come out, and every step can be watched."""
