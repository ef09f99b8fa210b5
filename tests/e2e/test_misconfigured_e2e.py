"""An option that cannot work, with a real server: it does not start, or serves as if the middleware were not there."""

import pytest
from server_process import TOKEN

WRONG = "DRAIN_WINDOW='4m' cannot work: give a number of seconds above 0, such as 240, or None"
ENVIRONMENT = {"DRAIN_WINDOW": "4m", "DRAIN_ADMIN_TOKEN": TOKEN}
APPS = ("one_line:app", "endpoint_shapes:fastapi_app")


@pytest.mark.parametrize("app", APPS)
@pytest.mark.parametrize("lifespan", ["auto", "on"])
def test_the_server_does_not_start(serve, app, lifespan):
    """It exits before it takes connections, and its log says once what is wrong."""
    with pytest.raises(AssertionError, match="the server exited") as caught:
        serve(app, "--lifespan", lifespan, env=ENVIRONMENT)
    log = str(caught.value)
    assert log.count(WRONG) == 1
    assert "startup complete" not in log
    assert "Traceback" not in log


@pytest.mark.parametrize("app", APPS)
def test_without_a_lifespan_it_serves_untouched(serve, app):
    """Requests are answered, one ERROR says why nothing drains, and the admin route says so too."""
    server = serve(app, "--lifespan", "off", env=ENVIRONMENT)
    assert server.get("/pid")
    assert server.drain() == (503, {"error": WRONG})
    assert server.drain("POST", token="wrong" * 4, window=0)[0] == 503
    assert server.get("/pid")
    assert server.log.count(WRONG) == 1
    assert [each for each in server.trouble if WRONG not in each] == []
