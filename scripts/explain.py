"""Explain image files: ``python scripts/explain.py photo.jpg --model deeplabv3_mobilenetv2 --target dog``."""

from misure.cli.commands import explain

if __name__ == "__main__":
    explain()
