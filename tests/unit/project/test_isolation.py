import os

from tests.isolation import isolate


def test_of_the_callers_settings_only_those_that_steer_the_tests_are_left() -> None:
    environment = {
        "BUS_URL": "amqp://production",
        "BUS_AUTH": "dev",
        "BUS_TEST_BROKER": "node",
        "PATH": "/bin",
    }
    isolate(environment)
    assert environment == {
        "BUS_AUTH": "off",
        "BUS_ENV_FILE": os.devnull,
        "BUS_TEST_BROKER": "node",
        "PATH": "/bin",
    }
