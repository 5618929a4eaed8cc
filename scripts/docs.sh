#!/usr/bin/env bash
# Builds the documentation site in build/site, and fails at a broken link: bash scripts/docs.sh [mkdocs build's options]
# To read it: python -m http.server --directory build/site, or open build/site/index.html (then without the search).
set -euo pipefail
. "$(dirname "$0")/venv.sh" "[docs]"
cd "$root"
export NO_MKDOCS_2_WARNING=1
python -m mkdocs build --strict "$@"
if grep -rlE '<(script|link|img|iframe)[^>]+(src|href)="?https?://' build/site --include='*.html'; then
    echo "These pages load something from another host, so that they do not work offline." >&2
    exit 1
fi
