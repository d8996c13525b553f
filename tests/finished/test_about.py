"""What the author of foreign predictions declares, in about.toml."""

import re
import tomllib

from densecl.cli import main
from densecl.finished.about import TEMPLATE, read_about


def test_the_template_is_an_about_with_every_key(tmp_path, capsys):
    assert main(["score", "--template"]) == 0
    assert capsys.readouterr().out == TEMPLATE
    path = tmp_path / "about.toml"
    path.write_text(TEMPLATE)
    assert not any(read_about(path).model_dump(exclude_defaults=True).values())
    path.write_text(re.sub(r"^# (?=\w+ = |\[)", "", TEMPLATE, flags=re.MULTILINE))
    about = read_about(path)
    assert {*tomllib.loads(path.read_text())} == {*type(about).model_fields}
    assert about.training["later"] == {"epochs": 30, "lr": 0.001}
