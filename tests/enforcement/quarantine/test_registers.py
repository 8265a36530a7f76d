"""The register layouts, machine by machine: what is written there before and after a call is made for a thread."""

from __future__ import annotations

import pytest

from clawback.enforcement.kernel.registers import HERE, MACHINES
from clawback.enforcement.kernel.syscalls import TABLES


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
def test_a_call_changes_nothing_but_what_it_needs(machine):
    saved = [1000 + n for n in range(machine.words)]
    words = machine.calling(saved, "prctl", (38, 1, 0, 0, -1), 0x7F0000)
    assert words[machine.number] == TABLES[machine.name]["prctl"]
    assert words[machine.counter] == 0x7F0000
    assert [words[index] for index in machine.arguments] == [38, 1, 0, 0, (1 << 64) - 1, saved[machine.arguments[5]]]
    touched = {machine.number, machine.counter, *machine.arguments[:5], *dict(machine.sets)}
    if machine.original >= 0:
        assert words[machine.original] == (1 << 64) - 1
        touched.add(machine.original)
    assert all(words[n] == saved[n] for n in range(machine.words) if n not in touched)
    assert saved == [1000 + n for n in range(machine.words)]


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES.keys())
def test_results_are_signed(machine):
    words = [0] * machine.words
    words[machine.result] = (1 << 64) - 13
    assert machine.returned(words) == -13
    words[machine.result] = 7
    assert machine.returned(words) == 7


def test_x86_goes_back_over_the_instruction_of_an_interrupted_call():
    machine = MACHINES["x86_64"]
    saved = [0] * machine.words
    saved[machine.original], saved[machine.counter] = TABLES["x86_64"]["read"], 0x4002
    for code, number in ((512, "read"), (514, "read"), (516, "restart_syscall")):
        saved[machine.result] = (1 << 64) - code
        words = machine.resumed(saved)
        assert words[machine.counter] == 0x4000
        assert words[machine.number] == TABLES["x86_64"][number]
    saved[machine.result] = (1 << 64) - 4  # an ordinary EINTR: the program sees it
    assert machine.resumed(saved) == saved
    saved[machine.result], saved[machine.original] = (1 << 64) - 512, (1 << 64) - 1  # in no call
    assert machine.resumed(saved) == saved


def test_arm64_has_gone_back_by_itself():
    machine = MACHINES["aarch64"]
    saved = [(1 << 64) - 512] * machine.words
    assert machine.resumed(saved) == saved
    assert (machine.words, machine.counter, machine.number) == (34, 32, 8)
    assert machine.instruction == (0xD4000001).to_bytes(4, "little")


def test_this_machine_is_one_of_them_or_none():
    assert HERE is None or HERE in MACHINES.values()
