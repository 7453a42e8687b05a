"""`python3 -m unionfs.probe`: the probe where nothing else is installed."""

import argparse
import sys

from unionfs.probe import configure, run

parser = argparse.ArgumentParser(
    prog="unionfs probe", description=sys.modules["unionfs.probe"].__doc__
)
configure(parser)
sys.exit(run(parser.parse_args()))
