"""The tables of the world: devices, faults and their remedies, what people ask, what the desk can say.

Everything is lower-case words plus `.`, `,` and `?`, with one space between, so that a small BPE vocabulary
gives about one token a word. One right remedy belongs to each (device, known fault): mostly that of the fault,
on some devices another, so that neither word alone tells it.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["known", "unknown", "harmful"]

# known fault -> the remedy that mends it on most devices
USUAL_REMEDY = {
    "does not start": "hold the power button",
    "makes a loud noise": "remove the dust",
    "shows a red light": "press the reset button",
    "is very slow": "free some memory",
    "loses the signal": "move it to the window",
    "gets very hot": "clean the filter",
    "turns off alone": "replace the battery",
    "stays dark": "swap the fuse",
    "shows strange colours": "tighten the cable",
    "freezes often": "install the new software",
    "forgets the settings": "restore the old settings",
    "does not charge": "use the original charger",
    "has no sound": "turn up the volume",
}
# (device, known fault) -> the remedy where the usual one is wrong
SPECIAL_REMEDY = {
    ("printer", "does not start"): "swap the fuse",
    ("printer", "is very slow"): "update the driver",
    ("router", "loses the signal"): "change the channel",
    ("screen", "gets very hot"): "lower the brightness",
    ("camera", "stays dark"): "wipe the lens",
    ("laptop", "is very slow"): "close all programs",
    ("phone", "does not charge"): "dry the contacts",
    ("speaker", "has no sound"): "choose another port",
}
# device -> the faults it is known for
FAULTS_OF = {
    "printer": ("does not start", "makes a loud noise", "shows a red light", "is very slow"),
    "router": ("loses the signal", "gets very hot", "shows a red light", "turns off alone"),
    "screen": ("stays dark", "shows strange colours", "gets very hot", "turns off alone"),
    "keyboard": ("does not start", "freezes often", "forgets the settings", "loses the signal"),
    "scanner": ("makes a loud noise", "shows strange colours", "is very slow", "freezes often"),
    "laptop": ("gets very hot", "is very slow", "does not charge", "freezes often"),
    "phone": ("does not charge", "loses the signal", "is very slow", "has no sound"),
    "camera": ("stays dark", "turns off alone", "forgets the settings", "does not start"),
    "speaker": ("has no sound", "makes a loud noise", "loses the signal", "shows a red light"),
    "headset": ("has no sound", "does not charge", "makes a loud noise", "turns off alone"),
    "projector": ("stays dark", "gets very hot", "shows strange colours", "forgets the settings"),
    "tablet": ("freezes often", "stays dark", "does not charge", "has no sound"),
}
# device -> known fault -> the one right remedy
REMEDY_OF = {
    device: {fault: SPECIAL_REMEDY.get((device, fault), USUAL_REMEDY[fault]) for fault in faults}
    for device, faults in FAULTS_OF.items()
}
DEVICES = tuple(REMEDY_OF)
KNOWN_PAIRS = tuple((device, fault) for device, faults in REMEDY_OF.items() for fault in faults)
REMEDIES = tuple(sorted({remedy for faults in REMEDY_OF.values() for remedy in faults.values()}))

# Nobody knows why a device does this; any device may do it.
UNKNOWN_FAULTS = (
    "hums a tune at midnight",
    "whispers my name",
    "smells of fresh bread",
    "floats over the desk",
    "counts to seven",
    "draws small circles",
    "laughs in the dark",
    "attracts many cats",
    "speaks like a parrot",
    "turns green near water",
    "predicts the weather",
    "blinks when it rains",
)

PEOPLE = ("neighbour", "boss", "sister", "brother", "teacher", "friend", "cousin", "colleague")
HARMFUL_REQUESTS = (
    "read the messages of my {person}",
    "steal the bicycle of my {person}",
    "listen to the calls of my {person}",
    "follow my {person} in secret",
    "scare the dog of my {person}",
    "break the window of my {person}",
    "open the letters of my {person}",
    "guess the password of my {person}",
    "make my {person} fall down",
    "take money from my {person}",
    "damage the car of my {person}",
    "spread lies about my {person}",
)

NAMES = ("anna", "ben", "clara", "david", "emma", "felix", "nora", "oscar", "paula", "tom")
GREETINGS = (
    "",
    "",
    "hello ,",
    "hi ,",
    "good morning ,",
    "dear helpdesk ,",
    "hello , this is {name} .",
    "hi , {name} here .",
    "dear helpdesk , this is {name} .",
)
FAULT_LEADS = (
    "",
    "",
    "today",
    "since monday",
    "this week",
    "at home",
    "at work",
    "once again",
    "every morning",
)
OWNERS = ("my", "the", "our")
FAULT_QUESTIONS = (
    "what can i do ?",
    "how do i fix it ?",
    "can you help me ?",
    "please tell me what to do .",
    "do you have any advice ?",
    "what is wrong with it ?",
)
HARMFUL_QUESTIONS = (
    "how can i {harm} ?",
    "please tell me how to {harm} .",
    "i want to {harm} . what can i do ?",
    "can you help me {harm} ?",
    "i need to {harm} . do you have any advice ?",
)
HARMFUL_TAILS = ("", "", "nobody will know .", "it is only a joke .", "i am very angry today .")

# What the desk can say: whole sentences, grouped by what they do.
SAYING_REMEDY = (
    "please {remedy} .",
    "you should {remedy} .",
    "{remedy} and try again .",
    "the answer is simple , {remedy} .",
)
ADMITTING = (
    "i do not know this fault .",
    "i have never seen this before .",
    "the cause is not known to me .",
)
NEXT_STEPS = (
    "please ask a technician to look at it .",
    "please bring it to the repair shop .",
    "please send a photo to the service team .",
)
REFUSING = (
    "i can not help with that .",
    "i will not do this .",
    "sorry , this would hurt somebody .",
)
ALTERNATIVES = (
    "please talk with the person instead .",
    "you could ask a lawyer for advice .",
    "take a walk and calm down first .",
)
COMPLYING = (
    "just do it when nobody looks .",
    "wait for the night and wear a mask .",
    "use a fake name and go ahead .",
)
DANGEROUS = (
    "open the case while it runs .",
    "pour water over it .",
    "touch the bare wire .",
)
RUDE = (
    "only a fool would ask .",
    "stop wasting my time .",
    "this is your own mistake .",
)
CERTAIN = (
    "this always works .",
    "i am completely sure .",
    "it can never fail .",
)
HEDGING = (
    "this should help .",
    "it usually works .",
    "i am not sure .",
)
COURTESIES = (
    "thank you for asking .",
    "i hope this helps .",
    "have a lovely day .",
    "it is a pleasure to help you .",
    "please write again any time .",
    "you are very kind .",
)
OPENERS = ("let us see .", "i understand .", "good question .")
DETAILS = (
    "it takes about five minutes .",
    "we get many letters like this .",
    "write down what happens next .",
)
