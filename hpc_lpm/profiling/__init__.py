"""Measuring what each layer and the link between ranks cost."""

from hpc_lpm.profile import LayerProfile, LinkProfile, Profile

__all__ = ["LayerProfile", "LinkProfile", "Profile"]
