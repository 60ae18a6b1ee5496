"""Checks of the machine. `examination.CHECKS` lists them; `probe` is what every rank runs."""
