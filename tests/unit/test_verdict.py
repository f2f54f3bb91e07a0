"""What the farm says about a video, from scores alone."""

import math
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from model_cards import model_card

from farm.contracts import VerdictLabel
from farm.errors import BadObject
from farm.verdict import TrackScores, calibrate, decide, stitch, track_score

CARD = model_card(name="test-net", temperature=2.0, bias=0.5, threshold=0.9, real_below=0.2, demonstration=False)
DEMO = replace(CARD, demonstration=True)
SEEN = {
    "frames_read": 12,
    "faces_found": 15,
    "tracks": 1,
    "rejected": {"too_small": 3},
    "notes": [],
    "duration_seconds": 24.0,
}
ORDER = [VerdictLabel.REAL, VerdictLabel.UNCERTAIN, VerdictLabel.FAKE]


def track(logits: list[float], number: int = 0) -> TrackScores:
    return TrackScores(number, len(logits), math.fsum(logits), max(logits))


logits = st.lists(st.floats(-30, 30), min_size=1, max_size=12)
videos = st.lists(logits, min_size=1, max_size=5)


def test_a_video_is_as_fake_as_its_most_fake_face() -> None:
    verdict = decide([track([-6.0] * 12, 0), track([9.0] * 12, 1), track([-5.0] * 12, 2)], CARD, summary=SEEN)
    assert verdict.label is VerdictLabel.FAKE
    assert verdict.p_fake == verdict.track_scores[1] == max(verdict.track_scores.values())
    assert "face 1, the highest of 3 faces, from 12 crops" in verdict.reasons[0]


def test_probability_follows_temperature_and_bias_of_the_card() -> None:
    assert calibrate(CARD.bias, CARD) == 0.5
    assert calibrate(CARD.bias + CARD.temperature * math.log(3), CARD) == pytest.approx(0.75)
    assert (calibrate(1e6, CARD), calibrate(-1e6, CARD)) == (1.0, 0.0)


def test_low_scores_over_the_whole_video_are_real() -> None:
    verdict = decide([track([-5.0] * 12)], CARD, summary=SEEN)
    assert verdict.label is VerdictLabel.REAL
    assert verdict.p_fake is not None
    assert verdict.p_fake <= CARD.real_below


def test_between_the_bounds_the_model_is_not_entitled_to_a_word() -> None:
    verdict = decide([track([0.5] * 12)], CARD, summary=SEEN)
    assert verdict.label is VerdictLabel.UNCERTAIN
    assert "between 0.200 and 0.900" in verdict.reasons[0]


def test_one_crop_alone_needs_more_than_a_long_track_to_be_called_fake() -> None:
    assert decide([track([6.0])], CARD, summary=SEEN).label is VerdictLabel.UNCERTAIN
    assert decide([track([6.0] * 12)], CARD, summary=SEEN).label is VerdictLabel.FAKE


def test_real_is_not_said_from_two_crops() -> None:
    verdict = decide([track([-9.0] * 2)], CARD, summary=SEEN)
    assert verdict.label is VerdictLabel.UNCERTAIN
    assert "fewer than 3 scored crops" in verdict.reasons[0]


def test_a_thin_track_that_scores_low_does_not_lift_the_video() -> None:
    alone = decide([track([-5.0] * 12, 0)], CARD, summary=SEEN)
    beside = decide([track([-5.0] * 12, 0), track([-5.0], 1)], CARD, summary=SEEN)
    assert (beside.label, beside.p_fake) == (VerdictLabel.REAL, alone.p_fake)


def test_a_short_manipulated_passage_in_a_low_track_is_pointed_at() -> None:
    verdict = decide([track([-9.0] * 40 + [9.0])], CARD, summary=SEEN)
    assert verdict.label is VerdictLabel.REAL
    assert any("look at the timeline" in reason for reason in verdict.reasons)


def test_no_face_tells_how_many_frames_were_read() -> None:
    verdict = decide([], CARD, summary={"frames_read": 7, "faces_found": 0, "rejected": {}})
    assert verdict.label is VerdictLabel.NO_FACE
    assert verdict.p_fake is None
    assert verdict.reasons == ("7 frames read; no face was found in any of them.",)


def test_faces_kept_out_are_counted_by_reason() -> None:
    seen = {"frames_read": 7, "faces_found": 5, "rejected": {"too_small": 4, "blurred": 1, "too_dark": 0}}
    verdict = decide([], CARD, summary=seen)
    assert verdict.label is VerdictLabel.NO_FACE
    assert verdict.reasons == ("7 frames read; 5 faces found, all kept out of the verdict (1 blurred, 4 too small).",)


def test_damage_notes_stand_in_the_reasons() -> None:
    note = "The file ends after 4.2 s of the 10.0 s it announces."
    for tracks in ([], [track([9.0] * 9)]):
        assert note in decide(tracks, CARD, summary={**SEEN, "notes": [note]}).reasons


def test_reasons_are_whole_sentences_however_the_decoder_words_them() -> None:
    assert decide([], CARD, summary=None, error="the file is empty").reasons == ("The file is empty.",)
    assert (
        "3 packets do not decode." in decide([], CARD, summary={**SEEN, "notes": ["3 packets do not decode"]}).reasons
    )


@pytest.mark.parametrize("seen", [None, {}, {"frames_read": 0, "faces_found": 0}])
def test_a_video_without_a_decoded_frame_is_unreadable(seen: dict[str, int] | None) -> None:
    verdict = decide([], CARD, summary=seen)
    assert verdict.label is VerdictLabel.UNREADABLE
    assert verdict.reasons
    assert verdict.p_fake is None


def test_an_error_is_the_reason_of_unreadable() -> None:
    verdict = decide([], CARD, summary=None, error="The decoder crashed 3 times.")
    assert (verdict.label, verdict.reasons) == (VerdictLabel.UNREADABLE, ("The decoder crashed 3 times.",))


def test_when_every_batch_failed_the_verdict_is_uncertain_and_says_so() -> None:
    verdict = decide([], CARD, summary=SEEN, batches_failed=2)
    assert (verdict.label, verdict.p_fake) == (VerdictLabel.UNCERTAIN, None)
    assert "2 crop batches could not be scored and were left out." in verdict.reasons


def test_real_is_not_said_while_a_part_went_unscored() -> None:
    verdict = decide([track([-5.0] * 12)], CARD, summary=SEEN, batches_failed=1)
    assert verdict.label is VerdictLabel.UNCERTAIN
    assert "1 crop batch could not be scored and was left out." in verdict.reasons


def test_the_threshold_comes_with_its_false_positive_rate() -> None:
    reasons = decide([track([9.0] * 12, 0), track([9.0] * 12, 1)], CARD, summary=SEEN).reasons
    assert "The model card states a false positive rate of 1 % per real face at the threshold 0.900." in reasons
    assert any("With 2 faces judged" in reason and "about 2 %" in reason for reason in reasons)


@pytest.mark.parametrize(("value", "label"), [(9.0, "FAKE"), (-9.0, "REAL")])
def test_a_demonstration_model_words_its_finding_as_a_weak_hint(value: float, label: str) -> None:
    verdict = decide([track([value] * 12)], DEMO, summary=SEEN)
    assert verdict.label == label
    assert any(reason.startswith("Weak hint only: test-net 1 is a demonstration model") for reason in verdict.reasons)
    assert verdict.reasons[0].endswith("as a weak hint only."), "the reason that a table shows says so too"


def test_scores_that_are_no_numbers_are_refused() -> None:
    with pytest.raises(BadObject, match="track 4"):
        TrackScores(4, 2, math.nan, 1.0)


@given(logits, st.data())
def test_tracks_cut_by_batches_are_stitched_whatever_the_cut(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values) - 1))
    parts = [track(part, 7) for part in (values[:cut], values[cut:]) if part]
    assert stitch(parts)[7].crops == len(values)
    assert track_score(stitch(parts)[7], CARD) == pytest.approx(track_score(track(values, 7), CARD))


@given(videos, st.data())
def test_verdict_does_not_depend_on_the_order_of_the_parts(video: list[list[float]], data: st.DataObject) -> None:
    parts = [track([value], number) for number, values in enumerate(video) for value in values]
    shuffled = data.draw(st.permutations(parts))
    assert decide(shuffled, CARD, summary=SEEN) == decide(parts, CARD, summary=SEEN)


@given(videos, st.data())
def test_raising_any_logit_never_makes_a_video_less_fake(video: list[list[float]], data: st.DataObject) -> None:
    which = data.draw(st.integers(0, len(video) - 1))
    where = data.draw(st.integers(0, len(video[which]) - 1))
    raised = [list(values) for values in video]
    raised[which][where] += data.draw(st.floats(0, 20))
    before, after = (decide([track(v, n) for n, v in enumerate(each)], CARD, summary=SEEN) for each in (video, raised))
    assert before.p_fake is not None
    assert after.p_fake is not None
    assert after.p_fake >= before.p_fake
    assert ORDER.index(after.label) >= ORDER.index(before.label)


@given(videos, st.integers(0, 3), st.sampled_from([None, {}, SEEN, {"frames_read": 0}]))
def test_unreadable_is_never_real(video: list[list[float]], failed: int, seen: dict[str, object] | None) -> None:
    tracks = [track(values, number) for number, values in enumerate(video)]
    verdict = decide(tracks, CARD, summary=seen, batches_failed=failed, error="The file cannot be opened.")
    assert (verdict.label, verdict.p_fake) == (VerdictLabel.UNREADABLE, None)


@given(
    st.integers(0, 3), st.sampled_from([None, {}, SEEN, {"frames_read": 0}]), st.lists(st.integers(0, 9), max_size=3)
)
def test_nothing_scored_is_never_fake_nor_real(failed: int, seen: dict[str, object] | None, empty: list[int]) -> None:
    tracks = [TrackScores(number, 0, 0.0, 50.0) for number in empty]
    verdict = decide(tracks, CARD, summary=seen, batches_failed=failed)
    assert verdict.label not in (VerdictLabel.FAKE, VerdictLabel.REAL)
    assert verdict.p_fake is None
    assert verdict.reasons
