"""Read edgead's results as a PLC does, with pymodbus alone, and acknowledge each.

python examples/plc.py HOST PORT [COUNT]

Start edgead first, here for 127.0.0.1 5020: edgead run BUNDLE --source SOURCE --sink modbus-server:127.0.0.1:5020
A verdict counts only while edgead is valid and its heartbeat changes. docs/plc.md has the register map.
"""

import sys
import time

if len(sys.argv) < 3:
    sys.exit("Usage: " + __doc__.splitlines()[2])

from pymodbus.client import ModbusTcpClient

SESSION, HEARTBEAT, VALID, SEQUENCE, VERDICT, PART_ID, ACKNOWLEDGE = 1, 2, 3, 5, 6, 20, 60
WORDS = {1: "PASS", 2: "FAIL", 3: "UNKNOWN"}

plc = ModbusTcpClient(sys.argv[1], port=int(sys.argv[2]), timeout=1)
count = int(sys.argv[3]) if len(sys.argv) > 3 else 0
last, heartbeat, beat_at, taken = (0, 0), -1, 0.0, 0

while not count or taken < count:
    time.sleep(0.01)
    if not plc.connect():
        continue
    read = plc.read_holding_registers(0, count=ACKNOWLEDGE)  # all in one request: they belong together
    if read.isError():
        sys.exit(f"edgead answers with an exception: {read}")
    words = read.registers
    if words[HEARTBEAT] != heartbeat:
        heartbeat, beat_at = words[HEARTBEAT], time.monotonic()
    alive = words[VALID] == 1 and time.monotonic() - beat_at < 1.0
    result = words[SESSION], words[SEQUENCE]
    if not alive or not words[VERDICT] or result == last:
        continue
    part = b"".join(word.to_bytes(2, "big") for word in words[PART_ID : PART_ID + 20]).rstrip(b"\0").decode()
    print(WORDS[words[VERDICT]], part)
    plc.write_register(ACKNOWLEDGE, words[SEQUENCE])
    last, taken = result, taken + 1
plc.close()
