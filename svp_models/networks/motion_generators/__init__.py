"""Networks of the public generators that make LivePortrait's motions from a voice: KDTalker and JoyVASA."""
