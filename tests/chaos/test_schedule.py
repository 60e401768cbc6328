"""What goes wrong is the seed's to say."""

from tests.chaos.nemeses import NEMESES, schedule


def test_the_same_seed_makes_the_same_schedule() -> None:
    assert schedule(7, 600) == schedule(7, 600)
    assert schedule(7, 600) != schedule(8, 600)


def test_a_long_schedule_has_every_nemesis_and_ends_in_time() -> None:
    incidents = schedule(7, 3600)
    assert {incident.nemesis for incident in incidents} == set(NEMESES)
    assert all(2 <= incident.at < 3600 for incident in incidents)
    assert len(incidents) > 500


def test_only_the_nemeses_asked_for_come() -> None:
    assert {incident.nemesis for incident in schedule(7, 600, ["N1", "N6"])} == {"N1", "N6"}
