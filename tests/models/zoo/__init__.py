"""Architectures of many kinds as small instances, which are captured and cut as they stand."""

from tests.models.zoo.dense_outputs import DENSE_OUTPUTS
from tests.models.zoo.light import LIGHT
from tests.models.zoo.mixers import MIXERS
from tests.models.zoo.of_transformers import OF_TRANSFORMERS
from tests.models.zoo.residual import RESIDUAL
from tests.models.zoo.sequences import SEQUENCES

SPECIMENS = [*RESIDUAL, *LIGHT, *DENSE_OUTPUTS, *MIXERS, *SEQUENCES, *OF_TRANSFORMERS]
