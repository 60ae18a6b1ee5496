"""The command `cluster`: its options, and what it prints."""

import argparse
import shlex
import sys
from collections.abc import Sequence

from lpm_testbed.cluster import (
    bring_up,
    is_default,
    statuses,
    take_down,
    troubles,
    variables,
)
from lpm_testbed.errors import TestbedError
from lpm_testbed.layout import Layout, Options, read_layout

_DEFAULTS = Options()
EXIT_DOWN, EXIT_BAD_INPUT = 1, 2


def main(arguments: Sequence[str]) -> int:
    """Run a command and return its exit code: 1 if the cluster is not up, 2 on errors."""
    options = _parser().parse_args(arguments)
    try:
        code: int = options.command(options)
    except TestbedError as error:
        sys.stderr.write(f"cluster: {error}\n")
        return EXIT_BAD_INPUT
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="cluster",
        description="A real Slurm cluster on this machine: each node has a network, a name, "
        "cores and a link of its own. Needs root; slurm-wlm and munge are installed if missing.",
    )
    commands = parser.add_subparsers(required=True, metavar="up | down | status | env")
    for name, function, text in (
        ("up", _up, "start the cluster, after removing what is left of an earlier one"),
        ("down", _down, "remove everything that `up` has made"),
        ("status", _status, "show what runs; the exit code is 1 if anything does not"),
        ("env", _env, 'print variables for a shell: eval "$(slurm/testbed/cluster env)"'),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.add_argument(
            "--name", default=_DEFAULTS.name, help="of the cluster; several can be up (%(default)s)"
        )
        command.set_defaults(command=function)
        if function is _up:
            _add_options_of_up(command)
    return parser


def _add_options_of_up(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--nodes", type=int, default=_DEFAULTS.nodes, help="nodes that train (%(default)s)"
    )
    command.add_argument(
        "--cores-per-node",
        type=int,
        default=_DEFAULTS.cores_per_node,
        help="cores that each is bound to (%(default)s)",
    )
    command.add_argument(
        "--rate", default=_DEFAULTS.rate, help="of each node's link, as for tc (%(default)s)"
    )


def _up(options: argparse.Namespace) -> int:
    wanted = Options(options.name, options.nodes, options.cores_per_node, options.rate)
    layout, started = bring_up(wanted)
    _say(f"{wanted.name}: {'up' if started else 'was up already'}, {_described(layout)}")
    if layout.shares_cores():
        _say(f"its nodes share this machine's {len(layout.host_cores)} cores")
    if is_default(layout):
        _say("sinfo, srun, sbatch and snakemake of any shell talk to it")
    else:
        named = "" if wanted.name == _DEFAULTS.name else f" --name {wanted.name}"
        _say(f'for sinfo, srun, sbatch and snakemake: eval "$({_program()} env{named})"')
    return 0


def _down(options: argparse.Namespace) -> int:
    found = take_down(options.name)
    _say(f"{options.name}: {'down, everything is removed' if found else 'was not up'}")
    return 0


def _status(options: argparse.Namespace) -> int:
    layout = read_layout(options.name)
    if layout is None:
        _say(f"{options.name}: down")
        return EXIT_DOWN
    _say(f"{options.name}: {_described(layout)}")
    _say(f"{'node':6} {'address':15} {'cores':8} {'link':9} {'process':9} Slurm says")
    for status in statuses(layout):
        node = status.node
        cores = ",".join(map(str, node.cores))
        process = "-" if status.pid is None else str(status.pid)
        rate = node.rate or "no limit"
        _say(f"{node.name:6} {node.address:15} {cores:8} {rate:9} {process:9} {status.state}")
    found = troubles(layout)
    for trouble in found:
        _say(f"{trouble}: run {_program()} up")
    return EXIT_DOWN if found else 0


def _env(options: argparse.Namespace) -> int:
    layout = read_layout(options.name)
    if layout is None:
        raise TestbedError(f"{options.name} is not up: run {_program()} up first.")
    for name, value in variables(layout).items():
        _say(f"export {name}={shlex.quote(value)}")
    return 0


def _described(layout: Layout) -> str:
    options = layout.options
    nodes = f"{options.nodes} node{'s' if options.nodes > 1 else ''}"
    cores = f"{options.cores_per_node} core{'s' if options.cores_per_node > 1 else ''}"
    return f"{nodes} of {cores}, links of {options.rate}"


def _program() -> str:
    return shlex.quote(sys.argv[0])


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
