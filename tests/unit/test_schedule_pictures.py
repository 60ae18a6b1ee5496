"""Schedules as pictures drawn by hand: one column a pass, u an optimizer step, . an idle slot."""

from textwrap import dedent

import pytest

from hpc_lpm.schedules.drawing import draw
from hpc_lpm.schedules.insertions import with_communication
from hpc_lpm.schedules.ordering import evaluation
from hpc_lpm.schedules.placement import Placement
from hpc_lpm.schedules.registry import SCHEDULES


def picture(text):
    """Bring a hand-drawn picture to single spaces."""
    return [line.split() for line in dedent(text).strip().splitlines()]


def drawn(name, devices, micro_batches, steps, lead=1):
    schedule = SCHEDULES.named(name)
    stages = devices * schedule.chunks
    programmes = schedule.programmes(stages, micro_batches, steps * micro_batches, lead)
    picture = draw(programmes, placement=schedule.placement(stages))
    return [line.split() for line in picture.splitlines()]


def test_fbp_never_idles_between_warm_up_and_drain():
    assert drawn("fbp", 3, 4, 2) == picture(
        """
        stage 0  F0 F1 F2 .  .  B0 F3 B1 F4 B2  F5  B3u F6 B4 F7 B5 .  B6  .  B7u
        stage 1  .  F0 F1 .  B0 F2 B1 F3 B2 F4  B3u F5  B4 F6 B5 F7 B6 .   B7u .
        stage 2  .  .  F0 B0 F1 B1 F2 B2 F3 B3u F4  B4  F5 B5 F6 B6 F7 B7u .   .
        """
    )


def test_fbp_with_lead_2_runs_two_forwards_ahead_a_stage():
    assert drawn("fbp", 2, 2, 3, lead=2) == picture(
        """
        stage 0  F0 F1 F2 B0 F3  B1u F4 B2 F5  B3u .  B4 .   B5u
        stage 1  .  F0 B0 F1 B1u F2  B2 F3 B3u F4  B4 F5 B5u .
        """
    )


def test_fbp_on_one_stage_is_sequential_training():
    assert drawn("fbp", 1, 2, 2) == picture("stage 0  F0 B0 F1 B1u F2 B2 F3 B3u")


def test_fbp_with_fewer_micro_batches_than_its_lead():
    assert drawn("fbp", 4, 1, 2) == picture(
        """
        stage 0  F0 F1 .  .  .  .  .   B0u .   B1u
        stage 1  .  F0 F1 .  .  .  B0u .   B1u .
        stage 2  .  .  F0 F1 .  B0u .  B1u .   .
        stage 3  .  .  .  F0 B0u F1 B1u .  .   .
        """
    )


def test_1f1b_flushes_before_every_update():
    assert drawn("1f1b", 3, 4, 2) == picture(
        """
        stage 0  F0 F1 F2 .  .  B0 F3 B1 .  B2  .   B3u F4 F5 F6 .  .  B4 F7 B5 .  B6  .   B7u
        stage 1  .  F0 F1 .  B0 F2 B1 F3 B2 .   B3u .   .  F4 F5 .  B4 F6 B5 F7 B6 .   B7u .
        stage 2  .  .  F0 B0 F1 B1 F2 B2 F3 B3u .   .   .  .  F4 B4 F5 B5 F6 B6 F7 B7u .   .
        """
    )


def test_gpipe_runs_all_forwards_before_all_backwards_in_ascending_order():
    assert drawn("gpipe", 2, 3, 2) == picture(
        """
        stage 0  F0 F1 F2 .  .  B0 B1 B2u F3 F4 F5 .  .  B3 B4  B5u
        stage 1  .  F0 F1 F2 B0 B1 B2u .  .  F3 F4 F5 B3 B4 B5u .
        """
    )


def test_naive_has_one_micro_batch_in_the_whole_pipeline():
    assert drawn("naive", 2, 2, 1) == picture(
        """
        stage 0  F0 .  .  B0 F1 .  .  B1u
        stage 1  .  F0 B0 .  .  F1 B1u .
        """
    )


def test_interleaved_1f1b_runs_micro_batches_in_groups_through_all_chunks():
    assert drawn("interleaved-1f1b", 2, 2, 1) == picture(
        """
        device 0  F0 F1 F0.1 F1.1 .    B0.1 .    B1.1 B0 B1u
        device 1  .  F0 F1   F0.1 B0.1 F1.1 B1.1 B0   B1u .
        """
    )


def test_zb_h1_fills_the_drain_with_gradients_of_weights():
    assert drawn("zb-h1", 3, 4, 1) == picture(
        """
        stage 0  F0 F1 F2 .  .  I0 W0 F3 I1 W1 I2 W2 I3 W3u
        stage 1  .  F0 F1 .  I0 F2 I1 W0 F3 I2 W1 I3 W2 W3u
        stage 2  .  .  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2 W3u
        """
    )


def test_zb_h2_fills_the_warm_up_with_forwards():
    assert drawn("zb-h2", 2, 4, 1) == picture(
        """
        stage 0  F0 F1 F2 I0 W0 F3 I1 W1 I2 W2 I3 W3u .
        stage 1  .  F0 I0 F1 I1 F2 I2 W0 F3 I3 W1 W2  W3u
        """
    )


def test_zb_v_leaves_out_the_surplus_of_too_few_micro_batches():
    assert drawn("zb-v", 2, 1, 2) == picture(
        """
        device 0  F0 .  .    F0.1 I0.1 W0.1 .    .  I0  W0u F1 .  .    F1.1 I1.1 W1.1 .    . I1  W1u
        device 1  .  F0 F0.1 .    .    I0.1 W0.1 I0 W0u .   .  F1 F1.1 .    .   I1.1 W1.1 I1 W1u .
        """
    )


def test_evaluation_is_forward_only():
    placement = Placement.in_a_loop(3)
    programmes = [
        list(with_communication(evaluation(3, stage, placement), stage, placement))
        for stage in range(3)
    ]
    assert [line.split() for line in draw(programmes).splitlines()] == picture(
        """
        stage 0  F0 F1 F2 .  .
        stage 1  .  F0 F1 F2 .
        stage 2  .  .  F0 F1 F2
        """
    )


@pytest.mark.parametrize(
    ("stage", "expected"),
    [
        (0, "F0 SA0 F1 SA1 F2 SA2 RG0 B0 F3 SA3 RG1 B1 U0 RG2 B2 RG3 B3 U1"),
        (
            1,
            "RA0 F0 SA0 RA1 F1 SA1 RG0 B0 SG0 RA2 F2 SA2 RG1 B1 SG1 U0 "
            "RA3 F3 SA3 RG2 B2 SG2 RG3 B3 SG3 U1",
        ),
        (2, "RA0 F0 B0 SG0 RA1 F1 B1 SG1 U0 RA2 F2 B2 SG2 RA3 F3 B3 SG3 U1"),
    ],
)
def test_receives_come_right_before_and_sends_right_after_their_pass(stage, expected):
    programme = SCHEDULES.named("fbp").programme(stage, 3, 2, 4)
    assert [str(instruction) for instruction in programme] == expected.split()


def test_a_lagged_micro_batch_is_replayed_before_its_gradient_is_awaited():
    # Micro-batch 2 goes forward before the first update and backward after it.
    programmes = SCHEDULES.named("fbp").programmes(2, 2, 4, replay=True)
    assert [line.split() for line in draw(programmes).splitlines()] == picture(
        """
        stage 0  F0 F1 .  B0 F2 B1u F3 R2 B2  B3u
        stage 1  .  F0 B0 F1 B1u F2 B2 F3 B3u .
        """
    )
    assert [str(i) for i in programmes[0]][-7:] == ["SA3", "R2", "RG2", "B2", "RG3", "B3", "U1"]
