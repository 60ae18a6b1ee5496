"""What the package says is public: there, documented, typed, and loaded only when it is used."""

import ast
import inspect
import subprocess
import sys
import tomllib
from pathlib import Path
from pkgutil import iter_modules

import pytest

import hpc_lpm

ROOT = Path(__file__).parents[2]
CALLABLE = [name for name in hpc_lpm.__all__ if callable(getattr(hpc_lpm, name))]


def test_importing_the_package_loads_neither_torch_nor_pydantic() -> None:
    program = "import sys, hpc_lpm; dir(hpc_lpm); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert not {"torch", "pydantic", "numpy", "mpi4py"} & set(done.stdout.split())


def test_the_public_names_are_these_and_no_module_takes_the_place_of_one() -> None:
    wanted = {"profile", "plan", "initialize", "Profile", "Plan", "Engine"}
    assert set(hpc_lpm.__all__) == {*wanted, "InputError", "TrainingError", "__version__"}
    assert set(hpc_lpm.__all__) <= set(dir(hpc_lpm))
    assert wanted.isdisjoint(module.name for module in iter_modules(hpc_lpm.__path__))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = hpc_lpm.nothing


def test_every_name_has_its_type_where_mypy_looks_for_it() -> None:
    tree = ast.parse(Path(hpc_lpm.__file__).read_text(encoding="utf-8"))
    checked = next(node for node in tree.body if isinstance(node, ast.If))
    imports = [node for node in checked.body if isinstance(node, ast.ImportFrom)]
    homes = {alias.name: node.module for node in imports for alias in node.names}
    assert homes == hpc_lpm._HOMES
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    assert "py.typed" in project["tool"]["setuptools"]["package-data"]["hpc_lpm"]
    assert (ROOT / "hpc_lpm" / "py.typed").exists()


def public_functions() -> dict[str, object]:
    """Return what the interface offers to call: its functions, and the methods of its classes."""
    found: dict[str, object] = {}
    for name in CALLABLE:
        offered = getattr(hpc_lpm, name)
        found[name] = offered
        if inspect.isclass(offered) and not issubclass(offered, Exception):
            own = ("read", "write") if hasattr(offered, "model_dump") else tuple(vars(offered))
            methods = [each for each in own if not each.startswith("_")]
            found |= {f"{name}.{each}": inspect.getattr_static(offered, each) for each in methods}
    return found


@pytest.mark.parametrize("name", public_functions())
def test_what_is_public_is_documented_and_typed(name: str) -> None:
    found = public_functions()[name]
    documented = inspect.getdoc(found)
    assert documented, name
    function = getattr(found, "__func__", found)
    if isinstance(function, property):
        function = function.fget
    if inspect.isclass(found):
        return
    signature = inspect.signature(function)
    assert signature.return_annotation is not inspect.Signature.empty
    parameters = [each for each in signature.parameters if each not in {"self", "cls"}]
    for each in parameters:
        assert signature.parameters[each].annotation is not inspect.Parameter.empty, each
        assert f"\n    {each}: " in documented, f"{name} does not describe {each}"
    assert not parameters or ("Args:" in documented and "Raises:" in documented), name
