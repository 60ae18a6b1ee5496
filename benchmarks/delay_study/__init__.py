"""A study of what the depth of FBP costs in steps, and of what mends it, in one process.

The stages' order of METHOD's recurrence is played without messages, so that a training at any depth
costs what a sequential training costs. It shares no code with the engine, which it judges.
"""
