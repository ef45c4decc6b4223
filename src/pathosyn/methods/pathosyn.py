"""PathoSyn: Alg. 1 (losses) and Alg. 2 (draw) on windows, for both columns of DESIGN §3.

substrate   f = f_sub(x ⊙ (1 - D), 1 - D)
deviation   r_0 = (x - f) ⊙ D, in units of its RMS
denoiser    eps_theta([r_t, what surrounds it, m, S, which contrasts], t)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import avg_pool2d

from pathosyn import alg1, decomposition, diffusion, losses, rng
from pathosyn.config import Config
from pathosyn.framework.base import Framework, Parts
from pathosyn.lesion import anatomy, appearance, coarse, gathering, looks, scale, surroundings
from pathosyn.networks import Critic, DeviationNetwork
from pathosyn.protocol import Stage
from pathosyn.types import Controls, Image, LesionBatch, Mask, Synthesis, Times

ROUGH = 1000
"""Number of the noise field from which roughness is drawn, on top of the call's own."""


class PathoSyn(Framework):
    """f_sub, eps_theta, the network of the coarse form, that which draws such forms in one call, and what a training measures (buffers)."""

    taught: Tensor
    rough_mean: Tensor
    rough_std: Tensor
    look_mean: Tensor
    look_std: Tensor
    looks: Tensor
    looks_of: Tensor
    look_around_mean: Tensor
    look_around_std: Tensor
    look_map: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__(config)
        contrasts, method = len(config.contrasts), config.method
        if "eps" in (method.prediction, method.coarse_prediction if method.coarse > 1 else "") and method.zero_terminal_snr:
            raise ValueError("prediction='eps' cannot start at zero SNR, where r_T holds no r_0: set zero_terminal_snr=False")
        if method.coarse > 1 and not 1 <= method.level <= method.timesteps:
            raise ValueError(f"level must lie in 1…{method.timesteps}, got {method.level}")
        self.eps = DeviationNetwork(contrasts, (2 + method.grain + self.rough) * contrasts + 2, config.networks.eps, config.networks.blocks)
        drawn, told = (1 + self.rough) * contrasts, appearance.count(contrasts, rough=self.rough)
        shown = 2 * contrasts + 2 + (told + 1 if self.looking else 0)
        forms = drawn, shown, config.networks.coarse, config.networks.blocks
        self.coarse = DeviationNetwork(*forms) if method.coarse > 1 else None
        self.student = DeviationNetwork(*forms) if method.coarse > 1 and method.distilled else None
        if self.student is not None:
            self.register_buffer("taught", torch.zeros(1))  # not before its stage has begun may it draw
        self.critic = Critic(contrasts, config.networks.critic) if method.adversary else None
        if self.rough:
            self.register_buffer("rough_mean", torch.zeros(contrasts))
            self.register_buffer("rough_std", torch.zeros(contrasts))
        if self.looking:
            appearance.register(self, contrasts)
            looks.register(self, contrasts)
        self.schedule = diffusion.linear_schedule(method.timesteps, start=method.beta_start, end=method.beta_end, zero_terminal_snr=method.zero_terminal_snr)

    @property
    def rough(self) -> bool:
        """Whether the coarse form holds roughness: only where there is a coarse form."""
        return self.config.method.roughness and self.config.method.coarse > 1

    @property
    def looking(self) -> bool:
        """Whether the network that draws coarse forms is told what the lesion looks like."""
        return self.config.method.appearance and self.config.method.coarse > 1

    @property
    def one_call(self) -> bool:
        """By the student."""
        return self.config.method.distilled and self.student is not None and bool(self.taught)

    @property
    def stages(self) -> Sequence[Stage]:
        """Joint: one stage on lesion windows (Alg. 1). Staged: f_sub on healthy holes, with half of the windows lesion windows at first,
        fading out over the warm-up; then the diffusion of the coarse deviation; then eps_theta, the last of it on the distance of patches."""
        method, train = self.config.method, self.config.train
        share = train.substrate_share
        structure = train.structure_share if self.coarse else 0.0
        distil = train.distil_share if self.student else 0.0
        sharpen = train.sharpen_share if method.coarse > 1 and (method.adversary or method.patches) else 0.0
        if method.joint:
            # Without healthy holes (warmup = 1, as printed) Eq. 3 has only the Inp target.
            holes = 0.0 if method.warmup >= 1 else 0.5
            return (Stage("joint", ("both",), 1.0, lambda _: holes),)
        stages = (
            self.learn_substrate(share),
            Stage("structure", ("coarse",), structure, lambda _: 0.0, filled=True, windows=method.coarse, varied=True, warped=True),
            Stage("distil", ("student",), distil, lambda _: 0.0, filled=True, varied=True, warped=True),
            Stage("deviation", ("eps",), max(0.0, 1.0 - share - structure - distil - sharpen), lambda _: 0.0, filled=True),
            Stage("sharpen", ("critic", "sharp") if self.critic else ("sharp",), sharpen, lambda _: 0.0, betas=(0.5, 0.99), filled=True, varied=True),
        )
        return tuple(stage for stage in stages if stage.share > 0)

    def modules_of(self, player: str) -> Sequence[nn.Module]:
        """`sub`, `coarse`, `student`, `eps`, `both`; `critic`, and `sharp`: eps_theta in the last stage, with or without it."""
        named = {"sharp": (self.eps,), "both": (self.sub, self.eps)}
        return tuple(module for module in named.get(player) or (getattr(self, player),) if module is not None)

    # -- the pieces -----------------------------------------------------------------------------------------------------------------

    def condition_form(self, batch: LesionBatch, x_sub: Image, parts: Parts, look: Tensor | None) -> Image:
        """What the network that draws forms sees beside the noised form: the condition averaged over each cell and, where the method asks, `look`."""
        condition = avg_pool2d(self.condition(batch.x, x_sub, batch.m, parts), self.config.method.coarse)
        return torch.cat([condition, appearance.shown(self, look, batch, parts)], dim=1) if self.looking else condition

    def estimate(self, network: nn.Module, r_t: Image, condition: Image, t: Times) -> tuple[Image, Image]:
        """A network's output and the r̂_0 that it means."""
        output = network(r_t, condition, t).float()
        kind = self.config.method.prediction if network is self.eps else self.config.method.coarse_prediction
        return output, diffusion.predict_r0(r_t, output, t, self.schedule, prediction=kind)

    # -- training -------------------------------------------------------------------------------------------------------------------

    def begin(self, stage: str, batches: Iterable[LesionBatch]) -> dict[str, Any]:
        """Before eps_theta learns: the statistics of r_0 (`scale.measure`); before the coarse form is learned, and where it is not known, what the lesions
        look like. The student begins as its teacher."""
        if stage == "distil":
            assert self.coarse is not None and self.student is not None
            self.student.load_state_dict(self.coarse.state_dict())
            self.taught.fill_(1.0)
        found = scale.measure(self, stage, batches)
        tells = self.looking and stage != "substrate"
        return found | (looks.remember(self, batches) if tells and (stage == "structure" or not looks.remembered(self)) else {})

    def losses(self, batch: LesionBatch, *, player: str, rng: Sequence[torch.Generator]) -> dict[str, Tensor]:
        """Alg. 1 on one batch. `sub`: Eq. 3. `eps`: Eqs. 9 and 13 with f_sub fixed. `both`: Eq. 15. `coarse`: Eq. 9 on the coarse deviation. `student`: how far
        its one call lies from the coarse deviations that are drawn.
        `critic` and `sharp`: the last stage, in which Eq. 9 has a small part and Eq. 13 none: their mean over textures is what makes a draw smooth."""
        parts = self.parts(batch)
        x_sub = self.given(batch, parts, learns=player in ("sub", "both"))
        if player == "critic":
            return alg1.critic_terms(self, batch, parts, x_sub, rng)
        if player == "sharp":
            return alg1.sharp_terms(self, batch, parts, x_sub, rng)
        if player == "coarse":
            return alg1.structure_terms(self, batch, parts, x_sub, rng)
        if player == "student":
            return alg1.distilled_terms(self, batch, parts, x_sub, rng)
        lam = self.config.method.weights
        terms: dict[str, Tensor] = {}
        if player in ("sub", "both"):
            terms["sub"] = self.substrate_terms(x_sub, batch, parts)
            terms["loss"] = terms["sub"]
        if player != "sub":
            terms |= alg1.deviation_terms(self, batch, parts, alg1.noised(self, batch, parts, x_sub, rng))
            terms["loss"] = losses.total_loss(
                sub=terms.get("sub", 0.0),
                diff=terms["diff"],
                dev=terms["dev"],
                syn=terms["syn"],
                lam_diff=lam.diff,
                lam_dev=lam.dev,
                lam_syn=lam.syn,
            )
        return terms

    # -- synthesis ------------------------------------------------------------------------------------------------------------------

    @torch.no_grad()
    def draw(self, batch: LesionBatch, x_sub: Image, noise: Callable[[int], Image], *, look: Tensor | None = None, steps: int | None = None) -> Image:
        """Alg. 2, step 2: a deviation in normalised units, 0 outside the support. `batch.x` is the scan without lesion; `noise(k)` is (B, C, H, W);
        `look` (B, K) is what it is to look like (`looks.drawn`), None leaves that to the network."""
        parts, calls = self.parts(batch), len(self._times(steps))  # those of the first network, so that the last call's noise is the same after the student's
        if self.coarse is not None:
            return self.last_call(batch, x_sub, self.draw_form(batch, x_sub, noise, look=look, steps=steps), lambda k: noise(calls + k), look=look)
        white = noise(calls + 1) if self.config.method.grain else None
        seen = coarse.seen(self, self.condition(batch.x, x_sub, batch.m, parts), coarse.own_of(self, batch.x, parts), parts, white)
        r = self._sample(self.eps, seen, parts.support, noise, parts.known, self.bound(), steps)
        return self.from_scaled(anatomy.through(self, r, batch, x_sub, parts))

    @torch.no_grad()
    def draw_form(self, batch: LesionBatch, x_sub: Image, noise: Callable[[int], Image], *, look: Tensor | None = None, steps: int | None = None) -> Image:
        """The coarse form of a deviation, as `coarse.form` makes it of a real one."""
        parts, size = self.parts(batch), self.config.method.coarse

        def over_cells(k: int) -> Image:
            fields = [noise(k), noise(k + ROUGH)] if self.rough else [noise(k)]
            # The mean of size² unit normals, brought back to unit variance: the volume's noise field decides here too.
            return avg_pool2d(torch.cat(fields, dim=1), size) * size

        form = self.sample_form(self.condition_form(batch, x_sub, parts, look), parts, over_cells, steps)
        if self.config.method.gather:
            form = gathering.gathered(form.float(), coarse.lesion_share(self, batch, parts), batch.present)
        return appearance.held(self, form, look, batch, parts) if self.config.method.hold and look is not None else form

    def sample_form(self, shown: Image, parts: Parts, noise: Callable[[int], Image], steps: int | None = None) -> Image:
        """The form as a network draws it from `noise(k)` on its cells, (B, C or 2C, H/coarse, W/coarse): not gathered, not held. `shown` is what
        `condition_form` makes; `steps` None: one call of the student, where there is one that was taught."""
        network = self.student if steps is None and self.one_call else self.coarse
        assert network is not None
        bound = self.bound()
        if bound is not None and self.rough:
            bound = torch.cat([bound, torch.full_like(bound, coarse.FARTHEST)], dim=1)
        known = parts.known.repeat(1, 2 if self.rough else 1, 1, 1)
        return self._sample(network, shown, coarse.there(self, parts), noise, known, bound, self.calls(steps))

    @torch.no_grad()
    def last_call(self, batch: LesionBatch, x_sub: Image, form: Image, noise: Callable[[int], Image], *, look: Tensor | None = None) -> Image:
        """A deviation in normalised units from its coarse form: one call of eps_theta at t = `level`. Noise 0 goes on the form, 1 makes the grain; `look` as
        `draw` takes it."""
        method, parts = self.config.method, self.parts(batch)
        there, own = coarse.there(self, parts), coarse.own_of(self, batch.x, parts)
        white = noise(1) if method.grain else None
        shared = appearance.shared(self, look, batch.present)
        seen = coarse.seen(self, self.condition(batch.x, x_sub, batch.m, parts), own, parts, white, form=form, there=there, shared=shared)
        t = torch.full((len(form),), method.level, device=form.device)
        start = decomposition.refine(coarse.means(self, form, batch, x_sub, parts), there, parts.support, method.coarse)
        r_t = diffusion.diffuse(start, t, noise(0) * parts.known, parts.support * parts.known, self.schedule)
        r, bound = self.estimate(self.eps, r_t, seen, t)[1] * parts.known, self.bound()
        r = anatomy.through(self, r, batch, x_sub, parts)
        if method.hold and look is not None:
            strong = appearance.strengths(self, look, batch.present)
            if strong is not None:
                r = coarse.with_borders(self, r, batch, x_sub, parts, strong)
            r = coarse.with_form(self, r, lambda form: appearance.held(self, form, look, batch, parts), batch, x_sub, parts, own=own.spread, shared=shared)
            if strong is not None:  # last, for what holds the form moves this, too
                r = coarse.with_strength(self, r, batch, x_sub, parts, strong)
        r = self.from_scaled(diffusion.project(r if bound is None else r.clamp(-bound, bound), parts.support))
        sparse = appearance.sparseness(self, look, batch.present) if method.hold else None
        return r if sparse is None else coarse.with_tails(self, r, batch, x_sub, parts, sparse)

    def _sample(
        self, network: nn.Module, shown: Image, support: Mask, noise: Callable[[int], Image], known: Image, bound: Tensor | None, steps: int | None
    ) -> Image:
        method = self.config.method
        return diffusion.sample_deviation(
            lambda r, t: self.estimate(network, r, shown, t)[1] * known,
            lambda k: noise(k) * known,
            support,
            self.schedule,
            self._times(steps),
            solver=method.solver,
            eta=method.eta,
            clamp=bound,
        )

    def _times(self, steps: int | None) -> Sequence[int]:
        return diffusion.sampling_times(self.schedule.T, steps or self.config.method.steps, spacing=self.config.method.spacing)

    def look(self, batch: LesionBatch, seed: int) -> Tensor | None:
        """What the lesions of windows that are drawn one by one are to look like, (B, K), keyed by (seed, subject); None where the method does not ask."""
        if not self.looking:
            return None
        keys = [rng.generator(seed, subject, "appearance") for subject in batch.subject]
        areas, attuned = looks.pixels(batch), looks.attuned(self)
        around = surroundings.numbers(batch.x, self.parts(batch).support, batch.present) if attuned else [None] * len(batch)
        # The second row is the subject's largest window: whose looks are drawn depends on the whole lesion's size, not on that of its end.
        sizes = torch.stack([areas, areas if batch.largest is None else batch.largest.to(areas)], dim=1)
        rows = [looks.drawn(self, sizes[b], batch.present[b], around[b], key) for b, key in enumerate(keys)]
        return torch.stack([row[0] for row in rows if row is not None]) if rows[0] is not None else None

    @torch.no_grad()
    def synthesize(self, batch: LesionBatch, *, controls: Controls, steps: int | None = None) -> Synthesis:
        """Draw one lesion a window on `batch.x`, which holds either a lesion (never seen by f_sub) or healthy tissue. Noise is keyed by
        (seed, subject, z), so a window draws the same lesion in any batch."""
        parts = self.parts(batch)
        x_sub = self.substrate(batch.x, parts.support, parts.known)
        streams, shape = self.streams(batch, controls.seed), tuple(batch.x.shape[1:])
        look = self.look(batch, controls.seed)
        r = self.draw(batch, x_sub, lambda _: rng.normal(streams, shape).to(batch.x.device), look=look, steps=steps)
        return self.composed(batch, x_sub, r, controls)
