"""Many frames at once from packet sockets, each with wishes of its own.

    python salvo.py < JSON

JSON is a list of objects with `device`, `frame` (hexadecimal) and, at will, `mark`, `bypass` and
`kind` as guard_probe.py has them. Prints one line of JSON: what the kernel said to each, "sent" or
the name of the error. A program of its own, standard library only.
"""

import json
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import guard_probe  # type: ignore[import-not-found]  # next to this file, wherever it was copied to

if __name__ == "__main__":
    answers = [guard_probe.send(**wishes) for wishes in json.load(sys.stdin)]
    sys.stdout.write(json.dumps(answers) + "\n")
