"""The kinds of sound events, with their synthesis and their wording.

:data:`EVENTS` is the table of them.  A clause combines each of its subjects with each of its verbs,
and a verb is given as "finite/-ing form"; ``group`` names what a kind may be mistaken for.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from xacle_stack._types import FloatArray
from xacle_stack.errors import UnknownNameError
from xacle_stack.synth import living, things
from xacle_stack.synth.sources import SAMPLE_RATE_HZ

Synthesiser = Callable[[np.random.Generator, int], FloatArray]

# Synthesisers need time for one call or strike, so shorter sounds are cut from this length.
_SHORTEST = SAMPLE_RATE_HZ // 2


@dataclass(frozen=True)
class Clause:
    """Subjects with common verbs.

    Attributes
    ----------
    subjects : tuple of str
        Noun phrases with their articles.
    verbs : tuple of (str, str)
        The finite form for these subjects and the present participle.
    """

    subjects: tuple[str, ...]
    verbs: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class EventKind:
    """A row of :data:`EVENTS`.

    Attributes
    ----------
    synthesiser : callable
        ``f(rng, n_samples)``, mono at 16 kHz, at any level.
    group : str
        Kinds of the same group are likely to be confused.
    clauses : tuple of Clause
    """

    synthesiser: Synthesiser
    group: str
    clauses: tuple[Clause, ...]


def _kind(synthesiser: Synthesiser, group: str, *clauses: tuple[str, str]) -> EventKind:
    parsed = []
    for subjects, verbs in clauses:
        forms = [verb.partition("/") for verb in verbs.split("|")]
        parsed.append(
            Clause(tuple(subjects.split("|")), tuple((finite, ing) for finite, _, ing in forms))
        )
    return EventKind(synthesiser, group, tuple(parsed))


EVENTS: dict[str, EventKind] = {
    "dog": _kind(
        living.dog_bark,
        "animal",
        ("a dog|a large dog|a puppy|the hound", "barks/barking|yaps/yapping|woofs/woofing"),
        ("dogs|some dogs", "bark/barking|yap/yapping"),
    ),
    "cat": _kind(
        living.cat_meow,
        "animal",
        ("a cat|a kitten|the house cat|a hungry cat", "meows/meowing|mews/mewing|cries/crying"),
    ),
    "rooster": _kind(
        living.rooster,
        "animal",
        ("a rooster|a cockerel|the rooster|a cock on a farm", "crows/crowing|calls/calling"),
    ),
    "bird": _kind(
        living.bird_chirp,
        "animal",
        ("a bird|a small bird|a songbird", "chirps/chirping|tweets/tweeting|sings/singing"),
        ("birds|several birds", "chirp/chirping|tweet/tweeting|sing/singing|twitter/twittering"),
    ),
    "frog": _kind(
        living.frog,
        "animal",
        ("a frog|a toad|a bullfrog", "croaks/croaking|ribbits/ribbiting"),
        ("frogs|frogs in a pond", "croak/croaking"),
    ),
    "cricket": _kind(
        living.cricket,
        "animal",
        ("a cricket|an insect", "chirrs/chirring|trills/trilling|stridulates/stridulating"),
        ("crickets|insects|cicadas", "chirr/chirring|trill/trilling|sing/singing"),
    ),
    "cow": _kind(
        living.cow_moo,
        "animal",
        ("a cow|a calf|a bull", "moos/mooing|lows/lowing|bellows/bellowing"),
        ("cattle|cows", "moo/mooing|low/lowing"),
    ),
    "bee": _kind(
        living.bee,
        "animal",
        ("a bee|a fly|a wasp|a mosquito", "buzzes/buzzing|hums around/humming around"),
        ("bees|flies", "buzz/buzzing|swarm/swarming"),
    ),
    "baby": _kind(
        living.baby_cry,
        "person",
        (
            "a baby|an infant|a newborn|a small child|the baby",
            "cries/crying|wails/wailing|screams/screaming|sobs/sobbing",
        ),
    ),
    "sneeze": _kind(
        living.sneeze,
        "person",
        ("a man|a woman|a person|someone|a child", "sneezes/sneezing|lets out a sneeze/sneezing"),
    ),
    "speech": _kind(
        living.speech,
        "person",
        (
            "a man|a woman|someone|a person|a speaker",
            "talks/talking|speaks/speaking|gives a speech/giving a speech|chatters/chattering",
        ),
        ("people|voices|two people", "talk/talking|converse/conversing|chat/chatting"),
    ),
    "laughter": _kind(
        living.laughter,
        "person",
        ("a man|a woman|someone|a child", "laughs/laughing|giggles/giggling|chuckles/chuckling"),
        ("people", "laugh/laughing|giggle/giggling"),
    ),
    "snoring": _kind(
        living.snoring,
        "person",
        ("a man|someone|a sleeper|a sleeping person", "snores/snoring|is snoring/snoring"),
    ),
    "whistling": _kind(
        living.whistling,
        "person",
        ("a man|someone|a person", "whistles a tune/whistling a tune|whistles/whistling"),
    ),
    "applause": _kind(
        living.applause,
        "person",
        ("a crowd|an audience", "applauds/applauding|claps/clapping"),
        ("people|spectators|many hands", "clap/clapping|applaud/applauding"),
    ),
    "footsteps": _kind(
        living.footsteps,
        "person",
        ("someone|a person|a man", "walks/walking|walks by/walking by|paces/pacing"),
        ("footsteps|steps|heavy footsteps", "approach/approaching|pass/passing"),
    ),
    "typing": _kind(
        living.typing,
        "person",
        ("someone|a person|a clerk", "types/typing|types on a keyboard/typing on a keyboard"),
        ("computer keys|keys of a keyboard", "click/clicking|clatter/clattering"),
    ),
    "rain": _kind(
        things.rain,
        "nature",
        ("rain|heavy rain|a downpour", "falls/falling|pours/pouring|patters/pattering"),
        ("raindrops", "fall/falling|patter on a roof/pattering on a roof"),
    ),
    "waves": _kind(
        things.sea_waves,
        "nature",
        (
            "waves|sea waves|ocean waves|waves on a beach",
            "crash/crashing|break/breaking|roll in/rolling in|wash ashore/washing ashore",
        ),
        ("the sea|the ocean|the surf", "roars/roaring|rolls in/rolling in|surges/surging"),
    ),
    "wind": _kind(
        things.wind,
        "nature",
        (
            "wind|the wind|a strong wind|a gale",
            "blows/blowing|howls/howling|gusts/gusting|whistles/whistling",
        ),
    ),
    "thunder": _kind(
        things.thunder,
        "nature",
        ("thunder|a thunderstorm", "rumbles/rumbling|rolls/rolling|booms/booming|claps/clapping"),
    ),
    "fire": _kind(
        things.fire,
        "nature",
        (
            "a fire|a campfire|burning wood|a bonfire",
            "crackles/crackling|burns/burning|pops/popping",
        ),
        ("flames|logs in a fireplace", "crackle/crackling|pop/popping|burn/burning"),
    ),
    "drip": _kind(
        things.water_drip,
        "nature",
        ("water|a tap|a leaking pipe", "drips/dripping|drips slowly/dripping slowly"),
        ("water drops|droplets", "drip/dripping|plop/plopping"),
    ),
    "stream": _kind(
        things.stream,
        "nature",
        ("a stream|a brook|water|a river", "flows/flowing|gurgles/gurgling|bubbles/bubbling"),
    ),
    "helicopter": _kind(
        things.helicopter,
        "machine",
        (
            "a helicopter|a chopper",
            "flies overhead/flying overhead|hovers/hovering|passes/passing",
        ),
        ("helicopter blades|rotors", "whirl/whirling|spin/spinning|chop/chopping"),
    ),
    "chainsaw": _kind(
        things.chainsaw,
        "machine",
        (
            "a chainsaw|a chain saw|a power saw",
            "revs/revving|cuts wood/cutting wood|runs/running|buzzes/buzzing",
        ),
    ),
    "engine": _kind(
        things.engine,
        "machine",
        ("an engine|a car engine|a truck|a motor", "idles/idling|hums/humming|runs/running"),
    ),
    "vacuum": _kind(
        things.vacuum,
        "machine",
        ("a vacuum cleaner|a vacuum|a hoover", "runs/running|whirs/whirring|hums/humming"),
    ),
    "horn": _kind(
        things.car_horn,
        "signal",
        ("a car horn|a car|a vehicle|the horn of a car", "honks/honking|beeps/beeping"),
        ("cars|drivers", "honk/honking"),
    ),
    "siren": _kind(
        things.siren,
        "signal",
        (
            "a siren|a police siren|an ambulance siren|an ambulance|a fire engine",
            "wails/wailing|blares/blaring|sounds/sounding",
        ),
    ),
    "train": _kind(
        things.train_whistle,
        "signal",
        (
            "a train|a steam train|a locomotive",
            "whistles/whistling|blows its whistle/blowing its whistle",
        ),
        ("a train whistle|a train horn", "blows/blowing|sounds/sounding|toots/tooting"),
    ),
    "phone": _kind(
        things.phone,
        "signal",
        ("a phone|a telephone|an old telephone|the phone", "rings/ringing|trills/trilling"),
    ),
    "beep": _kind(
        things.alarm_beep,
        "signal",
        ("an alarm|an alarm clock|a smoke alarm|a device", "beeps/beeping|goes off/going off"),
    ),
    "clock": _kind(
        things.clock_tick,
        "object",
        ("a clock|a wall clock|a watch|an old clock", "ticks/ticking|tick-tocks/tick-tocking"),
    ),
    "bell": _kind(
        things.church_bell,
        "signal",
        ("a church bell|a bell|a large bell", "rings/ringing|tolls/tolling|chimes/chiming"),
        ("church bells|bells", "ring/ringing|toll/tolling|peal/pealing"),
    ),
    "knock": _kind(
        things.door_knock,
        "object",
        (
            "someone|a visitor|a person",
            "knocks/knocking|knocks on a door/knocking on a door|raps on wood/rapping on wood",
        ),
    ),
    "gunshot": _kind(
        things.gunshot,
        "object",
        ("a gun|a rifle|a pistol", "fires/firing|shoots/shooting|goes off/going off"),
        ("gunshots|shots|guns", "ring out/ringing out|fire/firing"),
    ),
    "drum": _kind(
        things.drum,
        "object",
        ("a drum|a drummer|a drum kit", "beats/beating|plays a rhythm/playing a rhythm"),
        ("drums", "beat/beating|play/playing"),
    ),
    "glass": _kind(
        things.glass_break,
        "object",
        ("glass|a window|a bottle", "breaks/breaking|shatters/shattering|smashes/smashing"),
    ),
}


def find_event(kind: str) -> EventKind:
    """Return one row of :data:`EVENTS`.

    Raises
    ------
    UnknownNameError
        If there is no such kind; the message lists the known ones.
    """
    try:
        return EVENTS[kind]
    except KeyError:
        raise UnknownNameError(
            f"unknown sound event {kind!r}. Expected one of: {', '.join(EVENTS)}."
        ) from None


def synthesise(kind: str, rng: np.random.Generator, n_samples: int) -> FloatArray:
    """Make one sound event.

    Parameters
    ----------
    kind : str
        A key of :data:`EVENTS`.
    rng : numpy.random.Generator
        Decides pitch, rate and timbre.
    n_samples : int
        Length at 16 kHz, at least 1.

    Returns
    -------
    samples : ndarray of shape (n_samples,)
        float32; the loudest 50 ms have a root mean square of 0.1, so all kinds are about equally
        loud.  Peaks may exceed 1, because the scene decides the level.

    Examples
    --------
    >>> samples = synthesise("dog", np.random.default_rng(0), 16_000)
    >>> samples.shape, samples.dtype
    ((16000,), dtype('float32'))
    """
    sound = find_event(kind).synthesiser(rng, max(n_samples, _SHORTEST))[:n_samples]
    sound = sound - sound.mean()
    return np.asarray(sound * (0.1 / (_loudest_rms(sound) + 1e-9)), dtype=np.float32)


def _loudest_rms(sound: FloatArray, window: int = SAMPLE_RATE_HZ // 20) -> float:
    energy = np.add.reduceat(sound**2, np.arange(0, len(sound), window)) / window
    return float(np.sqrt(energy.max()))
