"""What the verbs of the command line do, grouped by what they work on.

Each verb is two functions: one names its arguments, one runs it. Heavy imports are inside the second.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

Arguments = argparse.Namespace


def print_json(content: Any) -> None:
    """The one JSON document that a command with --json leaves on standard output."""
    print(json.dumps(content, indent=1))
