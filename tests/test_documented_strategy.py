"""The strategies that a reader would begin with keep the contract themselves."""

import re
from pathlib import Path

import pytest

from nasengine.plugin import load_class
from nasengine.strategy import Strategy
from nasengine.testing.strategies import StrategyContract

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "writing_a_strategy.md"


class TestDocumentedStrategies(StrategyContract):
    @pytest.fixture(params=["the page's", "the example's"])
    def strategy(self, request: pytest.FixtureRequest, tmp_path: Path) -> Strategy:
        if request.param == "the example's":
            return load_class(Strategy, "my_strategy.py:Climb", ROOT / "examples")()
        code = re.search(
            r"^```python file=my_strategy\.py\n(.*?)^```$", PAGE.read_text(), re.M | re.S
        )
        assert code
        (tmp_path / "my_strategy.py").write_text(code[1])
        return load_class(Strategy, "my_strategy.py:Climber", tmp_path)()
