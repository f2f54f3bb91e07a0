"""Which network a scan takes, on both databases: named, set, promoted or shipped; one promoted at a time; retired ones never."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from model_cards import write_card
from sqlalchemy import update
from sqlalchemy.exc import IntegrityError

from farm.db.models import Model, ModelState
from farm.db.results import scan_results
from farm.errors import BadInput
from farm.farm import Farm
from farm.jobs.models import find_model, list_models, load_model, register_model, shipped_card
from farm.jobs.promotion import promote, retire
from farm.jobs.recipe import recipe_of
from farm.jobs.rescan import rescan
from farm.jobs.sources import Source
from farm.jobs.submit import submit


@pytest.fixture
def known(farm, tmp_path):
    """Two versions of one network and another one, by name@version."""
    cards = [("net", "1"), ("net", "2"), ("other", "1")]
    return {
        f"{name}@{version}": register_model(
            farm, write_card(tmp_path / name / version, name, f"{name} {version}".encode(), version)
        )
        for name, version in cards
    }


def states(farm: Farm) -> dict[str, str]:
    return {model.named: str(model.state) for model in list_models(farm)}


def test_a_registered_network_is_a_candidate_and_scans_take_the_shipped_one(farm, known):
    assert set(states(farm).values()) == {"candidate"}
    assert find_model(farm, "") == register_model(farm, shipped_card()) not in known.values()


def test_the_promoted_one_is_taken_where_none_is_named_and_the_record_says_who_and_when(farm, known):
    promotion = promote(farm, "net@1", "ada@lab")

    assert find_model(farm, "") == known["net@1"]
    assert (promotion.changed, promotion.before, promotion.model.state_by) == (True, None, "ada@lab")
    assert promotion.model.state_at == pytest.approx(promotion.model.created_at, abs=60)


def test_promoting_another_makes_the_first_a_candidate_and_promoting_twice_changes_nothing(farm, known):
    promote(farm, "net@1", "ada")
    promotion = promote(farm, "other@1", "bob")

    assert promotion.before is not None and promotion.before.named == "net@1"
    assert states(farm) == {"net@1": "candidate", "net@2": "candidate", "other@1": "promoted"}
    again = promote(farm, "other@1", "eve")
    assert not again.changed and again.model.state_by == "bob"


def test_promotions_at_once_leave_exactly_one_promoted(farm, known):
    names, together = sorted(known), threading.Barrier(6)

    def move(number: int) -> None:
        together.wait()
        for turn in range(4):
            promote(farm, names[(number + turn) % len(names)], f"person {number}")

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(move, range(6)))

    assert sorted(states(farm).values()) == ["candidate", "candidate", "promoted"]


def test_the_database_itself_holds_that_one_is_promoted(farm, known):
    promote(farm, "net@1", "ada")
    with pytest.raises(IntegrityError), farm.sessions.begin() as session:
        session.execute(update(Model).where(Model.id == known["net@2"]).values(state=ModelState.PROMOTED))


def test_the_one_that_scans_take_cannot_be_retired_and_nothing_takes_its_place_unasked(farm, known):
    shipped = load_model(farm, find_model(farm, "")).named
    with pytest.raises(BadInput, match="promote another first"):
        retire(farm, shipped, "ada")
    promote(farm, "net@1", "ada")
    with pytest.raises(BadInput, match="promote another first"):
        retire(farm, "net@1", "ada")
    assert states(farm)["net@1"] == "promoted"

    assert retire(farm, shipped, "ada").state is ModelState.RETIRED


def test_no_new_scan_takes_a_retired_one_however_it_is_named(farm, known, tmp_path):
    retire(farm, "net@2", "ada")

    for named in ("net@2", str(tmp_path / "net" / "2" / "net.json")):
        with pytest.raises(BadInput, match=r"net@2 is retired \(by ada at 20.*\), no new scan may take it"):
            find_model(farm, named)
    assert find_model(farm, "net") == known["net@1"], "a name alone is its latest version that is not retired"
    retire(farm, "net@1", "ada")
    with pytest.raises(BadInput, match="retired"):
        find_model(farm, "net")


def test_what_a_retired_one_found_stays_and_names_it_but_is_not_repeated_with_it(farm, known, rows, tmp_path):
    scan_id = rows.submit(tmp_path / "in", {"a.mp4": b"a"}, model="net@2")
    retire(farm, "net@2", "ada")

    with farm.sessions() as session:
        assert [result.model for result in scan_results(session, scan_id)] == ["net@2"]
    with pytest.raises(BadInput, match="net@2 is retired"):
        rescan(farm, scan_id)
    assert rows.scan(rescan(farm, scan_id, model="net@1")).model_id == known["net@1"]


def test_promoting_a_retired_one_takes_it_back(farm, known):
    retire(farm, "net@2", "ada")
    promote(farm, "net@2", "bob")

    assert find_model(farm, "net@2") == known["net@2"]


@pytest.mark.parametrize("named", ["net", "", "nobody@9"])
def test_a_name_without_its_version_or_an_unknown_one_moves_nothing(farm, known, named):
    for move in (promote, retire):
        with pytest.raises(BadInput):
            move(farm, named, "ada")
    assert set(states(farm).values()) == {"candidate"}


def test_the_option_goes_before_the_setting_and_the_setting_before_the_promoted_one(impatient, known, rows, tmp_path):
    (tmp_path / "a.mp4").write_bytes(b"a")

    def taken(setting: str, option: str) -> int:
        farm = impatient(model=setting)
        recipe = recipe_of(farm, model=option)
        return rows.scan(submit(farm, [Source(str(tmp_path / "a.mp4"), "a")], model=option, recipe=recipe)).model_id

    promote(impatient(), "net@1", "ada")
    assert taken("", "") == known["net@1"]
    assert taken("net@2", "") == known["net@2"]
    assert taken("net@2", "other@1") == known["other@1"]
