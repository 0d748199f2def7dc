"""Workers of the reference application: plain handler functions and a `router` each; no broker code."""
