"""Values of options that hold more than one number or a name and a value."""

from hpc_lpm.errors import InputError

OptionValue = bool | int | float | tuple[float, ...]


def optimizer_options(texts: list[str]) -> dict[str, OptionValue]:
    """Return the options of texts such as `nesterov=true`, `alpha=0.9` or `betas=0.9,0.95`.

    Raises:
        InputError: if one of them has no name, no value, or is given twice.
    """
    options: dict[str, OptionValue] = {}
    for text in texts:
        name, _, value = text.partition("=")
        try:
            read = _value(value)
        except ValueError:
            read = None
        if not name or read is None:
            raise InputError(
                f"--optimizer-option is {text!r}, accepted is NAME=VALUE with true, false, a "
                "number, or several separated by commas."
            )
        if name in options:
            raise InputError(f"--optimizer-option gives {name!r} twice, give it once.")
        options[name] = read
    return options


def optimizer_steps(option: str, text: str | None) -> list[int]:
    """Return the whole numbers of an option such as `100,200`; none without a text.

    Raises:
        InputError: if it is something else.
    """
    if text is None:
        return []
    try:
        return [int(part) for part in text.split(",")]
    except ValueError:
        raise InputError(
            f"{option} is {text!r}, accepted are whole numbers of optimizer steps separated "
            "by commas, such as 100,200."
        ) from None


def _value(text: str) -> OptionValue:
    if text.lower() in {"true", "false"}:
        return text.lower() == "true"
    if "," in text:
        return tuple(float(part) for part in text.split(","))
    try:
        return int(text)
    except ValueError:
        return float(text)
