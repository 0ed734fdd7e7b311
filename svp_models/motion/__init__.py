"""What faces do in time: key points of LivePortrait's space, and the public generators that make motions from voices."""
