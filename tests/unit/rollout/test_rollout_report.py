"""What a run leaves: the table, the JSON file, the picture."""

import json

import pytest

report = pytest.importorskip("example_app.rollout.report", reason="the example is no part of the wheel")
options = pytest.importorskip("example_app.rollout.options")
measuring = pytest.importorskip("example_app.rollout.measure")
records_module = pytest.importorskip("example_app.rollout.clients.records")
events_module = pytest.importorskip("example_app.rollout.events")
rollout = pytest.importorskip("example_app.rollout.rollout")


@pytest.fixture
def plan(tmp_path):
    """A plan whose results go to a directory of the test's."""
    return options.parse(["--results", str(tmp_path)])[1]


@pytest.fixture
def outcomes(plan):
    """Before and after: ten clients at once, ten clients one by one."""
    kinds = [(0.0, "deployment began"), (10.0, "deregistered"), (10.4, "draining seen"), (40.0, "SIGTERM")]
    kinds += [(40.8, "cut"), (41.0, "deployment ended")]
    made = []
    for scenario, moments in zip(options.parse([])[0], ([40.1] * 10, [12.0 + each for each in range(10)]), strict=True):
        records = records_module.Records(
            list(moments), list(moments), [records_module.Loss(0, each - 0.1, 1012, each) for each in moments]
        )
        events = events_module.Events([events_module.Event(at, kind, "task-1") for at, kind in kinds])
        figures = measuring.measure(records, events, plan.times)
        made.append(rollout.Outcome(scenario, records, events, figures, 0))
    return made


def test_the_table_has_a_column_for_each_scenario(outcomes):
    """Every line is as wide as the first."""
    lines = report.table(outcomes).splitlines()
    assert lines[0].split() == ["sigterm-only", "drain"]
    assert {len(line) for line in lines} == {len(lines[0])}
    assert next(line for line in lines if line.startswith("peak new")).split()[-2:] == ["10", "1"]


def test_the_file_tells_the_same_story(outcomes, plan):
    """Seconds are counted from the first deregistration."""
    content = json.loads(report.write_json(outcomes, plan).read_text())
    after = content["scenarios"][1]
    assert content["plan"]["tasks"] == 4
    assert after["figures"]["peak"] == 1
    assert after["events"][2] == {"at": 0.4, "kind": "draining seen", "what": "task-1"}
    assert after["new_connections_by_second"] == {str(second): 1 for second in range(2, 12)}
    assert after["closes_by_second"] == {str(second): 1 for second in range(1, 11)}


@pytest.mark.slow
def test_the_picture_is_drawn_as_png_and_svg(outcomes, plan):
    """Both files are what their names say."""
    picture = pytest.importorskip("example_app.rollout.picture", reason="matplotlib is not installed")
    png, svg = picture.draw(outcomes, plan)
    assert png.read_bytes().startswith(b"\x89PNG")
    assert "<svg" in svg.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("code", [1012, 1006])
def test_the_cut_is_marked_only_where_it_met_somebody(outcomes, plan, code):
    """A line where nobody was cut would look like the cause of what came after it."""
    picture = pytest.importorskip("example_app.rollout.picture", reason="matplotlib is not installed")
    before = outcomes[0]
    before.records.losses[:] = [loss._replace(code=code) for loss in before.records.losses]
    figures = measuring.measure(before.records, before.events, plan.times)
    outcome = rollout.Outcome(before.scenario, before.records, before.events, figures, 0)
    axis = picture.Figure().add_subplot()
    picture._mark_events(axis, outcome, 10)
    names = [text.get_text() for text in axis.texts]
    assert ("balancer cuts\nwhat is left" in names) is (code == 1006)
    assert "SIGTERM" in names


@pytest.mark.slow
def test_the_picture_says_how_the_clients_come_back_and_how_fast_time_goes(plan):
    """In words that need nothing else."""
    picture = pytest.importorskip("example_app.rollout.picture", reason="matplotlib is not installed")
    subtitle = picture._subtitle(plan)
    assert "(300 s, replayed in 30 s)" in subtitle
    assert "Clients reconnect after 0.01 s, the way phoenix does." in subtitle
