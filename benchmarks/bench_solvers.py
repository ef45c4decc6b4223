"""Solvers and spacings on a Gaussian whose denoiser is known: which of them keep the spread of the data with few calls.

    python benchmarks/bench_solvers.py

Prints std(sample) / std(data) for white Gaussians of three spreads (1: as scaled deviations are; 0.3 and 0.1: texture that is left once its
surroundings are known). 1.000 is right; less is texture lost, the more so the finer it is. No randomness beyond 20,000 samples (± 0.005).
"""

from __future__ import annotations

import torch

from pathosyn.diffusion import Spacing, at, linear_schedule, sample_deviation, sampling_times

SPREADS = (1.0, 0.3, 0.1)
CALLS = (4, 10, 20, 50)
SPACINGS: tuple[Spacing, ...] = ("trailing", "quadratic")


def main() -> None:
    """One row a spread, spacing and solver; one column a number of calls."""
    schedule = linear_schedule(zero_terminal_snr=True)
    print("spread,spacing,solver," + ",".join(f"{n} calls" for n in CALLS))
    for spread in SPREADS:

        def exact(r: torch.Tensor, t: torch.Tensor, variance: float = spread**2) -> torch.Tensor:
            ab = at(schedule.alpha_bar, t).float()
            return ab.sqrt() * variance * r / (ab * variance + 1 - ab)

        for spacing in SPACINGS:
            for solver in ("ancestral", "ddim", "dpm2m", "sde-dpm2m"):
                row = []
                for n in CALLS:
                    g = torch.Generator().manual_seed(0)
                    times = sampling_times(schedule.T, n, spacing=spacing)
                    one = torch.ones(1, 1, 1, 1)
                    r = sample_deviation(exact, lambda _, g=g: torch.randn(20_000, 1, 1, 1, generator=g), one, schedule, times, solver=solver)
                    row.append(f"{float(r.std()) / spread:.3f}")
                print(f"{spread},{spacing},{solver}," + ",".join(row))


if __name__ == "__main__":
    main()
