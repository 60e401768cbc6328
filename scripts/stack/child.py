"""Turns into a command that gets a signal when its parent dies: python -I -S child.py SIGNAL PARENT_PID COMMAND..."""

import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    death_signal, parent, *command = sys.argv[1:]
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, int(death_signal))
    if os.getppid() != int(parent):
        sys.exit("the supervisor died before its child began")
    os.execvp(command[0], command)
