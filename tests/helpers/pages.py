"""What is in a report.html."""

import json
import re
from pathlib import Path

# Text that tries to leave its place in a page.
HOSTILE = (
    "</script><script>document.title='owned'</script>"
    "<!--<img src=x onerror=\"document.title='owned'\">&amp;\u2028"
)


def page_data(page: Path) -> dict:
    """The data of the answer browser."""
    html = page.read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', html, re.DOTALL)[1])
