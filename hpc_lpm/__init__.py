"""Layer-wise partitioning and merging for efficient and scalable deep learning."""

__version__ = "0.1.0"
