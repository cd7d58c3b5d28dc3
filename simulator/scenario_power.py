"""Parts of a scenario on power, energy, electricity and carbon."""

from typing import Annotated, Self

from pydantic import Field, model_validator

from simulator.scenario_base import Part, Share

Watts = Annotated[float, Field(gt=0, le=1e6, allow_inf_nan=False)]
WattsOrNone = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
NotNegative = Annotated[float, Field(ge=0, le=1e9, allow_inf_nan=False)]


class PoolPower(Part):
    """Power of one pool's accelerators, and limits on it."""

    idle_w: WattsOrNone | None = None
    """One GPU without a batch in flight, watts; left out: the accelerator's profile, else 0.15 of its board's limit."""
    busy_w: Watts | None = None
    """One GPU with a batch in flight, watts, whatever it computes; left out: by utilisation."""
    cap_w: Watts | None = None
    """Most that one GPU may draw, watts: steps that would draw more take longer. Left out: its board's limit."""
    clock: Share | None = None
    """Clock that GPUs are held at, over their own: arithmetic takes longer in proportion. Left out: their own."""
    node_overhead_w: WattsOrNone | None = None
    """The rest of one server (CPUs, memory, NICs, fans, losses), watts, shared by its GPUs; needs ``node``."""
    overhead_w_per_gpu: WattsOrNone = 0.0
    """The same for each GPU, where the server isn't named."""

    @model_validator(mode="after")
    def _check(self) -> Self:
        if self.node_overhead_w is not None and self.overhead_w_per_gpu:
            raise ValueError("give 'node_overhead_w' or 'overhead_w_per_gpu', not both")
        if self.busy_w is not None and (self.cap_w is not None or self.clock is not None):
            raise ValueError("'busy_w' says what a busy GPU draws; 'cap_w' and 'clock' need it by utilisation")
        return self


class Power(Part):
    """What a joule costs, on the way to the servers and in money and carbon."""

    pue: Annotated[float, Field(ge=1, le=10, allow_inf_nan=False)] = 1.0
    """Power usage effectiveness: what the site draws over what its servers draw."""
    price_per_kwh: NotNegative | None = None
    """Price of electricity, in the currency of ``price_per_gpu_hour``."""
    grid_g_per_kwh: NotNegative | None = None
    """Carbon intensity of the grid, g of CO2 equivalent a kWh: no default, since it differs tenfold between grids."""
    embodied_g_per_gpu_hour: NotNegative | None = None
    """Carbon of making a GPU and its share of the server, over its hours of use, g of CO2 equivalent a GPU hour."""
