"""For the tests of applications that use starlette_drain, and for ours."""
