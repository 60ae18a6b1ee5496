"""What a campaign keeps of a trained model."""

from collections.abc import Callable
from contextlib import suppress

from hpc_lpm.campaign.steps import WEIGHTS, Steps
from hpc_lpm.engine.checkpoint.own_files import remove_checkpoints
from hpc_lpm.engine.checkpoint.store import FOLDER
from hpc_lpm.errors import InputError

EXIT_NOT_KEPT = 2
"""Exit code of a trial whose weights could not be written where the campaign keeps them."""


def keep_model(steps: Steps, name: str, say: Callable[[str], None]) -> int:
    """Keep of a trained model what the campaign asks for, and return the exit code."""
    folder, keep = steps.folder.run(name), steps.campaign.keep
    if "weights" in keep:
        # Imported here, because it imports torch.
        from hpc_lpm.engine.checkpoint.export import export_weights, write_weights

        try:
            exported = export_weights(folder, steps.settings(name).data_dir)
            write_weights(exported, folder / WEIGHTS)
        except InputError as error:
            say(f"the weights of {name} are not kept: {error}")
            return EXIT_NOT_KEPT
    if "checkpoints" not in keep:
        # Nobody needs it any more, and a campaign has many trials.
        with suppress(OSError):
            remove_checkpoints(folder / FOLDER)
    return 0
