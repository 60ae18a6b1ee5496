"""Who meets whom when everyone meets everyone: a round-robin tournament."""

from collections.abc import Iterator


def tournament_rounds(players: int) -> Iterator[tuple[tuple[int, int], ...]]:
    """Yield rounds of disjoint pairs (a < b) such that every pair of players meets exactly once.

    The circle method (T. P. Kirkman, 1847; E. Lucas, Recreations mathematiques, 1883): one player
    keeps its seat, all others move on by one. It takes players - 1 rounds, players if odd::

        0 1 2      0 5 1      0 4 5
        5 4 3      4 3 2      3 2 1     ...
    """
    seats = players + players % 2  # with an odd number, one has nobody to play with each round
    circle = list(range(seats))
    for _ in range(seats - 1):
        facing = zip(circle[: seats // 2], reversed(circle[seats // 2 :]), strict=True)
        pairs = (tuple(sorted(pair)) for pair in facing)
        yield tuple((a, b) for a, b in pairs if b < players)
        circle = [circle[0], circle[-1], *circle[1:-1]]
