"""Networks as chains of fine-grained layers."""
