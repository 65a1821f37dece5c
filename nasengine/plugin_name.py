"""How a plugin is named: by what is installed, or as code of one's own."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class PluginName:
    """The name of a plugin, as a spec has it.

    Parameters
    ----------
    source
        Where code of one's own lies: a file (``my_space.py``) or a module (``my_package.spaces``);
        empty for an installed plugin.
    attribute
        The class in it, or the installed plugin's name.

    Examples
    --------
    >>> name = PluginName.parse("spaces/mine.py:Mine")
    >>> name.source, name.attribute, name.is_file, name.short
    ('spaces/mine.py', 'Mine', True, 'mine.py:Mine')
    >>> PluginName.parse("light_sdi").is_own
    False
    """

    source: str
    attribute: str

    @classmethod
    def parse(cls, text: str) -> PluginName:
        """Read ``name``, ``file.py:Class`` or ``package.module:Class``."""
        source, _, attribute = text.rpartition(":")
        return cls(source, attribute)

    def __str__(self) -> str:
        return f"{self.source}:{self.attribute}" if self.source else self.attribute

    @property
    def is_own(self) -> bool:
        """Whether it names code of one's own."""
        return bool(self.source)

    @property
    def is_file(self) -> bool:
        """Whether that code is a file, not a module."""
        return self.source.endswith(".py")

    @property
    def short(self) -> str:
        """The name without the folders of its file."""
        return str(PluginName(Path(self.source).name, self.attribute) if self.is_file else self)

    def located(self, folder: Path) -> PluginName:
        """Return the name with an absolute file, so that it can be read from anywhere."""
        if not self.is_file:
            return self
        return PluginName(str((folder / self.source).resolve()), self.attribute)
