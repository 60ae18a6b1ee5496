"""Merged stages on ranks, on top of DeepSpeed's pipeline module and engine."""

import os

import torch

if not torch.cuda.is_available():
    # DeepSpeed would look for accelerators of all kinds, and warn on every rank that there is none.
    os.environ.setdefault("DS_ACCELERATOR", "cpu")
