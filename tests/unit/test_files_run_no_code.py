"""Nothing that is read is run: where the toolkit unpickles, imports or evaluates, and what it may.

Files hold data. A `module:name` of the user's own comes from the command line, from settings and
from a campaign's keys alone.
"""

import ast
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import yaml

from hpc_lpm import documents

PACKAGE = Path(documents.__file__).parent

ABLE_TO_RUN_CODE = {
    *("eval", "exec", "compile", "__import__", "importlib.import_module", "runpy.run_path"),
    *("runpy.run_module", "os.system", "os.popen", "marshal.load", "marshal.loads", "shelve.open"),
    *(
        "pickle.load",
        "pickle.loads",
        "pickle.Unpickler",
        "pickle._Unpickler",
        "pandas.read_pickle",
        "joblib.load",
    ),
    *("dill.load", "dill.loads", "cloudpickle.load", "cloudpickle.loads", "torch.hub.load"),
    *("yaml.load", "yaml.load_all", "yaml.full_load", "yaml.unsafe_load", "yaml.Loader"),
    *("yaml.UnsafeLoader", "yaml.FullLoader", "torch.load", "numpy.load", "torch.jit.load"),
    *("torch.export.load", "ctypes.CDLL"),
}

IN_USE = {
    ("cli/commands.py", "importlib.import_module"): "modules of the toolkit, from a table",
    ("__init__.py", "importlib.import_module"): "likewise",
    ("extensions.py", "importlib.import_module"): "`module:name` that the user has named",
    ("engine/runners/horovod.py", "importlib.import_module"): "Horovod, by a fixed name",
    ("models/transformers_model.py", "importlib.import_module"): "transformers, likewise",
    ("models/capture/code.py", "compile"): "code made from the user's own module",
    ("models/capture/code.py", "exec"): "likewise",
    ("data/array_pickle.py", "pickle._Unpickler"): "lends a pickle of CIFAR four names alone",
    ("data/array_files.py", "numpy.load"): "without pickles",
    ("documents.py", "yaml.load"): "by a safe loader",
    ("models/free_memory.py", "ctypes.CDLL"): "the C library of this process",
    ("engine/messages.py", "pickle.Unpickler"): "lends classes of data alone, calls no other",
    ("engine/one_process/job.py", "pickle.loads"): "what one process has written itself",
    ("engine/pipeline/crossing.py", "pickle.loads"): "what ranks of one job tell each other",
}
"""Where code may be run or objects made, and of what."""


@cache
def trees() -> dict[str, ast.Module]:
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def imported_names(tree: ast.Module) -> dict[str, str]:
    """Return what the names of a module stand for, by its imports."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {each.asname or each.name.split(".")[0]: each.name for each in node.names}
        elif isinstance(node, ast.ImportFrom):
            names |= {each.asname or each.name: f"{node.module}.{each.name}" for each in node.names}
    return names


def uses(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """Yield the full names that a module uses, wherever: a call, a base, an argument."""
    names = imported_names(tree)
    for node in ast.walk(tree):
        if isinstance(node, ast.Name | ast.Attribute):
            first, dot, rest = ast.unparse(node).partition(".")
            yield f"{names.get(first, first)}{dot}{rest}", node


def test_code_is_run_and_objects_are_made_in_known_places_alone() -> None:
    found = {
        (file, name)
        for file, tree in trees().items()
        for name, _ in uses(tree)
        if name in ABLE_TO_RUN_CODE
    }
    assert found == set(IN_USE)


def test_the_search_finds_what_it_looks_for() -> None:
    text = "import numpy as np\nfrom pickle import loads as f\nf(b)\nnp.load(x)\nmap(eval, y)"
    names = {name for name, _ in uses(ast.parse(text))}
    assert names >= {"pickle.loads", "numpy.load", "eval"}


def test_no_command_is_handed_to_a_shell_and_no_array_is_unpickled() -> None:
    for file, tree in trees().items():
        for node in ast.walk(tree):
            if not isinstance(node, ast.Call):
                continue
            given = {each.arg: ast.unparse(each.value) for each in node.keywords}
            assert given.get("shell", "False") == "False", f"{file}, line {node.lineno}"
            name = ast.unparse(node.func)
            if name.endswith("np.load"):
                assert given["allow_pickle"] == "False", f"{file}, line {node.lineno}"


def test_yaml_is_read_by_loaders_that_make_nothing_but_data() -> None:
    assert issubclass(documents._CoreLoader, yaml.SafeLoader)
    made = {function.__module__ for function in documents._CoreLoader.yaml_constructors.values()}
    assert made <= {"yaml.constructor", "hpc_lpm.documents"}
