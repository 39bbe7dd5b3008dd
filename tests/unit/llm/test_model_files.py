"""Where a model's files are, and whether they are those that a run began with."""

from __future__ import annotations

import re
import signal

import mpi
import pytest
from huggingface_hub import constants

from pbeauty.config.loader import load, loads
from pbeauty.errors import ConfigError
from pbeauty.game.experiment import Model
from pbeauty.llm import model_files
from pbeauty.llm.engine_arguments import check_models
from pbeauty.llm.model_files import changes, fingerprint, longest_context, model_source, require_files
from pbeauty.storage.run_reader import Run


def checkpoint(folder, **files):
    folder.mkdir(parents=True)
    for name, content in {"config": "{}", "tokenizer": "{}", **files}.items():
        (folder / f"{name}.json").write_text(content)
    (folder / "chat_template.jinja").write_text("{{ messages }}")
    (folder / "model.safetensors").write_bytes(b"weights" * 1000)
    return folder


@pytest.fixture(autouse=True)
def no_hub(monkeypatch, tmp_path):
    """Nobody asks the hub, and its cache is empty."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model_files._answer_of_hub.cache_clear()


def test_a_model_is_the_demo_or_a_folder(tmp_path):
    assert model_source(Model()).endswith("demo")
    folder = checkpoint(tmp_path / "models" / "llama")
    assert model_source(Model(path=str(folder))) == str(folder)
    (folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"cannot read .*config\.json"):
        model_source(Model(path=str(folder)))


def test_a_reply_must_leave_room_in_the_context_that_the_checkpoint_states(tmp_path):
    folder = checkpoint(tmp_path / "model")

    def check(tokens):
        group = f"{{name: a, count: 1, kind: llm, model: m, sampling: {{max_tokens: {tokens}}}}}"
        check_models(loads(f"name: x\nmodels: {{m: {{path: '{folder}'}}}}\npopulation: [{group}]"))

    for config, context in (
        ('{"max_position_embeddings": 512}', 512),
        ('{"text_config": {"max_position_embeddings": 256}}', 256),
        ('{"max_position_embeddings": 128, "rope_scaling": {"factor": 4.0}}', 512),
        ("{}", None),
        ("[]", None),
        ("no JSON", None),
    ):
        (folder / "config.json").write_text(config)
        assert longest_context(Model(path=str(folder))) == context
        check((context or 99_999) - 1)
        if context:
            with pytest.raises(ConfigError, match=rf"max_tokens: {context} leaves no room .* of {context} tokens"):
                check(context)
    (folder / "config.json").unlink()
    (folder / "config.json").symlink_to("/dev/zero")
    with pytest.raises(ConfigError, match="is no regular file"):
        check(9)
    with pytest.raises(ConfigError, match="context of 4096 tokens"):
        check_models(loads("name: x\npopulation: [{name: a, count: 1, kind: llm, sampling: {max_tokens: 4096}}]"))


@pytest.mark.parametrize("path", ["models/lama", "models/lama3", "./models/lama"])
def test_a_folder_that_is_missing_is_an_error_with_the_nearest_one(path, tmp_path):
    checkpoint(tmp_path / "models" / "llama")
    checkpoint(tmp_path / "models" / "mistral")
    with pytest.raises(ConfigError, match=r"no such folder; did you mean 'llama' \(in .*models\)\?"):
        model_source(Model(path=path), tmp_path)


@pytest.mark.parametrize("path", ["just-a-name", "a/b/c", "/nowhere/at/all"])
def test_what_can_be_neither_folder_nor_hub_id_is_an_error(path):
    with pytest.raises(ConfigError, match="no such folder; give `demo`, a checkpoint folder, or a hub id"):
        model_source(Model(path=path))


def test_a_hub_id_is_looked_for_in_the_cache(tmp_path, monkeypatch):
    model = Model(path="owner/name")
    with pytest.raises(ConfigError, match=r"the hub's cache does not have it \(HF_HUB_OFFLINE is set\)"):
        model_source(model)
    assert fingerprint(model) == {}
    snapshots = tmp_path / "hub/models--owner--name/snapshots"
    checkpoint(snapshots / "0a1b2c")
    (snapshots.parent / "refs").mkdir()
    (snapshots.parent / "refs/main").write_text("0a1b2c")
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path / "hub"), raising=False)
    assert model_source(model) == "owner/name"
    assert fingerprint(model) == {"revision": "0a1b2c"}


def test_a_hub_that_cannot_be_reached_is_said_where_a_folder_is_likely_meant(monkeypatch, tmp_path):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)

    asked = []

    class Silent:
        def model_info(self, path, timeout):
            asked.append(path)
            raise ConnectionError("no route")

    monkeypatch.setattr("huggingface_hub.HfApi", Silent)
    assert model_source(Model(path="owner/name"), tmp_path) == "owner/name", "it may be there all the same"
    (tmp_path / "owner").mkdir()
    with pytest.raises(ConfigError, match=r"no such folder, and the hub cannot be asked \(no route\)"):
        model_source(Model(path="owner/name"), tmp_path)
    with pytest.raises(ConfigError, match="not in the hub's cache on this machine, and the hub cannot be asked"):
        require_files(Model(path="owner/name"))
    assert asked == ["owner/name"], "once: no answer takes seconds"


def test_a_model_that_is_neither_cached_nor_to_be_had_ends_the_job_at_once(tmp_path):
    """Without a network, vLLM itself would try again and again for two minutes."""
    (tmp_path / "e.yaml").write_text(
        "name: e\nmodels: {m: {path: owner/name}}\npopulation: [{name: g, count: 1, kind: llm, model: m}]"
    )
    environ = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path / "hub")}
    done = mpi.mpirun(1, "run", tmp_path / "e.yaml", "--out", tmp_path / "run", environ=environ)
    assert done.code == 2
    assert "owner/name: it is not in the hub's cache on this machine, and the hub cannot be asked" in done.err
    assert "`hf download owner/name`" in done.err
    assert "Traceback" not in done.err


def test_a_checkpoint_without_a_chat_template_is_refused_before_it_is_loaded(tmp_path):
    folder = checkpoint(tmp_path / "base", tokenizer_config='{"model_max_length": 512}')
    experiment = loads(
        f"name: x\nmodels: {{m: {{path: '{folder}'}}}}\npopulation: [{{name: a, count: 1, kind: llm, model: m}}]"
    )
    check_models(experiment)
    (folder / "chat_template.jinja").unlink()
    with pytest.raises(ConfigError, match="it has no chat template"):
        check_models(experiment)
    (folder / "tokenizer_config.json").write_text('{"chat_template": "{{ messages }}"}')
    check_models(experiment)


def test_folders_are_relative_to_the_experiment_file(tmp_path, monkeypatch):
    checkpoint(tmp_path / "models" / "llama")
    (tmp_path / "e.yaml").write_text(
        "name: e\nmodels: {m: {path: models/llama}, hub: {path: owner/name}}\n"
        "population: [{name: g, count: 1, kind: llm, model: m}]"
    )
    monkeypatch.chdir("/")
    models = load(tmp_path / "e.yaml").models
    assert models["m"].path == str(tmp_path / "models/llama")
    assert models["hub"].path == "owner/name"


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("model.safetensors", b"weights" * 999 + b"weighty"),
        ("tokenizer.json", b"{ }"),
        ("chat_template.jinja", b"{{ message }}"),
        ("config.json", b"{ }"),
    ],
)
def test_a_file_that_is_another_is_named(name, content, tmp_path):
    folder = checkpoint(tmp_path / "m")
    before = fingerprint(Model(path=str(folder)))
    (folder / name).write_bytes(content)
    assert changes(before, fingerprint(Model(path=str(folder)))) == [f"{name} is another"]


def test_copies_are_the_same_and_files_that_come_and_go_are_named(tmp_path):
    one, other = checkpoint(tmp_path / "one"), checkpoint(tmp_path / "other")
    before = fingerprint(Model(path=str(one)))
    assert before == fingerprint(Model(path=str(other)))
    (other / "model.safetensors").rename(other / "model-1.safetensors")
    now = fingerprint(Model(path=str(other)))
    assert changes(before, now) == ["model-1.safetensors is new", "model.safetensors is gone"]


def test_of_a_large_file_the_whole_length_is_looked_at(tmp_path, monkeypatch):
    monkeypatch.setattr(model_files, "_BLOCK", 64)
    folder = checkpoint(tmp_path / "m")
    size = 1 << 16
    for place in (0, size // 2, size - 1):
        (folder / "model.safetensors").write_bytes(bytes(size))
        before = fingerprint(Model(path=str(folder)))
        changed = bytearray(size)
        changed[place // 64 * 64 : place // 64 * 64 + 8192] = b"x" * 8192  # training alters all of a tensor
        (folder / "model.safetensors").write_bytes(changed[:size])
        assert changes(before, fingerprint(Model(path=str(folder)))) == ["model.safetensors is another"]


def test_going_on_with_other_weights_is_refused_and_with_the_same_ones_keeps_the_date(tmp_path):
    """A whole job, whose model only looks like one (`parrot`)."""
    checkpoint(tmp_path / "model")
    (tmp_path / "e.yaml").write_text(
        "name: e\ngame: {rounds: 3}\nmodels: {m: {path: model}}\nplots: false\n"
        "population: [{name: g, count: 40, kind: llm, model: m}]"
    )
    command = ("run", tmp_path / "e.yaml", "--out", tmp_path / "run", "--resume")
    with mpi.start(2, *command, **mpi.silent_after(30)) as job:
        job.wait_for((tmp_path / "run/run.h5").exists)
        job.send(signal.SIGTERM)
        assert job.end().code != 0
    with Run(tmp_path / "run") as run:
        assert not run.finished
        date = run.provenance["date"]
        assert "model.safetensors" in run.provenance["models"]["m"]
    weights = (tmp_path / "model/model.safetensors").read_bytes()
    (tmp_path / "model/model.safetensors").write_bytes(weights[::-1])
    refused = mpi.mpirun(2, *command, program=mpi.PARROT)
    assert refused.code == 2
    assert re.search(r"have changed:\n  model m \(.*model\): model\.safetensors is another", refused.err)
    (tmp_path / "model/model.safetensors").write_bytes(weights)
    assert mpi.mpirun(2, *command, program=mpi.PARROT).code == 0
    with Run(tmp_path / "run") as run:
        assert run.finished and run.provenance["date"] == date
