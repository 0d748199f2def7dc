"""Workers of the reference application.

Each worker has plain handler functions and a `router`, and no broker code.
"""
