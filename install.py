"""Brings OpenCV and onnxruntime into this Python where they are missing; what can be imported stays as it is.

ComfyUI-Manager runs this after `requirements.txt`; by hand: `python install.py` with the Python of ComfyUI. Both libraries come
in several distributions (opencv-python, -contrib, -headless; onnxruntime, -gpu, -directml) that overwrite one another.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec

BRINGS = {"cv2": "opencv-python-headless>=4.9,<5", "onnxruntime": "onnxruntime>=1.18"}  # module -> what to install


def main() -> int:
    missing = [requirement for module, requirement in BRINGS.items() if find_spec(module) is None]
    if not missing:
        print("SVP Portrait: OpenCV and onnxruntime are there, nothing was installed")
        return 0
    code = subprocess.call([sys.executable, "-m", "pip", "install", *missing])
    print(f"SVP Portrait: {'installed' if code == 0 else 'could not install'} {', '.join(missing)}")
    return code


if __name__ == "__main__":
    sys.exit(main())
