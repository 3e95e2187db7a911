"""A page for the browser: type a prompt or give a picture, watch its seeds grow, turn each object.

    python experiments/app.py
    python experiments/app.py --host 0.0.0.0 --out /shared/runs --seeds 4 -- --devices 1

Every job is a run as text3d.py or single_view.py makes it, in its usual folder; the same wish goes
on with it. One works at a time, others wait. What stands after -- goes to these programs. Visitors
see all runs in --out. The same over HTTP, by gradio's own client: see experiments/README.md.
Needs `pip install "dsd_jax[app]"`. Ctrl-C ends it; the job at work then keeps its checkpoint.

The first pictures of four seeds come within a minute of the click on 2 CPU cores, once compiled
programs are kept.
"""

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dsd_jax.cli import app_wish, flags, validate
from dsd_jax.cli.app_jobs import Jobs
from dsd_jax.cli.app_wish import Offer
from dsd_jax.cli.program import refuse
from dsd_jax.export.viewer import HOST, check_port, how_to_reach

PORT = 7860


@dataclass(frozen=True)
class Args:
    """Serve the page."""

    host: str = HOST
    """Where it listens; 0.0.0.0 lets other machines in, without a password."""
    port: int = PORT
    """Of http://localhost:PORT."""
    out: Path = Path("runs")
    """Where the runs' folders are, those made before too."""
    seeds: int = 8
    """How many a job may have."""
    waiting: int = 20
    """How many jobs may wait."""
    presets: tuple[str, ...] = ("quick", "draft", "standard")
    """What visitors may choose; the first is chosen at first."""
    prior: str = "toybox"
    """Of prompts; see text3d.py."""
    picture_prior: str = "toybox-1to3"
    """Of pictures; see single_view.py."""


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until Ctrl-C or SIGTERM; returns the exit code."""
    argv = sys.argv[1:] if argv is None else list(argv)
    at = argv.index("--") if "--" in argv else len(argv)
    try:
        args = flags.cli(Args, argv[:at], __doc__)
        offer = Offer(args.seeds, args.presets, args.prior, args.picture_prior, argv[at + 1 :])
        app_wish.check(offer)
        if args.waiting < 0:
            raise ValueError(f"--waiting must be at least 0, not {args.waiting}")
        validate.extra("gradio", "app.py", "app")
        validate.writable(args.out)
        check_port(args.port, args.host)
        validate.make_folder(args.out)
    except (ValueError, OSError) as error:
        return refuse(error)
    # Jobs inherit what these mean; a shell's background programs would ignore Ctrl-C.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        serve(args, offer)
    except KeyboardInterrupt:
        print("stopped", file=sys.stderr)
    return 0


def serve(args: Args, offer: Offer) -> None:
    """Serve until KeyboardInterrupt."""
    out = args.out.absolute()
    with tempfile.TemporaryDirectory(prefix="dsd_app_") as cache:
        os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
        os.environ["GRADIO_TEMP_DIR"] = f"{cache}/gradio"
        from dsd_jax.cli import app_page

        with Jobs(out, args.waiting) as jobs:
            page = app_page.make(jobs, offer, out, Path(cache) / "copies")
            try:
                settings = app_page.settings(out)
                page.launch(server_name=args.host, server_port=args.port, **settings)
                print(how_to_reach(args.port, "app"), flush=True)
                threading.Event().wait()
            finally:
                page.close(verbose=False)
