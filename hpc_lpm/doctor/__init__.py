"""Examines whether a machine or a job is fit for training, and says what to fix.

`examination` makes all checks. Most of them judge what `probe`, a program that runs on every rank,
reports to them in the form of `probe_report`. A new check is a function in the file of its subject
and a line in `examination.CHECKS`.
"""
