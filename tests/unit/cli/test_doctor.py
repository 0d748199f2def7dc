from bus.cli.doctor import probe_hosts
from bus.cli.doctor_report import Report
from tests.unit.transports.rabbitmq.broker_stub import Host, hosts


async def test_the_doctor_connects_to_each_host_and_reports_the_one_that_is_away() -> None:
    first, second = Host(), Host()
    async with hosts(first, second) as url:
        await first.stop()
        report = Report()
        await probe_hosts(url, report)
    assert report.server is not None
    assert report.server["cluster"] == "one"
    (problem,) = report.problems
    assert problem.startswith(f"the broker at {first.place} cannot be reached")


async def test_the_doctor_reports_a_host_of_another_cluster() -> None:
    first, second = Host(cluster="x"), Host(cluster="y")
    async with hosts(first, second) as url:
        report = Report()
        await probe_hosts(url, report)
    (problem,) = report.problems
    assert problem == (
        f"host {second.place} belongs to the cluster 'y', but an earlier host in BUS_URL to 'x'. "
        "List only nodes of one cluster in BUS_URL."
    )
