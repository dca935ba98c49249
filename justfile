# Most recipes run one task: `tsx tasks/<verb>.ts --help` says what it does and what it runs.
# Flags pass through: just deploy-test-vm sorrow --dry-run

set positional-arguments

# A task prints its own error message; only the development recipes, which call other tools, need just's

set no-exit-message

export PATH := justfile_directory() / "node_modules/.bin:" + env("PATH")

# A task runs in the user's directory, so that relative paths start there

home := justfile_directory()
task := "cd " + quote(invocation_directory()) + " && exec node --import " + quote(home / "node_modules/tsx/dist/loader.mjs") + " " + quote(home / "tasks") + "/"

[private]
default:
    @just --list --unsorted

# Install what is missing, then build, deploy and verify sorrow and torment
[group("start here")]
lab *flags:
    @{{ task }}pipelines/up.ts "$@"

# Check that this machine has what the lab needs
[group("start here")]
doctor *flags:
    @{{ task }}doctor.ts "$@"

# Give this user access to /dev/kvm, as CI runners need
[group("start here")]
open-kvm *flags:
    @{{ task }}open-kvm.ts "$@"

# Evaluate and build the hosts' configurations, and check them against the plan
[group("test VMs")]
build-test-vms *hosts:
    @{{ task }}build.ts "$@"

# Bring a VM up to its configuration: image, disk, identity, start, SSH
[group("test VMs")]
deploy-test-vm host *flags:
    @{{ task }}deploy-vm.ts "$@"

# Compare the configuration with the running system
[group("test VMs")]
verify-test-vms *hosts:
    @{{ task }}verify.ts "$@"

# Build the working tree, copy it to a running VM, switch and verify
[group("test VMs")]
rebuild-test-vm host *flags:
    @{{ task }}rebuild-test-vm.ts "$@"

# Push the flake's current commit to the lab's remote, which the VMs follow
[group("GitOps by hand")]
publish *flags:
    @{{ task }}publish.ts "$@"

# Start a VM's upgrade now, follow it, and show its outcome
[group("GitOps by hand")]
upgrade-test-vm *hosts:
    @{{ task }}upgrade-test-vm.ts "$@"

# Upgrade every VM on each push to the lab's remote, until Ctrl-C
[group("GitOps by hand")]
watch *hosts:
    @{{ task }}watch.ts "$@"

# Give each VM an age key and seal a harmless secret to all of them
[group("test VMs")]
seal-secrets *flags:
    @{{ task }}seal-secrets.ts "$@"

# Open a shell on a VM, or run a command there
[group("test VMs")]
ssh-test-vm host *command:
    @{{ task }}ssh.ts "$@"

# Follow a VM's serial console, and type into it
[group("test VMs")]
console-test-vm host *flags:
    @{{ task }}console.ts "$@"

# Show each VM: whether it runs, its generation, its faults, its disk, how to reach it
[group("test VMs")]
status *hosts:
    @{{ task }}status.ts "$@"

# Read a VM's journal, of one unit or of all
[group("test VMs")]
logs host *unit:
    @{{ task }}logs.ts "$@"

# Copy files to a VM or from it, as scp does
[group("test VMs")]
copy *paths:
    @{{ task }}copy.ts "$@"

# Save a VM's screen as a PNG, even while it hangs during boot
[group("test VMs")]
screenshot host *file:
    @{{ task }}screenshot.ts "$@"

# Save the state of a VM under a name: memory, disk and EFI variables
[group("test VMs")]
save host *name:
    @{{ task }}save.ts "$@"

# Put a VM back to a saved state
[group("test VMs")]
restore host *name:
    @{{ task }}restore.ts "$@"

# Power VMs off and stop their keepers; their disks stay
[group("test VMs")]
down *hosts:
    @{{ task }}down.ts "$@"

# Delete a VM: its disk, keys and logs
[group("test VMs")]
destroy-test-vm host *flags:
    @{{ task }}destroy.ts "$@"

# Write the configuration of a new host, in the form of hosts/sorrow
[group("hosts")]
scaffold-host host *flags:
    @{{ task }}scaffold-host.ts "$@"

# Add a host to a flake.nix, leaving every other byte as it is
[group("hosts")]
add-to-flake host *flags:
    @{{ task }}add-to-flake.ts "$@"

# Break the GitOps setup in every way on both VMs, and report what held
[group("scenarios")]
gitops-test *families:
    @{{ task }}pipelines/gitops.ts "$@"

# Push good and bad commits, take away what upgrades need, kill them in every phase
[group("scenarios")]
auto-upgrade *flags:
    @{{ task }}auto-upgrade.ts "$@"

# Break the boot of a new generation in every way, and see golden come back by itself
[group("scenarios")]
break-boot *flags:
    @{{ task }}break-boot.ts "$@"

# Edit dotfiles on both VMs at once, and see that no edit and no commit is lost
[group("scenarios")]
concurrent-edits *flags:
    @{{ task }}concurrent-edits.ts "$@"

# Bring one dotfile edit and one commit all the way to a golden generation on both VMs
[group("scenarios")]
full-workflow *flags:
    @{{ task }}full-workflow.ts "$@"

# Run the same cases on several ways to upgrade, and show what each one holds
[group("scenarios")]
compare *subjects:
    @{{ task }}compare.ts "$@"

# Run the promises of your own lab.toml, and check that they hold
[group("scenarios")]
promises *flags:
    @{{ task }}promises.ts "$@"

# Disable one safety net at a time and check that the scenarios notice
[group("scenarios")]
prove *controls:
    @{{ task }}prove.ts "$@"

# Join the records of several runs: one report, one junit.xml, one exit code
[group("scenarios")]
merge-runs *dirs:
    @{{ task }}merge-runs.ts "$@"

# Show which lines and branches of the agents the tests and scenarios run
[group("development")]
coverage *agents:
    @{{ task }}coverage.ts "$@"

# Change the agents in small ways and check that the tests and scenarios notice
[group("development")]
mutate *agents:
    @{{ task }}mutate.ts "$@"

# Break a network link for a while, or check that upgrade and dotfile sync survive every fault
[group("scenarios")]
chaos-network *fault:
    @{{ task }}chaos-network.ts "$@"

# Format, lint, types and unit tests: the gate for every change
[group("development")]
ok: test-packages fmt-check lint types unit

[private]
test-packages:
    @{{ task }}doctor.ts --packages --tests

[exit-message]
[group("development")]
[private]
fmt-check:
    oxfmt --check
    just --fmt --check --unstable

[exit-message]
[group("development")]
[private]
lint: test-packages
    oxlint --type-aware
    shellcheck .ci/run $(git ls-files '*.sh')

[exit-message]
[private]
types:
    tsc

[exit-message]
[private]
unit: test-packages
    vitest run --project unit

# Format the sources
[exit-message]
[group("development")]
fmt:
    oxfmt
    just --fmt --unstable

# Regenerate docs/scenarios.md from the tables of cases
[exit-message]
[group("development")]
docs:
    vitest run --project unit tests/docs.test.ts --update

# Make the README's pictures from real runs
[exit-message]
[group("development")]
pictures *part:
    node --import tsx docs/pictures.ts "$@"

# All tests, including those that boot VMs
[exit-message]
[group("development")]
test:
    npm test

# Measure: deploy, rebuild, verify and --help, as ratios in one run
[group("development")]
bench *flags:
    @exec node --import tsx bench/run.ts "$@"
