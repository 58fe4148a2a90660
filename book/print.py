"""Prints the book's one long page (Sphinx's singlehtml) as a PDF, by a browser without a window.

python book/print.py _build/singlehtml _build/book.pdf --browser chromium
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

# No side bars, no sliders, code folded away as on the pages; a chapter begins on a new sheet.
STYLE = """<style>
@page { size: A4; margin: 18mm 16mm; }
.bd-sidebar-primary, .bd-sidebar-secondary, .bd-header, .bd-header-article, .bd-footer, .prev-next-area,
.moving label, button.how, div.redo, #pst-skip-link, .header-article, .sidebar-toggle { display: none !important; }
.bd-main, .bd-content, .bd-article-container, .bd-container, .bd-container__inner {
  display: block; max-width: none !important; padding: 0 !important;
}
h1 { break-before: page; }
#jb-print-docs-body h1 { break-before: auto; }
span[id^="document-"] + section { break-before: page; }
figure, table, .card, .moving { break-inside: avoid; }
</style>"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("site", type=Path)
    parser.add_argument("pdf", type=Path)
    parser.add_argument("--browser", required=True)
    given = parser.parse_args()
    pages = sorted(given.site.rglob("index.html"), key=lambda path: path.stat().st_size)
    if not pages:
        print(f"print: no index.html below {given.site}: build it first", file=sys.stderr)
        return 1
    page = pages[-1]  # the long one; the other leads to it
    text = page.read_text(encoding="utf-8")
    up = "../" * len(page.relative_to(given.site).parent.parts)
    text = re.sub(r'((?:src|href)=")(?:\.\./)*(_static|_images)/', rf"\1{up}\2/", text)
    text = text.replace("</head>", STYLE + "<script>document.documentElement.classList.add('quiet')</script></head>", 1)
    long = page.with_name("long.html")
    long.write_text(text, encoding="utf-8")
    command = [given.browser, "--headless", "--no-sandbox", "--disable-gpu", "--no-pdf-header-footer"]
    command += ["--virtual-time-budget=60000", f"--print-to-pdf={given.pdf.absolute()}", long.absolute().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode or not given.pdf.exists():
        print(f"print: {given.browser} made no PDF: {done.stderr[-500:]}", file=sys.stderr)
        return 1
    print(f"the book: {given.pdf}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
