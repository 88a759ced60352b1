import pytest
import torch
from tiny import Adversarial, TinyData, TinyTask, settings, weights

from dcvideogen.errors import UserError
from dcvideogen.training.trainer import Trainer


def train(steps, *, task=None, data=None, **changes):
    task = task or TinyTask()
    trainer = Trainer(task, settings(**changes))
    data = data or TinyData()
    parts = changes.get("accumulate", 1)
    reports = [trainer.train_step([data.batch(step, i, parts) for i in range(parts)]) for step in range(steps)]
    return trainer, reports


class Dropless(TinyTask):
    def losses(self, batch, step):
        x = batch.videos.movedim(1, -1)
        return {"layer": (self.layer(x) - 2 * x).square().mean()}


def test_a_step_that_is_not_finite_leaves_the_weights_and_the_moments_and_is_counted():
    task = TinyTask(broken_steps=(1,))
    trainer, data = Trainer(task, settings()), TinyData()
    trainer.train_step([data.batch(0, 0, 1)])
    before = weights(task)
    moments = [m.clone() for state in trainer.optimizers["layer"].state.values() for m in state.values()]
    trainer.train_step([data.batch(1, 0, 1)])
    after = [m for state in trainer.optimizers["layer"].state.values() for m in state.values()]
    assert all(torch.equal(a, b) for a, b in zip(before + moments, weights(task) + after, strict=True))
    trainer.guard.check()
    assert (trainer.step, trainer.guard.count) == (2, 1)
    trainer.train_step([data.batch(2, 0, 1)])
    assert not torch.equal(before[0], weights(task)[0])


def test_a_gradient_that_is_not_finite_counts_though_the_loss_is():
    class Steep(TinyTask):
        def losses(self, batch, step):
            return {"layer": self.layer.weight.sum() * 0 + (self.layer.bias * 0).sum().sqrt()}

    task = Steep()
    before = weights(task)
    trainer, _ = train(1, task=task, max_nonfinite=0)
    with pytest.raises(UserError, match=r"1 steps .*clip-0-0.mp4"):
        trainer.guard.check()
    assert all(torch.equal(a, b) for a, b in zip(before, weights(task), strict=True))


def test_the_gradient_is_clipped_to_the_norm_asked_for():
    def moved(clip_norm):
        # At the second step AdamW still remembers the size of the first gradient, so clipping shows.
        trainer, _ = train(1, data=TinyData(scale=100), clip_norm=clip_norm, warmup_steps=0)
        trainer.train_step([TinyData().batch(1, 0, 1)])
        return weights(trainer.task)[0]

    assert not torch.allclose(moved(1e9), moved(0.1), atol=1e-5)


def test_weight_decay_betas_and_precision_change_what_is_learnt():
    def learnt(**changes):
        return weights(train(8, **changes)[0].task)[0]

    plain = learnt()
    for changes in ({"weight_decay": 0.5}, {"betas": (0.5, 0.9)}, {"precision": "bf16"}):
        assert not torch.equal(plain, learnt(**changes)), changes
    assert learnt(precision="bf16").dtype == torch.float32


def test_two_parts_of_a_batch_give_the_step_of_the_whole():
    whole, one = train(6, task=Dropless())
    parts, two = train(6, task=Dropless(), accumulate=2)
    for a, b in zip(weights(whole.task), weights(parts.task), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    for a, b in zip(one, two, strict=True):
        assert torch.allclose(a["loss/layer"], b["loss/layer"], atol=1e-6)
        assert torch.allclose(a["gradient_norm/layer"], b["gradient_norm/layer"], atol=1e-5)


def test_reports_hold_losses_and_terms_as_scalars_without_gradients():
    _, reports = train(1)
    assert reports[0].keys() == {"loss/layer", "largest", "gradient_norm/layer"}
    assert all(value.ndim == 0 and not value.requires_grad for value in reports[0].values())


def test_an_optimiser_rests_while_its_loss_is_not_due():
    task = Adversarial()
    critic = task.critic.weight.detach().clone()
    trainer, reports = train(2, task=task)
    assert torch.equal(critic, task.critic.weight)
    assert not trainer.optimizers["critic"].state
    trainer.train_step([TinyData().batch(2, 0, 1)])
    assert not torch.equal(critic, task.critic.weight)
    assert "loss/critic" not in reports[1]


def test_a_parameter_outside_all_modules_is_a_mistake_of_the_task():
    class Stray(TinyTask):
        def parameters(self):
            return {"layer": [torch.nn.Parameter(torch.ones(1))]}

    with pytest.raises(ValueError, match="in none of the modules layer"):
        Trainer(Stray(), settings())


def test_a_task_with_nothing_to_train_is_refused():
    task = TinyTask()
    task.layer.requires_grad_(False)
    with pytest.raises(UserError, match="nothing of 'layer' is trained"):
        Trainer(task, settings())


def test_gradient_checkpointing_reaches_the_networks_that_can_and_is_refused_where_none_can():
    class Able(torch.nn.Linear):
        asked = False

        def enable_gradient_checkpointing(self):
            self.asked = True

    task = TinyTask()
    task.layer = torch.nn.Sequential(Able(3, 3))
    Trainer(task, settings(gradient_checkpointing=True))
    assert task.layer[0].asked
    with pytest.raises(UserError, match="none of layer can do it"):
        Trainer(TinyTask(), settings(gradient_checkpointing=True))


def test_what_is_compiled_are_encoders_and_decoders_where_there_are_some():
    task = TinyTask()
    parts = {"encoder": torch.nn.Linear(3, 3), "between": torch.nn.Identity(), "decoder": torch.nn.Linear(3, 3)}
    task.layer = torch.nn.Sequential()
    for name, part in parts.items():
        task.layer.add_module(name, part)
    Trainer(task, settings(compile_backend="eager"))
    compiled = [name for name, part in task.layer.named_modules() if part._compiled_call_impl is not None]
    assert compiled == ["encoder", "decoder"]


def test_a_compiled_run_learns_what_a_plain_one_does():
    plain, compiled = train(3)[0].task, train(3, compile_backend="eager")[0].task
    assert compiled.layer._compiled_call_impl is not None
    for a, b in zip(weights(plain), weights(compiled), strict=True):
        assert torch.allclose(a, b, atol=1e-6)
    with pytest.raises(UserError, match=r"'indoctor'; known here: .*inductor"):
        Trainer(TinyTask(), settings(compile_backend="indoctor"))
