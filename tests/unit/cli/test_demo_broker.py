import io

from rich.console import Console

from bus.cli.demo_output import print_ui
from bus.operations.brokers.external import ExternalBroker


def test_the_demo_prints_no_url_of_a_broker_that_bus_url_names() -> None:
    console = Console(file=io.StringIO(), width=200)
    print_ui(console, ExternalBroker("amqp://user:hunter2@one/v", "http://user:hunter2@one:15672"))
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue() == (
        "the RabbitMQ that BUS_URL names, on one:5672: it continues to run. Ctrl-C ends the demo.\n"
    )
