from __future__ import annotations

from poise.commands.found_again import folder_of, marked


def test_a_folder_is_found_by_its_own_name_and_number_alone(tmp_path):
    """Another name that begins alike, a bracket that patterns would read, another mark, and work at its end."""
    wanted = tmp_path / "a[1]"
    for name in ("a[1]b", "a[1]-for-b", "a1"):
        marked(tmp_path / name, "mine")
    assert folder_of(wanted, "mine", lambda _: False) == wanted
    marked(wanted, "another")
    second = tmp_path / "a[1]-2"
    assert folder_of(wanted, "mine", lambda _: False) == second
    marked(second, "mine")
    assert folder_of(wanted, "mine", lambda _: False) == second
    assert folder_of(wanted, "mine", lambda folder: folder == second) == tmp_path / "a[1]-3"
