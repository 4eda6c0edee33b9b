"""Zoo settings for the arena; they live in :mod:`satlight.records.zoo`, because training uses them too."""

from satlight.records.zoo import ZooSetting, load_setting

__all__ = ["ZooSetting", "load_setting"]
