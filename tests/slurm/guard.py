"""Takes a cluster down once the process that started this has ended, in whatever way it did.

    guard.py CLUSTER NAME

CLUSTER is the testbed's program. The pipe to this process's input ends with its other side.
"""

import subprocess
import sys

sys.stdin.read()
subprocess.run([sys.argv[1], "down", "--name", sys.argv[2]], stdout=subprocess.DEVNULL, check=False)
