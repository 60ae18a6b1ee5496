"""One campaign against another: what changed, how sure that is, and what the two have in common."""
