"""Cases whose answer is known by construction."""
