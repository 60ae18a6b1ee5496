"""The lead that hides messages, against simulated schedules."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_lpm.planning.cost import CostModel
from hpc_lpm.planning.options import PlanOptions
from hpc_lpm.planning.prediction import predict
from hpc_lpm.planning.pricing import price_plan
from hpc_lpm.planning.round_trips import round_trip_period, sufficient_lead
from hpc_lpm.profile_file import LayerProfile, LinkProfile, Profile


def model_of(layers, lead=1, tolerance=0.0, weights="live"):
    """Build a model with a stage for each layer from (forward, backward, transfer) seconds."""
    profile = Profile(
        model="timed",
        micro_batch=1,
        device="cpu",
        dtype="float32",
        layers=tuple(
            LayerProfile(
                name="layer",
                forward_seconds=forward,
                backward_seconds=backward,
                output_bytes=transfer,
                parameter_bytes=0,
                activation_bytes=0,
            )
            for forward, backward, transfer in layers
        ),
        link=LinkProfile(latency_seconds=0.0, bandwidth_bytes_per_second=1.0),
    )
    options = PlanOptions(lead=lead, tolerance=tolerance, weights=weights)
    return CostModel(profile, len(layers), options)


def simulated_period(model, lead):
    cuts = tuple(range(model.layers + 1))
    plan = price_plan(model, cuts, "by hand", "0" * 64)
    options = model.options.model_copy(update={"lead": lead})
    prediction = predict(model.profile, plan, options)
    return prediction.simulation.period_seconds


def cuts_of(model):
    return tuple(range(model.layers + 1))


def test_two_stages_wait_for_a_message_and_its_answer():
    model = model_of([(1, 2, 5), (2, 2, 0)])
    # 3 + 4 seconds of passes and 2 x 5 under way, for two micro-batches; for three with lead 2.
    assert round_trip_period(model, (0, 1, 2)) == (3 + 4 + 10) / 2
    assert round_trip_period(model_of([(1, 2, 5), (2, 2, 0)], lead=2), (0, 1, 2)) * 3 == 17
    assert sufficient_lead(model, (0, 1, 2)) == 3


def test_short_messages_are_hidden_where_neighbours_have_time():
    model = model_of([(1, 1, 1), (2, 2, 1), (1, 1, 0)])
    assert round_trip_period(model, (0, 1, 2, 3)) == model.period((0, 1, 2, 3)) == 4
    assert sufficient_lead(model, (0, 1, 2, 3)) == 1


STAGES = st.lists(
    st.tuples(st.integers(1, 5), st.integers(1, 5), st.integers(0, 6)), min_size=1, max_size=5
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STAGES, st.integers(1, 3))
def test_round_trips_are_what_simulated_schedules_take(layers, lead):
    model = model_of(layers, lead)
    cuts = cuts_of(model)
    expected = max(round_trip_period(model, cuts), model.period(cuts))
    # What is measured is a mean over optimizer steps, which the rhythm need not divide.
    assert simulated_period(model, lead) == pytest.approx(float(expected), rel=0.03)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(STAGES)
def test_the_sufficient_lead_is_the_least_that_reaches_the_planned_period(layers):
    model = model_of(layers)
    planned = pytest.approx(float(model.period(cuts_of(model))), rel=1e-9)
    lead = sufficient_lead(model, cuts_of(model))
    assert simulated_period(model, lead) == planned
    if lead > 1:
        assert simulated_period(model, lead - 1) != planned
