"""Names of precisions and of orders in memory; without torch: campaign files name them too."""

from typing import Literal

Precision = Literal["fp32", "bf16"]
MemoryFormat = Literal["contiguous", "channels_last"]
