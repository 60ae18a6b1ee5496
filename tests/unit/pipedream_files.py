"""Graphs in PipeDream's format, written by the tests themselves."""

NODE = (
    "{name} -- {description} -- forward_compute_time={forward}, backward_compute_time={backward}, "
    "activation_size={activations}, parameter_size={parameters}"
)


def node(name, description, forward=0, backward=0, activations=0, parameters=0):
    """Return the line of one node; times in milliseconds."""
    return NODE.format(
        name=name,
        description=description,
        forward=forward,
        backward=backward,
        activations=activations,
        parameters=parameters,
    )


RESIDUAL = "\n".join(
    [
        node("node5", "Linear(in_features=8, out_features=2)", 0.5, 1.5, "64.000", "72.000"),
        node("node3", "Conv2d(4, 4, kernel_size=(3, 3))", 2, "3.250", "400.000", "576.000"),
        node("node1", "Input", "17.972", "0.000", "999.000", "0.000"),
        node("node2", "Conv2d(3, 4, kernel_size=(3, 3))", "1.100", "0.000", "300.000", "432.000"),
        node("node4", "Add(inplace)", "0.000", "0.000", "500.000", "0.000"),
        "\tnode1 -- node2",
        "\tnode2 -- node3",
        "\tnode3 -- node4",
        "\tnode2 -- node4",
        "\tnode4 -- node5",
    ]
)
"""An input, a convolution, a residual block and a classifier, out of order."""
