"""What the depth of a pipeline costs per step, and what the corrections win back."""
