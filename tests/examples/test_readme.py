import asyncio
import os
import re
import signal
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```python\n# (\w+\.py)\n(.*?)```", flags=re.DOTALL)


async def test_what_the_readme_shows_runs_as_it_says(vhost_url: str, tmp_path: Path) -> None:
    for name, code in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")):
        (tmp_path / name).write_text(code, encoding="utf-8")
    environment = {
        **os.environ,
        "BUS_URL": vhost_url,
        "PYTHONPATH": str(ROOT),
        "PYTHONUNBUFFERED": "1",
    }

    async def start(*arguments: str) -> asyncio.subprocess.Process:
        pipe = asyncio.subprocess.PIPE
        return await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env=environment, cwd=tmp_path, stdout=pipe, stderr=pipe
        )

    service = await start("-m", "bus.cli", "run", "library:router")
    try:
        await line_with("library is serving ", service.stderr)
        caller = await start("reader.py")
        printed, complaints = await caller.communicate()
        assert printed.decode() == "shelf A3\n50% half of it\n"
        assert [
            line
            for line in complaints.decode().splitlines()
            if not line.startswith("BUS_AUTH=off: ")
        ] == []
        assert await line_with("read", service.stdout) == "Emma can be read\n"
        service.send_signal(signal.SIGTERM)
        assert await service.wait() == 0
    finally:
        if service.returncode is None:
            service.kill()
            await service.wait()


async def line_with(text: str, stream: asyncio.StreamReader | None) -> str:
    """Return the next line that contains the text."""
    assert stream
    async with asyncio.timeout(100):
        while line := (await stream.readline()).decode():
            if text in line:
                return line
    raise AssertionError(f"no line with {text!r}")
