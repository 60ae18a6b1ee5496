"""Strategies state their own rules: nothing else in the toolkit knows any of them by name."""

import ast
import re
from pathlib import Path

from hpc_lpm.engine.strategies.registry import STRATEGIES
from hpc_lpm.schedules.registry import SCHEDULES

PACKAGE = Path(__file__).parents[2] / "hpc_lpm"
HOMES = ("engine/strategies", "schedules")
NAMED_ALIKE = {("planning/planners/registry.py", "pipedream")}
"""Where a planner has the name of a strategy, both being of one paper."""


def strings_in(path: Path) -> list[ast.Constant]:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    documentation = {
        id(node.body[0].value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef)
        and node.body
        and isinstance(node.body[0], ast.Expr)
    }
    return [
        node
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in documentation
    ]


def test_no_string_outside_of_their_packages_names_a_strategy_or_a_schedule() -> None:
    names = {*STRATEGIES.names(), *SCHEDULES.names()}
    found = [
        f"{path.relative_to(PACKAGE)}:{node.lineno} {node.value!r}"
        for path in sorted(PACKAGE.rglob("*.py"))
        if not path.relative_to(PACKAGE).as_posix().startswith(HOMES)
        for node in strings_in(path)
        if node.value in names
        and (path.relative_to(PACKAGE).as_posix(), node.value) not in NAMED_ALIKE
    ]
    assert not found


def test_templates_name_no_strategy() -> None:
    names = {*STRATEGIES.names(), *SCHEDULES.names()} - {"limit", "sequential", "naive"}
    found = [
        (path.name, name)
        for path in PACKAGE.rglob("*.j2")
        for name in names
        if re.search(rf"\b{re.escape(name)}\b", path.read_text(encoding="utf-8"))
    ]
    assert not found


def test_every_strategy_says_what_it_is() -> None:
    for name, strategy in STRATEGIES.items():
        assert strategy.name == name
        assert strategy.description
        assert strategy.clip_scopes
    assert [name for name, strategy in STRATEGIES.items() if strategy.baseline] == ["sequential"]
    assert [name for name, strategy in STRATEGIES.items() if strategy.proposed] == ["fbp"]
    lagging = [name for name, strategy in STRATEGIES.items() if strategy.lags]
    assert lagging == ["fbp", "pipedream", "pipedream-2bw", "ddg", "fr", "fdg"]
