"""A simulated line"""
from __future__ import annotations
import sys, time, tempfile
from pathlib import Path
from conveyor import Conveyor
from faults import plan_life, plan_lives, plan_quiet
from judge import Judge
from line_camera import SimulatedCamera
from line_process import LineProcess
from simulated_plc import SimulatedPlc

parts, seed = int(sys.argv[1]), int(sys.argv[2])
folder = Path(tempfile.mkdtemp())
camera = SimulatedCamera(); judge = Judge(); line = LineProcess(folder, camera.port); plc = SimulatedPlc(line.plc, judge); plc.begin()
con = Conveyor(line, camera, plc, judge)
print(folder)
try:
    t = time.time()
    con.run(plan_quiet(seed, 200))
    print("quiet", time.time() - t, con.seen.busy)
    lives = plan_lives(parts)
    for n, c in lives:
        con.run(plan_life(seed, n, c, n == len(lives) - 1))
        print(n, c, dict(judge.counts), dict(judge.unknown), con.seen.busy, plc.polls)
finally:
    line.close(); plc.close(); camera.close()
    print(judge.counts, judge.unknown, *judge.notes, sep="\n")
    print(con.seen, time.time() - t)
