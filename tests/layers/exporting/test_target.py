from __future__ import annotations

import pytest

from lamella.layers.errors import ExportError
from lamella.layers.exporting.target import ExportOptions, target_of


@pytest.mark.parametrize(
    ("path", "options", "message"),
    [
        ("x.tar.gz", ExportOptions(level=10), "--compress-level 10: not a level of tar.gz; use 0 to 9"),
        ("x.tar", ExportOptions(level=1), "--compress-level 1: tar is not compressed; leave it out"),
        ("x.tar", ExportOptions(threads=-1), "--threads -1: less than 0; use 0 for one thread per processor"),
        ("x.tar", ExportOptions(root="../up"), "--arcroot ../up: leads out of the archive; use a relative path"),
        ("x", ExportOptions(root="in"), "--arcroot in: only for archives; name the folder as PATH"),
        ("x.tar", ExportOptions(link=True), "--link x.tar: only a folder can hold links, not tar; remove --link"),
        ("-", ExportOptions(format="dir"), "--format dir: cannot go to standard output"),
        ("x.tar", ExportOptions(prefix="/usr"), "/usr: not usable as a prefix"),
        ("envs.parcel", ExportOptions(), "not the name of a parcel; use NAME-VERSION-DISTRIBUTION.parcel"),
        ("a-1-el7.parcel", ExportOptions(prefix="/x/y"), "a parcel's name sets its folder and prefix"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(path: str, options: ExportOptions, message: str) -> None:
    with pytest.raises(ExportError) as error:
        target_of(path, options)

    assert message in str(error.value)


def test_a_parcels_name_sets_its_folder_and_prefix() -> None:
    target = target_of("/out/envs-2026.11-rc1-el8.parcel", ExportOptions(parcel_root="/srv/parcels/"))

    assert (target.root, target.prefix) == ("envs-2026.11-rc1/", "/srv/parcels/envs-2026.11-rc1")
    assert target.parcel is not None
    assert target.parcel.distribution == "el8"
