"""Any module as a chain of fine-grained layers, captured with torch.export."""

from hpc_lpm.models.capture.capture import capture_model, layers_of
from hpc_lpm.models.capture.plain import is_sequence

__all__ = ["capture_model", "is_sequence", "layers_of"]
