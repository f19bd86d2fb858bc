"""Many probes at once.

    python barrage.py < JSON

JSON is a list of pairs: the name of a probe of probes.py, and its arguments as text. Prints one
line of JSON: what came of each. A program of its own, standard library only.
"""

import json
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import probes  # type: ignore[import-not-found]  # next to this file, wherever it was copied to

AT_ONCE = 16

if __name__ == "__main__":
    with ThreadPoolExecutor(AT_ONCE) as pool:
        outcomes = list(pool.map(lambda asked: probes.run(*asked), json.load(sys.stdin)))
    sys.stdout.write(json.dumps(outcomes) + "\n")
