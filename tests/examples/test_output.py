import pytest

from tests.examples.output import Output

JOB = "1bca7969-65da-4741-9053-a6d7357cb8dc"
OURS = "9cbb8299-6317-41c6-8d6f-706ff91cfd5a"
OTHER = "668dce4d-28ad-45b2-b0cb-6c7e4e445b8a"


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("rye: 4.20", "rye: 4.20"),
        ("… serving …", "bakery is serving 2 queues"),
        ("2026-11-22 22:18:09 done", "2027-01-02 03:04:05 done"),
        ("handled in 0.09 ms", "handled in 12 ms"),
        ("  bus/runtime/router.py:289 call", "  bus/runtime/router.py:301 call"),
        (f"{JOB} {JOB}", f"{OURS} {OURS}"),
        (f"id {JOB[:8]}", f"id {OURS[:8]}"),
        ("created reader-20261123-be0a27", "created reader-20261201-00ff00"),
        ("billing     12ms  p99", "billing  1.4s   p99"),
        ("in vm-629-5a3ae334703f, ready", "in build-host-7-0123456789ab, ready"),
    ],
)
def test_a_line_that_differs_only_in_variable_parts_matches(shown: str, printed: str) -> None:
    assert Output().matches(shown, printed + "\n")


@pytest.mark.parametrize(
    ("shown", "printed"),
    [
        ("rye: 4.20", "rye: 4.2"),
        ("rye", "rye: 4.20"),
        ("2026-11-22 22:18:09 done", "yesterday done"),
        ("library/service.py:31 scan", "library/service.py:32 scan"),
        (f"{JOB} {JOB}", f"{OURS} {OTHER}"),
        ("created reader-20261123-be0a27", "created writer"),
        ("20 messages", "21 messages"),
        ("billing  ready", "billing ready"),
        ("library.retry.5s", "library.retry.30s"),
        ("in vm-629-5a3ae334703f", "in vm"),
    ],
)
def test_a_line_that_differs_in_other_parts_does_not_match(shown: str, printed: str) -> None:
    assert not Output().matches(shown, printed)


def test_an_id_of_a_page_stands_for_one_id_of_the_run() -> None:
    output = Output()
    assert output.matches(f"submitted {JOB}", f"submitted {OURS}")
    assert not output.matches(f"id {JOB}", f"id {OTHER}")
    assert output.matches(f"{JOB[:8]} failed", f"{OURS[:8]} failed")
    assert output.with_ids_of_the_run(f"bus dead show {JOB[:8]} {JOB}") == (
        f"bus dead show {OURS[:8]} {OURS}"
    )
