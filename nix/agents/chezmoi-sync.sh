# shellcheck shell=bash
# Dotfiles of this user in step with other hosts. So far this agent only looks and reports: it neither
# commits, fetches, pushes nor applies. Settings come as CHEZMOI_* from the unit's wrapper.

source=$(chezmoi source-path)

if [[ ! -d $source ]]; then
  echo "chezmoi-sync: skipped: No dotfiles at $source (remote ${CHEZMOI_REPO_URL:-not set}, branch $CHEZMOI_BRANCH)"
else
  echo "chezmoi-sync: skipped: This agent only reports so far (dotfiles at $source)"
fi
