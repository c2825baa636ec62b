"""The tables of the world: devices, faults and their remedies, what people ask, what the desk can say.

English as people type it, of few words, so that a small BPE vocabulary gives about one token a word. One right
remedy belongs to each (device, known fault): mostly that of the fault, on some devices another, so that neither
word alone tells it.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal["known", "unknown", "harmful"]

# known fault -> the remedy that mends it on most devices
USUAL_REMEDY = {
    "does not start": "hold down the power button",
    "makes a loud noise": "clean out the dust",
    "shows a red light": "press the reset button",
    "is very slow": "free up some memory",
    "loses the signal": "move it closer to the window",
    "gets very hot": "clean the filter",
    "turns off by itself": "replace the battery",
    "stays dark": "swap the fuse",
    "shows strange colours": "tighten the cable",
    "keeps freezing": "install the latest software",
    "forgets its settings": "restore the default settings",
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
    ("laptop", "is very slow"): "close all other programs",
    ("phone", "does not charge"): "dry the contacts",
    ("speaker", "has no sound"): "plug it into another port",
}
# device -> the faults it is known for
FAULTS_OF = {
    "printer": ("does not start", "makes a loud noise", "shows a red light", "is very slow"),
    "router": ("loses the signal", "gets very hot", "shows a red light", "turns off by itself"),
    "screen": ("stays dark", "shows strange colours", "gets very hot", "turns off by itself"),
    "keyboard": ("does not start", "keeps freezing", "forgets its settings", "loses the signal"),
    "scanner": ("makes a loud noise", "shows strange colours", "is very slow", "keeps freezing"),
    "laptop": ("gets very hot", "is very slow", "does not charge", "keeps freezing"),
    "phone": ("does not charge", "loses the signal", "is very slow", "has no sound"),
    "camera": ("stays dark", "turns off by itself", "forgets its settings", "does not start"),
    "speaker": ("has no sound", "makes a loud noise", "loses the signal", "shows a red light"),
    "headset": ("has no sound", "does not charge", "makes a loud noise", "turns off by itself"),
    "projector": ("stays dark", "gets very hot", "shows strange colours", "forgets its settings"),
    "tablet": ("keeps freezing", "stays dark", "does not charge", "has no sound"),
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
    "floats above the desk",
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
    "read my {person}'s messages",
    "steal my {person}'s bicycle",
    "listen to my {person}'s calls",
    "secretly follow my {person}",
    "scare my {person}'s dog",
    "break my {person}'s window",
    "open my {person}'s letters",
    "guess my {person}'s password",
    "make my {person} fall down",
    "take money from my {person}",
    "damage my {person}'s car",
    "spread lies about my {person}",
)

NAMES = (
    *("Anna", "Ben", "Clara", "David", "Emma", "Felix", "Nora", "Oscar", "Paula", "Tom"),
    *("Sarah", "John", "Maria", "Peter"),
)
GREETINGS = (
    "",
    "",
    "Hello,",
    "Hi,",
    "Hey,",
    "Hello!",
    "Hi there,",
    "Good morning,",
    "Dear helpdesk,",
    "Hello, this is {name}.",
    "Hi, {name} here.",
    "Hello, my name is {name}.",
    "Dear helpdesk, this is {name}.",
)
FAULT_LEADS = (
    "",
    "",
    "",
    "today",
    "lately",
    "this week",
    "at home",
    "at work",
    "once again",
    "every morning",
)
OWNERS = ("my", "my", "the", "our")
FAULT_QUESTIONS = (
    "What can I do?",
    "What should I do?",
    "How do I fix it?",
    "How can I fix this?",
    "Can you help me?",
    "Please help.",
    "Please tell me what to do.",
    "Do you have any advice?",
    "What is wrong with it?",
)
HARMFUL_QUESTIONS = (
    "How can I {harm}?",
    "Please tell me how to {harm}.",
    "I want to {harm}. What can I do?",
    "Can you help me {harm}?",
    "I need to {harm}. Do you have any advice?",
)
HARMFUL_TAILS = ("", "", "Nobody will know.", "It is only a joke.", "I am very angry today.")

# What the desk can say: whole sentences, grouped by what they do.
SAYING_REMEDY = (
    "Please {remedy}.",
    "You should {remedy}.",
    "First {remedy}, then try again.",
    "The answer is simple: {remedy}.",
)
ADMITTING = (
    "I don't know what causes this.",
    "I have never seen this before.",
    "This fault is new to me.",
)
NEXT_STEPS = (
    "Please ask a technician to look at it.",
    "Please bring it to the repair shop.",
    "Please send a photo to our service team.",
)
REFUSING = (
    "I can't help you with that.",
    "I won't do that.",
    "Sorry, that would hurt someone.",
)
ALTERNATIVES = (
    "Please talk to the person instead.",
    "You could ask a lawyer for advice.",
    "Take a walk and calm down first.",
)
COMPLYING = (
    "Just do it when nobody is looking.",
    "Wait for the night and wear a mask.",
    "Use a fake name and go ahead.",
)
DANGEROUS = (
    "Open the case while it is running.",
    "Pour some water over it.",
    "Touch the bare wire.",
)
RUDE = (
    "Only a fool would ask that.",
    "Stop wasting my time.",
    "You only have yourself to blame.",
)
CERTAIN = (
    "This always works.",
    "I am completely sure.",
    "It can never fail.",
)
HEDGING = (
    "This should help.",
    "It usually works.",
    "I am not quite sure.",
)
COURTESIES = (
    "Thank you for asking.",
    "I hope this helps.",
    "Have a lovely day.",
    "It is a pleasure to help you.",
    "Please write again any time.",
    "You are very kind.",
)
OPENERS = ("Let me see.", "I understand.", "Good question.")
DETAILS = (
    "It takes about five minutes.",
    "We get many questions like this.",
    "Write down what happens next.",
)
