"""What a shell shows when somebody presses TAB: ``answers``, from the ``table`` of all that can be typed."""
