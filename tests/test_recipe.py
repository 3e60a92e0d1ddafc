import tomllib
from pathlib import Path

import pytest
from support import TESTS, TOY

from xacle_stack.errors import RecipeError, UnknownNameError
from xacle_stack.metrics import Estimate
from xacle_stack.recipe import (
    Recipe,
    chosen_settings,
    missing_extras,
    read_recipe,
    recipe_from,
)
from xacle_stack.stacking import Selection, Stacker
from xacle_stack.stacking.selection import StackCandidate

RECIPES = Path(__file__).parent.parent / "features" / "recipes"


def write(folder: Path, content: str) -> Path:
    path = folder / "mine.toml"
    path.write_text(content)
    return path


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.toml")), ids=lambda path: path.stem)
def test_recipes_of_the_project_are_valid(path: Path) -> None:
    recipe = read_recipe(path)
    assert recipe.name == path.stem
    assert recipe.encoders


def test_the_recipe_of_tmu_has_the_published_stages() -> None:
    recipe = read_recipe("tmu")
    stages = {
        name: (one.captioning is not None, one.pseudo_labels is not None)
        for name, one in recipe.systems.items()
        if one.kind == "audio-language-model"
    }
    expected = {
        "all stages": (True, True),
        "stages 2 + 3": (False, True),
        "stage 3": (False, False),
    }
    assert stages == expected
    systems = [recipe.systems[name] for name in stages]
    assert {one.tokens for one in systems} == {"beats:tokens"}
    assert {one.clip_sequences for one in systems} == {("beats:tokens",)}
    # The stages differ in nothing but their data.
    estimators = [one.regressor(recipe.cache_names, recipe.new_stacker()) for one in systems]
    assert len({str(one.get_params()) for one in estimators}) == 1
    labels = [one.stage(one.pseudo_labels).get_params() for one in systems[:2]]
    assert labels[0] == labels[1]
    assert next(iter(recipe.compared_systems)) == "stack"


def test_defaults_and_settings(tmp_path: Path) -> None:
    (tmp_path / "weights").touch()
    recipe = read_recipe(
        write(
            tmp_path,
            f"""
spaces = ["mini-mel", "{TOY.name}"]
auxiliary = ["{TOY.name}:level"]
[checkpoints]
"{TOY.name}" = "{tmp_path}/weights"
[features]
n_components = 5
[stacker]
n_splits = 4
group_by = "none"
penalties = [1, 10]
""",
        )
    )
    assert [choice.name for choice in recipe.encoders] == ["mini-mel", TOY.name]
    assert recipe.encoders[1].checkpoint == f"{tmp_path}/weights"
    builder = recipe.builder()
    assert (builder.spaces, builder.auxiliary) == (["mini-mel", "toy"], ["toy:level"])
    assert builder.n_components == 5
    stacker = recipe.new_stacker(n_jobs=2)
    assert (stacker.n_splits, stacker.penalties, stacker.n_jobs) == (4, [1, 10], 2)
    assert stacker.score_range == Stacker().score_range  # the same model as without a recipe
    assert set(recipe.fingerprints()) == {"mini-mel", "toy"}
    assert recipe_from(recipe.model_dump(mode="json"), "again") == recipe


@pytest.mark.parametrize("preset", ["best", "paper"])
def test_penalties_that_nothing_uses_are_told(tmp_path: Path, caplog, preset: str) -> None:
    content = f'spaces = ["mini-mel"]\n[stacker]\npreset = "{preset}"\n'
    read_recipe(write(tmp_path, content))
    assert caplog.text == ""
    recipe = read_recipe(write(tmp_path, f"{content}penalties = [1.0, 10.0]"))
    unused = 'mine.toml: only the preset "paper" uses penalties'
    assert (unused in caplog.text) == (preset == "best")
    assert len(caplog.records) == (preset == "best")
    caplog.clear()
    recipe.override(precision="bfloat16")  # told once
    assert caplog.text == ""


def test_paths_are_relative_to_the_recipe(tmp_path: Path, monkeypatch) -> None:
    (tmp_path / "mine.py").write_text((TESTS / "toy_encoder.py").read_text())
    (tmp_path / "weights").touch()
    content = """
spaces = ["mini-mel", "mine.py:ToySpace"]
auxiliary = ["mine.py:ToySpace:level"]
[checkpoints]
"mine.py:ToySpace" = "weights"
"""
    path = write(tmp_path, content)
    monkeypatch.chdir("/")
    recipe = read_recipe(path)
    assert recipe.encoders[1].name == f"{tmp_path / 'mine.py'}:ToySpace"
    assert recipe.encoders[1].checkpoint == str(tmp_path / "weights")
    assert recipe.builder().auxiliary == ["toy:level"]


def test_paths_of_systems_are_relative_to_the_recipe_too(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text((TESTS / "toy_encoder.py").read_text())
    content = """
spaces = ["mine.py:ToySpace"]
[systems.cosine]
kind = "cosine"
space = "mine.py:ToySpace"
[systems.head]
kind = "projection-head"
spaces = ["mine.py:ToySpace"]
[systems.svr]
kind = "svr-ensemble"
spaces_a = ["mine.py:ToySpace"]
[systems.baseline]
kind = "lstm"
frames = "mine.py:ToyFrames:frames"
text = "mine.py:ToyFrames"
"""
    systems = read_recipe(write(tmp_path, content)).systems
    file = tmp_path / "mine.py"
    assert systems["cosine"].space == f"{file}:ToySpace"
    assert systems["head"].spaces == (f"{file}:ToySpace",)
    assert systems["svr"].spaces_a == (f"{file}:ToySpace",)
    assert systems["baseline"].frames == f"{file}:ToyFrames:frames"
    assert systems["baseline"].text == f"{file}:ToyFrames"


def test_two_encoders_of_one_name_are_refused(tmp_path: Path) -> None:
    for name in ("one.py", "two.py"):
        (tmp_path / name).write_text((TESTS / "toy_encoder.py").read_text())
    path = write(tmp_path, 'spaces = ["one.py:ToySpace"]\nauxiliary = ["two.py:ToySpace:level"]')
    with pytest.raises(RecipeError, match=r"two.py:ToySpace' .* 'toy'"):
        read_recipe(path)


def test_words_are_counted_in_captions_too(tmp_path: Path) -> None:
    content = (TESTS / "toy_encoder.py").read_text()
    (tmp_path / "mine.py").write_text(content.replace('"level"', '"words"'))
    write(tmp_path, 'spaces = ["mini-mel"]\nauxiliary = ["wav2vec2-ctc:words"]')
    assert read_recipe(tmp_path / "mine.toml").builder().auxiliary == ["wav2vec2-ctc:words"]
    path = write(tmp_path, 'spaces = ["mini-mel"]\nauxiliary = ["mine.py:ToySpace:words"]')
    with pytest.raises(RecipeError, match="captions' words"):
        read_recipe(path)


MISTAKES = {
    'space = ["mini-mel"]': r"(?s)2 mistake.*spaces: field required.*did you mean 'spaces'",
    "spaces = []": "spaces: it is empty, and no auxiliary",
    'spaces = ["roberta-large"]': r"in auxiliary as \['roberta-large:embedding'\]",
    'spaces = []\nauxiliary = ["roberta-large:words"]': r"one of \['roberta-large:embedding'\]",
    'spaces = []\nauxiliary = ["aisfx:embedding"]\n[systems.mine]\nkind = "projection-head"': (
        "systems.mine: the kind 'projection-head' needs .* spaces are empty"
    ),
    'spaces = []\nauxiliary = ["aisfx:embedding"]\n[systems.mine]\nkind = "cosine"\n'
    'space = "mini-mel"': r"systems.mine: 'mini-mel' is not among the recipe's spaces \[\]",
    'spaces = "mini-mel"': "spaces: input should be a valid list",
    'spaces = ["mini-mel", "mini-mel"]': "spaces: 'mini-mel' stands twice",
    'spaces = ["mini-mel"]\n[stacker]\nnsplits = 3': "stacker: nsplits: .*did you mean 'n_splits'",
    'spaces = ["mini-mel"]\n[stacker]\nn_splits = 1': "stacker: n_splits .* 2 or more, got 1",
    'spaces = ["mini-mel"]\n[stacker]\nn_jobs = 1': "stacker: n_jobs: unknown setting",
    'spaces = ["mini-mel"]\n[features]\nauxiliary = ["a"]': "features: auxiliary: unknown setting",
    'spaces = ["mini-mel"]\n[features]\nn_component = 1': "did you mean 'n_components'",
    'spaces = ["mini-mel"]\n[features]\nn_components = 0': "features: n_components .* got 0",
    'spaces = ["mini-mel"]\nsubset_sizes = [0]': "subset_sizes.0: .*greater than 0",
    'spaces = ["mini-mel"]\ncompare = ["triples"]': "compare: expected .*'singles'.*subset_sizes",
    'spaces = ["mini-mel"]\n[stacker]\ngroup_by = "clip"': "'group', 'system' or 'none'",
    'spaces = ["mini-mel"]\n[stacker]\npenalties = [0]': "stacker: penalties must be .*above 0",
    'spaces = ["mini-mel"]\n[checkpoints]\nmini-mfcc = "x"': "'mini-mfcc' is no encoder of this",
    'spaces = ["mini-mel"]\nauxiliary = ["mini-mfcc:logits"]': "no output of this encoder",
    'name = "x"\nspaces = ["mini-mel"]': "'name' is not a setting",
    "spaces = [": "not readable as a TOML file",
}


@pytest.mark.parametrize("content", MISTAKES)
def test_mistakes_name_the_setting(tmp_path: Path, content: str) -> None:
    with pytest.raises(RecipeError, match=MISTAKES[content]) as caught:
        read_recipe(write(tmp_path, content))
    assert "mine.toml" in str(caught.value)


def test_smaller_stacks_are_named_by_their_sizes() -> None:
    settings = {"name": "x", "spaces": ["mini-mel", "mini-mfcc", "mini-mod"]}
    plain = recipe_from(settings, "a test")
    assert plain.subset_sizes == (1, 2)
    assert [*plain.stack_systems] == [
        "mini-mel + mini-mfcc + mini-mod",
        *("mini-mel", "mini-mfcc", "mini-mod"),
        *("mini-mel + mini-mfcc", "mini-mel + mini-mod", "mini-mfcc + mini-mod"),
        "rank ensemble of the singles",
    ]
    for words, sizes in ((["singles", "couples"], (1, 2)), (["singles"], (1,)), ([], ())):
        former = recipe_from({**settings, "compare": words}, "a test")
        assert former.subset_sizes == sizes
        assert former == recipe_from({**settings, "subset_sizes": list(sizes)}, "a test")
    alone = recipe_from({**settings, "subset_sizes": []}, "a test")
    assert [*alone.stack_systems] == ["mini-mel + mini-mfcc + mini-mod"]


def test_a_recipe_without_spaces_has_blocks_of_clips_and_of_captions() -> None:
    recipe = read_recipe("offline")
    builder = recipe.builder()
    assert (builder.spaces, builder.auxiliary) == ([], ["aisfx:embedding"])
    assert builder.text_auxiliary == ["all-minilm-l6-v2:embedding"]
    assert [*recipe.stack_systems] == ["aisfx + all-minilm-l6-v2"]
    assert [*recipe.compared_systems] == ["stack", "paper"]
    (system,) = recipe.stack_systems.values()
    assert recipe.for_scoring(system).builder().text_auxiliary == builder.text_auxiliary
    trees = {"kind": "boosting"}  # they see the auxiliary outputs, too
    changed = recipe_from({**recipe.model_dump(mode="json"), "systems": {"trees": trees}}, "a test")
    smaller = changed.for_scoring(changed.systems["trees"])
    assert smaller.builder().auxiliary == builder.auxiliary


def test_a_recipe_is_found_by_its_name(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert read_recipe("paper") == read_recipe(RECIPES / "paper.toml")


def test_an_unknown_encoder_lists_the_known(tmp_path: Path) -> None:
    with pytest.raises(UnknownNameError, match="unknown encoder 'clap'. Known: .*mini-mel"):
        read_recipe(write(tmp_path, 'spaces = ["clap"]'))


def test_augmented_views() -> None:
    settings = {
        "name": "x",
        "spaces": ["mini-mel", "mini-mod"],
        "auxiliary": ["audiomae:pooled", "beats:logits"],
        "views": {"mini-mel": 2},
    }
    recipe = recipe_from(settings, source="a test")
    assert [choice.info.name for choice in recipe.view_encoders] == [
        "mini-mel.view-1",
        "mini-mel.view-2",
    ]
    for change, message in (
        ({"views": {"audiomae": 1}}, "views: 'audiomae' .*no augmented views"),
        ({"views": {"mini-mfcc": 1}}, "views: 'mini-mfcc' "),
        ({"views": {"mini-mel": 0}}, "views.mini-mel: .*greater than 0"),
        ({"auxiliary": ["byol-a:frames"]}, "'byol-a:frames' .*sequence"),
        ({"auxiliary": ["beats:tokens"]}, "'beats:tokens' .*sequence"),
    ):
        with pytest.raises(RecipeError, match=message):
            recipe_from({**settings, **change}, source="a test")


def test_a_recipe_asks_for_the_outputs_that_its_systems_name() -> None:
    settings = {
        "name": "x",
        "spaces": ["mini-mel"],
        "auxiliary": ["beats:logits"],
        "views": {"beats": 1},
        "systems": {"linear": {"kind": "stack"}},
    }
    frames = {"kind": "lstm", "frames": "beats:tokens"}
    without = recipe_from(settings, "a test")
    recipe = recipe_from({**settings, "systems": {**without.systems, "frames": frames}}, "a test")

    def outputs_of_beats(recipe: Recipe) -> set[str]:
        (beats,) = (choice for choice in recipe.encoders if choice.name == "beats")
        return {*beats.info.audio_outputs}

    assert outputs_of_beats(without) == {"logits", "pooled"}
    assert outputs_of_beats(recipe) == {"logits", "pooled", "tokens"}
    assert [choice.name for choice in recipe.encoders] == ["mini-mel", "beats", "roberta-large"]
    (view,) = recipe.view_encoders
    assert (view.info.name, "tokens" in view.info.audio_outputs) == ("beats.view-1", True)
    assert outputs_of_beats(recipe.for_scoring(recipe.systems["frames"])) >= {"tokens"}
    assert outputs_of_beats(recipe.for_scoring(recipe.systems["linear"])) == {"logits", "pooled"}
    both = {"kind": "cross-attention"}
    recipe = recipe_from({**settings, "systems": {"both": both}}, "a test")
    assert outputs_of_beats(recipe) == {"logits", "pooled", "tokens"}
    roberta = recipe.encoders[-1]
    assert (roberta.name, roberta.outputs) == ("roberta-large", ("tokens",))
    assert roberta.info.text_outputs == {"embedding": 1024, "tokens": 1024}


CHEAP = {
    "linear": {"kind": "stack", "preset": "paper"},
    "cosine": {"kind": "cosine", "space": "mini-mel"},
    "both": {"kind": "ensemble", "of": ["linear", "cosine"], "method": "rank"},
}


def with_systems(systems: dict[str, dict[str, object]], **more: object) -> Recipe:
    return recipe_from({"name": "x", "spaces": ["mini-mel"], "systems": systems, **more}, "a test")


@pytest.mark.parametrize(
    ("systems", "more", "message"),
    [
        ({"x": {"kind": "stak"}}, {}, "systems.x: .*'stak'; did you mean 'stack'.*'cosine'"),
        ({"kind": "stack"}, {}, r"systems.kind: expected a table.*\[systems.kind\]"),
        ({**CHEAP, "x": {"kind": "ensemble", "of": ["linear"] * 2}}, {}, "'linear'.* twice"),
        (CHEAP, {"seeds": "3"}, "seeds: .*valid integer"),
        (CHEAP, {"seeds": True}, "seeds: .*valid integer"),
        (CHEAP, {"listener_model": "yes"}, "listener_model: expected true, false, .*'yes'"),
        (CHEAP, {"listener_model": {"screen": 5}}, "screen: .*did you mean 'screening'"),
        (
            CHEAP,
            {"listener_model": {"noise": 1, "screening": -5}},
            r"listener_model: 2 settings(.|\n)*noise must be True or False(.|\n)*screening .* -5",
        ),
        (CHEAP, {"subset_sizes": ["1"]}, "subset_sizes.0: .*valid integer"),
        ({"x": {"kind": "cosine"}}, {}, "systems.x.space: field required"),
        ({"x": {"kind": "cosine", "space": "mini-mod"}}, {}, "'mini-mod' "),
        ({"x": {"kind": "svr-ensemble", "spaces_b": ["mini-mod"]}}, {}, "x: 'mini-mod' is not"),
        ({"x": {"kind": "svr-ensemble", "blend": "mean"}}, {}, "systems.x: blend .* got 'mean'"),
        ({"x": {"kind": "stack", "depth": 3}}, {}, "systems.x: depth: unknown setting"),
        ({"x": {"kind": "lstm", "epoch": 3}}, {}, "did you mean 'epochs'"),
        ({"x": {"kind": "boosting", "library": "xgbost"}}, {}, "library .*'xgboost'.*'xgbost'"),
        ({"x": {"kind": "boosting", "num_leaves": 1}}, {}, "systems.x: num_leaves .* got 1"),
        (
            {"x": {"kind": "stack", "features": {"n_whitened": -1}}},
            {},
            "systems.x.features: n_whitened .* got -1",
        ),
        (
            {"x": {"kind": "boosting", "features": {"n_white": 1}}},
            {},
            "n_white: unknown setting; did you mean 'n_whitened'",
        ),
        ({"x": {"kind": "stack", "meta": 3}}, {}, "meta must be one of .*'gate'.* got 3"),
        (
            {"x": {"kind": "stack", "boosting_library": 3}},
            {},
            "boosting_library must be one of .* got 3",
        ),
        ({"x": {"kind": "lstm", "epochs": 0}}, {}, "systems.x: epochs .* got 0"),
        (
            {"x": {"kind": "lstm", "frames": "beats:pooled"}},
            {},
            r"systems.x: 'beats:pooled' is no sequence .* one of \['beats:tokens'\]",
        ),
        (
            {"x": {"kind": "lstm", "frames": "beats:token", "text": "beats"}},
            {},
            r"(?s)\['beats:tokens'\].*'beats:embedding' is no vector of captions; .* none",
        ),
        ({"x": {"kind": "lstm", "text": "mini-mel:words"}}, {}, r"one of \['mini-mel:embedding'\]"),
        (
            {"x": {"kind": "cross-attention", "text": "roberta-large:embedding"}},
            {},
            r"'roberta-large:embedding' is no sequence of captions; .*\['roberta-large:tokens'\]",
        ),
        (
            {"x": {"kind": "cross-attention", "text": "roberta-large"}},
            {},
            r"systems.x.text: .*patt",
        ),
        ({"x": {"kind": "cross-attention", "n_heads": 3}}, {}, "systems.x: n_heads .*512, got 3"),
        (
            {"x": {"kind": "transformer", "space": "mini-mel", "dropout": 2}},
            {},
            "systems.x: dropout .* got 2",
        ),
        ({"x": {"kind": "stack", "verbose": True}}, {}, "verbose: unknown setting"),
        ({"x": {"preset": "paper"}}, {}, "systems.x: .*'kind'"),
        (
            {"x": {"kind": "ensemble", "of": ["x", "x"]}},
            {},
            "systems: .*averages",
        ),
        (
            {"x": {"kind": "ensemble", "of": ["y", "z"]}},
            {},
            "systems.x: 'y'",
        ),
        (CHEAP, {"reference": "nobody"}, "reference: .*'nobody'"),
        (CHEAP, {"seeds": 0}, "seeds: .*greater than 0"),
        (CHEAP, {"reference": "both"}, "reference: 'both' .*average"),
        (
            {"a b": CHEAP["cosine"], "A-b": CHEAP["cosine"]},
            {},
            "'a b' and 'A-b'",
        ),
    ],
)
def test_mistakes_in_systems(systems, more, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        with_systems(systems, **more)


def test_every_parameter_of_a_system_can_be_set() -> None:
    settings = {"kind": "transformer", "space": "mini-mel", "gate": "none", "hidden": 64}
    recipe = with_systems({"net": {**settings, "n_layers": 1, "weight_decay": 0.1}})
    spec = recipe.systems["net"]
    network = spec.regressor(recipe.cache_names, recipe.new_stacker())
    assert (network.hidden, network.n_layers, network.weight_decay) == (64, 1, 0.1)
    assert network.space == "mini-mel"
    assert recipe_from(recipe.model_dump(mode="json"), "again") == recipe


def test_the_listener_model_is_a_switch_or_a_table() -> None:
    for value, expected in (
        (False, None),
        (True, {}),
        ({"standardize": True, "screening": 5}, {"standardize": True, "screening": 5}),
    ):
        recipe = with_systems(CHEAP, listener_model=value)
        found = recipe.listener_model
        assert (found and found.parameters) == expected
        assert recipe_from(recipe.model_dump(mode="json"), "again") == recipe


def test_without_systems_one_of_each_kind_is_compared() -> None:
    recipe = with_systems({})
    kinds = {system.kind for system in recipe.compared_systems.values()}
    assert kinds == {"stack", "cosine", "transformer", "projection-head", "ensemble"}
    assert next(iter(recipe.compared_systems)) == "stack"


ONE_FOR_BOTH = {"spaces_a": ["mini-mod"], "spaces_b": ["mini-mod"]}


def test_a_model_names_only_the_encoders_that_it_needs() -> None:
    recipe = recipe_from(
        {
            "name": "several",
            "spaces": ["mini-mel", "mini-mod"],
            "views": {"mini-mod": 2},
            "checkpoints": {"byol-a": "weights.pth"},
            "systems": {
                "zero-shot": {"kind": "cosine", "space": "mini-mod"},
                "linear": {"kind": "stack"},
                "frames": {"kind": "lstm", "epochs": 3},
                "svr of one": {"kind": "svr-ensemble", **ONE_FOR_BOTH},
                "svr of all": {"kind": "svr-ensemble", "spaces_b": ["mini-mod"], "C": 1.0},
            },
            "reference": "linear",
        },
        "a test",
    )
    for name, encoders in {
        "zero-shot": ["mini-mod"],
        "linear": ["mini-mel", "mini-mod"],
        "frames": ["mini-mel", "mini-mod", "byol-a", "roberta-large"],
        "svr of one": ["mini-mod"],
        "svr of all": ["mini-mel", "mini-mod"],
    }.items():
        smaller = recipe.for_scoring(recipe.systems[name])
        assert [choice.name for choice in smaller.encoders] == encoders
        assert recipe_from(smaller.model_dump(mode="json"), "a card") == smaller
    assert recipe.for_scoring(recipe.systems["frames"]).systems["lstm"].parameters == {}


def test_libraries_of_boosted_trees_are_extras_of_their_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "trees.toml"
    path.write_text(
        'spaces = ["mini-mel"]\n[stacker]\nboosting_library = "xgboost"\n'
        '[systems.trees]\nkind = "boosting"\nlibrary = "catboost"\nnum_leaves = 31\n'
        '[systems.usual]\nkind = "boosting"\n[systems.stack]\nkind = "stack"\n'
        '[systems.other]\nkind = "stack"\nboosting_library = "lightgbm"\n'
    )
    monkeypatch.setattr("xacle_stack.systems.specs.find_spec", lambda name: None)
    assert missing_extras(path) == ["catboost", "xgboost"]
    recipe = read_recipe(path)
    stacker = recipe.new_stacker(n_jobs=2)
    regressors = {
        name: system.regressor(recipe.cache_names, stacker)
        for name, system in recipe.systems.items()
    }
    (name, trees), *others = regressors["trees"].learners
    assert (name, others, regressors["trees"].n_jobs) == ("trees", [], 2)
    assert (trees.library, trees.num_leaves, trees.random_state) == ("catboost", 31, 0)
    assert regressors["usual"].learners[0][1].library == "lightgbm"
    assert [regressors[name].boosting_library for name in ("stack", "other")] == [
        "xgboost",
        "lightgbm",
    ]


def test_seeds_of_the_command_line_are_those_of_every_system() -> None:
    recipe = with_systems({"one": {"kind": "stack", "seeds": 7}, "two": {"kind": "stack"}})
    fewer = recipe.with_seeds(2)
    assert (fewer.seeds, [system.seeds for system in fewer.systems.values()]) == (2, [None, None])


@pytest.mark.parametrize(
    ("parts", "preset", "left_out"),
    [
        (("mini-mel", "toy:level", "agreement"), "best", ("boosting",)),
        (("mini-mel",), "paper", ()),
        (("toy:level",), "best", ()),
    ],
)
def test_the_settings_of_a_chosen_stack_make_it(parts, preset: str, left_out) -> None:
    settings = {
        "name": "mine",
        "spaces": [TOY.name, "mini-mel"],
        "auxiliary": [f"{TOY.name}:level"],
        "stacker": {"target": "rank", "left_out": ["ridges"]},
    }
    recipe = recipe_from(settings, "a test")
    every = ("toy", "mini-mel", "toy:level", "agreement")
    dropped = tuple(part for part in every if part not in parts)
    zero = Estimate(0.0, 0.0, 0.0)
    chosen = StackCandidate(preset, parts, dropped, left_out, 1, 2, 0.7, zero, 0.0)
    selection = Selection((chosen,), chosen, 5, 100, None, 3, 1.0)
    changed = tomllib.loads(chosen_settings(recipe, selection))
    stacker = settings["stacker"] | changed.pop("stacker")
    new = recipe_from({**settings, **changed, "stacker": stacker}, "a test")
    builder = new.builder()
    assert (*builder.spaces, *builder.auxiliary) == tuple(p for p in parts if p != "agreement")
    if builder.spaces:
        assert builder.agreement == ("agreement" in parts)
    assert (new.new_stacker().preset, new.new_stacker().n_folds) == (preset, 5)
    assert (new.new_stacker().left_out, new.new_stacker().target) == ([*left_out], "rank")


def test_a_system_may_change_the_features_of_the_recipe() -> None:
    settings = {
        "name": "test",
        "spaces": ["mini-mel", "mini-mfcc"],
        "features": {"n_whitened": 8, "n_components": 4},
        "systems": {
            "usual": {"kind": "stack"},
            "published": {"kind": "stack", "spaces": ["mini-mel"], "features": {"n_whitened": 0}},
        },
    }
    recipe = recipe_from(settings, "test")
    builders = [
        one.builder(recipe.cache_names, recipe.builder()) for one in recipe.systems.values()
    ]
    assert [(one.n_whitened, one.n_components) for one in builders] == [(8, 4), (0, 4)]
    assert [len(one.spaces) for one in builders] == [2, 1]
