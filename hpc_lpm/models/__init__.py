"""Networks as chains of fine-grained layers."""

from hpc_lpm.models.dropout import set_dropout_stream
from hpc_lpm.models.registry import MODELS, create_model

__all__ = ["MODELS", "create_model", "set_dropout_stream"]
