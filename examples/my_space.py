"""A search space of one's own: two stages of convolutions with a shortcut around the second."""

from torch import nn

from nasengine import SearchSpace, SpaceGraph


def conv(kernel: int):
    """Return the factory of a convolution with batch norm and ReLU."""

    def make(channels_in: int, channels_out: int) -> nn.Module:
        layer = nn.Conv2d(channels_in, channels_out, kernel, padding=kernel // 2)
        return nn.Sequential(layer, nn.BatchNorm2d(channels_out), nn.ReLU())

    return make


BLOCKS = {"conv_1": conv(1), "conv_3": conv(3), "conv_5": conv(5)}


class MySpace(SearchSpace):
    """Four slots of three convolutions, at the size of the image."""

    width: int = 8
    """Channels of every layer."""

    def define(self, graph: SpaceGraph) -> None:
        """Wire input, slots, shortcut and output."""
        stem = graph.slot("stem", graph.input(3), BLOCKS, out=self.width)
        x = graph.slot("first", stem, BLOCKS)
        x = graph.slot("second", x, BLOCKS)
        x = graph.add("shortcut", [x, stem])
        x = graph.slot("last", x, BLOCKS)
        head = graph.operation("head", x, lambda i, o: nn.Conv2d(i, o, 1), out=1)
        graph.output(head)

    def references(self):
        """Name networks to compare with."""
        return {"all_conv_3": dict.fromkeys(self.decisions, "conv_3")}
