"""`python3 -m unionfs.probe`: the probe where nothing else is installed."""

import argparse
import sys

from unionfs.probe import configure, run

parser = argparse.ArgumentParser(
    prog="unionfs probe", description="Test what rename(2) does in a directory, on any file system."
)
configure(parser)
sys.exit(run(parser.parse_args()))
