from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from carmask.data.augment import AugmentSettings
from carmask.errors import explain
from carmask.imaging.geometry import Geometry
from carmask.models.config import PRESETS
from carmask.training.config import SettingsError, TrainSettings, merge
from carmask.training.config_sections import OptimizerSettings
from carmask.training.series import stage_settings

DATA = Path("cars")


def write(path: Path, **settings: Any) -> Path:
    path.write_text(yaml.safe_dump(settings))
    return path


def refusal(**given: Any) -> str:
    with pytest.raises(ValidationError) as caught:
        TrainSettings(**{"data": DATA, **given})
    return explain(caught.value, TrainSettings)


def test_small_is_trained_as_it_was_published() -> None:
    settings = TrainSettings(data=DATA)
    assert settings.preset == "small"
    assert (settings.optimizer.name, settings.optimizer.lr, settings.optimizer.weight_decay) == ("adam", 1e-4, 0)
    assert (settings.loss.name, settings.epochs, settings.schedule.name, settings.ema) == ("bce", 10, "constant", 0)
    assert settings.augment == AugmentSettings.off()
    assert settings.hardware.device == "auto"


@pytest.mark.parametrize(
    ("preset", "augment", "without_effect"),
    [
        ("small", {"brightness": 0.3, "rotate_deg": 3}, {"geometric": ["rotate_deg"], "color": ["brightness"]}),
        ("small", {"brightness": 0.3, "color": 0.5}, {}),
        ("small", {"brightness": 0, "gray": 0.2, "flip": 0.5}, {}),
        ("small", {}, {}),
        ("fast", {"brightness": 0.2, "shift": 0.1}, {}),
        ("fast", {"geometric": 0, "shift": 0.1, "scale": 0.2}, {"geometric": ["shift", "scale"]}),
    ],
)
def test_sizes_that_change_nothing_are_found(
    preset: str, augment: dict[str, float], without_effect: dict[str, list[str]]
) -> None:
    settings = TrainSettings.model_validate({"data": DATA, "preset": preset, "augment": augment})
    assert settings.augment.without_effect() == without_effect


def test_sizes_that_nobody_has_set_are_not_blamed(tmp_path: Path) -> None:
    """Settings that were written out whole name every size."""
    settings = TrainSettings(data=DATA, augment={"brightness": 0.2})
    (tmp_path / "config.yaml").write_text(settings.to_yaml())
    again = TrainSettings.from_yaml(tmp_path / "config.yaml")
    assert again.augment.without_effect() == settings.augment.without_effect() == {"color": ["brightness"]}


def test_arguments_override_the_file_and_the_file_overrides_the_preset(tmp_path: Path) -> None:
    preset = TrainSettings(data=DATA, preset="fast")
    assert (preset.optimizer.name, preset.optimizer.clip_norm, preset.batch_size) == ("adamw", 1.0, 8)

    config = write(
        tmp_path / "c.yaml", preset="fast", epochs=7, batch_size=4, optimizer={"lr": 0.5}, loss={"name": "dice"}
    )
    from_file = TrainSettings(data=DATA, config=config)
    assert (from_file.preset, from_file.epochs, from_file.batch_size) == ("fast", 7, 4)
    assert (from_file.optimizer.lr, from_file.optimizer.name, from_file.loss.name) == (0.5, "adamw", "dice")
    assert from_file.schedule == preset.schedule

    explicit = TrainSettings(data=DATA, config=config, epochs=3, optimizer={"clip_norm": 0})
    assert (explicit.epochs, explicit.batch_size) == (3, 4)
    assert (explicit.optimizer.lr, explicit.optimizer.clip_norm) == (0.5, 0)

    # The defaults are those of the preset that is given, also if the file names another.
    other = TrainSettings(data=DATA, config=config, preset="classic")
    assert (other.preset, other.epochs, other.ema) == ("classic", 7, 0.995)
    assert TrainSettings(data=DATA, config=config, preset="small").ema == 0


def test_a_group_given_as_a_model_gets_the_preset_s_defaults_like_a_dictionary() -> None:
    settings = TrainSettings(data=DATA, preset="fast", optimizer=OptimizerSettings(lr=0.25))
    assert settings == TrainSettings(data=DATA, preset="fast", optimizer={"lr": 0.25})
    assert settings.optimizer.name == "adamw"


def test_the_file_may_name_the_data(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", data="elsewhere")
    assert TrainSettings(config=config).data == Path("elsewhere")
    assert TrainSettings(config=config, data=DATA).data == DATA


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"epoch": 3}, "no setting 'epoch'; did you mean 'epochs'?"),
        ({"optimiser": {"lr": 1}}, "no setting 'optimiser'; did you mean 'optimizer'?"),
        ({"optimizer": {"lrate": 1}}, "no setting 'optimizer.lrate'; did you mean 'optimizer.lr'?"),
        ({"augment": {"rotate": 1}}, "no setting 'augment.rotate'; did you mean 'augment.rotate_deg'?"),
        ({"batchsize": 4}, "did you mean 'batch_size'?"),
        ({"input": {"height": 32}}, "did you mean 'input.height_px'?"),
        ({"qqqq": 4}, "there is no setting 'qqqq'"),
    ],
)
def test_a_misspelled_setting_names_the_near_one(given: dict[str, Any], message: str, tmp_path: Path) -> None:
    assert message in refusal(**given)
    assert message in refusal(config=write(tmp_path / "c.yaml", **given))
    path = write(tmp_path / "run.yaml", data="cars", **given)
    with pytest.raises(SettingsError) as caught:
        TrainSettings.from_yaml(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(
    "given",
    [
        {"epochs": 0},
        {"epochs": 1.5},
        {"batch_size": 0},
        {"batch_size": -4},
        {"seed": -1},
        {"patience": 0},
        {"ema": 1.0},
        {"ema": -0.1},
        {"preset": "huge"},
        {"preset": ["small"]},
        {"preset": {"name": "small"}},
        {"preset": None},
        {"init": 3},
        {"init": ["fast"]},
        {"name": "../elsewhere"},
        {"name": "a/b"},
        {"name": ""},
        {"name": ".hidden"},
        {"optimizer": {"lr": 0}},
        {"optimizer": {"lr": float("nan")}},
        {"optimizer": {"lr": "fast"}},
        {"optimizer": {"name": "lion"}},
        {"optimizer": {"clip_norm": -1}},
        {"batch_size": 1, "preset": "deep", "input": {"height_px": 64, "width_px": 64}},
        {"optimizer": 3},
        {"optimizer": None},
        {"schedule": {"warmup": 1}},
        {"loss": {"border_weight": 0.5}},
        {"input": {"height_px": 15}},
        {"input": {"width_px": 9000}},
        {"augment": {"flip": 1.1}},
        {"augment": {"rotate_deg": -1}},
        {"augment": {"hue": 0.6}},
        {"dataset": {"folds": 1}},
        {"dataset": {"fraction": 1}},
        {"dataset": {"foreground": -1}},
        {"dataset": {"folds": 4, "fold": 4}},
        {"hardware": {"threads": 0}},
        {"hardware": {"precision": "int8"}},
    ],
    ids=str,
)
def test_impossible_values_are_refused_by_their_names(given: dict[str, Any]) -> None:
    message = refusal(**given)
    name = next(iter(given))
    assert name in message
    assert "\n" not in message


def test_every_fault_is_named_at_once() -> None:
    message = refusal(epochs=0, sead=3, optimizer={"lr": -1})
    for part in ("epochs = 0", "did you mean 'seed'", "optimizer.lr = -1"):
        assert part in message
    with pytest.raises(ValidationError) as caught:
        TrainSettings()
    assert explain(caught.value, TrainSettings) == "'data' is not given"


def test_a_fold_does_not_matter_where_a_fraction_is_asked_for() -> None:
    assert TrainSettings(data=DATA, dataset={"fraction": 0.3, "fold": 9}).dataset.fraction == 0.3


@pytest.mark.parametrize(
    "content",
    [
        b"epochs: [",
        b"\xff\xfe\x00\x01",
        b"- 1\n- 2\n",
        b"",
        b"just text",
        b"name: 2026-13-01",
        b"!!python/object/apply:os.getcwd []",
        b"[" * 2000,
    ],
)
def test_a_file_without_settings_is_refused(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "c.yaml"
    path.write_bytes(content)
    with pytest.raises(SettingsError) as caught:
        TrainSettings(data=DATA, config=path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(SettingsError, match=str(path)):
            TrainSettings(data=DATA, config=path)


@given(
    st.sampled_from(["small", "fast", "classic", "deep"]),
    st.integers(1, 100_000),
    st.floats(1e-6, 10),
    st.floats(0, 5),
    st.none() | st.integers(1, 4096),
    st.none() | st.floats(0.01, 0.99),
    st.none() | st.text(alphabet="abcé9_.-+", min_size=1).filter(lambda text: text[0] not in ".-+"),
)
def test_settings_survive_being_written_and_read(
    tmp_path_factory: pytest.TempPathFactory,
    preset: str,
    epochs: int,
    lr: float,
    clip: float,
    batch_size: int | None,
    fraction: float | None,
    name: str | None,
) -> None:
    settings = TrainSettings(
        data=Path("some where/cars"),
        preset=preset,
        epochs=epochs,
        name=name,
        batch_size=batch_size,
        optimizer={"lr": lr, "clip_norm": clip},
        dataset={"fraction": fraction, "split": "a/split.json"},
    )
    path = tmp_path_factory.getbasetemp() / "settings.yaml"
    path.write_text(settings.to_yaml(), encoding="utf-8")
    assert TrainSettings.from_yaml(path) == settings


def test_what_a_file_gave_is_written_with_the_run(tmp_path: Path) -> None:
    config = write(tmp_path / "c.yaml", preset="fast", epochs=7)
    settings = TrainSettings(data=DATA, config=config)
    (tmp_path / "run.yaml").write_text(settings.to_yaml())
    config.unlink()
    again = TrainSettings.from_yaml(tmp_path / "run.yaml")
    assert again == settings.model_copy(update={"config": None})


def test_the_geometry_is_the_preset_s_unless_a_size_is_given() -> None:
    assert TrainSettings(data=DATA, preset="deep").geometry() == PRESETS["deep"].geometry
    wide = TrainSettings(data=DATA, preset="fast", input={"width_px": 333}).geometry()
    assert wide == Geometry(height_px=512, width_px=333, keep_aspect=PRESETS["fast"].geometry.keep_aspect)


@pytest.mark.parametrize(
    "config", sorted((Path(__file__).parents[2] / "configs").glob("*.yaml")), ids=lambda path: path.name
)
def test_the_project_s_own_files_are_right(config: Path) -> None:
    given = yaml.safe_load(config.read_text())
    whole = TrainSettings(data=DATA, config=config)
    stages = given.pop("stages", [])
    assert list(whole.stages) == stages
    assert len(stage_settings(whole)) == max(1, len(stages))
    # YAML has lists for tuples.
    settings = yaml.safe_load(whole.to_yaml())
    assert merge(settings, given) == settings
