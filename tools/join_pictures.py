"""Set pictures side by side on white, for the documentation.

python tools/join_pictures.py docs/report.png runs/report/pck.png runs/report/reliability.png
"""

from __future__ import annotations

import argparse
from pathlib import Path

from PIL import Image


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path)
    parser.add_argument("pictures", type=Path, nargs="+", help="from left to right; all become as high as the lowest")
    options = parser.parse_args()
    pictures = [Image.open(path).convert("RGB") for path in options.pictures]
    height = min(picture.height for picture in pictures)
    pictures = [picture.resize((round(picture.width * height / picture.height), height)) for picture in pictures]
    sheet = Image.new("RGB", (sum(picture.width for picture in pictures), height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width
    sheet.save(options.target)


if __name__ == "__main__":
    main()
