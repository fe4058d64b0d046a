"""The kinds of event in swapd's journal: a constant MESSAGE_ID for each, which never changes once released.

``systemd/swapd.catalog`` explains each of them to ``journalctl -x``; a test holds the two together. journalctl puts
a record's own fields into the explanation and prints a field's bare name where the record lacks it, so a record
carries at least the fields that its entry below names, besides MESSAGE and PRIORITY.
"""

from __future__ import annotations

from enum import StrEnum


class MessageId(StrEnum):
    """One kind of event; the value is the 128-bit id as the journal wants it, 32 hex digits."""

    # The daemon's own life.
    STARTED = "811a6f4d61c44f3b958b7e54397615ee"
    STOPPING = "219086fbb3db429abebd9b91cd05b6f5"
    RELOADED = "39b2cbf03e7844adb36ce3ff83c9ec5f"
    CONFIGURATION_REFUSED = "6163c50b194c4f9ea3cc6d6975a46e43"

    CONFIGURATION_UNUSABLE = "e22ead27fe664d10823fdda5473254e1"

    # A deployment: one start record and exactly one outcome record. All carry SWAPD_SITE and SWAPD_DEPLOYMENT;
    # live, unchanged and rolled back carry SWAPD_RELEASE too.
    DEPLOYMENT_STARTED = "ac7ca862b6464d9fb8487a15969c9d82"
    DEPLOYMENT_LIVE = "14517fd0f403455baabf99acb168afe3"
    DEPLOYMENT_UNCHANGED = "b5051cf6d3144b3eaadc80c587d00496"
    DEPLOYMENT_SUPERSEDED = "85b5d90e49ce4212aa7414e0494b029c"  # without SWAPD_RELEASE: nobody has read it
    DEPLOYMENT_REJECTED = "e74f7016de8b4e468ff1fc45706df908"
    DEPLOYMENT_FAILED = "fe14b8dba2da4a92a8afe3049a9c5cfb"
    DEPLOYMENT_ROLLED_BACK = "99787f85be9a439185927f5321ce2150"

    # A deployment of the kind rollback: likewise, in the place of the five above; live has SWAPD_RELEASE too.
    ROLLBACK_STARTED = "d93574c87bf74d44baa08fdcd8aabf00"
    ROLLBACK_LIVE = "31a88c9949c641399405d3ab86bd6254"
    ROLLBACK_UNCHANGED = "a1a7ef3e822a49c3bb7b63091f330c5e"
    ROLLBACK_REJECTED = "13582a3d1b234085833907342e27a358"
    ROLLBACK_FAILED = "0751961464f94535ab2de30b93fdd3cd"

    # What happens on a deployment's way. All carry SWAPD_SITE.
    STRATEGY_CHOSEN = "8853ea06809346e996b4cf952a78aa05"
    NO_HTTPD = "665e967540c245f3afb24f432012c4d3"
    ADOPTED = "a6b806ec202e43b7a6592abc35aaca42"  # and SWAPD_RELEASE
    PRUNED = "26b0445378b6461eb71a342e27b6d57f"
    RELEASE_HELD = "e24dd0be5ddd4ff3a6ef865431f2bd17"  # and SWAPD_RELEASE
    KEPT_GONE = "569615ca285e4d428df69b9845886757"
    LIVE_ADOPTED = "400075548cfc4e05935cab80c7c6fd40"
    INTERRUPTED = "d8fcdc0b78df415383876a0604a83f9f"

    # What a start, or `swapd resume`, finds after a crash.
    RESUMED_LEFTOVER = "5fe2879ae7664c5e9cf6c4f3c9477594"
    RECOVERED = "d02a3d0548904d1497e610c9c05bfe9c"  # with SWAPD_SITE
    REBUILT = "31db85cb7d014ca5bb80c2eb70d0f648"  # with SWAPD_SITE

    # What works less well than it should.
    DROP_DIRECTORY_LOST = "e31b46393124498aaf9f35799fbab60c"  # with SWAPD_SITE
    POLLED = "b14d25b6e1e840d79ba98bce5ee31b23"
    WATCH_REBUILT = "485b8bfaec1a4cc284d6fca628b5bf75"
    RECORDS_DROPPED = "447a8a77c8ad4dedb7f08a3c69253c40"  # with SWAPD_RECORDS_DROPPED
    DEGRADED = "5042a573bf15476385c40063eec88261"
    UNEXPECTED = "6e378fca971d4ba88a37f347704c4df3"  # a fault of our own
